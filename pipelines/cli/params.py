"""`penstock params`: all that a pipeline can be given, with defaults, bounds and meaning."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from pipelines.catalogue import PIPELINES
from pipelines.cli.output import JsonOption, PipelineArgument, console, print_json
from pipelines.descriptions import TEXTS, Row, rows


def params(
    pipeline: PipelineArgument,
    as_json: JsonOption = False,
) -> None:
    """List the parameters of a pipeline, for `--set NAME=VALUE`.

    Example: `penstock params training`
    """
    if as_json:
        print_json([vars(row) for row in rows(_defaults(pipeline))])
    else:
        print_parameters(pipeline)


def print_parameters(pipeline: str) -> None:
    """Print all parameters of a pipeline: those with a field of their own, then each group's."""
    listed = list(rows(_defaults(pipeline)))
    for group, members in groupby(listed, lambda row: row.group):
        table = Table(
            title=f"{group}: {TEXTS[group]}" if group else f"Parameters of {pipeline}, for --set NAME=VALUE",
            title_justify="left",
            header_style="bold",
        )
        for heading in ("name", "default", "meaning"):
            table.add_column(heading, overflow="fold")
        for row in members:
            table.add_row(Text(row.name, style="bold"), Text(row.default), Text(row.meaning))
        console.print(table)


class WithParameters(TyperCommand):
    """A command on a pipeline, whose help lists the parameters of the one that is named: `penstock run training --help`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember which pipeline is named; help is printed before the arguments are read."""
        ctx.meta["pipeline"] = next((word for word in args if word in PIPELINES), "")
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the usual help, and below it the parameters."""
        super().format_help(ctx, formatter)
        if pipeline := ctx.meta.get("pipeline"):
            print_parameters(pipeline)


def document(pipelines: Iterable[str]) -> str:
    """Return docs/parameters.md, which `make docs` writes."""
    parts = [_HEAD]
    written: dict[str, dict[str, object]] = {}
    for pipeline in pipelines:
        parts.append(f"## {pipeline.capitalize()}")
        defaults = _defaults(pipeline)
        if same := next((name for name, others in written.items() if others == defaults), ""):
            parts.append(f"The parameters of [{same}](#{same}).")
            continue
        written[pipeline] = defaults
        for group, members in groupby(rows(defaults), lambda row: row.group):
            parts += [f"### {group}\n\n{TEXTS[group]}." if group else "", _markdown(list(members))]
    return "\n\n".join(part for part in parts if part) + "\n"


_HEAD = """# Parameters

What each pipeline can be given, as the models in `components/settings` and `components/bundle/policy.py` say it; `make docs` writes
this page.

    penstock run training --set epochs=10 --set learning_rate=0.01
    penstock params training

The first table of a pipeline lists the fields of its form. The tables below are the settings that travel in one field each, as a mapping:
`training={"learning_rate": 0.01}` in the form. On the command line `learning_rate=0.01` and `training.learning_rate=0.01` say the same."""


def _markdown(members: Sequence[Row]) -> str:
    lines = ["| name | default | meaning |", "|---|---|---|"]
    for row in members:
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.name}` | {default} | {row.meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def _defaults(pipeline: str) -> dict[str, object]:
    from pipelines.catalogue import load_pipeline
    from pipelines.parameters import parameter_defaults

    return parameter_defaults(load_pipeline(pipeline))


if __name__ == "__main__":
    print(document(PIPELINES), end="")
