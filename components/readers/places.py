"""Where pictures lie: one file or a folder of this machine, an object or a prefix of a store."""

import io
import os
import stat
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from components.classifier.contents import refuse_stand_in
from components.classifier.errors import DataError, ImageError
from components.readers.cloud import PACKAGES, CloudObjects
from components.readers.listing import HIDDEN, Fault, Folder, Found, Listing, SourceFile, is_hidden, is_system, readable
from components.readers.records import PassedOver
from components.storage import Store, open_store
from components.storage.files import user_path

MAX_DEPTH = 40
"""Folders within folders: links that make a loop of new names end there."""
MAX_STAND_IN_BYTES = 2**20
READ_AHEAD = 4 * 2**20
"""Bytes of an object that are fetched at once where it is read by ranges."""


class InputSource:
    """Files in one place. `single`: it is one file, not a folder; `remote`: files are fetched over the network."""

    address: str
    single: bool
    remote: bool
    shared: bool = True
    """Whether other processes can call what `loader` returns."""

    def found(self) -> Iterator[Found]:
        """Yield all that is met, in any order; raises DataError when the source cannot be listed or is not there."""
        raise DataError(f"{self.address} is an archive, whose members are listed at once")

    def listing(self) -> Listing:
        """List every file in order; raises DataError when the source cannot be listed or holds one name twice."""
        return Listing.of(self.address, self.found())

    def read(self, key: str) -> bytes:
        """Return a file's bytes; raises OSError or StoreError, and DataError for the members of an archive, which `loader` reads."""
        raise DataError(f"{key} in {self.address} is not opened; unpack the archive and give the folder")

    def loader(self, file: SourceFile) -> Callable[[], bytes]:
        """Return what reads a file of the listing, in another process too where `shared`.

        That raises OSError, StoreError, or ImageError where an archive is damaged.
        """
        return partial(self.read, file.key)

    def head(self, file: SourceFile, size: int) -> bytes:
        """Return the first bytes of a file of the listing; raises as what `loader` returns does."""
        return self.loader(file)()[:size]

    def open(self, key: str, size: int) -> IO[bytes]:
        """Open a file of `size` bytes to be read in any order, a remote one by ranges; raises OSError, reading it StoreError too."""
        raise DataError(f"{key} in {self.address} is not opened; unpack the archive and give the folder")

    def local(self, key: str) -> Path:
        """Return a path on this machine with the file's content; a remote file is copied on the first call.

        Raises DataError for the members of an archive, in which other containers are not opened.
        """
        raise DataError(f"{key} in {self.address} is not opened; unpack the archive and give the folder")


