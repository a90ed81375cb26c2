"""The files of a tar or zip archive, read in place: nothing is unpacked into folders.

A compressed tar is first unpacked into one temporary tar beside the scratch files, so that members can be read in any order
and by several threads. What could do harm refuses the whole archive: names that lead outside, links, devices, encrypted
members, and sizes, counts or ratios beyond the caps.
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
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

from components.classifier.errors import DataError, ImageError, UnsafeArchiveError
from components.ingest.listing import Listing, Member, readable, some, suffix, system_part

MAX_MEMBERS = 2_000_000
MAX_UNPACKED_BYTES = 128 * 2**30
MAX_RATIO, RATIO_FROM_BYTES = 200, 64 * 2**20
"""How much larger than the archive its content may be, once it is larger than RATIO_FROM_BYTES."""
ARCHIVE_SUFFIXES = frozenset([".tar", ".tgz", ".gz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".tbz2", ".txz", ".zst"])

_COPY_BYTES = 2**20
_DRIVE = re.compile(r"[A-Za-z]:")
_OPENERS: dict[bytes, Callable[[Path], IO[bytes] | gzip.GzipFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


def list_archive(path: Path, address: str, workspace: Path) -> Listing | None:
    """List the members of an archive, in the archive's order; None when the file is no tar or zip.

    `address` names it in messages, `workspace` takes the unpacked tar. Raises UnsafeArchiveError for one that could do
    harm, and DataError for one that is cut or damaged.
    """
    if zipfile.is_zipfile(path):
        return _list_zip(path, address)
    plain = _uncompressed(path, address, workspace)
    if tarfile.is_tarfile(plain):
        return _list_tar(plain, address)
    return None


class _Collector:
    """Checks members as they come and gathers them, holding the archive to its caps."""

    def __init__(self, address: str, packed: int) -> None:
        self.listing = Listing(address)
        self._packed, self._unpacked, self._count = packed, 0, 0
        self._members: dict[str, Member] = {}
        self._twice: list[str] = []

    def path(self, name: str, separators: str = "/") -> str:
        """The member's path, tidied; raises UnsafeArchiveError when it leads outside."""
        parts = re.split(f"[{re.escape(separators)}]", name)
        if ".." in re.split(r"[/\\]", name) or not parts[0] or _DRIVE.match(parts[0]) or name.startswith("\\"):
            raise UnsafeArchiveError(
                f"archive {self.listing.address} holds a name that leads outside: {readable(name)!r}; make it with relative names"
            )
        return "/".join(readable(part) for part in parts if part not in {"", "."})

    def refuse(self, name: str, what: str) -> None:
        """Raise UnsafeArchiveError for a member that is neither a file nor a folder."""
        raise UnsafeArchiveError(
            f"archive {self.listing.address} holds {what}: {readable(name)!r}; make it again with plain files and folders only"
        )

    def count(self, size: int) -> None:
        """Add a member's size to the sum; raises UnsafeArchiveError beyond the caps."""
        self._count += 1
        self._unpacked += size
        _check_caps(self.listing.address, self._packed, self._unpacked, self._count)

    def folder(self, path: str) -> None:
        """Note a folder."""
        if (hidden := system_part(path)) is not None:
            self.listing.hidden[f"{hidden}/"] += path.endswith(hidden)
        elif path:
            self.listing.folders.add(path)

    def file(self, path: str, size: int, read: Callable[[], bytes]) -> None:
        """Note a file; of two with the same name the last is used, as unpacking would."""
        if (hidden := system_part(path)) is not None:
            self.listing.hidden[hidden if path.endswith(hidden) else f"{hidden}/"] += 1
            return
        if path in self._members:
            self._twice.append(path)
        self._members[path] = Member(path, size, read)

    def finish(self) -> Listing:
        """The listing, complete."""
        listing = self.listing
        listing.members = list(self._members.values())
        if self._twice:
            listing.notes.append(f"{len(self._twice)} names occur twice in the archive, the last of each is used: {some(self._twice)}")
        inner = [name for name in self._members if suffix(name) in ARCHIVE_SUFFIXES - {".gz"}]
        if inner:
            listing.notes.append(f"{len(inner)} archives within the archive are not opened: {some(inner)}")
        return listing


