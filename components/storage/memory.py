"""A store in this process' memory, for tests and trials; it is gone when the process ends."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from components.classifier.errors import ObjectExists, ObjectNotFound
from components.storage.store import Entry, Progress, Store, check_key, without_markers


class MemoryStore(Store):
    """Objects in a dictionary; safe for several threads."""

    _named: ClassVar[dict[str, "MemoryStore"]] = {}
    _naming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str = "unnamed") -> None:
        self.url = f"memory://{name}"
        self._objects: dict[str, bytes] = {}
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str) -> "MemoryStore":
        """Return the one store of that name in this process, made at the first call."""
        with cls._naming:
            return cls._named.setdefault(name, cls(name))

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._lock:
            if check_key(key) not in self._objects:
                raise ObjectNotFound(f"no object {key!r} in {self.url}")
            data = self._objects[key]
        yield data

    def span(self, key: str, start: int, size: int) -> bytes:
        return self.read(key)[start : start + size]

    def create(self, key: str, data: bytes) -> None:
        with self._lock:
            if check_key(key) in self._objects:
                raise ObjectExists(f"object {key!r} is in {self.url} already")
            self._objects[key] = bytes(data)

    def replace(self, key: str, data: bytes) -> None:
        with self._lock:
            self._objects[check_key(key)] = bytes(data)

    def exists(self, key: str) -> bool:
        with self._lock:
            return check_key(key) in self._objects

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with self._lock:
            found = [Entry(key, len(data)) for key, data in self._objects.items() if key.startswith(prefix)]
        yield from without_markers(iter(sorted(found, key=lambda entry: entry.key)))

    def names(self, prefix: str = "") -> Iterator[str]:
        yield from sorted({entry.key[len(prefix) :].partition("/")[0] for entry in self.list(prefix)})

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(check_key(key), None)

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        data = source.read_bytes()
        self.replace(key, data)
        if progress:
            progress(len(data))

    def copy(self, source: str, key: str) -> None:
        self.replace(key, self.read(source))
