"""Millions of items in flat memory: they lie on disk in sorted runs, and are merged when they are read."""

import heapq
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

RUN = 50_000
"""Items that are kept in memory, and sorted at once."""
BLOCK = 500
"""Items that are read at once from each run."""

Item = TypeVar("Item")


class Spool(Generic[Item]):
    """Items in the order of a key, equal ones as they came; without a key, all as they came. They can be read more than once."""

    def __init__(self, folder: Path, key: Callable[[Item], Any] | None = None) -> None:
        """`folder`: where the runs are written; it is made when they are."""
        self._folder, self._key = folder, key
        self._waiting: list[Item] = []
        self._runs: list[Path] = []
        self._last: Any = None

    def add(self, item: Item) -> None:
        """Append an item."""
        self._waiting.append(item)
        if len(self._waiting) >= RUN:
            self._write()

    def __iter__(self) -> Iterator[Item]:
        if self._runs and self._waiting:
            self._write()
        self._sort()
        runs = [_read(run) for run in self._runs]
        if not runs:
            yield from self._waiting
        elif len(runs) == 1:
            yield from runs[0]
        else:
            yield from heapq.merge(*runs, key=self._key)

    def _sort(self) -> None:
        if self._key:
            self._waiting.sort(key=self._key)

    def _write(self) -> None:
        """Write what waits: to the last run where it goes on after its end, as with stores, which list in order."""
        self._sort()
        if not self._runs or (self._key and self._key(self._waiting[0]) < self._last):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._runs.append(self._folder / str(len(self._runs)))
        with self._runs[-1].open("ab") as file:
            for start in range(0, len(self._waiting), BLOCK):
                pickle.dump(self._waiting[start : start + BLOCK], file, pickle.HIGHEST_PROTOCOL)
        if self._key:
            self._last = self._key(self._waiting[-1])
        self._waiting = []


def _read(run: Path) -> Iterator[Any]:
    with run.open("rb") as file:
        while file.peek(1):
            yield from pickle.load(file)
