"""tar and zip from front to back, for scoring: each picture is a record, in flat memory.

A member that is refused (members.py) becomes a dead letter with the reason, and the reading goes on. Of a tar that is cut the
pictures before the cut are followed by an unreadable one.

A zip and a tar that is not compressed can be divided: `index_archive` goes over the members once, without reading pictures, and notes
every ANCHOR_ROWS rows where the next member lies; `read_range` begins at such a place.
"""

import json
import tarfile
import zipfile
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, cast

from components.classifier.errors import CutArchiveError, DataError, ImageError
from components.readers import webdataset
from components.readers.listing import HIDDEN, INNER_ARCHIVE, MAX_FILE_BYTES, is_archive, is_hidden, is_record, looks_like_picture
from components.readers.members import Member, Policy, is_tar, judged, member_errors, open_plain_zip, opened_tar, tar_members
from components.readers.places import InputSource
from components.readers.records import Encoded, PassedOver, Reading, Record, Unreadable
from components.readers.zip_names import names_of

SPLIT_BYTES = 4 * 2**20
"""Smaller archives are not divided."""
ANCHOR_ROWS = 256

Opener = Callable[[], AbstractContextManager[IO[bytes]]]


@dataclass(frozen=True)
class ArchiveIndex:
    """An archive's number of rows, and what a reader must know that begins in the middle of it."""

    rows: int
    anchors: list[tuple[int, int, int]]
    """Every ANCHOR_ROWS rows: the row, how many members lie before it, and the byte of a tar at which the next one begins."""
    twice: list[int]
    """Members, counted from 1, whose names come before already."""
    passed_over: list[PassedOver]
    """Labels without a picture."""

    def place(self, start: int, stop: int) -> str:
        """Return where the rows from `start` to before `stop` lie, as text for `read_range`."""
        anchor = self.anchors[bisect_right(self.anchors, start, key=lambda anchor: anchor[0]) - 1]
        following = bisect_left(self.anchors, stop, key=lambda anchor: anchor[0])
        end = self.anchors[following][1] if following < len(self.anchors) and stop < self.rows else None
        first = bisect_right(self.twice, anchor[1])
        twice = self.twice[first : None if end is None else bisect_right(self.twice, end)]
        return json.dumps([*anchor, twice, stop == self.rows])


def index_archive(source: InputSource, key: str, size: int, name: str, kind: str, reading: Reading) -> ArchiveIndex | None:
    """Look through a large zip or tar; None for one that is read from front to back: a compressed or damaged one, one without pictures.

    Raises DataError for a zip without its directory, and StoreError.
    """
    if kind not in {"tar", "zip"} or size < SPLIT_BYTES:
        return None
    rows, policy, anchors = _Rows(name), Policy(name, size), [(0, 0, 0)]
    if kind == "zip":
        _directory(source, key, size, name, reading.names)
    try:
        with _members(source, key, size, name, kind, reading, policy) as members:
            for member, opener, following in members:
                for _ in rows.take(member, opener, data=False):
                    pass
                if rows.number - anchors[-1][0] >= ANCHOR_ROWS:
                    anchors.append((rows.number, policy.count, following()))
    except (DataError, _NotDivisible):
        return None  # scoring says what is wrong, after the rows that lie before it
    passed_over = [record for record in rows.orphans() if isinstance(record, PassedOver)]
    return ArchiveIndex(rows.number, anchors, sorted(policy.twice), passed_over) if rows.number else None


def read_range(
    source: InputSource, key: str, size: int, name: str, kind: str, reading: Reading, start: int, stop: int, place: str
) -> Iterator[Record]:
    """Yield the rows from `start` to before `stop` of an archive that was indexed, with what is passed over before each of them.

    `place` is what `ArchiveIndex.place` says of these rows. Raises DataError when the archive is not the one that was indexed.
    """
    row, before, offset, twice, is_last = json.loads(place)
    rows, policy = _Rows(name, row), Policy(name, size, before, twice)
    with _members(source, key, size, name, kind, reading, policy, offset) as members:
        for member, opener, _ in members:
            wanted = rows.number >= start
            for record in rows.take(member, opener, data=wanted):
                if wanted:
                    yield record
            if not is_last and rows.number >= stop:
                policy.partial = True
                return


class _NotDivisible(Exception):
    """Raised for a tar that only makes sense from its beginning."""


@contextmanager
def _members(
    source: InputSource, key: str, size: int, name: str, kind: str, reading: Reading, policy: Policy, offset: int = 0
) -> Iterator[Iterator[tuple[Member, Opener, Callable[[], int]]]]:
    """The members behind those that the policy has counted: each, what opens it, and what tells where the next one begins."""
    if kind == "zip":
        archive, named = _directory(source, key, size, name, reading.names)
        found = judged(named[policy.count :], policy, reading.names)
        yield ((member, partial(_open_member, archive, info), lambda: 0) for info, member in found)
        return
    with source.open(key, size) as file:
        head = file.read(tarfile.BLOCKSIZE)
        if not is_tar(head, name):
            raise _NotDivisible
        file.seek(offset)
        with opened_tar(None, name, policy, reading.names, file) as tar:
            yield ((member, partial(_tar_content, tar, info), partial(_next_offset, tar)) for info, member in tar_members(tar, policy))


def _next_offset(tar: tarfile.TarFile) -> int:
    if tar.pax_headers:
        raise _NotDivisible  # they hold for all members that follow
    return int(tar.offset)


@lru_cache(maxsize=1)
def _directory(
    source: InputSource, key: str, size: int, name: str, names: str
) -> tuple[zipfile.ZipFile, list[tuple[zipfile.ZipInfo, str | None, bytes]]]:
    """A zip that stays open for the next range of its rows."""
    archive = open_plain_zip(source.open(key, size), name)
    return archive, list(names_of(archive.infolist(), names))


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
        for info, member in judged(names_of(archive.infolist(), reading.names), policy, reading.names):
            yield from rows.take(member, partial(_open_member, archive, info))
    yield from rows.orphans()


class _Rows:
    """Turns the members of one archive into records, in their order: each picture is one, named `ARCHIVE/MEMBER`.

    In webdataset's form the members of a sample need not lie side by side. Labels take no part in scoring, but one without a
    picture is reported.
    """

    def __init__(self, archive: str, number: int = 0) -> None:
        """`number`: rows before the first member that comes."""
        self._archive = archive
        self.number = number
        self._last = ""
        self._pictures: set[str] = set()
        self._beside: dict[str, str] = {}

    def take(self, member: Member, open_member: Opener, data: bool = True) -> Iterator[Record]:
        """Yield what becomes of one member: a picture (empty without `data`), a dead letter, something passed over, or nothing yet."""
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
                record = self._read(member, open_member) if data or not is_record(member.name, b"") else self._unread(member)
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

    def _unread(self, member: Member) -> Record:
        self._pictures.add(webdataset.sample(member.name))
        return Encoded(self._name(member.name), self._number(), bytes)

    def _read(self, member: Member, open_member: Opener) -> Record | None:
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
        self.number += 1
        return self.number - 1

    def _name(self, member: str) -> str:
        return f"{self._archive}/{member}"


@contextmanager
def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
    with member_errors(), archive.open(info) as file:
        yield file


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile(info))  # links and devices have none, and are refused before
