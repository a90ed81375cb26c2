"""The interface of a store, and writes under a condition that several processes may make at once."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random_exponential

from components.classifier.errors import StoreError
from components.storage.files import write_file

Progress = Callable[[int], None]
"""Called with the number of bytes that have moved since the last call, possibly from another thread."""

CHUNK = 1 << 20
MAX_ATTEMPTS, MAX_SECONDS = 100, 60.0
"""Of a write that other writers come before again and again."""
Written = TypeVar("Written")


@dataclass(frozen=True)
class Entry:
    """One object: its key below the store's root, its size in bytes, and a stamp that changes with its content ("": unknown)."""

    key: str
    size: int
    stamp: str = field(default="", compare=False)


class Store(ABC):
    """Objects under keys such as `models/digits/…/model.onnx`; keys use `/` and never start with it.

    `url` is the address that another process opens it with. Errors are components.classifier.errors.StoreError and below.
    """

    url: str

    def read(self, key: str, limit: int | None = None) -> bytes:
        """Return an object's bytes; raises ObjectNotFound, and StoreError as soon as more than `limit` bytes have come."""
        pieces, size = list[bytes](), 0
        for piece in self.chunks(key):
            pieces.append(piece)
            size += len(piece)
            if limit is not None and size > limit:
                raise StoreError(
                    f"object {key!r} in {self.url} is larger than {limit:,} bytes, which no such file is; replace or remove it"
                )
        return b"".join(pieces)

    def sha256(self, key: str) -> str:
        """Hash an object, streaming; returns 64 hexadecimal digits. Raises ObjectNotFound."""
        digest = hashlib.sha256()
        for piece in self.chunks(key):
            digest.update(piece)
        return digest.hexdigest()

    @abstractmethod
    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in order, a piece at a time; raises ObjectNotFound."""

    @abstractmethod
    def span(self, key: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object from byte `start` on, fewer at its end; raises ObjectNotFound."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Write an object that must not be there yet; raises ObjectExists. Readers see all of it or nothing."""

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Write an object, in place of what may be there. Readers see the old or the new, never a part."""

    def require_create_only(self) -> None:  # noqa: B027 - a link or a lock never overwrites
        """Raise StoreUnsuitable when `create` could overwrite; `create` checks it itself; a long upload that ends with it checks before."""

    def require_place(self) -> None:  # noqa: B027 - most stores make their own place
        """Raise StoreError unless what holds the objects is there, such as the bucket; makes nothing. Every write asks first."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Say whether an object lies under exactly this key."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose key starts with `prefix`, in the order of keys.

        Empty objects that only stand for a folder, as some S3 tools leave them, are passed over.
        """

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names directly below a folder `prefix` (which ends with `/` or is empty), in order, once each.

        Folders and objects alike, without a trailing slash.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""

    def delete_all(self, prefix: str) -> None:
        """Remove every object whose key starts with `prefix`."""
        for key in [entry.key for entry in self.list(prefix)]:
            self.delete(key)

    @abstractmethod
    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        """Copy a file of any size to a key that is written once, streaming."""

    @abstractmethod
    def copy(self, source: str, key: str) -> None:
        """Copy the object `source` to the key `key`, in place of what may be there; raises ObjectNotFound.

        The bytes do not pass through this machine where the store can copy by itself. Readers see the old or the new, never a part.
        """

    def download(self, key: str, destination: Path) -> None:
        """Copy an object of any size to a file, streaming; raises ObjectNotFound. No half file is left on failure."""
        write_file(destination, self.chunks(key))


def check_key(key: str) -> str:
    """Return the key when every store can hold it.

    Raises StoreError for one that is empty, starts or ends with `/`, or has `.`, `..`, an empty part or a NUL in it.
    """
    if "\0" in key or any(part in {"", ".", ".."} for part in key.split("/")):
        raise StoreError(f"key {key!r} leads outside the store or has an empty part; use a relative key without '..' and '//'")
    return key


def without_markers(entries: Iterator[Entry]) -> Iterator[Entry]:
    """Drop the empty objects that stand for a folder: `data/`, and `data` where `data/…` follows; the order is kept.

    `entries` come in the order of keys. Keys such as `data-2` sort between `data` and `data/…`, so an empty entry and
    what follows it are held back until it is known.
    """
    held: list[Entry] = []
    for entry in entries:
        if entry.key == "" or entry.key.endswith("/"):
            continue
        held = [h for h in held if not (h.size == 0 and entry.key.startswith(f"{h.key}/"))]
        held.append(entry)
        while held and (held[0].size > 0 or entry.key > f"{held[0].key}/"):
            yield held.pop(0)
    yield from held


def write_optimistically(attempt: Callable[[], Written], conflict: type[Exception], given_up: Exception) -> Written:
    """Call `attempt` until it raises no `conflict`; after MAX_ATTEMPTS, or MAX_SECONDS, raise `given_up`.

    Each attempt must read anew what its write depends on. The waits between attempts are random and grow up to 2 s, so that
    many writers spread out instead of meeting again. Other errors of `attempt` are raised at once.
    """
    retrying = Retrying(
        retry=retry_if_exception_type(conflict),
        stop=stop_after_attempt(MAX_ATTEMPTS) | stop_after_delay(MAX_SECONDS),
        wait=wait_random_exponential(multiplier=0.02, max=2),
    )
    try:
        return retrying(attempt)
    except RetryError as error:
        raise given_up from error.last_attempt.exception()
