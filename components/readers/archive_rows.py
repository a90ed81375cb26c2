"""tar and zip from front to back, for scoring: each picture is a record, in flat memory.

A member that is refused (members.py) becomes a dead letter with the reason, and the reading goes on. Of a tar that is cut the
pictures before the cut are followed by an unreadable one.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import IO, cast

from components.classifier.errors import CutArchiveError, ImageError
from components.readers import webdataset
from components.readers.listing import HIDDEN, INNER_ARCHIVE, MAX_FILE_BYTES, is_archive, is_hidden, is_record, looks_like_picture
from components.readers.members import Member, Policy, member_errors, open_plain_zip, opened_tar, tar_members, zip_members
from components.readers.records import Encoded, PassedOver, Reading, Record, Unreadable


def read_tar(path: Path, name: str, reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures of a tar archive, compressed with gzip, bzip2 or xz or not, streaming.

    Of one that is cut, the pictures before the cut are followed by an unreadable one. Raises DataError when it is damaged, or followed
    by a second archive, UnsafeArchiveError beyond the limits.
    """
    rows, policy = _Rows(name), Policy(name, path.stat().st_size)
    try:
        with opened_tar(path, name, policy, reading.names) as tar:
            for info, member in tar_members(tar, policy):
                yield from rows.take(member, partial(_tar_content, tar, info))
    except CutArchiveError as error:
        yield rows.cut(error)
    yield from rows.orphans()


def count_zip(path: Path, name: str, _reading: Reading) -> None:
    """Refuse a zip that is cut, with DataError; how many pictures it holds, only reading tells."""
    open_plain_zip(path, name).close()


def read_zip(path: Path, name: str, reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures in the order of the archive's directory; a damaged member is Unreadable, in its place.

    Raises DataError when the archive is cut, UnsafeArchiveError beyond the limits.
    """
    rows, policy = _Rows(name), Policy(name, path.stat().st_size)
    with open_plain_zip(path, name) as archive:
        for info, member in zip_members(archive, policy, reading.names):
            yield from rows.take(member, partial(_open_member, archive, info))
    yield from rows.orphans()


class _Rows:
    """Turns the members of one archive into records, in their order: each picture is one, named `ARCHIVE/MEMBER`.

    In webdataset's form the members of a sample need not lie side by side. Labels take no part in scoring, but one without a
    picture is reported.
    """

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._next = 0
        self._last = ""
        self._pictures: set[str] = set()
        self._beside: dict[str, str] = {}

    def take(self, member: Member, open_member: Callable[[], AbstractContextManager[IO[bytes]]]) -> Iterator[Record]:
        """Yield what becomes of one member: a picture, a dead letter, something passed over, or nothing yet."""
        if member.problem:
            reason = f"the archive holds {member.problem}"
            yield self._unreadable(member, reason) if looks_like_picture(member.name) else self._passed(member.name, reason)
        elif member.is_folder:
            return
        elif is_hidden(member.name):
            yield self._passed(member.name, HIDDEN)
        elif is_archive(member.name):
            yield self._unreadable(member, INNER_ARCHIVE)
        else:
            try:
                record = self._read(member, open_member)
            except ImageError as error:
                record = self._unreadable(member, str(error))
            if record:
                yield record

    def cut(self, error: CutArchiveError) -> Unreadable:
        """The place where the archive is cut: the picture that it cuts, or the archive itself."""
        whole = error.member in {"", self._last}
        return Unreadable(self._archive if whole else self._name(error.member), self._number(), str(error))

    def orphans(self) -> Iterator[Record]:
        """Yield what belongs to no picture, once the whole archive was seen."""
        for sample, member in self._beside.items():
            if sample not in self._pictures:
                yield self._passed(member, "no picture of that name is in the archive")

    def _read(self, member: Member, open_member: Callable[[], AbstractContextManager[IO[bytes]]]) -> Record | None:
        with open_member() as file:
            start, sample = file.read(16), webdataset.sample(member.name)
            if not is_record(member.name, start):
                self._beside.setdefault(sample, member.name)
                return None
            self._pictures.add(sample)
            if member.size > MAX_FILE_BYTES:
                return self._unreadable(member, f"the file has {member.size} bytes, more than the limit of {MAX_FILE_BYTES}")
            data = start + file.read(MAX_FILE_BYTES)
        self._last = member.name
        return Encoded(self._name(member.name), self._number(), partial(bytes, data), len(data))

    def _passed(self, name: str, reason: str) -> PassedOver:
        return PassedOver(self._name(name), reason)

    def _unreadable(self, member: Member, reason: str) -> Unreadable:
        return Unreadable(self._name(member.name), self._number(), reason)

    def _number(self) -> int:
        self._next += 1
        return self._next - 1

    def _name(self, member: str) -> str:
        return f"{self._archive}/{member}"


@contextmanager
def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with member_errors(), archive.open(info) as file:
        yield file


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile(info))  # links and devices have none, and are refused before
