"""The `penstock` command: one module per group of commands, put together here."""

import io
import sys
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
app.command("demo")(demo)
app.command("train")(train)
app.command("run", cls=WithParameters)(run)
app.command("submit", cls=WithParameters)(submit)
app.command("trial")(trial)
app.command("params")(params)
app.command("compile")(compile_)
app.command("lint")(lint)
app.command("doctor")(doctor)
app.command("serve")(serve)
app.command("predict")(predict)
app.command("drift")(drift)
app.command("watch")(watch)
app.command("report")(report)
app.command("export")(export)
app.command("ui")(ui)
app.add_typer(runs.app, name="runs")
app.add_typer(searches.app, name="searches")
app.add_typer(schedule.app, name="schedule")
app.add_typer(models.app, name="models")
app.add_typer(weights.app, name="weights")
app.add_typer(gate.app, name="gate")
app.add_typer(review.app, name="review")


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
