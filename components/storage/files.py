"""Files on this machine: written whole or not at all, and errors that say what to do."""

import errno
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.classifier.errors import AccessDenied, StoreError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free space or choose another place",
    errno.EROFS: "the file system is read-only; mount it writable or choose another place",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter path",
    errno.ENOTDIR: "a part of the path is a file, not a directory; choose another place",
    errno.EEXIST: "a part of the path is a file, not a directory; choose another place",
    errno.EISDIR: "a directory lies where a file should; choose another place",
    errno.EIO: "the disk reports an input/output error; check it, then try again",
}


@contextmanager
def told(action: str) -> Iterator[None]:
    """Turn an OSError into a StoreError that says what was being done and what helps; AccessDenied where a right is missing."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise AccessDenied(f"{action}: permission denied for user {os.getuid()}; give it the right or choose another place") from error
        remedy = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}; check the path and try again")
        raise StoreError(f"{action}: {remedy}") from error


def write_file(destination: Path, chunks: Iterable[bytes]) -> None:
    """Write pieces to a file under a temporary name beside it, then rename; on failure nothing is left behind."""
    temporary = destination.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        with told(f"cannot write {destination}"):
            destination.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)
