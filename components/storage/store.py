"""The interface of a store, and how an address becomes one."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.classifier.errors import UsageError


@dataclass(frozen=True)
class Entry:
    """One object: its key below the store's root, and its size in bytes."""

    key: str
    size: int


class Store(ABC):
    """Objects under keys such as `models/digits/…/model.onnx`; keys use `/` and never start with it.

    `url` is the address that another process opens it with. Errors are components.classifier.errors.StoreError and below.
    """

    url: str

    @abstractmethod
    def read(self, key: str) -> bytes:
        """Return an object's bytes; raises ObjectNotFound."""

    @abstractmethod
    def create(self, key: str, data: bytes) -> None:
        """Write an object that must not be there yet; raises ObjectExists. Readers see all of it or nothing."""

    @abstractmethod
    def replace(self, key: str, data: bytes) -> None:
        """Write an object, in place of what may be there. Readers see the old or the new, never a part."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Say whether an object lies under exactly this key."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose key starts with `prefix`, in the order of keys."""

    @abstractmethod
    def names(self, prefix: str = "") -> Iterator[str]:
        """Yield the names directly below a folder `prefix` (which ends with `/` or is empty), in order, once each.

        Folders and objects alike, without a trailing slash.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; nothing happens when there is none."""

    @abstractmethod
    def upload(self, source: Path, key: str) -> None:
        """Copy a file of any size to a key that is written once, streaming."""

    @abstractmethod
    def download(self, key: str, destination: Path) -> None:
        """Copy an object of any size to a file, streaming; raises ObjectNotFound."""


def open_store(url: str) -> Store:
    """Open a store by its address: a plain path or `file://`, `memory://NAME`, `s3://bucket/prefix`.

    Raises UsageError for an address of another form.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        from components.storage.local import LocalStore

        return LocalStore(Path(rest if separator else url))
    raise UsageError(f"unknown store address {url!r}; use a directory, file://…, memory://… or s3://bucket/prefix")
