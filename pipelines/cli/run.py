"""`penstock run`: a pipeline on this machine, step by step before one's eyes."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.status import Status
from rich.text import Text

from components.classifier.errors import PenstockError
from pipelines.cli.output import DEFAULT_NAME, DEFAULT_STORE, JsonOption, console, errors, print_json
from pipelines.local import RunResult, Step, new_run_directory, run_local

RUNS = Path(".penstock/runs")
_MARKS = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "interrupted": ("■", "yellow")}


class RunFailed(PenstockError):
    """A local run that did not succeed; the message names the step's cause and the log."""


class Interrupted(PenstockError):
    """A local run that was ended by Ctrl-C or SIGTERM."""

    exit_code = 130


def run(
    pipeline: Annotated[str, typer.Argument(help="training or scoring.", metavar="PIPELINE")],
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A run parameter; may be given again.")] = None,
    env: Annotated[str, typer.Option("--env", help="Whose policy decides: dev, prod, or a YAML file.")] = "",
    store: Annotated[str, typer.Option("--store", envvar="PENSTOCK_STORE", help="Where model versions lie.")] = DEFAULT_STORE,
    name: Annotated[str, typer.Option("--name", envvar="PENSTOCK_NAME", help="The model's name.")] = DEFAULT_NAME,
    as_json: JsonOption = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every line that the steps print.")] = False,
) -> None:
    """Run a pipeline on this machine, with no cluster.

    Example: `penstock run training --set source=digits --set epochs=10 --env dev`
    """
    arguments = prepare(pipeline, settings or [], env=env, store=store, name=name)
    result = execute(pipeline, arguments, quiet=as_json, verbose=verbose)
    if as_json:
        print_json(as_plain(result))
    check(result)
    if not as_json:
        from pipelines.cli.summary import print_summary

        print_summary(pipeline, result, arguments)


def prepare(pipeline: str, settings: list[str], *, env: str, store: str, name: str) -> dict[str, Any]:
    """Turn options into a pipeline's arguments; everything that can be refused without running is refused here.

    Raises UsageError, and what the steps' own checks raise.
    """
    from pipelines.catalogue import load_pipeline
    from pipelines.local_runner import pipeline_defaults
    from pipelines.parameters import parameter_types, parse_settings

    loaded = load_pipeline(pipeline)
    known = parameter_types(loaded)
    given = parse_settings(loaded, settings)
    options = {"store": store, "name": name, "target": "local", "environment": env}
    arguments = {key: value for key, value in options.items() if key in known and value} | given
    if "://" not in arguments["store"]:
        arguments["store"] = str(Path(arguments["store"]).expanduser().absolute())
    arguments = pipeline_defaults(loaded) | arguments
    if pipeline == "training":
        from components.preflight.checks import check_training

        check_training(arguments, here=True)
    return arguments


def execute(pipeline: str, arguments: dict[str, Any], *, quiet: bool = False, verbose: bool = False) -> RunResult:
    """Run the pipeline and print each step as it starts and ends."""
    from pipelines.catalogue import load_pipeline

    printer = _Printer(display_names(load_pipeline(pipeline)), quiet, verbose)
    directory = new_run_directory(RUNS)
    with printer:
        return run_local(pipeline, arguments, directory, printer)


def check(result: RunResult) -> None:
    """Raise when a run did not succeed: Interrupted, or RunFailed with cause and log."""
    if result.interrupted:
        raise Interrupted(f"interrupted; nothing was published or deployed by the step that was running (log: {result.log})")
    if not result.succeeded:
        failed = next((step.name for step in result.steps if step.state == "failed"), "the run")
        raise RunFailed(f"{failed}: {result.error or 'ended without a message'} (log: {result.log})")


def as_plain(result: RunResult) -> dict[str, Any]:
    """A run's result for `--json`."""
    return {
        "succeeded": result.succeeded,
        "outputs": result.outputs,
        "error": result.error,
        "steps": [{"name": s.name, "state": s.state, "seconds": round(s.seconds, 2), "figures": s.figures} for s in result.steps],
        "not_taken": result.skipped,
        "log": str(result.log),
        "directory": str(result.directory),
    }


def display_names(pipeline: Any) -> dict[str, str]:
    """What the pipeline calls its tasks for people, by the names in the runner's log."""
    names = {}
    spec = pipeline.pipeline_spec
    for component in [spec.root, *spec.components.values()]:
        for task in component.dag.tasks.values():
            names[task.component_ref.name.removeprefix("comp-")] = task.task_info.name
    return names


class _Printer:
    """Listens to a run: a spinner with the step's last line on a terminal, one plain line a step everywhere."""

    def __init__(self, names: dict[str, str], quiet: bool, verbose: bool) -> None:
        self._names, self._quiet, self._verbose = names, quiet, verbose
        self._status: Status | None = Status("starting", console=errors) if errors.is_terminal and not quiet else None

    def __enter__(self) -> "_Printer":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, event: str, step: Step | None, text: str) -> None:
        name = self._names.get(step.name if step else text, step.name if step else text)
        if self._status and event in {"started", "line"}:
            self._status.update(Text.assemble((f"{name}  ", "bold"), (text.strip()[:100], "dim")))
        if self._quiet:
            return
        if event == "started" and not self._status:
            console.print(Text(f"· {name} …", style="dim"))
        elif event == "line" and self._verbose and text.strip():
            console.print(Text(f"    {text}", style="dim"), soft_wrap=True)
        elif event == "finished" and step:
            mark, colour = _MARKS[step.state]
            console.print(
                Text.assemble(
                    (f"{mark} ", colour), (f"{name:<17}", "bold"), (f"{step.seconds:6.1f} s  ", "dim"), text or figures_line(step)
                ),
                soft_wrap=True,
            )


def figures_line(step: Step) -> str:
    """The few figures of a step, in one line."""
    parts = []
    for key, value in step.figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        if len(shown) > 40:
            shown = shown[:12] + "…"
        parts.append(shown if key == "Output" else f"{key} {shown}")
    return "  ".join(parts[:6])
