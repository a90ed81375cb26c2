"""`penstock run`: a pipeline on this machine, shown step by step."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from components.classifier.errors import PenstockError
from components.classifier.extras import with_remedy
from components.storage.files import user_path
from pipelines.cli.output import DEFAULT_STORE, JsonOption, PipelineArgument, SettingsOption, StoreOption, errors, print_json
from pipelines.cli.progress import Printer, display_names
from pipelines.cli.project import DEFAULT_NAME, chosen_name, complete_name, name_of_source, project_settings, read_project
from pipelines.local import RunResult, new_run_directory, run_local, trained_files
from pipelines.local_runs import RUNS

CHECKPOINTS = Path(".penstock/checkpoints")
"""Where a training that was interrupted finds its checkpoint, unless PENSTOCK_CHECKPOINTS names another place."""

EnvironmentOption = Annotated[str, typer.Option("--env", help="Whose policy and thresholds hold: dev, staging, prod, or a YAML file.")]
RunNameOption = Annotated[
    str,
    typer.Option(
        "--name",
        envvar="PENSTOCK_NAME",
        help="The model's name.",
        show_default="the source's for a training, else the store's only model",
        autocompletion=complete_name,
    ),
]


class RunFailed(PenstockError):
    """A local run that did not succeed; the message names the step's cause and the log."""


class Interrupted(PenstockError):
    """A local run that was ended by Ctrl-C or SIGTERM."""

    exit_code = 130


def run(
    pipeline: PipelineArgument,
    settings: SettingsOption = None,
    env: EnvironmentOption = "",
    store: StoreOption = DEFAULT_STORE,
    name: RunNameOption = "",
    docker: Annotated[bool, typer.Option("--docker", help="Run the steps in containers of their images.")] = False,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every line that the steps print.")] = False,
) -> None:
    """Run a pipeline on this machine, with no cluster.

    `penstock run PIPELINE --help` lists what can be set. What penstock.yaml in this folder says holds where nothing else is said.

    Example: `penstock run training --set source=digits --set epochs=10 --env dev`
    """
    arguments = prepare(pipeline, settings or [], env=env, store=store, name=name)
    run_prepared(pipeline, arguments, as_json=as_json, verbose=verbose, docker=docker)


def run_prepared(pipeline: str, arguments: dict[str, Any], *, as_json: bool, verbose: bool = False, docker: bool = False) -> None:
    """Run a pipeline with arguments that were checked, and print how it went.

    Raises Interrupted and RunFailed, and with `docker` UsageError where no engine answers or an image of the steps is not there.
    """
    if docker:
        from pipelines.docker import check_engine

        check_engine(pipeline)
    result = execute(pipeline, arguments, quiet=as_json, verbose=verbose, docker=docker)
    if as_json:
        print_json(as_plain(result))
    check(result, arguments)
    if not as_json:
        from pipelines.cli.summary import print_summary

        print_summary(pipeline, result, arguments)


def train(
    source: Annotated[str, typer.Argument(help="A folder with one folder per class, or any other source.", metavar="DIR")],
    settings: SettingsOption = None,
    env: EnvironmentOption = "",
    store: StoreOption = DEFAULT_STORE,
    name: RunNameOption = "",
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every line that the steps print.")] = False,
) -> None:
    """Train on a folder of pictures: short for `penstock run training --set source=DIR`.

    Example: `penstock train data/pets --set image_size=64`
    """
    chosen = [f"source={source}", *(settings or [])]
    run("training", chosen, env=env, store=store, name=name, as_json=as_json, verbose=verbose, docker=False)


