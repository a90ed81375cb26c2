"""Millions of items in flat memory: they lie on disk in sorted runs, and are merged when they are read."""

import heapq
import pickle
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

RUN = 50_000
"""Items that are kept in memory, and sorted at once."""
BLOCK = 500
"""Items that are read at once from each run."""
MAX_RUNS = 64
"""Runs that are merged to a longer one as soon as there are this many: each takes an open file and a block while items are read."""

Item = TypeVar("Item")


class Spool(Generic[Item]):
    """Items in the order of a key, equal ones as they came; without a key, all as they came. They can be read more than once."""

    def __init__(self, folder: Path, key: Callable[[Item], Any] | None = None) -> None:
        """`folder`: where the runs are written; it is made when they are."""
        self._folder, self._key = folder, key
        self._waiting: list[Item] = []
        self._merged: list[Path] = []
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
        yield from self._in_order() if self._runs else self._waiting

    def _in_order(self) -> Iterator[Item]:
        runs = [_read(run) for run in (*self._merged, *self._runs)]
        return heapq.merge(*runs, key=self._key) if len(runs) > 1 else runs[0]

    def _sort(self) -> None:
        if self._key:
            self._waiting.sort(key=self._key)

    def _write(self) -> None:
        """Write what waits: to the last run where it goes on after its end, as with stores, which list in order."""
        self._sort()
        if not self._runs or (self._key and self._key(self._waiting[0]) < self._last):
            if len(self._runs) == MAX_RUNS:
                self._merge()
            self._folder.mkdir(parents=True, exist_ok=True)
            self._runs.append(self._folder / f"{len(self._merged)}-{len(self._runs)}")
        _append(self._runs[-1], self._waiting)
        if self._key:
            self._last = self._key(self._waiting[-1])
        self._waiting = []

    def _merge(self) -> None:
        longer = self._folder / str(len(self._merged))
        _append(longer, heapq.merge(*map(_read, self._runs), key=self._key))
        for run in self._runs:
            run.unlink()
        self._merged.append(longer)
        self._runs = []


def _append(run: Path, items: Iterable[Any]) -> None:
    remaining = iter(items)
    with run.open("ab") as file:
        while block := list(islice(remaining, BLOCK)):
            pickle.dump(block, file, pickle.HIGHEST_PROTOCOL)


def _read(run: Path) -> Iterator[Any]:
    with run.open("rb") as file:
        while file.peek(1):
            yield from pickle.load(file)
