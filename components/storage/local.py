"""A store in a directory: every write is a temporary file, fsync, then one atomic link or rename."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.classifier.errors import ObjectExists, ObjectNotFound, StoreError
from components.storage.store import Entry, Store


class LocalStore(Store):
    """Objects as files below a directory, which is made at the first write."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self.url = str(self.root)

    def read(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectNotFound(f"no object {key!r} in {self.url}") from error

    def create(self, key: str, data: bytes) -> None:
        temporary = self._temporary(key, data)
        try:
            os.link(temporary, self._path(key))  # unlike rename, link fails when the name is taken
        except FileExistsError as error:
            raise ObjectExists(f"object {key!r} is in {self.url} already") from error
        finally:
            temporary.unlink(missing_ok=True)

    def replace(self, key: str, data: bytes) -> None:
        os.replace(self._temporary(key, data), self._path(key))

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def list(self, prefix: str = "") -> Iterator[Entry]:
        found = []
        for folder, _, files in os.walk(self.root):
            for name in files:
                path = Path(folder, name)
                key = path.relative_to(self.root).as_posix()
                if key.startswith(prefix) and not name.startswith(".tmp-"):
                    found.append(Entry(key, path.stat().st_size))
        yield from sorted(found, key=lambda entry: entry.key)

    def names(self, prefix: str = "") -> Iterator[str]:
        folder = self._path(prefix) if prefix else self.root
        if folder.is_dir():
            yield from sorted(name for name in os.listdir(folder) if not name.startswith(".tmp-"))

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def upload(self, source: Path, key: str) -> None:
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".tmp-{os.getpid()}-{path.name}"
        shutil.copyfile(source, temporary)
        os.replace(temporary, path)

    def download(self, key: str, destination: Path) -> None:
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(self._path(key), destination)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectNotFound(f"no object {key!r} in {self.url}") from error

    def _path(self, key: str) -> Path:
        if key.startswith("/") or ".." in key.split("/"):
            raise StoreError(f"key {key!r} leads outside the store; use a relative key without '..'")
        return self.root / key

    def _temporary(self, key: str, data: bytes) -> Path:
        parent = self._path(key).parent
        parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=".tmp-", dir=parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return Path(name)