def _list_zip(path: Path, address: str) -> Listing:
    try:
        archive = zipfile.ZipFile(path)  # members are read from it, which is safe from several threads
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"archive {address} is cut or damaged ({error}); copy it again") from error
    gathered = _Collector(address, path.stat().st_size)
    gathered.listing.resources.callback(archive.close)
    for info in archive.infolist():
        gathered.count(info.file_size)
        name = gathered.path(info.filename, separators="/\\")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
            gathered.refuse(info.filename, "a link or device")
        if info.is_dir() or info.filename.endswith("\\"):
            gathered.folder(name)
        elif info.flag_bits & 1:
            raise DataError(f"archive {address} is encrypted ({name}); unpack it with its password, and give the folder")
        else:
            gathered.file(name, info.file_size, partial(_read_zip, archive, info))
    return gathered.finish()


def _list_tar(path: Path, address: str) -> Listing:
    gathered = _Collector(address, path.stat().st_size)
    handle = os.open(path, os.O_RDONLY)  # members are read from it by position, which is safe from several threads
    gathered.listing.resources.callback(os.close, handle)
    try:
        with tarfile.open(path, "r:") as archive:
            for info in archive:
                gathered.count(info.size)
                name = gathered.path(info.name)
                if info.isdir():
                    gathered.folder(name)
                elif not info.isreg() or info.issparse():
                    gathered.refuse(info.name, "a link" if info.islnk() or info.issym() else "a device, pipe or sparse file")
                else:
                    gathered.file(name, info.size, partial(_read_tar, handle, info.offset_data, info.size))
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise DataError(f"archive {address} is cut or damaged ({error}); copy it again") from error
    listing = gathered.finish()
    if os.pread(handle, tarfile.BLOCKSIZE, end) != bytes(tarfile.BLOCKSIZE):  # tarfile stops at a damaged header without a word
        raise DataError(f"archive {address} is cut or damaged after {len(listing.members)} members; copy it again")
    return listing


def _uncompressed(path: Path, address: str, workspace: Path) -> Path:
    """The path itself, or that of a temporary file with the unpacked content."""
    with path.open("rb") as file:
        head = file.read(6)
    opener = next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)
    if opener is None:
        return path
    plain, packed, unpacked = workspace / "archive.tar", path.stat().st_size, 0
    try:
        with opener(path) as source, plain.open("wb") as target:
            while block := source.read(_COPY_BYTES):
                unpacked += len(block)
                _check_caps(address, packed, unpacked, 0)
                target.write(block)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(f"archive {address} is cut or damaged ({error}); copy it again") from error
    return plain


def _check_caps(address: str, packed: int, unpacked: int, count: int) -> None:
    if count > MAX_MEMBERS:
        raise UnsafeArchiveError(
            f"archive {address} holds more than {MAX_MEMBERS} members; give it in parts, or unpack it and give the folder"
        )
    if unpacked > MAX_UNPACKED_BYTES:
        raise UnsafeArchiveError(
            f"archive {address} unpacks to more than {MAX_UNPACKED_BYTES / 2**30:.0f} GiB; unpack it yourself and give the folder"
        )
    if unpacked > RATIO_FROM_BYTES and unpacked > MAX_RATIO * packed:
        raise UnsafeArchiveError(
            f"archive {address} unpacks to more than {MAX_RATIO} times its size of {packed} bytes, which pictures never do; "
            "if it is what you want, unpack it yourself and give the folder"
        )


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(info)
    except NotImplementedError as error:
        raise DataError(f"{info.filename} is compressed in a way that cannot be read ({error}); make the archive again") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError) as error:
        raise ImageError(f"the archive is damaged at this member ({error})") from error


def _read_tar(handle: int, offset: int, size: int) -> bytes:
    data = os.pread(handle, size, offset)
    if len(data) < size:
        raise ImageError("the archive ends within this member")
    return data
