"""tar archives, read from front to back and never unpacked to disk; webdataset's form included (see `members`)."""

import lzma
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from components.classifier.errors import DataError
from components.score.inputs.members import Members
from components.score.inputs.names import one_line
from components.score.inputs.records import Reading, Record

_BLOCK = 512


def is_tar(head: bytes, name: str) -> bool:
    """Say whether bytes begin with a tar header, by its magic or its checksum; zeros are an empty tar where the name says tar."""
    block = head[:_BLOCK]
    if len(block) < _BLOCK:
        return False
    if block[257:262] == b"ustar":
        return True
    if not block.strip(b"\0"):
        return name.lower().endswith((".tar", ".tgz", ".tar.gz"))
    try:
        return int(block[148:156].strip(b" \0"), 8) == sum(block[:148]) + 256 + sum(block[156:])
    except ValueError:
        return False


def count(_path: Path, _name: str, _reading: Reading) -> None:
    """Say that only reading tells how many pictures a tar holds."""


def read(path: Path, name: str, _reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures of a tar archive, compressed with gzip, bzip2 or xz or not.

    Raises DataError when it is cut, damaged, or followed by a second archive.
    """
    members = Members(name)
    try:
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all in memory
                if member.isdir() or member.name.endswith("/"):
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if file is None:
                    yield members.passed(member.name, "a link or a device, not a file")
                else:
                    yield from members.take(member.name, member.size, file)
            _check_end(tar, name)
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(f"{name} is a cut or damaged tar archive ({one_line(error)}); copy it again") from error
    yield from members.orphans()


def _check_end(tar: tarfile.TarFile, name: str) -> None:
    """Refuse what tarfile takes for the end in silence: a cut between two members, a damaged header, a second archive."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if not tar.fileobj.read(_BLOCK):
        raise DataError(f"{name} is cut: it has no end mark; copy it again")
    tar.fileobj.seek(tar.offset)
    while block := tar.fileobj.read(1 << 20):
        if block.strip(b"\0"):
            raise DataError(f"{name} is damaged, or several archives were joined: it goes on after its end; pack it again")
