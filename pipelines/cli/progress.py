"""How a run is shown while it goes on: a spinner on a terminal, one line per step everywhere."""

from typing import Any

from rich.status import Status
from rich.text import Text

from pipelines.cli.output import console, errors
from pipelines.local import Step

REMARKS = ("warning: ", "note: ")
"""How a step begins a line that people should see, whatever they asked for."""

_MARKS = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "interrupted": ("■", "yellow")}

_FIGURES = {
    "ingest-dataset": ("classes", "shape", "train", "validation", "test", "set_aside"),
    "train-model": ("validation_accuracy", "epochs", "device"),
    "evaluate-model": ("accuracy", "macro_f1", "ece"),
    "plan-shards": ("pieces",),
    "merge-scores": ("rows", "errors", "review_share", "images_per_second"),
}
"""What is shown of steps that return more than fits in one line; of all others, what they return is shown."""


def display_names(pipeline: Any) -> dict[str, str]:
    """What the pipeline calls its tasks for people, by the names in the runner's log."""
    names = {}
    spec = pipeline.pipeline_spec
    for component in [spec.root, *spec.components.values()]:
        for task in component.dag.tasks.values():
            names[task.component_ref.name.removeprefix("comp-")] = task.task_info.name
    return names


class Printer:
    """Listens to a run: a spinner with the step's last line on a terminal, one plain line per step everywhere."""

    def __init__(self, names: dict[str, str], quiet: bool, verbose: bool) -> None:
        self._names, self._quiet, self._verbose = names, quiet, verbose
        self._status: Status | None = Status("starting", console=errors) if errors.is_terminal and not quiet else None

    def __enter__(self) -> "Printer":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status:
            self._status.stop()

    def __call__(self, event: str, step: Step | None, text: str) -> None:
        """Show one event, as `pipelines.local.Listener` says."""
        name = self._names.get(step.name if step else text, step.name if step else text)
        if self._status and event in {"started", "line"}:
            self._status.update(Text.assemble((f"{name}  ", "bold"), (text.strip()[:100], "dim")))
        if self._quiet:
            return
        if event == "started" and not self._status:
            console.print(Text(f"· {name} …", style="dim"))
        elif event == "line" and text.strip() and (self._verbose or text.startswith(REMARKS)):
            console.print(Text(f"    {text}", style="dim"), soft_wrap=True)
        elif event == "skipped":
            console.print(Text(f"– {name:<17}not taken", style="dim"))
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
    if step.name in _FIGURES:
        return "  ".join(f"{key} {_short(step.figures[key])}" for key in _FIGURES[step.name] if key in step.figures)
    return _short(step.figures.get("Output", ""))


def _short(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
