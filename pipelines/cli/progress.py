"""How a run is shown while it goes on: one console for all, on a terminal with a bar for the step that runs."""

import re
import threading
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.table import Column
from rich.text import Text

from components.classifier.progress import PREFIX
from components.settings.resources import step_name
from pipelines.cli.output import console, errors, hanging
from pipelines.local import Step

REMARKS = ("warning: ", "note: ")
"""How a step begins a line that people should see, whatever they asked for."""
SILENCE_SECONDS = 20.0
"""Where there is no terminal, a line comes after so long without one: what runs, for how long, and how far it is."""

_COUNT = re.compile(rf"{PREFIX}(?P<done>[\d,]+) of (?P<total>[\d,]+) (?P<unit>.+)")
_MARKS = {"succeeded": ("✓", "green"), "failed": ("✗", "red"), "interrupted": ("■", "yellow")}
_WIDE = 100
"""Columns from which on a terminal has room for the counts beside the bar."""

_FIGURES = {
    "ingest-dataset": ("classes", "shape", "train", "validation", "test", "set_aside"),
    "train-model": ("validation_accuracy", "epochs", "device"),
    "choose-parents": ("versions",),
    "make-variant": ("kind", "size_bytes", "parent_bytes", "temperature"),
    "train-trial": (),
    "plan-trials": (),
    "keep-best": (),
    "choose-best": ("trial", "validation_accuracy"),
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
    """Listens to a run: one line per step that ends, and for the one that runs a bar on a terminal, else a line now and then."""

    def __init__(self, names: dict[str, str], quiet: bool, verbose: bool) -> None:
        """`names`: of tasks, for people. `quiet`: standard output is for JSON, so the bar goes to standard error, and nothing else does."""
        self._names, self._quiet, self._verbose = names, quiet, verbose
        self._console: Console = errors if quiet else console
        self._bar = _bar(self._console) if self._console.is_terminal else None
        self._tasks: dict[int, Any] = {}
        self._running: dict[int, Step] = {}
        self._counts: dict[int, tuple[int, int, str]] = {}
        self._ended = threading.Event()
        self._last = time.monotonic()
        self._printer = threading.Thread(target=self._print_progress, name="progress", daemon=True)

    def __enter__(self) -> "Printer":
        if self._bar:
            self._bar.start()
        elif not self._quiet:
            self._printer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()
        elif not self._quiet:
            self._printer.join()

    def __call__(self, event: str, step: Step | None, text: str) -> None:
        """Show one event, as `pipelines.local.Listener` says."""
        if event == "line" and step and (count := _COUNT.fullmatch(text.strip())):
            self._count(step, int(count["done"].replace(",", "")), int(count["total"].replace(",", "")), count["unit"])
            return
        if event == "started" and step:
            self._start(step)
        elif event == "finished" and step:
            self._finish(step, text)
        elif event == "skipped":
            self._print(Text("–", "dim"), Text(f"{self._names.get(text, text):<17}not taken", "dim"))
        elif event == "line" and text.strip() and (self._verbose or text.startswith(REMARKS)):
            self._print(Text("   "), Text(text.strip(), "dim"))

    def _start(self, step: Step) -> None:
        self._running[id(step)] = step
        if self._bar:
            self._tasks[id(step)] = self._bar.add_task(self._name(step), total=None, unit="")
        else:
            self._print(Text("·", "dim"), Text(f"{self._name(step)} …", "dim"))

    def _count(self, step: Step, done: int, total: int, unit: str) -> None:
        unit = unit.partition(",")[0] if self._bar else unit  # the bar has a rate of its own
        first = id(step) not in self._counts or (self._bar is not None and self._counts[id(step)][2] != unit)
        self._counts[id(step)] = done, total, unit
        if not self._bar or id(step) not in self._tasks:
            return
        task = self._tasks[id(step)]
        if first:  # the rate is that of the counted work, without what the step did before it
            self._bar.reset(task, total=total, completed=done, unit=unit)
        else:
            self._bar.update(task, total=total, completed=done)

    def _finish(self, step: Step, text: str) -> None:
        self._running.pop(id(step), None)
        if self._bar and id(step) in self._tasks:
            self._bar.remove_task(self._tasks.pop(id(step)))
        mark, colour = _MARKS[step.state]
        head = Text.assemble((f"{mark} ", colour), (f"{self._name(step):<17}", "bold"), (f"{step.seconds:6.1f} s ", "dim"))
        self._print(head, Text(text or figures_line(step)))

    def _print(self, head: Text, text: Text) -> None:
        if self._quiet:
            return
        self._last = time.monotonic()
        hanging(self._console, head, text)

    def _name(self, step: Step) -> str:
        return self._names.get(step.name, step.name)

    def _print_progress(self) -> None:
        """Print a line about each step that runs when nothing was printed for a while."""
        while not self._ended.wait(0.2):
            if time.monotonic() - self._last < SILENCE_SECONDS:
                continue
            for key, step in list(self._running.items()):
                seconds = time.monotonic() - step.started
                counted = f"  {_share(*self._counts[key])}" if key in self._counts else ""
                self._print(Text("·", "dim"), Text(f"{self._name(step):<17}{seconds:6.1f} s  goes on{counted}", "dim"))
            self._last = time.monotonic()


class _Rate(ProgressColumn):
    """How many of the step's units are done per second."""

    def render(self, task: Task) -> Text:
        if task.total is None or not task.speed:
            return Text("")
        speed = f"{task.speed:,.0f}" if task.speed >= 10 else f"{task.speed:.1f}"
        return Text(f"{speed}/s", style="cyan")


class _Count(ProgressColumn):
    """What is done of what, where the terminal has room for it."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else _share(int(task.completed), int(task.total), task.fields["unit"]), style="dim")


class _TimeLeft(ProgressColumn):
    """The time that is left, by the rate of the last seconds; before a rate is known, the time that has passed."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if task.total is None or left is None:
            return TimeElapsedColumn().render(task)
        return Text(f"{int(left) // 60}:{int(left) % 60:02d} left", style="magenta")


def _bar(shown: Console) -> Progress:
    counts = [_Count(table_column=Column(no_wrap=True))] if shown.width >= _WIDE else []
    return Progress(
        SpinnerColumn(),
        TextColumn("[bold]{task.description}", table_column=Column(width=16, no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(ratio=1)),
        *counts,
        _Rate(table_column=Column(no_wrap=True)),
        _TimeLeft(table_column=Column(no_wrap=True)),
        console=shown,
        transient=True,
        expand=True,
    )


def _share(done: int, total: int, unit: str) -> str:
    return f"{done:,} of {total:,} {unit}"


def figures_line(step: Step) -> str:
    """The few figures of a step, in one line."""
    name = step_name(step.name)
    if name in _FIGURES:
        return "  ".join(f"{key} {_short(step.figures[key])}" for key in _FIGURES[name] if key in step.figures)
    return _short(step.figures.get("Output", ""))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() or abs(value) >= 1000 else f"{value:.4g}"
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
