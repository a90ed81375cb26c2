"""Files on this machine: written whole or not at all, and errors that say what to do."""

import errno
import glob
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from components.classifier.errors import AccessDenied, DiskError, StoreError, UsageError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free space or choose another place",
    errno.EDQUOT: "the disk quota is used up; free space or choose another place",
    errno.EFBIG: "the file is larger than this process or file system allows; raise the limit or choose another place",
    errno.EROFS: "the file system is read-only; mount it writable or choose another place",
    errno.ENAMETOOLONG: "the name is too long for this file system; choose a shorter path",
    errno.ENOTDIR: "a part of the path is a file, not a directory; choose another place",
    errno.EEXIST: "a part of the path is a file, not a directory; choose another place",
    errno.ENOTEMPTY: "another process wrote there meanwhile; choose another place",
    errno.EISDIR: "a directory lies where a file should; choose another place",
    errno.EIO: "the disk reports an input/output error; check it, then try again",
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What only writing can end with."""


def user_path(text: str | Path) -> Path:
    """Return the path that a person writes, `~` being the home folder; it stays where there is no such user."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        return Path(text)


@contextmanager
def explain_os_errors(action: str, kind: type[StoreError] = StoreError) -> Iterator[None]:
    """Turn an OSError into a StoreError, or `kind`, that says what was being done and what helps; AccessDenied where a right is missing."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.EACCES, errno.EPERM}:
            raise AccessDenied(f"{action}: permission denied for user {os.getuid()}; give it the right or choose another place") from error
        remedy = _REMEDIES.get(error.errno or 0, f"{error.strerror or error}; check the path and try again")
        raise kind(f"{action}: {remedy}") from error


def write_file(destination: Path, chunks: Iterable[bytes]) -> None:
    """Write pieces to a file under a temporary name beside it, then rename; on failure nothing is left behind.

    Makes the folder where it is missing. A file that is there keeps its mode, and a link leads to it still. Raises DiskError where the
    disk does not let it.
    """
    target = Path(os.path.realpath(destination))
    temporary = target.parent / f".tmp-{uuid.uuid4().hex}"
    try:
        with explain_os_errors(f"cannot write {destination}", DiskError):
            target.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                _keep_mode(temporary, target)
                for chunk in chunks:
                    file.write(chunk)
            temporary.replace(target)
    finally:
        with suppress(OSError):  # renamed, or never made; an error on the way is the one to tell
            temporary.unlink()


def _keep_mode(temporary: Path, target: Path) -> None:
    with suppress(FileNotFoundError):  # nothing is replaced
        mode = stat.S_IMODE(target.stat().st_mode)
        if mode != stat.S_IMODE(temporary.stat().st_mode):  # some file systems refuse chmod, and have one mode only
            temporary.chmod(mode)


@contextmanager
def atomic_directory(destination: Path, *, replace: bool = False) -> Iterator[Path]:
    """Give a new folder beside `destination` that takes its name when the block ends well, and is removed otherwise.

    `destination` must be absent or empty by then, or with `replace` a single writer's: what lay there before goes only at the
    end, and folders that the writer left when it was killed are removed. Raises DiskError where the disk does not let it.
    """
    prefix = f".{destination.name}.unfinished-"
    with explain_os_errors(f"cannot write to {destination.parent}", DiskError):
        destination.parent.mkdir(parents=True, exist_ok=True)
        for left in destination.parent.glob(f"{glob.escape(prefix)}*") if replace else ():
            shutil.rmtree(left, ignore_errors=True)
        working = Path(tempfile.mkdtemp(prefix=prefix, dir=destination.parent))
    try:
        with _full_disks_explained(destination):
            yield working
        with explain_os_errors(f"cannot write {destination}", DiskError):
            _let_others_read(working)
            if replace and destination.exists():
                shutil.rmtree(destination)
            working.replace(destination)
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextmanager
def _full_disks_explained(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        with explain_os_errors(f"cannot write {destination}", DiskError):
            raise


@contextmanager
def new_directory(destination: Path) -> Iterator[Path]:
    """Like `atomic_directory`; raises UsageError, before anything is done, when `destination` is there and not empty."""
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise UsageError(f"{destination} exists already; name a new folder, so that nothing is overwritten")
    with atomic_directory(destination) as folder:
        yield folder


def _let_others_read(folder: Path) -> None:
    # Temporary folders and safetensors' files are private; the next step may run as another user.
    folder.chmod(0o755)
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o644)
