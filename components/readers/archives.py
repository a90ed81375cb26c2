"""tar and zip: one policy for their members, read from front to back (scoring) or in any order (training).

Nothing is unpacked into folders. A compressed tar that is read in any order is first unpacked into one temporary tar. A member
that could do harm or mean two things is refused by name (see the table of `components.readers`): training refuses the archive,
scoring gives the member a dead letter with the same words and goes on. An archive beyond the limits is refused as a whole. Of a
tar that is cut the members before the cut are kept, and the cut is one unreadable picture.
"""

import bz2
import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, cast

from components.classifier.errors import CutArchiveError, DataError, ImageError, UnsafeArchiveError
from components.readers import webdataset
from components.readers.listing import (
    HIDDEN,
    MAX_FILE_BYTES,
    Listing,
    SourceFile,
    counted,
    is_hidden,
    is_record,
    looks_like_picture,
    one_line,
    readable,
    some,
    suffix,
)
from components.readers.places import InputSource
from components.readers.records import Encoded, PassedOver, Reading, Record, Unreadable
from components.readers.zip_names import names_of, readings

MAX_MEMBERS = 2_000_000
MAX_UNPACKED_BYTES = 128 * 2**30
MAX_RATIO, RATIO_FROM_BYTES = 200, 64 * 2**20
"""How much larger than the archive its content may be, once it is larger than RATIO_FROM_BYTES."""
ARCHIVE_SUFFIXES = frozenset([".tar", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".tbz2", ".txz", ".zst"])

_COPY_BYTES = 2**20
_SLASHES = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")
_OPENERS: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_PLAIN_ONLY = "make it again with plain files and folders only"


@dataclass(frozen=True)
class Member:
    """One member: its tidied name, its size in bytes unpacked, and what is wrong with it ("": nothing)."""

    name: str
    size: int
    is_folder: bool = False
    problem: str = ""


class _Policy:
    """Checks members as they come, and holds the archive to its limits."""

    def __init__(self, address: str, packed: int) -> None:
        self.count, self.last = 0, ""
        self._address, self._packed, self._unpacked = address, packed, 0
        self._names: set[str] = set()

    def member(self, raw: str, size: int, *, is_folder: bool, kind: str = "", remedy: str = _PLAIN_ONLY, separators: str = "/") -> Member:
        """Judge one member; `kind` says what it is where it is neither a file nor a folder.

        Raises UnsafeArchiveError when the archive goes beyond its limits.
        """
        self.count += 1
        self._unpacked += size
        check_limits(self._address, self._packed, self._unpacked, self.count)
        parts = raw.split("/") if separators == "/" else _SLASHES.split(raw)
        self.last = name = readable("/".join(part for part in parts if part not in {"", "."}))
        outside = (".." in raw and ".." in _SLASHES.split(raw)) or not parts[0] or _DRIVE.match(parts[0]) or raw.startswith("\\")
        if outside or not (name or is_folder):
            kind, remedy = "a name that leads outside", "make it with relative names"
        elif not kind and not is_folder and not is_hidden(name) and name in self._names:
            kind, remedy = "a name twice", "remove or rename one of the two"
        if kind:
            return Member(readable(raw), size, False, f"{kind}: {readable(raw)!r}; {remedy}")
        if not is_folder:
            self._names.add(name)
        return Member(name, size, is_folder)


def check_limits(address: str, packed: int, unpacked: int, count: int) -> None:
    """Raise UnsafeArchiveError for too many members, or for content too large, by itself or against the archive's size."""
    if count > MAX_MEMBERS:
        raise UnsafeArchiveError(f"archive {address} holds more than {MAX_MEMBERS} members; give it in parts, or unpack it")
    if unpacked > MAX_UNPACKED_BYTES:
        raise UnsafeArchiveError(f"archive {address} unpacks to more than {MAX_UNPACKED_BYTES / 2**30:.0f} GiB; unpack it yourself")
    if unpacked > RATIO_FROM_BYTES and unpacked > MAX_RATIO * packed:
        raise UnsafeArchiveError(
            f"archive {address} unpacks to more than {MAX_RATIO} times its size of {packed} bytes, which pictures never do; "
            "if it is what you want, unpack it yourself and give the folder"
        )


