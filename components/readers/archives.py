"""The files of tar and zip archives on this machine, in any order, for training.

Nothing is unpacked into folders; a compressed tar is first unpacked into one temporary tar. Which members are refused, and how a cut
is seen, is in members.py.
"""

import bz2
import gzip
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from components.classifier.errors import CutArchiveError, DataError, ImageError, UnsafeArchiveError, one_line
from components.readers.listing import INNER_ARCHIVE, Listing, SourceFile, counted, is_archive, is_hidden, readable
from components.readers.members import (
    COPY_BYTES,
    Member,
    Policy,
    check_limits,
    cut_error,
    judged,
    opened_tar,
    refuse_full_disk,
    tar_members,
)
from components.readers.places import InputSource
from components.readers.processes import in_processes, processes_for
from components.readers.records import PassedOver
from components.readers.zip_directory import ZipDirectory
from components.readers.zip_names import names_of, readings

MEMBER_BYTES = 1024
"""What a member takes in a tar at least: its header and one block."""

_OPENERS: dict[bytes, Callable[[Path], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}


@dataclass(frozen=True)
class Archive:
    """An archive on this machine, as a process must know it to list it."""

    path: Path
    address: str
    names: str
    directory: ZipDirectory | None
    """That of a zip; None for an uncompressed tar."""
    cut: bool = False
    """Whether the tar was unpacked from one that is cut."""
    prefix: str = ""
    """What stands before the names of its members."""


class ArchiveSource(InputSource):
    """The files of an archive on this machine, read in any order and by several threads and processes."""

    single = remote = False

    def __init__(self, path: Path, address: str, workspace: Path, names: str = "") -> None:
        """`address` names the archive in messages; `workspace` takes an unpacked tar; `names`: see `IngestSettings`.

        Raises UnsafeArchiveError for an archive beyond the limits, and DataError for one that is cut or damaged.
        """
        self.address = address
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
        plain, cut = (path, False) if is_zip else _uncompressed(path, address, workspace)
        self.archive = Archive(plain, address, names, ZipDirectory.find(path, address) if is_zip else None, cut)

    def listing(self) -> Listing:
        """List every member in the order of names; raises UnsafeArchiveError naming the first that is refused.

        Of a tar that is cut the members before the cut are listed, and the cut is a fault.
        """
        return list_archive(self.archive).finish()

    def loader(self, file: SourceFile) -> Callable[[], bytes]:  # noqa: D102
        directory = self.archive.directory
        return partial(directory.read, file.offset) if directory else partial(_read_span, self.archive.path, file.offset, file.size)


def list_archive(archive: Archive) -> Listing:
    """List an archive's members in the order of names, in this process or another; raises as `ArchiveSource.listing` does."""
    listing = Listing(archive.address)
    policy = Policy(archive.address, archive.path.stat().st_size)
    if archive.directory is None:
        _list_tar(archive, listing, policy)
        if policy.undecoded:
            raw = policy.first_undecoded.encode("utf-8", "surrogateescape")
            listing.notes.append(
                f"{counted(policy.undecoded, 'name')} in {archive.address} are not in {archive.names or 'UTF-8'}, and are shown as "
                f"{readable(policy.first_undecoded)}: say their encoding ({'; '.join(readings(raw))})"
            )
    else:
        for info, member in judged(names_of(archive.directory, archive.names), policy, archive.names):
            _note(archive, listing, member, info.header_offset)
    listing.files.sort()
    return listing


def _note(archive: Archive, listing: Listing, member: Member, place: int) -> bool:
    """Add a member and where it begins; says whether it is a file that counts. Raises UnsafeArchiveError for one that is refused."""
    if member.problem:
        raise UnsafeArchiveError(f"archive {archive.address} holds {member.problem}")
    name = archive.prefix + member.name
    if member.is_folder:
        if member.name and not is_hidden(member.name):
            listing.folders.add(name)
    elif is_hidden(member.name):
        listing.hide(name)
    elif is_archive(member.name):
        listing.faults.append(PassedOver(name, INNER_ARCHIVE))
    else:
        listing.files.append(SourceFile(name, member.size, "", name, place))
        return True
    return False


def _list_tar(archive: Archive, listing: Listing, policy: Policy) -> None:
    last = ""
    with archive.path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            with opened_tar(archive.path, archive.address, policy, archive.names, file) as tar:
                for entry, member in tar_members(tar, policy):
                    if (member.problem or entry.offset_data + entry.size <= size) and _note(archive, listing, member, entry.offset_data):
                        last = member.name
                if archive.cut:
                    raise cut_error(archive.address, policy)
        except CutArchiveError as error:
            whole = not error.member or error.member == last  # only the padding behind its last byte may be lost
            listing.faults.append(PassedOver(archive.address if whole else archive.prefix + error.member, str(error)))


class ArchiveSet(InputSource):
    """The files of several archives, such as the shards of a webdataset; each is named `ARCHIVE/MEMBER`."""

    single = remote = False

    def __init__(self, address: str, archives: dict[str, ArchiveSource], modules: Sequence[str] = ()) -> None:
        """`modules` are imported by the processes that list many members."""
        self.address, self._archives, self._modules = address, archives, modules
        self._last = ""

    def listing(self) -> Listing:
        """List the members of all archives; raises UnsafeArchiveError naming the first that is refused."""
        joined = Listing(self.address)
        for found in self._listings():
            joined.files.extend(found.files)
            joined.folders |= found.folders
            joined.passed_over += found.passed_over
            joined.faults += found.faults
            joined.notes += found.notes
        return joined.finish()

    def _listings(self) -> Iterator[Listing]:
        """The listing of each archive; of those that may hold many members in processes, as reading headers is Python's work."""
        archives = [replace(source.archive, prefix=f"{name}/") for name, source in self._archives.items()]
        processes = processes_for(sum(archive.path.stat().st_size for archive in archives) // MEMBER_BYTES)
        if processes == 1:
            return map(list_archive, archives)
        return in_processes(archives, list_archive, processes, self._modules)

    def loader(self, file: SourceFile) -> Callable[[], bytes]:  # noqa: D102
        name = self._last  # files in order lie in the archive of the one before
        if not file.key.startswith(f"{name}/"):
            name = self._last = next(name for name in self._archives if file.key.startswith(f"{name}/"))
        return self._archives[name].loader(file)


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
        refuse_full_disk(error, address, workspace)
        raise DataError(f"{address} is a cut or damaged archive ({one_line(error)}); copy it again") from error
    return plain, cut
