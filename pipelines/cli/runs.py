"""`penstock runs`: the runs of this folder: what ran, how it ended, its log, and going on from it."""

from typing import Annotated

import typer
from rich.text import Text

from components.classifier.errors import UsageError
from pipelines import local_runs
from pipelines.cli import models_view as view
from pipelines.cli.output import JsonOption, console, print_json
from pipelines.local_runs import RUNS, LocalRun

app = typer.Typer(no_args_is_help=True, help="List, show, resume and remove the runs of this machine, and read their logs.")

_COLOURS = {"succeeded": "green", "running": "cyan", "failed": "red", "interrupted": "yellow", "lost": "yellow"}


def complete_run(incomplete: str) -> list[str]:
    """IDs of runs for the shell, newest first."""
    return [text for text in ("last", *(run.id for run in local_runs.list_runs())) if text.startswith(incomplete)]


RunArgument = Annotated[
    str, typer.Argument(help="A run's ID or its beginning, or `last`.", metavar="RUN", show_default=False, autocompletion=complete_run)
]


@app.command("list")
def list_all(
    limit: Annotated[int, typer.Option("--limit", min=0, help="How many runs at most, the newest; 0 for all.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the runs of this folder, newest first.

    Example: `penstock runs list`
    """
    runs = local_runs.list_runs()
    runs = runs[:limit] if limit else runs
    if as_json:
        print_json([run.model_dump() for run in runs])
        return
    if not runs:
        console.print(f"No run in {RUNS} yet: `penstock demo` makes one.", soft_wrap=True)
        return
    table = view.table("run", "pipeline", "model", "status", "seconds", "outcome")
    for run in runs:
        status = Text(run.status, style=_COLOURS[run.status])
        table.add_row(run.id, run.pipeline, Text(str(run.arguments.get("name", ""))), status, f"{run.seconds:.0f}", Text(run.result))
    view.show(table)


@app.command()
def show(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show a run: its parameters where they are not the defaults, its steps, and how it ended.

    Example: `penstock runs show last`
    """
    found = local_runs.find_run(run)
    size = local_runs.folder_size(RUNS / found.id)
    if as_json:
        print_json({**found.model_dump(), "directory": str(RUNS / found.id), "bytes": size})
        return
    status = Text(f"{found.status} after {found.seconds:.1f} s", style=_COLOURS[found.status])
    rest = {**found.outcome, **({"error": found.error} if found.error else {})}
    facts = [*rest.items(), *_changed(found).items()]
    view.say_facts(
        [
            *(("run", found.id), ("started", view.when(found.time)), ("status", status)),
            *((key, str(value)) for key, value in facts),
            ("folder", f"{RUNS / found.id}  {view.size_text(size)}"),
        ]
    )
    for step in found.steps:
        console.print(Text.assemble(("  " + step.name).ljust(22), f"{step.state:<12}{step.seconds:8.1f} s"))


@app.command()
def log(run: RunArgument) -> None:
    """Print a run's log, with all that its steps printed.

    Example: `penstock runs log last`
    """
    path = RUNS / local_runs.find_run(run).id / "run.log"
    try:
        print(path.read_text("utf-8"), end="")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); the run ended before it wrote anything") from error


@app.command()
def resume(run: RunArgument, as_json: JsonOption = False) -> None:
    """Run again what a run was given; a training that was interrupted goes on from its checkpoint. It gets an ID of its own.

    A run with --docker is run in containers again.

    Example: `penstock runs resume last`
    """
    from pipelines.cli.run import run_prepared

    found = local_runs.find_run(run)
    if found.status == "running":
        raise UsageError(f"run {found.id} goes on (process {found.pid}); look at it with `penstock runs log {found.id}`")
    run_prepared(found.pipeline, found.arguments, as_json=as_json, docker=found.docker)


@app.command()
def rm(
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove a run's folder; versions that it published stay in the store.

    Example: `penstock runs rm last --yes`
    """
    found = local_runs.find_run(run)
    if not yes:
        typer.confirm(f"Remove {RUNS / found.id} for good?", abort=True)
    local_runs.remove_run(found)
    console.print(f"{found.id} is removed.")


@app.command()
def prune(
    keep: Annotated[int, typer.Option("--keep", min=0, help="How many runs stay, the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Remove the folders of all but the newest runs; those that go on stay, and so do versions in the store.

    Without this, the steps' outputs are kept of the 5 newest runs, and of a training that failed after its model was trained; log, report
    and record of the others stay.

    Example: `penstock runs prune --keep 10`
    """
    removed = [found for found in local_runs.list_runs()[keep:] if found.status != "running"]
    size = sum(local_runs.folder_size(RUNS / found.id) for found in removed)
    for found in removed:
        local_runs.remove_run(found)
    if as_json:
        print_json({"removed": [found.id for found in removed], "bytes": size})
    else:
        console.print(f"{len(removed)} runs removed, {view.size_text(size)} free.")


def _changed(run: LocalRun) -> dict[str, object]:
    """The parameters that are not the defaults; all of them where this release has no such pipeline."""
    from pipelines.catalogue import PIPELINES, load_pipeline
    from pipelines.parameters import parameter_defaults

    defaults = parameter_defaults(load_pipeline(run.pipeline)) if run.pipeline in PIPELINES else {}
    return {key: value for key, value in run.arguments.items() if value != defaults.get(key)}