class ArchiveSource(InputSource):
    """The files of an archive on this machine, read in any order and by several threads."""

    single = remote = False

    def __init__(self, path: Path, address: str, workspace: Path, names: str = "") -> None:
        """`address` names the archive in messages; `workspace` takes an unpacked tar; `names`: see `IngestSettings`.

        Raises UnsafeArchiveError for an archive beyond the limits, and DataError for one that is cut or damaged.
        """
        self.address, self._names = address, names
        with path.open("rb") as file:
            self._zip = _open_plain_zip(path, address) if file.read(2) == b"PK" else None
        self.shared = self._zip is None  # each process would have to read all of a zip's directory
        self._path, self._cut = (path, False) if self._zip else _uncompressed(path, address, workspace)
        self._file = self._path.open("rb")
        self._members: dict[str, tuple[int, int] | zipfile.ZipInfo] = {}

    def close(self) -> None:
        """End reading."""
        self._file.close()
        if self._zip:
            self._zip.close()

    def listing(self) -> Listing:
        """List every member in the order of names; raises UnsafeArchiveError naming the first that is refused.

        Of a tar that is cut the members before the cut are listed, and the cut is a fault.
        """
        listing = Listing(self.address)
        size = os.fstat(self._file.fileno()).st_size
        policy = _Policy(self.address, size)
        if self._zip:
            for info, member in _zip_members(self._zip, policy, self._names):
                self._note(member, info, listing)
        else:
            try:
                with _opened_tar(self._path, self.address, policy, self._names, self._file) as tar:
                    for entry, member in _tar_members(tar, policy):
                        if member.problem or entry.offset_data + entry.size <= size:
                            self._note(member, (entry.offset_data, entry.size), listing)
                    if self._cut:
                        raise _cut(self.address, policy)
            except CutArchiveError as error:
                whole = not error.member or error.member in self._members  # only the padding behind its last byte may be lost
                listing.faults.append(PassedOver(self.address if whole else error.member, str(error)))
        inner = [file.name for file in listing.files if suffix(file.name) in ARCHIVE_SUFFIXES]
        if inner:
            listing.notes.append(f"{len(inner)} archives within the archive are not opened: {some(inner)}")
        return listing.finish()

    def read(self, key: str) -> bytes:
        """Return a member's bytes; raises ImageError where the archive is damaged."""
        place = self._members[key]
        if self._zip and isinstance(place, zipfile.ZipInfo):
            with _member_errors():
                return self._zip.read(place)
        assert isinstance(place, tuple)
        return _read_span(self._path, *place)

    def loader(self, key: str) -> Callable[[], bytes]:  # noqa: D102
        place = self._members[key]
        return partial(_read_span, self._path, *place) if isinstance(place, tuple) else super().loader(key)

    def _note(self, member: Member, place: tuple[int, int] | zipfile.ZipInfo, listing: Listing) -> None:
        if member.problem:
            raise UnsafeArchiveError(f"archive {self.address} holds {member.problem}")
        if member.is_folder:
            if member.name and not is_hidden(member.name):
                listing.folders.add(member.name)
        elif is_hidden(member.name):
            listing.hide(member.name)
        else:
            self._members[member.name] = place
            listing.files.append(SourceFile(member.name, member.size, "", member.name))


class ArchiveSet(InputSource):
    """The files of several archives, such as the shards of a webdataset; each is named `ARCHIVE/MEMBER`."""

    single = remote = False

    def __init__(self, address: str, archives: dict[str, ArchiveSource]) -> None:
        self.address, self._archives = address, archives
        self.shared = all(archive.shared for archive in archives.values())

    def listing(self) -> Listing:
        """List the members of all archives; raises UnsafeArchiveError naming the first that is refused."""
        joined = Listing(self.address)
        for name, archive in self._archives.items():
            found = archive.listing()
            joined.files += [SourceFile(f"{name}/{file.name}", file.size, "", f"{name}/{file.name}") for file in found.files]
            joined.folders |= {f"{name}/{folder}" for folder in found.folders}
            joined.passed_over += [PassedOver(f"{name}/{p.input}", p.reason) for p in found.passed_over]
            joined.faults += [PassedOver(name if p.input == name else f"{name}/{p.input}", p.reason) for p in found.faults]
            joined.notes += found.notes
        return joined.finish()

    def read(self, key: str) -> bytes:
        """Return a member's bytes; raises ImageError where its archive is damaged."""
        return self.loader(key)()

    def loader(self, key: str) -> Callable[[], bytes]:  # noqa: D102
        name = next(name for name in self._archives if key.startswith(f"{name}/"))
        return self._archives[name].loader(key.removeprefix(f"{name}/"))