@contextmanager
def open_source(address: str) -> Iterator[InputSource]:
    """Open a file or a folder, `file://…`, `s3://bucket/…`, or what cloud.py reads; copies of remote files are deleted afterwards.

    Raises DataError when nothing is there, UsageError for an address of another form, and what stores raise.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-input-") as folder:
        if "://" in address and not address.startswith("file://"):
            scheme, _, rest = address.partition("://")
            root, _, prefix = rest.partition("/")
            yield StoreSource(_open_objects(f"{scheme}://{root}"), prefix, address, Path(folder))
        else:
            yield LocalSource(local_path(address), address)


def _open_objects(address: str) -> Store | CloudObjects:
    return CloudObjects(address) if address.partition("://")[0] in PACKAGES else open_store(address)


def read_object(store: str, key: str) -> bytes:
    """Return the bytes of an object, through a store that stays open for the next; raises StoreError."""
    return _opened(store).read(key)


class _Objects:
    """A store to read from; in another process it is opened anew, once."""

    def __init__(self, address: str, store: Store | CloudObjects) -> None:
        self._address, self._store = address, store

    def __reduce__(self) -> tuple[Callable[[str], "_Objects"], tuple[str]]:
        return _opened, (self._address,)

    def read(self, key: str) -> bytes:
        return self._store.read(key)


@lru_cache(maxsize=16)
def _opened(address: str) -> _Objects:
    return _Objects(address, _open_objects(address))


def refuse_stand_ins(source: InputSource, files: Iterable[SourceFile]) -> None:
    """Raise DataError for the first file in whose place something small lies, such as a git-lfs pointer or an HTML page."""
    for file in files:
        if file.size > MAX_STAND_IN_BYTES:
            continue
        with suppress(ImageError):  # in a damaged archive: what reads the file says so
            refuse_stand_in(file.name, source.head(file, 1024))


def local_path(address: str) -> Path:
    """The path that an address without a scheme, or one with `file://`, stands for."""
    return user_path(unquote(address.removeprefix("file://")) if address.startswith("file://") else address)


class LocalSource(InputSource):
    """A file or a folder of this machine. Links are followed; one that leads back into the folders above it ends there."""

    remote = False

    def __init__(self, path: Path, address: str = "") -> None:
        """Raises DataError when there is neither a file nor a folder."""
        self._path, self.address = user_path(path).absolute(), address or str(path)
        try:
            status = self._path.stat()
        except OSError as error:
            missing = not os.path.lexists(self._path)
            reason = "does not exist; name a file, a folder or s3://bucket/prefix" if missing else f"cannot be opened ({error.strerror})"
            raise DataError(f"the input {path} {reason}") from error
        self.single = stat.S_ISREG(status.st_mode)
        if not (self.single or stat.S_ISDIR(status.st_mode)):
            raise DataError(f"the input {path} is neither a file nor a folder; name one of these")
        self._root = self._path.parent if self.single else self._path
        self._prefix = f"{self._root}/"  # joining Paths costs more than reading a small picture

    def found(self) -> Iterator[Found]:  # noqa: D102
        if self.single:
            yield _file(readable(self._path.name), self._path.name, self._path.stat())
        else:
            yield from self._walk("", (os.path.realpath(self._root),))

    def read(self, key: str) -> bytes:  # noqa: D102
        with open(self._prefix + key, "rb", buffering=0) as file:  # noqa: PTH123
            return file.read()

    def head(self, file: SourceFile, size: int) -> bytes:  # noqa: D102
        with (self._root / file.key).open("rb") as opened:
            return opened.read(size)

    def open(self, key: str, size: int) -> IO[bytes]:  # noqa: D102
        return (self._root / key).open("rb")

    def local(self, key: str) -> Path:  # noqa: D102
        return self._root / key

    def _walk(self, folder: str, above: tuple[str, ...]) -> Iterator[Found]:
        """Go through a folder entry by entry; the folders in it come after its files, so that few are open at a time."""
        inner: list[tuple[str, str]] = []
        with closing(self._entries(folder)) as entries:
            for entry in entries:
                key = folder + entry.name
                name = readable(key)
                if is_system(entry.name):
                    yield PassedOver(name, HIDDEN)
                elif entry.is_dir():
                    real = os.path.realpath(entry.path) if entry.is_symlink() else f"{above[-1]}/{entry.name}"
                    if real in above:
                        yield PassedOver(name, "a link back into the folders above it")
                        continue
                    if len(above) > MAX_DEPTH:
                        raise DataError(
                            f"folder {name} lies more than {MAX_DEPTH} folders deep, as a loop of links makes them; end the loop"
                        )
                    yield Folder(name)
                    inner.append((f"{key}/", real))
                else:
                    try:
                        yield _file(name, key, entry.stat())
                    except OSError as error:
                        reason = "a link that leads nowhere" if entry.is_symlink() else f"cannot be read ({error.strerror})"
                        yield Fault(name, reason)
        for key, real in inner:
            yield from self._walk(key, (*above, real))

    def _entries(self, folder: str) -> Generator["os.DirEntry[str]", None, None]:
        try:
            with os.scandir(self._prefix + folder) as entries:
                yield from entries
        except OSError as error:
            shown = readable(folder.rstrip("/") or str(self._root))
            raise DataError(f"folder {shown} cannot be opened ({error.strerror}); give read access to it") from error


def _file(name: str, key: str, status: os.stat_result) -> SourceFile | Fault:
    if not stat.S_ISREG(status.st_mode):
        return Fault(name, "neither a file nor a folder, but a device, pipe or socket")
    return SourceFile(name, status.st_size, str(status.st_mtime_ns), key)


class StoreSource(InputSource):
    """An object of a store, or all objects below a prefix. Folders exist only through their objects."""

    remote = True

    def __init__(self, store: Store | CloudObjects, prefix: str, url: str, scratch: Path) -> None:
        """`prefix` is a key (one object) or a folder's (`x/`, or empty for the whole store)."""
        self._store, self.address, self._scratch = store, url, scratch
        scheme, _, rest = url.partition("://")
        self._objects = _Objects(f"{scheme}://{rest.partition('/')[0]}", store)
        self.shared = scheme == "s3" or scheme in PACKAGES
        first = next(store.list(prefix), None) if prefix else None  # an object sorts before all whose keys go on after its own
        below = next(store.list(f"{prefix}/"), None) if first is not None and first.key == prefix else None
        self.single = first is not None and first.key == prefix and below is None
        folder = prefix.rpartition("/")[0] if self.single else prefix.rstrip("/")
        self._prefix = f"{folder}/" if folder else ""
        self._only = first if self.single else None

    def found(self) -> Iterator[Found]:  # noqa: D102
        is_empty = True
        for entry in [self._only] if self._only else self._store.list(self._prefix):
            is_empty = False
            key = entry.key.removeprefix(self._prefix)
            name = readable(key)
            parts = key.split("/")
            if not {".", ".."}.isdisjoint(parts) or not parts[0]:
                yield Fault(name, "its key begins with an empty part, or has '.' or '..' in it; rename the object")
            elif not self._only and is_hidden(name):
                yield PassedOver(name, HIDDEN)
            else:
                yield SourceFile(name, entry.size, entry.stamp, key)
        if is_empty:
            raise DataError(f"there is nothing under {self.address}; check bucket and prefix, in which upper and lower case differ")

    def read(self, key: str) -> bytes:  # noqa: D102
        return self._store.read(self._prefix + key)

    def loader(self, file: SourceFile) -> Callable[[], bytes]:  # noqa: D102
        return partial(self._objects.read, self._prefix + file.key)

    def head(self, file: SourceFile, size: int) -> bytes:  # noqa: D102
        return next(self._store.chunks(self._prefix + file.key), b"")[:size]

    def open(self, key: str, size: int) -> IO[bytes]:  # noqa: D102
        return io.BufferedReader(_Ranges(partial(self._store.span, self._prefix + key), size), READ_AHEAD)

    def local(self, key: str) -> Path:  # noqa: D102
        copy = self._scratch / f"{abs(hash(key)):x}"
        if not copy.exists():
            for other in self._scratch.iterdir():
                other.unlink()  # one copy at a time: the disk need only hold the largest file
            self._store.download(self._prefix + key, copy)
        return copy


class _Ranges(io.RawIOBase):
    """An object of a store as a file: every read asks for a range of its bytes."""

    def __init__(self, span: Callable[[int, int], bytes], size: int) -> None:
        self._span, self._size, self._at = span, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._span(self._at, max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
