"""The files of tar and zip archives on this machine, in any order, for training.

Nothing is unpacked into folders; a compressed tar is first unpacked into one temporary tar. Which members are refused, and how a cut
is seen, is in members.py.
"""

import bz2
import gzip
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from components.classifier.errors import CutArchiveError, DataError, ImageError, UnsafeArchiveError, one_line
from components.readers.listing import INNER_ARCHIVE, Listing, SourceFile, is_archive, is_hidden
from components.readers.members import (
    COPY_BYTES,
    Member,
    Policy,
    check_limits,
    cut_error,
    member_errors,
    open_plain_zip,
    opened_tar,
    tar_members,
    zip_members,
)
from components.readers.places import InputSource
from components.readers.processes import in_processes, processes_for
from components.readers.records import PassedOver

MEMBER_BYTES = 1024
"""What a member takes in a tar at least: its header and one block."""

_OPENERS: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


class ArchiveSource(InputSource):
    """The files of an archive on this machine, read in any order and by several threads."""

    single = remote = False

    def __init__(self, path: Path, address: str, workspace: Path, names: str = "") -> None:
        """`address` names the archive in messages; `workspace` takes an unpacked tar; `names`: see `IngestSettings`.

        Raises UnsafeArchiveError for an archive beyond the limits, and DataError for one that is cut or damaged.
        """
        self.address, self._names = address, names
        with path.open("rb") as file:
            self._zip = open_plain_zip(path, address) if file.read(2) == b"PK" else None
        self.shared = self._zip is None  # each process would have to read all of a zip's directory
        self._path, self._cut = (path, False) if self._zip else _uncompressed(path, address, workspace)
        self._members: dict[str, zipfile.ZipInfo] = {}

    def close(self) -> None:
        """End reading."""
        if self._zip:
            self._zip.close()

    def listing(self) -> Listing:
        """List every member in the order of names; raises UnsafeArchiveError naming the first that is refused.

        Of a tar that is cut the members before the cut are listed, and the cut is a fault.
        """
        if self._zip is None:
            return self.listed(_list_tar(self.tar()))
        contents = _Contents(Listing(self.address))
        policy = Policy(self.address, self._path.stat().st_size)
        for info, member in zip_members(self._zip, policy, self._names):
            contents.note(member, info)
        return self.listed(contents)

    def tar(self) -> "_Tar":
        """What a process must know to list it; of a tar only."""
        return _Tar(self._path, self.address, self._names, self._cut)

    def listed(self, contents: "_Contents") -> Listing:
        """Take what was found in it."""
        self._members = contents.members
        return contents.listing.finish()

    def read(self, key: str) -> bytes:
        """Return the bytes of a zip's member, raises ImageError where the archive is damaged; those of a tar are read by `loader`."""
        assert self._zip is not None
        with member_errors():
            return self._zip.read(self._members[key])

    def loader(self, file: SourceFile) -> Callable[[], bytes]:  # noqa: D102
        return super().loader(file) if self._zip else partial(_read_span, self._path, file.offset, file.size)


@dataclass(frozen=True)
class _Tar:
    """An uncompressed tar on this machine; `cut`: whether it was unpacked from one that is cut."""

    path: Path
    address: str
    names: str
    cut: bool


@dataclass
class _Contents:
    """What an archive holds: its listing, and the members of a zip."""

    listing: Listing
    members: dict[str, zipfile.ZipInfo] = field(default_factory=dict)
    last: str = ""
    """The last file that was noted."""

    def note(self, member: Member, place: int | zipfile.ZipInfo) -> None:
        """Add a member, with the place in a tar at which it begins; raises UnsafeArchiveError for one that is refused."""
        listing = self.listing
        if member.problem:
            raise UnsafeArchiveError(f"archive {listing.address} holds {member.problem}")
        if member.is_folder:
            if member.name and not is_hidden(member.name):
                listing.folders.add(member.name)
        elif is_hidden(member.name):
            listing.hide(member.name)
        elif is_archive(member.name):
            listing.faults.append(PassedOver(member.name, INNER_ARCHIVE))
        else:
            self.last = member.name
            offset = place if isinstance(place, int) else 0
            if isinstance(place, zipfile.ZipInfo):
                self.members[member.name] = place
            listing.files.append(SourceFile(member.name, member.size, "", member.name, offset))