def _read_span(path: Path, start: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, start)
    if len(data) < size:
        raise ImageError("the archive ends within this member")
    return data


def is_tar(head: bytes, name: str) -> bool:
    """Say whether bytes begin with a tar header, by its magic or its checksum; zeros are an empty tar where the name says tar."""
    block = head[: tarfile.BLOCKSIZE]
    if len(block) < tarfile.BLOCKSIZE:
        return False
    if block[257:262] == b"ustar":
        return True
    if not block.strip(b"\0"):
        return name.lower().endswith((".tar", ".tgz", ".tar.gz"))
    try:
        return int(block[148:156].strip(b" \0"), 8) == sum(block[:148]) + 256 + sum(block[156:])
    except ValueError:
        return False


def read_tar(path: Path, name: str, reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures of a tar archive, compressed with gzip, bzip2 or xz or not, streaming.

    Of one that is cut, the pictures before the cut are followed by an unreadable one. Raises DataError when it is damaged, or followed
    by a second archive, UnsafeArchiveError beyond the limits.
    """
    rows, policy = _Rows(name), _Policy(name, path.stat().st_size)
    try:
        with _opened_tar(path, name, policy, reading.names) as tar:
            for info, member in _tar_members(tar, policy):
                yield from rows.take(member, partial(_tar_content, tar, info))
    except CutArchiveError as error:
        yield rows.cut(error)
    yield from rows.orphans()


def count_zip(path: Path, name: str, _reading: Reading) -> None:
    """Refuse a zip that is cut, with DataError; how many pictures it holds, only reading tells."""
    _open_plain_zip(path, name).close()


def read_zip(path: Path, name: str, reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures in the order of the archive's directory; a damaged member is Unreadable, in its place.

    Raises DataError when the archive is cut, UnsafeArchiveError beyond the limits.
    """
    rows, policy = _Rows(name), _Policy(name, path.stat().st_size)
    with _open_plain_zip(path, name) as archive:
        for info, member in _zip_members(archive, policy, reading.names):
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
    with _member_errors(), archive.open(info) as file:
        yield file


MEMBER_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)
"""What zipfile raises for a damaged or encrypted member."""


@contextmanager
def _member_errors() -> Iterator[None]:
    try:
        yield
    except MEMBER_ERRORS as error:
        raise ImageError(f"the archive is damaged at this member ({one_line(error)})") from error


def _zip_members(archive: zipfile.ZipFile, policy: _Policy, names: str) -> Iterator[tuple[zipfile.ZipInfo, Member]]:
    for info, known, raw in names_of(archive.infolist(), names):
        kind, remedy, name = "", _PLAIN_ONLY, raw.decode("utf-8", "surrogateescape") if known is None else known
        if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            kind = "a link or device"
        elif info.flag_bits & 1:
            kind, remedy = "an encrypted member", "unpack it with its password, and give the folder"
        elif info.compress_type not in _METHODS:
            kind, remedy = "a member that is compressed in an unknown way", "make it again with deflate"
        elif known is None:
            kind = f"a name that is not in {names or 'UTF-8'}, and does not say its encoding"
            remedy = f"say it ({'; '.join(readings(raw))}), or make the archive again with names in UTF-8"
        separators = "/\\" if raw.isascii() else "/"  # in cp932 and GBK, the second byte of a letter may be that of the backslash
        is_folder = name.endswith(tuple(separators))
        yield info, policy.member(name, info.file_size, is_folder=is_folder, kind=kind, remedy=remedy, separators=separators)


