"""How far a long piece of work is: one line now and then, which people read in a log and `penstock run` shows as a bar."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import TypeVar

SECONDS_VARIABLE = "PENSTOCK_PROGRESS_SECONDS"
"""The environment variable that says how many seconds lie between two lines; `penstock run` makes it short."""
_SECONDS = 30.0
PREFIX = "progress: "
"""How such a line begins."""


class Progress:
    """Counts what is done and prints `progress: 1,200 of 5,000 pictures, 300/s, 13 s left`, at most one such line per interval."""

    def __init__(self, total: int, unit: str, log: Callable[[str], None] | None = None, done: int = 0) -> None:
        """`total`: how much there is of `unit`, a plural. `done`: what an earlier run has done of it."""
        self._total, self._unit, self._log, self._done = total, unit, log or _print_now, done
        self._seconds = float(os.environ.get(SECONDS_VARIABLE) or _SECONDS)
        self._started, self._before = time.monotonic(), done
        self._next = self._started + self._seconds

    def expect(self, total: int) -> None:
        """Take another number for all there is, as when a training goes on for more epochs."""
        self._total = total

    def step(self, count: int = 1) -> None:
        """Count `count` more, and print a line when one is due."""
        self._done += count
        self._total = max(self._total, self._done)  # an archive's number of pictures is an estimate until it was read
        now = time.monotonic()
        if now >= self._next:
            pace = pace_of(self._done - self._before, self._total - self._done, now - self._started)
            self._log(f"{PREFIX}{self._done:,} of {self._total:,} {self._unit}{pace}")
            self._next = now + self._seconds


def pace_of(done: int, left: int, seconds: float) -> str:
    """Say how fast `done` came in `seconds`, and how long `left` takes at that rate: ", 300/s, 13 s left"; "" where no time has passed."""
    if done <= 0 or seconds <= 0:
        return ""
    rate = done / seconds
    wait = round(left / rate)
    time_left = f"{wait} s" if wait < 100 else f"{wait / 60:.0f} min" if wait < 6000 else f"{wait / 3600:.1f} h"
    return f", {f'{rate:,.0f}' if rate >= 10 else f'{rate:.2g}'}/s, {time_left} left"


@cache
def warn_once(text: str) -> None:
    """Print a line that `penstock run` shows too, once in a process however often it is told; standard output may be for JSON."""
    print(f"warning: {text}", file=sys.stderr, flush=True)


def _print_now(line: str) -> None:
    print(line, flush=True)


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