def _list_tar(archive: _Tar) -> _Contents:
    """List a tar's members, in this process or another; raises as `ArchiveSource.listing` does."""
    contents = _Contents(Listing(archive.address))
    with archive.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        policy = Policy(archive.address, size)
        try:
            with opened_tar(archive.path, archive.address, policy, archive.names, file) as tar:
                for entry, member in tar_members(tar, policy):
                    if member.problem or entry.offset_data + entry.size <= size:
                        contents.note(member, entry.offset_data)
                if archive.cut:
                    raise cut_error(archive.address, policy)
        except CutArchiveError as error:
            whole = not error.member or error.member == contents.last  # only the padding behind its last byte may be lost
            contents.listing.faults.append(PassedOver(archive.address if whole else error.member, str(error)))
    return contents


class ArchiveSet(InputSource):
    """The files of several archives, such as the shards of a webdataset; each is named `ARCHIVE/MEMBER`."""

    single = remote = False

    def __init__(self, address: str, archives: dict[str, ArchiveSource], modules: Sequence[str] = ()) -> None:
        """`modules` are imported by the processes that list many members."""
        self.address, self._archives, self._modules = address, archives, modules
        self.shared = all(archive.shared for archive in archives.values())

    def listing(self) -> Listing:
        """List the members of all archives; raises UnsafeArchiveError naming the first that is refused."""
        joined = Listing(self.address)
        for name, found in zip(self._archives, self._listings(), strict=True):
            for file in found.files:
                joined.files.append(file._replace(name=f"{name}/{file.name}", key=f"{name}/{file.key}"))
            joined.folders |= {f"{name}/{folder}" for folder in found.folders}
            joined.passed_over += [PassedOver(f"{name}/{p.input}", p.reason) for p in found.passed_over]
            joined.faults += [PassedOver(name if p.input == name else f"{name}/{p.input}", p.reason) for p in found.faults]
            joined.notes += found.notes
        return joined.finish()

    def _listings(self) -> Iterator[Listing]:
        """The listing of each archive; of tars that may hold many members in processes, as reading headers is Python's work."""
        archives = self._archives.values()
        tars = [archive.tar() for archive in archives] if self.shared else []
        processes = processes_for(sum(tar.path.stat().st_size for tar in tars) // MEMBER_BYTES)
        if processes == 1:
            yield from (archive.listing() for archive in archives)
            return
        for archive, contents in zip(archives, in_processes(tars, _list_tar, processes, self._modules), strict=True):
            yield archive.listed(contents)

    def read(self, key: str) -> bytes:
        """Return the bytes of a zip's member; raises ImageError where its archive is damaged."""
        name = self._archive_of(key)
        return self._archives[name].read(key.removeprefix(f"{name}/"))

    def loader(self, file: SourceFile) -> Callable[[], bytes]:  # noqa: D102
        name = self._archive_of(file.key)
        return self._archives[name].loader(file._replace(key=file.key.removeprefix(f"{name}/")))

    def _archive_of(self, key: str) -> str:
        return next(name for name in self._archives if key.startswith(f"{name}/"))


def _read_span(path: Path, start: int, size: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        data = os.pread(file.fileno(), size, start)
    if len(data) < size:
        raise ImageError("the archive ends within this member")
    return data


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
                while block := source.read1(COPY_BYTES):  # unlike read, it gives what lies before a cut
                    unpacked += len(block)
                    check_limits(address, packed, unpacked, 0)
                    target.write(block)
            except EOFError:
                cut = True
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise DataError(f"{address} is a cut or damaged archive ({one_line(error)}); copy it again") from error
    return plain, cut
