"""The directory of a zip on this machine as a stream: of a member only the place of its entry is kept, as zipfile would keep 1 KB.

So a zip may hold millions of members, and every process reads any of them without reading the whole directory. Entries are understood
by zipfile, as it is given pieces of the directory as small archives of their own.
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.classifier.errors import DataError, one_line
from components.readers.members import member_errors, refuse_arrays

BLOCK_BYTES = 2**18
"""Bytes of the directory that are read at once."""

_END = struct.Struct("<4s4H2LH")
_ENTRY_HEADER, _ENTRY_LENGTHS, _ENTRY_MAGIC = 46, struct.Struct("<3H"), b"PK\x01\x02"
_LOCAL, _LOCAL_MAGIC = struct.Struct("<4s2xH18x2H"), b"PK\x03\x04"
_MAX_ENTRY = _ENTRY_HEADER + 3 * 0xFFFF
_ENTRY, _USUAL_ENTRY = struct.Struct("<4s4x2H4x3IH12xI"), 512
_UTF8_FLAG, _UNREADABLE_FLAGS, _ZIP64 = 0x800, 0x60, 0xFFFFFFFF
_SMALL = 2**20
"""Bytes of a packed member that are read at once."""
_SIZE, _OFFSET, _LOCATION, _IS_ZIP64, _ZIP64_BYTES = 5, 6, 9, b"PK\x06\x06", 76
"""Places in what zipfile says of an archive's end, and how much longer that of a large archive is."""


@dataclass(frozen=True)
class ZipDirectory:
    """Where the directory of a zip lies in its file, and how far the archive is shifted by what stands before it."""

    path: Path
    name: str
    start: int
    stop: int
    shift: int

    @classmethod
    def find(cls, path: Path, name: str) -> "ZipDirectory":
        """Find the directory of a zip that messages call `name`; raises DataError for a file that is cut or damaged."""
        try:
            with path.open("rb") as file:
                end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # knows zip64, comments, and archives behind a program
        except (OSError, zipfile.BadZipFile, struct.error) as error:
            raise _damaged(name, error) from error
        if not end:
            raise _damaged(name, "File is not a zip file")
        shift = end[_LOCATION] - end[_SIZE] - end[_OFFSET] - (_ZIP64_BYTES if end[0] == _IS_ZIP64 else 0)
        if end[_OFFSET] + shift < 0:
            raise _damaged(name, "Bad offset for central directory")
        return cls(path, name, end[_OFFSET] + shift, end[_OFFSET] + shift + end[_SIZE], shift)

    def __iter__(self) -> Iterator[zipfile.ZipInfo]:
        """All members in the order of the directory; their `header_offset` is the place of their entry, for `read`.

        Raises DataError where the directory is damaged, or that of NumPy's arrays.
        """
        arrays = files = 0
        try:
            for places, block in self._blocks():
                for place, info in zip(places, _parsed(block), strict=True):
                    files += not info.filename.endswith("/")
                    arrays += info.filename.endswith(".npy")
                    info.header_offset = place
                    yield info
        except UnicodeDecodeError as error:
            raise DataError(f"{self.name} holds a name that is said to be UTF-8 and is not, {error.object!r}; make it again") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error) as error:
            raise _damaged(self.name, error) from error
        refuse_arrays(self.name, arrays if arrays == files else 0)

    def read(self, place: int) -> bytes:
        """Return the content of the member whose entry lies at a place; raises ImageError where the archive is damaged."""
        with member_errors():
            file = os.open(self.path, os.O_RDONLY)  # of millions of small members each counts
            try:
                info = _entry(os.pread(file, _USUAL_ENTRY, place)) or _first(os.pread(file, _MAX_ENTRY, place))
                at = info.header_offset + self.shift
                head = os.pread(file, _LOCAL.size + len(info.orig_filename) + _USUAL_ENTRY + min(info.compress_size, _SMALL), at)
            finally:
                os.close(file)
            magic, flags, name_bytes, extra_bytes = _LOCAL.unpack_from(head)
            if magic != _LOCAL_MAGIC:
                raise zipfile.BadZipFile("Bad magic number for file header")
            name = head[_LOCAL.size : _LOCAL.size + name_bytes].decode("utf-8" if flags & _UTF8_FLAG else "cp437")
            if name != info.orig_filename:
                raise zipfile.BadZipFile(f"File name in directory {info.orig_filename!r} and header {name!r} differ.")
            if info.flag_bits & _UNREADABLE_FLAGS:
                raise zipfile.BadZipFile("compressed patched data, or strong encryption")
            start = _LOCAL.size + name_bytes + extra_bytes
            if len(body := head[start : start + info.compress_size]) == info.compress_size:
                return zipfile.ZipExtFile(io.BytesIO(body), "r", info).read()
            with self.path.open("rb") as whole:
                whole.seek(at + start)
                return zipfile.ZipExtFile(whole, "r", info).read()

    def _blocks(self) -> Iterator[tuple[list[int], bytes]]:
        """Pieces of the directory that hold whole entries, with the place of each entry in the file."""
        with self.path.open("rb") as file:
            at = self.start
            while at < self.stop:
                file.seek(at)
                data = file.read(min(self.stop - at, max(BLOCK_BYTES, _MAX_ENTRY)))
                places, used = list[int](), 0
                while used + _ENTRY_HEADER <= len(data):
                    if not data.startswith(_ENTRY_MAGIC, used):
                        raise zipfile.BadZipFile("Bad magic number for central directory")
                    following = used + _ENTRY_HEADER + sum(_ENTRY_LENGTHS.unpack_from(data, used + 28))
                    if following > len(data):
                        break
                    places.append(at + used)
                    used = following
                if not places:
                    raise zipfile.BadZipFile("Truncated central directory")
                yield places, data[:used]
                at += used


def _parsed(entries: bytes) -> list[zipfile.ZipInfo]:
    """What zipfile understands of whole entries of a directory."""
    end = _END.pack(b"PK\x05\x06", 0, 0, 0, 0, len(entries), 0, 0)
    with zipfile.ZipFile(io.BytesIO(entries + end)) as archive:
        return archive.infolist()


def _first(entries: bytes) -> zipfile.ZipInfo:
    return _parsed(entries[: _ENTRY_HEADER + sum(_ENTRY_LENGTHS.unpack_from(entries, 28))])[0]


def _entry(data: bytes) -> zipfile.ZipInfo | None:
    """What reading needs of a plain entry, which costs a third of what zipfile takes; None for a long one, or one of a large archive."""
    magic, flags, method, crc, packed, size, name_bytes, offset = _ENTRY.unpack_from(data)
    raw = data[_ENTRY_HEADER : _ENTRY_HEADER + name_bytes]
    if magic != _ENTRY_MAGIC or _ZIP64 in {packed, size, offset} or len(raw) < name_bytes:
        return None
    info = zipfile.ZipInfo(raw.decode("utf-8" if flags & _UTF8_FLAG else "cp437"))
    info.flag_bits, info.compress_type, info.CRC, info.compress_size, info.file_size = flags, method, crc, packed, size
    info.header_offset = offset
    return info


def _damaged(name: str, error: object) -> DataError:
    return DataError(f"{name} is a cut or damaged zip archive ({one_line(error)}); copy it again")
