"""Where the inputs lie: one file or a folder, on this machine or in a store; listed in one order everywhere.

The order is that of the names as text, code point by code point, `/` between folders: `10.png` comes before `2.png`.
"""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.classifier.errors import DataError
from components.score.inputs.names import display, is_hidden
from components.score.inputs.records import PassedOver
from components.storage import Entry, Store, open_store

GOLDEN = "golden"
"""The input that every model version brings along: its own golden pictures, for a first try."""


@dataclass(frozen=True, slots=True)  # there may be a million
class InputFile:
    """One file: its name below the input, its size in bytes, and a stamp that changes when its content does ("" unknown)."""

    name: str
    size: int
    stamp: str


@dataclass
class Listing:
    """All files in order, and what was passed over."""

    files: list[InputFile]
    passed_over: list[PassedOver]


class Place(ABC):
    """Where inputs lie. `single`: the input is one file, not a folder; `remote`: reading takes a way."""

    single: bool
    remote: bool

    @abstractmethod
    def listing(self) -> Listing:
        """List every file in order; hidden and system files are passed over."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return a file's bytes."""

    @abstractmethod
    def head(self, name: str, size: int) -> bytes:
        """Return a file's first bytes."""

    @abstractmethod
    def local(self, name: str) -> Path:
        """Return a path on this machine with the file's content; a remote file is copied on the first call."""


@contextmanager
def open_place(address: str, golden: Callable[[Path], Path]) -> Iterator[Place]:
    """Open an input: a file or a folder, `file://…`, `s3://bucket/…`, or `golden`.

    `golden` writes the model version's golden pictures into a folder and returns the file. Raises DataError when nothing is there.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-input-") as folder:
        scratch = Path(folder)
        path = Path(address.removeprefix("file://"))
        if "://" in address and not address.startswith("file://"):
            yield _open_remote(address, scratch)
        elif address == GOLDEN and not path.exists():
            yield LocalPlace(golden(scratch))
        else:
            yield LocalPlace(path)


class LocalPlace(Place):  # Place documents the methods
    """A file or a folder of this machine. Links are followed; one that leads back into its own folders ends there."""

    remote = False

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().absolute()
        if not self._path.exists():
            raise DataError(f"the input {path} does not exist; name a file, a folder or s3://bucket/prefix")
        if not (self._path.is_dir() or self._path.is_file()):
            raise DataError(f"the input {path} is neither a file nor a folder; name one of these")
        self.single = self._path.is_file()
        self._root = self._path.parent if self.single else self._path
        self._prefix = f"{self._root}/"  # joining Paths costs more than reading a small picture

    def listing(self) -> Listing:  # noqa: D102
        listing = Listing([], [])
        if self.single:
            listing.files.append(self._file(self._path.name))
            return listing
        try:
            self._walk("", (os.path.realpath(self._root),), listing)
        except OSError as error:
            raise DataError(f"{error.filename or self._path} cannot be listed ({error.strerror}); mend it and run again") from error
        listing.files.sort(key=lambda file: file.name)
        listing.passed_over.sort(key=lambda passed: passed.input)
        return listing

    def read(self, name: str) -> bytes:  # noqa: D102
        with open(self._prefix + name, "rb") as file:  # noqa: PTH123
            return file.read()

    def head(self, name: str, size: int) -> bytes:  # noqa: D102
        with (self._root / name).open("rb") as file:
            return file.read(size)

    def local(self, name: str) -> Path:  # noqa: D102
        return self._root / name

    def _walk(self, folder: str, above: tuple[str, ...], listing: Listing) -> None:
        with os.scandir(self._root / folder) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                if is_hidden(entry.name):
                    listing.passed_over.append(PassedOver(display(name), "hidden or a system file"))
                elif entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
                    if real in above:
                        listing.passed_over.append(PassedOver(display(name), "a link back into the folders above it"))
                    else:
                        self._walk(name, (*above, real), listing)
                elif entry.is_file():
                    listing.files.append(self._file(name))
                else:
                    reason = "a link that leads nowhere" if entry.is_symlink() else "not a regular file"
                    listing.passed_over.append(PassedOver(display(name), reason))

    def _file(self, name: str) -> InputFile:
        status = (self._root / name).stat()
        return InputFile(name, status.st_size, str(status.st_mtime_ns))


class StorePlace(Place):
    """An object of a store, or all objects below a prefix."""

    remote = True

    def __init__(self, store: Store, prefix: str, url: str, scratch: Path) -> None:
        """`prefix` is a key (one object) or a folder's (`x/`, or empty for the whole store)."""
        self._store, self._url, self._scratch = store, url, scratch
        first = next(store.list(prefix), None) if prefix else None  # an object sorts before all whose keys go on after its own
        self.single = first is not None and first.key == prefix
        folder = prefix.rpartition("/")[0] if self.single else prefix.rstrip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._only = first

    def listing(self) -> Listing:  # noqa: D102
        if self.single and self._only:
            return Listing([_input_file(self._only, self._only.key.removeprefix(self._prefix))], [])
        entries = list(self._store.list(self._prefix))
        if not entries:
            raise DataError(f"there is nothing under {self._url}; check the bucket and the prefix")
        folders = {str(parent) for entry in entries for parent in PurePosixPath(entry.key).parents}
        listing = Listing([], [])
        for entry in entries:
            name = entry.key.removeprefix(self._prefix)
            if entry.size == 0 and (entry.key.endswith("/") or entry.key in folders):
                continue  # a marker that some tools write for a folder
            if is_hidden(name):
                listing.passed_over.append(PassedOver(display(name), "hidden or a system file"))
            else:
                listing.files.append(_input_file(entry, name))
        listing.files.sort(key=lambda file: file.name)
        return listing

    def read(self, name: str) -> bytes:  # noqa: D102
        return self._store.read(self._prefix + name)

    def head(self, name: str, size: int) -> bytes:  # noqa: D102
        return next(self._store.chunks(self._prefix + name), b"")[:size]

    def local(self, name: str) -> Path:  # noqa: D102
        copy = self._scratch / f"{abs(hash(name)):x}"
        if not copy.exists():
            for other in self._scratch.iterdir():
                other.unlink()  # one copy at a time: the disk need only hold the largest file
            self._store.download(self._prefix + name, copy)
        return copy


def _input_file(entry: Entry, name: str) -> InputFile:
    return InputFile(name, entry.size, entry.stamp)


def _open_remote(url: str, scratch: Path) -> Place:
    scheme, _, rest = url.partition("://")
    root, _, prefix = rest.partition("/")
    return StorePlace(open_store(f"{scheme}://{root}"), prefix, url, scratch)
