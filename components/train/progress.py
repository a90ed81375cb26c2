"""What is shown during training: one line per epoch, and now and then how many steps are done."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from components.classifier.progress import Progress

T = TypeVar("T")


class TrainingProgress:
    """Prints lines to standard output without delay; silent in all but one of the processes that train together."""

    def __init__(self, *, silent: bool = False) -> None:
        self._silent = silent
        self._steps: Progress | None = None

    def line(self, text: str) -> None:
        """Print one line."""
        if not self._silent:
            print(text, flush=True)

    def steps(self, batches: Iterable[T], total: int, done: int) -> Iterator[T]:
        """Yield the batches, and count them as steps of the whole training: `total` for now, of which `done` were done before these."""
        self._steps = self._steps or Progress(total, "steps", self.line, done)
        self._steps.expect(total)
        for batch in batches:
            yield batch
            self._steps.step()
