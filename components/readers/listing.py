"""The files of a source, what a name says about a file, and which names are never data.

The policy is in the table of `components.readers`.
"""

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from operator import eq, le
from typing import NamedTuple

import numpy as np

from components.classifier.errors import DataError, listed
from components.readers.records import PassedOver

MAX_FILE_BYTES = 256 * 2**20
"""Largest file or archive member that is read as a picture."""
MAX_FILES, MAX_STREAMED = 5_000_000, 100_000_000
"""Files that a source may hold, archives apart: where all are listed in memory, for training, and where they stream, for scoring."""
HIDDEN = "hidden or a system file"

PICTURE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "mpo", "bmp", "dib", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
        *("avif", "heic", "heif", "jp2", "j2k", "j2c", "jpc", "jpx"),  # some need a package beside Pillow
        *("svg", "ico", "tga", "jxl", "jls", "jxr", "exr", "qoi", "pcx", "dds", "dcm", "dicom"),  # are not read, and named
    )
)
"""Names that promise a picture: when the content is none, the file is reported and not just passed over."""

_ARCHIVE_SUFFIXES = frozenset([".tar", ".tgz", ".zip", ".7z", ".rar", ".bz2", ".xz", ".tbz2", ".txz", ".zst"])
INNER_ARCHIVE = "an archive within an archive is not opened; unpack the outer one, and give each archive or a folder"

