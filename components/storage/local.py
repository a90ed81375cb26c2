"""A store in a directory: every write is a temporary file, fsync, then one atomic link or rename."""

import errno
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tenacity import retry, retry_if_exception, stop_after_attempt

from components.classifier.errors import ObjectExists, ObjectNotFound, StoreError, StoreUnsuitable
from components.storage.files import explain_os_errors, user_path
from components.storage.store import CHUNK, Entry, Progress, Store, check_key

_TEMPORARY = ".tmp"
_STALE_S = 24 * 3600
_NO_OBJECT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class LocalStore(Store):
    """Objects as files below a directory, which is made at the first write.

    What is being written lies in `.tmp` below the root until it is complete; what a killed process left there goes after a day.
    """

    def __init__(self, root: Path) -> None:
        self.root = user_path(root).absolute()
        self.url = str(self.root)
        self._swept = False

    def chunks(self, key: str) -> Iterator[bytes]:
        with self._reading(key) as path, path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                yield chunk

    def span(self, key: str, start: int, size: int) -> bytes:
        with self._reading(key) as path, path.open("rb", buffering=0) as file:
            return os.pread(file.fileno(), size, start)

    def create(self, key: str, data: bytes) -> None:
        self._write(key, lambda temporary: temporary.write_bytes(data), self._link)

    def replace(self, key: str, data: bytes) -> None:
        self._write(key, lambda temporary: temporary.write_bytes(data), os.replace)

    def exists(self, key: str) -> bool:
        with explain_os_errors(f"cannot look for {key!r} in {self.url}"):
            return self._path(key).is_file()

    def list(self, prefix: str = "") -> Iterator[Entry]:
        found = []
        with explain_os_errors(f"cannot list {prefix!r} in {self.url}"):
            for path in _files(self._folder(prefix), skip=self.root / _TEMPORARY):
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix):
                    with suppress(FileNotFoundError):  # deleted since its folder was listed
                        found.append(Entry(key, path.stat().st_size))
        yield from sorted(found, key=lambda entry: entry.key)

    def names(self, prefix: str = "") -> Iterator[str]:
        found = list[str]()
        with explain_os_errors(f"cannot list {prefix!r} in {self.url}"), suppress(FileNotFoundError, NotADirectoryError):
            found = [path.name for path in self._folder(prefix).iterdir() if prefix or path.name != _TEMPORARY]
        yield from sorted(found)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with explain_os_errors(f"cannot delete {key!r} from {self.url}"), suppress(*_NO_OBJECT):
            path.unlink()
        for folder in path.relative_to(self.root).parents[:-1]:
            try:
                (self.root / folder).rmdir()
            except OSError:  # other objects lie in it
                return

    def upload(self, source: Path, key: str, progress: Progress | None = None) -> None:
        self._write(key, lambda temporary: shutil.copyfile(source, temporary), os.replace)
        if progress:
            progress(source.stat().st_size)

    def copy(self, source: str, key: str) -> None:
        with self._reading(source) as path, path.open("rb"):
            self._write(key, lambda temporary: _link_or_copy(path, temporary), os.replace)

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _folder(self, prefix: str) -> Path:
        if self.root.exists() and not self.root.is_dir():
            raise StoreError(f"{self.url} is a file, not a store; name a directory or s3://bucket/prefix")
        folder = prefix.rpartition("/")[0]
        return self._path(folder) if folder else self.root

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with explain_os_errors(f"cannot read {key!r} from {self.url}"):
            try:
                yield path
            except _NO_OBJECT as error:
                raise ObjectNotFound(f"no object {key!r} in {self.url}") from error

    def _write(self, key: str, fill: Callable[[Path], object], put: Callable[[Path, Path], None]) -> None:
        path = self._path(key)
        with explain_os_errors(f"cannot write {key!r} to {self.url}"):
            temporary = self._temporary_folder() / uuid.uuid4().hex
            try:
                fill(temporary)
                _sync(temporary)
                _put(temporary, path, put)
                with suppress(FileNotFoundError):  # deleted again, folder and all
                    _sync(path.parent)
            finally:
                temporary.unlink(missing_ok=True)

    def _link(self, temporary: Path, path: Path) -> None:
        try:
            os.link(temporary, path)  # unlike rename, link fails when the name is taken
        except FileExistsError as error:
            raise ObjectExists(f"object {path.relative_to(self.root).as_posix()!r} is in {self.url} already") from error
        except OSError as error:
            if error.errno in _NO_LINKS:
                raise StoreUnsuitable(
                    f"the file system under {self.url} has no hard links ({error.strerror}), which create-only writes need; "
                    "use a store on another file system or on S3"
                ) from error
            raise

    def _temporary_folder(self) -> Path:
        folder = self.root / _TEMPORARY
        folder.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            for left in folder.iterdir():
                with suppress(FileNotFoundError):  # another writer finished with it
                    if left.stat().st_ctime < time.time() - _STALE_S:  # not mtime: what `copy` links is as old as its source
                        left.unlink()
        return folder


def _folder_vanished(error: BaseException) -> bool:
    """Say whether a write failed because a delete removed its folder, which was empty for a moment."""
    if not isinstance(error, FileExistsError):
        return isinstance(error, FileNotFoundError)
    try:  # mkdir found something under the folder's name, and then no folder
        return stat.S_ISDIR(Path(error.filename).stat().st_mode)
    except FileNotFoundError:
        return not Path(error.filename).is_symlink()


@retry(retry=retry_if_exception(_folder_vanished), stop=stop_after_attempt(1000), reraise=True)
def _put(temporary: Path, path: Path, put: Callable[[Path, Path], None]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    put(temporary, path)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)


def _files(folder: Path, skip: Path) -> Iterator[Path]:
    """Yield all files below a folder; a folder that cannot be read is an error, never an empty one."""

    def stop(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for parent, folders, files in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if Path(parent, name) != skip]
        yield from (Path(parent, name) for name in files)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
