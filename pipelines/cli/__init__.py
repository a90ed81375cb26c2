"""The `penstock` command: one module per group of commands, put together here."""

import io
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated

from components.classifier.errors import PenstockError
from components.classifier.extras import missing, named_where_missing

with named_where_missing():  # the extra `cli`, such as rich, by which main() prints errors
    import typer

    from pipelines.cli import gate, models, review, runs, schedule, searches, weights
    from pipelines.cli.compile import compile_
    from pipelines.cli.demo import demo
    from pipelines.cli.doctor import doctor
    from pipelines.cli.drift import drift
    from pipelines.cli.export import export
    from pipelines.cli.lint import lint
    from pipelines.cli.output import fail
    from pipelines.cli.params import WithParameters, params
    from pipelines.cli.predict import predict
    from pipelines.cli.project import default_map, read_project
    from pipelines.cli.report import report
    from pipelines.cli.run import run, train
    from pipelines.cli.serve import serve
    from pipelines.cli.submit import submit
    from pipelines.cli.trial import trial
    from pipelines.cli.ui import ui
    from pipelines.cli.watch import watch

app = typer.Typer(
    name="penstock",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train image classifiers and let only good ones through to production.",
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *(demo, train, run, submit, trial, params, compile_, lint, doctor),
    *(serve, predict, drift, watch, report, export, ui),
)
for command in COMMANDS:
    app.command(command.__name__.rstrip("_"), cls=WithParameters if command in {run, submit} else None)(command)
for group in (runs, searches, schedule, models, weights, gate, review):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


def print_version(wanted: bool) -> None:
    """Print which release this is, and end."""
    if wanted:
        print(f"penstock {metadata.version('penstock')}")
        raise typer.Exit


@app.callback()
def start(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version, and end.", is_eager=True, callback=print_version)] = False,
) -> None:
    """Train image classifiers and let only good ones through to production."""
    context.default_map = default_map(read_project(), context.command)


def main() -> None:
    """Run the command line; a PenstockError becomes one line and an exit code, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may not be text
    try:
        app()
    except PenstockError as error:
        fail(error)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        told = missing(error)
        if told is None:
            raise
        fail(told)
        sys.exit(told.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