def _tar_members(tar: tarfile.TarFile, policy: _Policy) -> Iterator[tuple[tarfile.TarInfo, Member]]:
    for info in tar:
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all in memory
        kind = ""
        if info.islnk() or info.issym():
            kind = "a link"
        elif info.issparse() or not (info.isreg() or info.isdir()):
            kind = "a device, pipe or sparse file"
        is_folder = info.isdir() or (info.isreg() and info.name.endswith("/"))
        yield info, policy.member(info.name, info.size, is_folder=is_folder, kind=kind)


def _tar_content(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    return cast(IO[bytes], tar.extractfile(info))  # links and devices have none, and are refused before


@contextmanager
def _opened_tar(path: Path, name: str, policy: _Policy, names: str, file: IO[bytes] | None = None) -> Iterator[tarfile.TarFile]:
    """A tar, compressed unless it is given as an open file, whose end is checked after its members were read.

    Raises CutArchiveError where the file ends before its end mark, after the first header; DataError for other damage.
    """
    tar = None
    try:
        with tarfile.open(path, "r:" if file else "r:*", fileobj=file, encoding=names or "utf-8") as tar:
            try:
                yield tar
                _check_end(tar, name, policy)
            except (tarfile.ReadError, EOFError) as error:
                if not policy.count or not _at_end(tar):
                    raise
                raise _cut(name, policy, inside=True) from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise DataError(f"{name} is a cut or damaged tar archive ({one_line(error)}); copy it again") from error


def _cut(name: str, policy: _Policy, *, inside: bool = False) -> CutArchiveError:
    """`inside`: within the last member that was seen; else after it."""
    member = policy.last if inside and looks_like_picture(policy.last) else ""
    place = f"within {policy.last}" if inside else f"after {counted(policy.count, 'member')}: it has no end mark"
    return CutArchiveError(f"archive {name} is cut {place}; what lies before is used, what followed is lost: copy it again", member)


def _at_end(tar: tarfile.TarFile) -> bool:
    """Say whether the bytes of a tar are at their end: it is cut, and not damaged."""
    try:
        return not cast(IO[bytes], tar.fileobj).read(1)
    except EOFError:
        return True


def _check_end(tar: tarfile.TarFile, name: str, policy: _Policy) -> None:
    """Tell what tarfile takes for the end in silence: a cut between two members, a damaged header, a second archive."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if not block or (len(block) < tarfile.BLOCKSIZE and block.strip(b"\0")):
        raise _cut(name, policy)
    tar.fileobj.seek(tar.offset)
    while block := tar.fileobj.read(_COPY_BYTES):
        if block.strip(b"\0"):
            raise DataError(
                f"{name} is damaged, or several archives were joined: it goes on after {counted(policy.count, 'member')}; pack it again"
            )


def _open_plain_zip(path: Path, name: str) -> zipfile.ZipFile:
    archive = open_zip(path, name)
    files = [member for member in archive.namelist() if not member.endswith("/")]
    if files and all(file.endswith(".npy") for file in files):
        archive.close()
        raise DataError(f"{name} is a NumPy archive of {len(files)} arrays; name it {Path(name).stem}.npz")
    return archive


def open_zip(path: Path, name: str) -> zipfile.ZipFile:
    """Open a zip; raises DataError for one that is cut or damaged."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise DataError(f"{name} is a cut or damaged zip archive ({one_line(error)}); copy it again") from error
    return archive


def _uncompressed(path: Path, address: str, workspace: Path) -> tuple[Path, bool]:
    """The path itself, or that of a temporary file with the unpacked content; and whether the packed content is cut."""
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return path, False
    packed, unpacked, cut = path.stat().st_size, 0, False
    plain = workspace / f"{len(list(workspace.glob('*.tar')))}.tar"
    try:
        with opener(path) as source, plain.open("wb") as target:
            try:
                while block := source.read1(_COPY_BYTES):  # unlike read, it gives what lies before a cut
                    unpacked += len(block)
                    check_limits(address, packed, unpacked, 0)
                    target.write(block)
            except EOFError:
                cut = True
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(f"{address} is a cut or damaged archive ({one_line(error)}); copy it again") from error
    return plain, cut
