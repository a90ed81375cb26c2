"""What is shown during training: one line per epoch, and a progress bar on a terminal."""

import sys
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")


class TrainingProgress:
    """Prints lines to standard output without delay, and shows steps as a bar when that is a terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        if sys.stdout.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, console=Console(highlight=False), transient=True)

    def __enter__(self) -> "TrainingProgress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def line(self, text: str) -> None:
        """Print one line."""
        if self._bar:
            self._bar.console.print(text, markup=False, soft_wrap=True)
        else:
            print(text, flush=True)

    def steps(self, batches: Iterable[T], label: str, total: int, done: int = 0) -> Iterator[T]:
        """Yield the batches, and count them on the bar after the `done` ones."""
        if self._bar is None:
            yield from batches
            return
        task = self._bar.add_task(label, total=total, completed=done)
        for batch in batches:
            yield batch
            self._bar.advance(task)
        self._bar.remove_task(task)
