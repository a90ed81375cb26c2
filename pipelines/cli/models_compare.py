"""`penstock models diff` and `mistakes`: two versions beside each other, and the pictures that one got wrong."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from components.classifier.errors import EvaluationError, UsageError
from pipelines.cli import models_view as view
from pipelines.cli.output import DEFAULT_STORE, JsonOption, NameOption, StoreOption, VersionArgument, print_json, written_to
from pipelines.cli.project import open_registry

if TYPE_CHECKING:
    from components.registry import Manifest, Registry
    from components.report.comparison import Comparison


def diff(
    first: VersionArgument,
    second: VersionArgument = "champion",
    html: Annotated[str, typer.Option("--html", help="A page to write, with pictures; or a store's address for it.")] = "",
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two versions, whether the second is better, and which test pictures changed.

    The test is the gate's own. A version of another model is written NAME/VERSION.

    Example: `penstock models diff previous champion --html diff.html`
    """
    from components.registry import differences

    (one, a), (two, b) = (_named_version(store, name, selector) for selector in (first, second))
    found = differences(a, b)
    evaluated, problem = _both_evaluated((one, a.version), (two, b.version))
    if html:
        if evaluated is None:
            raise UsageError(f"no page of {a.version} and {b.version}: {problem}")
        from components.report.comparison import render_comparison
        from components.storage.files import write_file

        with written_to(html) as path:
            write_file(path, [render_comparison(evaluated, found).encode()])
    if as_json:
        print_json(
            {
                "first": a.version,
                "second": b.version,
                "differences": [asdict(difference) for difference in found],
                "comparison": view.comparison_json(evaluated) if evaluated else {"reason": problem},
            }
        )
        return
    if not found:
        view.say(f"{a.version} and {b.version} do not differ.")
        return
    view.say(f"first   {a.version}\nsecond  {b.version}\n")
    table = view.table("", "", "first", "second", "change")
    for difference in found:
        table.add_row(
            difference.section, escape(difference.field), view.value(difference.section, difference.first),
            view.value(difference.section, difference.second), view.change(difference.first, difference.second),
        )  # fmt: skip
    view.show(table)
    if evaluated is None:
        view.say(f"\nnot compared picture by picture: {escape(problem)}")
    else:
        view.print_comparison(evaluated)
    if html:
        view.say(f"with pictures: {escape(html)}")


def _named_version(store: str, name: str, selector: str) -> "tuple[Registry, Manifest]":
    """The registry and manifest that VERSION, or NAME/VERSION, stands for."""
    other, slash, version = selector.rpartition("/")
    registry = open_registry(store, other if slash else name)
    return registry, registry.get(registry.select(version)).manifest


def _both_evaluated(first: "tuple[Registry, str]", second: "tuple[Registry, str]") -> "tuple[Comparison | None, str]":
    from components.evaluate.comparison import compare_versions
    from components.registry.evaluated import read_evaluated

    try:
        return compare_versions(read_evaluated(*first), read_evaluated(*second)), ""
    except EvaluationError as error:  # a version without an evaluation that this release reads still has a manifest to compare
        return None, str(error)


def mistakes(
    version: VersionArgument,
    output: Annotated[
        str, typer.Option("--output", "-o", help="A .csv or .parquet file to write, or a store's address for one; it holds all of them.")
    ] = "",
    label: Annotated[str, typer.Option("--label", help="Only pictures of this class.")] = "",
    predicted: Annotated[str, typer.Option("--predicted", help="Only pictures that were taken for this class.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=0, help="Rows shown, most confident first; 0 for all.")] = 50,
    suspect: Annotated[bool, typer.Option("--suspect", help="Those whose label is most suspect first.")] = False,
    store: StoreOption = DEFAULT_STORE,
    name: NameOption = "",
    as_json: JsonOption = False,
) -> None:
    """List the test pictures that a version got wrong, most confident first, as a table, CSV, Parquet or JSON.

    Each has its file, label, prediction, confidence, familiarity and label quality (low: the label may be wrong; suspicion, not proof).

    Example: `penstock models mistakes champion --label cat --predicted dog --output mistakes.csv`
    """
    from dataclasses import asdict

    from components.bundle.mistakes import most_suspect, write_table, wrong_pictures
    from components.registry.evaluated import read_evaluated

    registry = open_registry(store, name)
    found = read_evaluated(registry, registry.select(version))
    for chosen in (label, predicted):
        if chosen and chosen not in found.evaluation.classes:
            raise UsageError(f"{found.version} has no class {chosen!r}; it has {', '.join(found.evaluation.classes[:20])}")
    every = wrong_pictures(found.evaluation, found.predictions)
    wrong = [p for p in every if label in {"", p.label} and predicted in {"", p.predicted}]
    if suspect:
        if found.predictions.label_quality is None:
            raise UsageError(f"{found.version} is too old to say which labels are suspect; evaluate it again")
        wrong = most_suspect(wrong)
    if output:
        with written_to(output) as path:
            write_table(path, wrong)
    if as_json:
        print_json([asdict(picture) for picture in wrong])
        return
    old = "" if found.predictions.files is not None else "; this version is too old to say the files and familiarity of all of them"
    view.say(f"{len(wrong)} of {found.evaluation.n} test pictures are wrong{escape(f' and in {output}' if output else old)}")
    if not output and wrong:
        view.show(view.mistakes_table(wrong[: limit or None]))