_RAW_SUFFIXES = frozenset(
    f".{kind}" for kind in ("3fr", "arw", "cr2", "cr3", "dng", "erf", "iiq", "kdc", "nef", "nrw", "orf", "pef", "raf", "rw2", "srw", "x3f")
)
"""A camera's raw files: most begin like a TIFF, and what opens is a thumbnail."""
_SYSTEM_NAMES = frozenset(
    name.casefold()
    for name in (
        *("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),  # Windows
        *("__MACOSX", "Icon\r", "Temporary Items", "Network Trash Folder", "Network_Trash_Folder"),  # macOS
        *("@eaDir", "#recycle", "lost+found", "__pycache__", "_SUCCESS"),  # storage boxes, Linux, Python, Spark
    )
)
_PICTURE_START = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|BM....\0\0\0\0|II[*+]\0|MM\0[*+]|P[1-6]\s|RIFF....WEBP"
    rb"|....ftyp(avif|avis|mif1|msf1|hei[cxsm]|hev[cx])|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
_EDGE_SPACE = re.compile(r"(^|/)\s|\s(/|$)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters, line separators, and those that turn the direction of the text around."""


class SourceFile(NamedTuple):  # there may be millions, and these are pickled fastest
    """One file of a source.

    `name` is its path below the source as it is shown (see `readable`), `key` the same as the source itself spells it; `size`
    in bytes; `stamp` changes when the content does ("": unknown); `offset` is where a tar's member begins.
    """

    name: str
    size: int
    stamp: str
    key: str
    offset: int = 0


class Files:
    """Files of a source in their order, of which there may be millions: each takes its name and some 30 bytes."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._sizes, self._offsets = array("q"), array("q")
        self._stamps: array[int] | list[int | str] = array("q")
        """Numbers, as the times of local files are; -1 where nothing is known. Other texts make it a list."""
        self._keys: dict[int, str] = {}
        """By the file's place: keys that are not the name."""

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[SourceFile]:
        stamps = ("" if stamp == -1 else str(stamp) for stamp in self._stamps)
        return map(SourceFile, self.names, self._sizes, stamps, map(self._keys.get, range(len(self)), self.names), self._offsets)

    def __getitem__(self, place: int) -> SourceFile:
        """One file."""
        name, stamp = self.names[place], self._stamps[place]
        return SourceFile(name, self._sizes[place], "" if stamp == -1 else str(stamp), self._keys.get(place, name), self._offsets[place])

    def append(self, file: SourceFile) -> None:
        """Add one file."""
        if file.key != file.name:
            self._keys[len(self)] = file.key
        self.names.append(file.name)
        self._sizes.append(file.size)
        self._offsets.append(file.offset)
        stamp: int | str = file.stamp or -1
        if file.stamp.isdecimal() and len(file.stamp) < 20 and int(file.stamp) < 2**63:
            stamp = int(file.stamp)
        if isinstance(self._stamps, list):
            self._stamps.append(stamp if stamp == -1 else file.stamp)
        elif isinstance(stamp, int) and (stamp == -1 or str(stamp) == file.stamp):
            self._stamps.append(stamp)
        else:
            self._stamps = [*self._stamps, file.stamp]

    def extend(self, others: "Files") -> None:
        """Add all files of another list."""
        if isinstance(self._stamps, list) or isinstance(others._stamps, list):
            for file in others:
                self.append(file)
            return
        self._keys |= {len(self) + place: key for place, key in others._keys.items()}
        self.names += others.names
        for own, added in ((self._sizes, others._sizes), (self._offsets, others._offsets), (self._stamps, others._stamps)):
            own.extend(added)

    def where(self, test: Callable[[str], object]) -> list[SourceFile]:
        """The files whose names pass a test."""
        return [self[place] for place, name in enumerate(self.names) if test(name)]

    def sort(self) -> None:
        """Put the files into the order of their names."""
        if all(map(le, self.names, islice(self.names, 1, None))):
            return
        order = np.argsort(np.array(self.names, object), kind="stable").tolist()
        self.names = [self.names[place] for place in order]
        self._sizes, self._offsets = (array("q", map(values.__getitem__, order)) for values in (self._sizes, self._offsets))
        self._keys = {new: self._keys[old] for new, old in enumerate(order) if old in self._keys}
        stamps = map(self._stamps.__getitem__, order)
        self._stamps = [*stamps] if isinstance(self._stamps, list) else array("q", stamps)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a source, by its path."""

    name: str


@dataclass(frozen=True, slots=True)
class Fault(PassedOver):
    """What should have been data and cannot be read: a link that leads nowhere, a pipe, a key that no file could have."""


Found = SourceFile | Folder | PassedOver | Fault
"""What is met in a source."""


@dataclass
class Listing:
    """All files of a source that may be data, in the order of their names as text, code point by code point."""

    address: str
    files: Files = field(default_factory=Files)
    folders: set[str] = field(default_factory=set)
    """Paths of all folders, empty ones included where the source knows them."""
    passed_over: list[PassedOver] = field(default_factory=list)
    """Hidden and system names, and links back into the folders above them."""
    faults: list[PassedOver] = field(default_factory=list)
    """What should have been data and cannot be read."""
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, address: str, met: Iterable[Found]) -> "Listing":
        """List all that was met, in any order; raises DataError as `add` and `finish` do."""
        listing = cls(address)
        for found in met:
            listing.add(found)
        return listing.finish()

    def hide(self, name: str) -> None:
        """Note a hidden or system file or folder."""
        self.passed_over.append(PassedOver(name, HIDDEN))

    def add(self, found: Found) -> None:
        """Take what was met; raises DataError for more files than MAX_FILES."""
        if isinstance(found, SourceFile):
            check_count(self.address, len(self.files), MAX_FILES)
            self.files.append(found)
        elif isinstance(found, Folder):
            self.folders.add(found.name)
        elif isinstance(found, Fault):
            self.faults.append(PassedOver(found.input, found.reason))
        else:
            self.passed_over.append(found)

    def finish(self) -> "Listing":
        """Put everything in order.

        Raises DataError when two files have one name in Unicode's composed form: what is said of one could mean the other.
        """
        for entries in (self.passed_over, self.faults):
            entries.sort(key=lambda entry: entry.input)
        self.files.sort()
        if any(map(eq, self.files.names, islice(self.files.names, 1, None))):
            for _ in without_twins(self.files, self.address):
                pass
        return self

    def remarks(self) -> list[str]:
        """Say what was passed over, in few lines."""
        parts = Counter(
            next((part for part in p.input.split("/") if is_system(part)), p.input) for p in self.passed_over if p.reason == HIDDEN
        )
        kinds = [f"{name} ({count})" if count > 1 else name for name, count in sorted(parts.items())]
        others = [f"passed over {p.input}: {p.reason}" for p in self.passed_over if p.reason != HIDDEN]
        return [*([f"passed over {parts.total()} hidden or system names: {some(kinds)}"] if kinds else []), *others, *self.notes]


def check_count(address: str, count: int, limit: int) -> None:
    """Raise DataError where one more file would be more than the limit."""
    if count >= limit:
        raise DataError(f"{address} holds more than {limit} files; give a folder or prefix that holds fewer")


def without_twins(files: Iterable[SourceFile], address: str) -> Iterator[SourceFile]:
    """Pass files on that come in the order of names; raises DataError at two of one name, which are two spellings of it."""
    before: SourceFile | None = None
    for file in files:
        if before and before.name == file.name:
            raise DataError(
                f"{address} holds {file.name!r} twice, in two spellings that look alike ({before.key!a}, {file.key!a}); rename one"
            )
        yield file
        before = file


def holds_pictures(listing: Listing) -> bool:
    """Say whether a source has files that are pictures by their names, or may be: those without an ending in a folder."""
    return any(looks_like_picture(name) or ("/" in name and not suffix(name)) for name in listing.files.names)


def is_system(part: str) -> bool:
    """Say whether one part of a path is hidden, or left by Finder, Explorer, notebooks, Spark or storage boxes."""
    return (part.startswith(".") and part not in {".", ".."}) or part.casefold() in _SYSTEM_NAMES or "@Syno" in part


def is_hidden(path: str) -> bool:
    """Say whether a part of a path is hidden or a system's own."""
    folder, _, base = path.rpartition("/")
    return is_system(base) or (folder != "" and _in_hidden(folder))


@lru_cache(maxsize=1024)  # nearly all files lie in the folder of the one before
def _in_hidden(folder: str) -> bool:
    return any(is_system(part) for part in folder.split("/"))


def suffix(name: str) -> str:
    """The lower-case ending of a file's name with its dot, or ""."""
    stem, dot, end = name.rpartition("/")[2].rpartition(".")
    return f".{end.lower()}" if dot and stem else ""


def looks_like_picture(name: str) -> bool:
    """Say whether the name promises a picture; a Windows shortcut to one does too (`1.png.lnk`, which Explorer shows as `1.png`)."""
    ending = suffix(name)
    return ending in PICTURE_SUFFIXES or (ending == ".lnk" and suffix(name[: -len(ending)]) in PICTURE_SUFFIXES)


def is_archive(name: str) -> bool:
    """Say whether the name is that of an archive, of whatever kind."""
    return suffix(name) in _ARCHIVE_SUFFIXES or name.lower().endswith(".tar.gz")


def is_record(name: str, head: bytes) -> bool:
    """Say whether a file counts as a picture: its bytes begin like one, or its name promises one or has no ending.

    Anything else beside the pictures (`labels.csv`, `003.json`, a camera's `004.nef`) is passed over, and reported.
    """
    ending = suffix(name)
    return looks_like_picture(name) or not ending or (ending not in _RAW_SUFFIXES and begins_as_picture(head))


def begins_as_picture(head: bytes) -> bool:
    """Say whether bytes begin like a picture that Penstock decodes."""
    return _PICTURE_START.match(head) is not None


def readable(name: str) -> str:
    """Make a file's name the same on every system (NFC), and safe to print and to write as UTF-8.

    Bytes that are not UTF-8 become `\\xNN`, control characters their escapes (`\\n`); every other character is kept.
    """
    if name.isascii() and name.isprintable():
        return name
    clean = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), clean))


def quoted(name: str) -> str:
    """A name as messages show it: in quotes where a space at the beginning or end of one of its parts would not be seen."""
    return f"'{name}'" if _EDGE_SPACE.search(name) else name


def some(items: Iterable[str], limit: int = 8) -> str:
    """Join names for a message; of many, the first few and how many more."""
    return listed(map(quoted, items), limit)


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it must be: 1 file, 2 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
