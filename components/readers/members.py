"""The members of a tar or zip: one policy for their names and kinds, the limits of an archive, and how it is seen that one is cut.

A member that could do harm or mean two things is refused by name (see the table of `components.readers`), an archive beyond the limits
as a whole.
"""

import errno
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from components.classifier.errors import CutArchiveError, DataError, ImageError, UnsafeArchiveError, one_line
from components.readers.listing import counted, is_hidden, looks_like_picture, readable
from components.readers.zip_names import readings

MAX_MEMBERS = 2_000_000
MAX_UNPACKED_BYTES = 128 * 2**30
MAX_RATIO, RATIO_FROM_BYTES = 200, 64 * 2**20
"""How much larger than the archive its content may be, once it is larger than RATIO_FROM_BYTES."""
COPY_BYTES = 2**20

_SLASHES = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")
_PLAIN_HEADER = re.compile(
    rb"(?=(?P<name>[^\0\x80-\xff]{0,99}[^\0\x80-\xff/])\0).{100}(?:[0-7 ]{7}[\0 ]){3}(?P<size>[0-7]{11})[\0 ][0-7]{11}[\0 ]"
    rb"(?P<sum>[0-7]{6})[\0 ]{2}[0\0].{100}ustar[\0 ].{82}\0.{166}",
    re.DOTALL,
)
"""A tar's header of a plain file whose name needs neither a prefix nor another header."""
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_PLAIN_ONLY = "make it again with plain files and folders only"


def refuse_full_disk(error: BaseException, address: str, folder: Path) -> None:
    """Raise DataError for an error that a full disk makes while an archive is unpacked, which tells nothing about the archive."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        raise DataError(
            f"{address} cannot be unpacked to {folder} ({error.strerror}); free space, or set TMPDIR to a larger place"
        ) from error


@dataclass(frozen=True)
class Member:
    """One member: its tidied name, its size in bytes unpacked, and what is wrong with it ("": nothing)."""

    name: str
    size: int
    is_folder: bool = False
    problem: str = ""


class Policy:
    """Checks members as they come, and holds the archive to its limits."""

    def __init__(self, address: str, packed: int, count: int = 0, twice: Iterable[int] = ()) -> None:
        """`count`: members before the first that comes; `twice`: numbers of those whose name a member before that has already."""
        self.count, self.last, self.twice = count, "", set(twice)
        self.partial = False
        """Whether reading has ended before the archive does."""
        self._address, self._packed, self._unpacked = address, packed, 0
        self._names: set[str] = set()
        self.undecoded, self.first_undecoded = 0, ""
        """How many names of a tar are not in UTF-8, or not in the encoding that is said, and the first of them."""

    def member(self, raw: str, size: int, *, is_folder: bool, kind: str = "", remedy: str = _PLAIN_ONLY, separators: str = "/") -> Member:
        """Judge one member; `kind` says what it is where it is neither a file nor a folder.

        Raises UnsafeArchiveError when the archive goes beyond its limits.
        """
        self.count += 1
        self._unpacked += size
        check_limits(self._address, self._packed, self._unpacked, self.count)
        parts = raw.split("/") if separators == "/" else _SLASHES.split(raw)
        self.last = name = readable("/".join(part for part in parts if part not in {"", "."}))
        if not raw.isascii() and any("\udc80" <= character <= "\udcff" for character in raw):
            self.undecoded, self.first_undecoded = self.undecoded + 1, self.first_undecoded or raw
        outside = (".." in raw and ".." in _SLASHES.split(raw)) or not parts[0] or _DRIVE.match(parts[0]) or raw.startswith("\\")
        if outside or not (name or is_folder):
            kind, remedy = "a name that leads outside", "make it with relative names"
        elif not kind and not is_folder and not is_hidden(name) and (name in self._names or self.count in self.twice):
            kind, remedy = "a name twice", "remove or rename one of the two"
            self.twice.add(self.count)
        if kind:
            return Member(readable(raw), size, False, f"{kind}: '{readable(raw)}'; {remedy}")
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


MEMBER_ERRORS = (zipfile.BadZipFile, struct.error, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError)
"""What zipfile raises for a damaged or encrypted member."""


@contextmanager
def member_errors() -> Iterator[None]:
    """Turn what zipfile raises for one member into ImageError."""
    try:
        yield
    except MEMBER_ERRORS as error:
        raise ImageError(f"the archive is damaged at this member ({one_line(error)})") from error


def judged(
    members: Iterable[tuple[zipfile.ZipInfo, str | None, bytes]], policy: Policy, names: str
) -> Iterator[tuple[zipfile.ZipInfo, Member]]:
    """Yield members of a zip, with their names as `names_of` finds them, as the policy judges them; raises as `Policy.member` does."""
    for info, known, raw in members:
        kind, remedy, name = "", _PLAIN_ONLY, raw.decode("utf-8", "surrogateescape") if known is None else known
        if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
            kind = "a link or device"
        elif info.flag_bits & 1:
            kind, remedy = "an encrypted member", "unpack it with its password, and give the folder"
        elif info.compress_type not in _METHODS:
            kind, remedy = "a member that is compressed in an unknown way", "make it again with deflate"
        elif known is None:
            told = readings(raw)
            is_not = "may not be" if not names and told[0].startswith("names=utf-8") else "is not"
            kind = f"a name that {is_not} in {names or 'UTF-8'}, and does not say its encoding"
            remedy = f"say it ({'; '.join(told)}), or make the archive again with names in UTF-8"
        separators = "/\\" if raw.isascii() else "/"  # in cp932 and GBK, the second byte of a letter may be that of the backslash
        is_folder = name.endswith(tuple(separators))
        yield info, policy.member(name, info.file_size, is_folder=is_folder, kind=kind, remedy=remedy, separators=separators)


def tar_members(tar: tarfile.TarFile, policy: Policy) -> Iterator[tuple[tarfile.TarInfo, Member]]:
    """Yield a tar's members as the policy judges them, from front to back; raises as `Policy.member` does."""
    while info := _plain_file(tar) or tar.next():
        tar.members = []  # type: ignore[attr-defined]  # tarfile would keep them all in memory
        kind = ""
        if info.islnk() or info.issym():
            kind = "a link"
        elif info.issparse() or not (info.isreg() or info.isdir()):
            kind = "a device, pipe or sparse file"
        is_folder = info.isdir() or (info.isreg() and info.name.endswith("/"))
        yield info, policy.member(info.name, info.size, is_folder=is_folder, kind=kind)