def prepare(pipeline: str, settings: list[str], *, env: str, store: str, name: str) -> dict[str, Any]:
    """Turn options into a pipeline's arguments; everything that can be refused before a run is refused here.

    The command line comes before penstock.yaml. Without a name, a source other than digits gives its own. Raises UsageError, and what
    the steps' own checks raise.
    """
    from components.preflight.checks import CHECKS
    from pipelines.catalogue import load_pipeline
    from pipelines.parameters import parameter_defaults, parse_settings

    loaded = load_pipeline(pipeline)
    defaults = parameter_defaults(loaded)
    options = {"store": store, "name": name, "target": "local", "environment": env}
    options = {key: value for key, value in options.items() if key in defaults and value}
    project = read_project()  # whose values typer hands over as the options' defaults
    unsaid = {"store": project.store or DEFAULT_STORE, "name": project.name, "environment": project.environment, "target": "local"}
    said = {key: value for key, value in options.items() if value != unsaid[key]}
    from_file = parse_settings(loaded, project_settings(pipeline))
    given = from_file | parse_settings(loaded, settings)
    arguments = defaults | options | from_file | said | parse_settings(loaded, settings)
    if "://" not in arguments["store"]:
        arguments["store"] = str(user_path(arguments["store"]).absolute())
    unnamed = not name and "name" not in given
    if unnamed:
        source = arguments.get("source")
        arguments["name"] = chosen_name(arguments["store"], "") if source is None else name_of_source(source)
    for _ in CHECKS[pipeline](arguments, True):
        pass
    if unnamed and arguments["name"] != DEFAULT_NAME:
        errors.print(Text(f"The model is called {arguments['name']}; --name gives it another name."), soft_wrap=True)
    return arguments


def execute(
    pipeline: str,
    arguments: dict[str, Any],
    *,
    quiet: bool = False,
    verbose: bool = False,
    docker: bool = False,
    directory: Path | None = None,
) -> RunResult:
    """Run the pipeline, in a new directory or this one, and print each step as it starts and ends."""
    from pipelines.catalogue import load_pipeline

    names = display_names(load_pipeline(pipeline))
    with Printer(names, quiet, verbose) as printer:
        result = run_local(pipeline, arguments, directory or new_run_directory(RUNS), printer, checkpoints_here(), docker=docker)
    result.skipped = [names.get(branch, branch) for branch in result.skipped]
    return result


def check(result: RunResult, arguments: dict[str, Any]) -> None:
    """Raise when a run did not succeed: Interrupted, or RunFailed with cause and log, and where a model is that was not published."""
    if result.interrupted:
        place = arguments.get("training", {}).get("checkpoints") or checkpoints_here()
        again = f"`penstock runs resume {result.directory.name}` or the same command goes on from the checkpoint in {place}"
        more = f"; {again}" if _left_checkpoint(result, place) else ""
        raise Interrupted(f"interrupted; nothing was published or deployed by the step that was running{more} (log: {result.log})")
    if not result.succeeded:
        failed = next((step.name for step in result.steps if step.state == "failed"), "the run")
        trained = trained_files(result.directory) if failed == "publish-model" else None
        command = f"penstock models publish {result.directory} --store {arguments.get('store')} --name {arguments.get('name')}"
        kept = f"; the trained model is in {trained[0]}, and `{command}` goes on from there" if trained else ""
        raise RunFailed(f"{failed}: {with_remedy(result.error) or 'ended without a message'}{kept} (log: {result.log})")


def checkpoints_here() -> str:
    """Return where trainings on this machine keep their checkpoints."""
    return os.environ.get("PENSTOCK_CHECKPOINTS") or str(CHECKPOINTS.absolute())


def _left_checkpoint(result: RunResult, place: str) -> bool:
    """Whether the training, or a trial of a search, has left a checkpoint in this place since the run began."""
    trained = [step.state for step in result.steps if step.name.startswith(("train-model", "train-trial"))]
    if not trained or "://" in place:
        return "interrupted" in trained
    began = (result.directory / "request.json").stat().st_mtime
    return any(file.stat().st_mtime >= began for file in user_path(place).glob("training-*.pt"))


def as_plain(result: RunResult) -> dict[str, Any]:
    """A run's result for `--json`."""
    return {
        "run": result.directory.name,
        "succeeded": result.succeeded,
        "outputs": result.outputs,
        "error": result.error,
        "steps": [{"name": s.name, "state": s.state, "seconds": round(s.seconds, 2), "figures": s.figures} for s in result.steps],
        "not_taken": result.skipped,
        "log": str(result.log),
        "directory": str(result.directory),
    }
