"""Pictures in Google's and Azure's object stores, read by fsspec where its package for them is installed; nothing is written there.

Credentials and endpoints are those of gcsfs and adlfs: Google's application default credentials, `AZURE_STORAGE_ACCOUNT_NAME`,
`AZURE_STORAGE_CONNECTION_STRING` and their kin.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.classifier.errors import AccessDenied, ObjectNotFound, PenstockError, StoreUnavailable, UsageError, one_line
from components.storage import Entry
from components.storage.store import without_markers

PACKAGES = {"gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs"}
"""The package that fsspec needs for each scheme."""
_PIECE = 2**20


class CloudObjects:
    """All objects of one bucket or container, by their keys."""

    def __init__(self, address: str) -> None:
        """`address` is the bucket's, such as gs://bucket; raises UsageError where fsspec or its package for the scheme is missing."""
        self.address = address
        scheme = address.partition("://")[0]
        try:
            from fsspec.core import url_to_fs

            with self._explained():
                self._files, root = url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            package = PACKAGES[scheme]
            lacks = getattr(error.__cause__ or error, "name", None) or package  # fsspec names its package whichever module is missing
            raise UsageError(f"{address} is read by {package}, and {lacks} is missing; pip install {package}, or use s3://") from error
        self._root = root.strip("/")

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield the object `prefix`, and all objects below the folder `prefix`, in the order of keys.

        Raises AccessDenied and StoreUnavailable.
        """
        folder = self._path(prefix).rstrip("/")
        with self._explained():
            try:
                listed = self._files.find(folder, detail=True)
            except FileNotFoundError:
                return
            found = listed if isinstance(listed, dict) else {path: self._files.info(path) for path in listed}  # adlfs, of one object
        entries = (
            Entry(path.strip("/").removeprefix(f"{self._root}/"), int(info.get("size") or 0), _stamp(info)) for path, info in found.items()
        )
        wanted = (entry for entry in entries if entry.key == prefix or not prefix or entry.key.startswith(f"{prefix.rstrip('/')}/"))
        yield from without_markers(iter(sorted(wanted, key=lambda entry: entry.key)))

    def read(self, key: str) -> bytes:
        """Return an object's bytes; raises ObjectNotFound, AccessDenied and StoreUnavailable."""
        with self._explained(key):
            return bytes(self._files.cat_file(self._path(key)))

    def span(self, key: str, start: int, size: int) -> bytes:
        """Return `size` bytes of an object from byte `start` on; raises as `read` does."""
        with self._explained(key):
            return bytes(self._files.cat_file(self._path(key), start=start, end=start + size))

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in pieces; raises as `read` does."""
        with self._explained(key), self._files.open(self._path(key), "rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    def download(self, key: str, destination: Path) -> None:
        """Copy an object to a file; raises as `read` does."""
        with self._explained(key):
            self._files.get_file(self._path(key), str(destination))

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}" if key else self._root

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """Turn what the packages raise, which have no common base, into our errors."""
        try:
            yield
        except (PenstockError, ImportError):
            raise
        except FileNotFoundError as error:
            if not key:
                raise
            raise ObjectNotFound(f"no object {key!r} in {self.address}") from error
        except PermissionError as error:
            raise AccessDenied(f"{self.address} may not be read ({one_line(error)}); check the credentials") from error
        except Exception as error:
            raise StoreUnavailable(f"{self.address} cannot be read ({one_line(error)}); check address, credentials and network") from error


def _stamp(info: dict[str, Any]) -> str:
    """What changes with an object's content: its ETag, else its time."""
    found = info.get("etag") or info.get("mtime") or info.get("updated") or info.get("last_modified") or info.get("created")
    return str(found or "")