def _plain_file(tar: tarfile.TarFile) -> tarfile.TarInfo | None:
    """The next member where its header is that of a plain file with a short ASCII name, which costs a third of what tarfile takes.

    None for the first, which tarfile has read already, and for all others, which it reads.
    """
    if tar.firstmember is not None or tar.pax_headers:  # type: ignore[attr-defined]
        return None
    file = cast(IO[bytes], tar.fileobj)
    before = file.tell()
    file.seek(tar.offset)
    found = _PLAIN_HEADER.fullmatch(head := file.read(tarfile.BLOCKSIZE))
    if not found or int(found["sum"], 8) != sum(head) - sum(head[148:156]) + 8 * ord(" "):
        file.seek(before)  # from where tarfile sees whether the member before is cut
        return None
    info = tarfile.TarInfo(found["name"].decode("ascii"))
    info.size, info.offset, info.offset_data = int(found["size"], 8), tar.offset, tar.offset + tarfile.BLOCKSIZE
    tar.offset = info.offset_data + -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    return info


@contextmanager
def opened_tar(path: Path | None, name: str, policy: Policy, names: str, file: IO[bytes] | None = None) -> Iterator[tarfile.TarFile]:
    """A tar, compressed unless it is given as an open file, whose end is checked after its members were read.

    Raises CutArchiveError where the file ends before its end mark, after the first header; DataError for other damage.
    """
    tar = None
    try:
        with tarfile.open(path, "r:" if file else "r:*", fileobj=file, encoding=names or "utf-8") as tar:
            try:
                yield tar
                if not policy.partial:
                    _check_end(tar, name, policy)
            except (tarfile.ReadError, EOFError) as error:
                if not policy.count or not _at_end(tar):
                    raise
                raise cut_error(name, policy, inside=True) from error
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ValueError) as error:
        raise DataError(f"{name} is a cut or damaged tar archive ({one_line(error)}); copy it again") from error


def cut_error(name: str, policy: Policy, *, inside: bool = False) -> CutArchiveError:
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


def _check_end(tar: tarfile.TarFile, name: str, policy: Policy) -> None:
    """Tell what tarfile takes for the end in silence: a cut between two members, a damaged header, a second archive."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    block = tar.fileobj.read(tarfile.BLOCKSIZE)
    if not block or (len(block) < tarfile.BLOCKSIZE and block.strip(b"\0")):
        raise cut_error(name, policy)
    tar.fileobj.seek(tar.offset)
    while block := tar.fileobj.read(COPY_BYTES):
        if block.strip(b"\0"):
            raise DataError(
                f"{name} is damaged, or several archives were joined: it goes on after {counted(policy.count, 'member')}; pack it again"
            )


def open_plain_zip(path: Path | IO[bytes], name: str) -> zipfile.ZipFile:
    """Open a zip of files; raises DataError for one that is cut or damaged, or is NumPy's archive of arrays."""
    archive = open_zip(path, name)
    files = [member for member in archive.namelist() if not member.endswith("/")]
    if files and all(file.endswith(".npy") for file in files):
        archive.close()
        refuse_arrays(name, len(files))
    return archive


def refuse_arrays(name: str, count: int) -> None:
    """Raise DataError for a zip that holds nothing but `count` arrays of NumPy, where there are any."""
    if count:
        raise DataError(f"{name} is a NumPy archive of {count} arrays; name it {Path(name).stem}.npz")


def open_zip(path: Path | IO[bytes], name: str) -> zipfile.ZipFile:
    """Open a zip; raises DataError for one that is cut or damaged."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise DataError(f"{name} is a cut or damaged zip archive ({one_line(error)}); copy it again") from error
    return archive
