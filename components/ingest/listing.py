"""The files of a source as a list of members, wherever they lie, and which names are never data."""

import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field

from components.classifier.errors import ImageError

MAX_FILE_BYTES = 256 * 2**20
"""Largest file that is read as a picture."""
MAX_MEMBERS = 5_000_000
"""Most files that a source may hold."""

PICTURE_SUFFIXES = frozenset(
    f".{kind}"
    for kind in (
        *("png", "apng", "jpg", "jpeg", "jpe", "jfif", "mpo", "bmp", "dib", "gif", "webp", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"),
        *("avif", "heic", "heif", "jp2", "svg", "ico", "tga"),  # not read, and said so
    )
)
"""Names that promise a picture: when the content is none, the file is reported and not just passed over."""

_SYSTEM_NAMES = frozenset(
    name.casefold()
    for name in (
        *("Thumbs.db", "ehthumbs.db", "desktop.ini", "$RECYCLE.BIN", "System Volume Information"),  # Windows
        *("__MACOSX", "Icon\r", "Temporary Items", "Network Trash Folder"),  # macOS
        *("@eaDir", "#recycle", "lost+found", "__pycache__"),
    )
)


@dataclass(frozen=True)
class Member:
    """One file: its path below the source, its size in bytes, and how to read it whole.

    `read` may raise ImageError (damaged, no permission) with the reason, and StoreError.
    """

    name: str
    size: int
    read: Callable[[], bytes]


@dataclass
class Listing:
    """All files of a source that may be data, in a fixed order."""

    address: str
    members: list[Member] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    """Paths of all folders, empty ones included where the source knows them."""
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(path, reason) of what should have been data and cannot be read."""
    hidden: Counter[str] = field(default_factory=Counter)
    """Names of hidden and system files and folders that are passed over."""
    notes: list[str] = field(default_factory=list)
    workers: int = 4
    """How many members are worth reading at once."""
    resources: ExitStack = field(default_factory=ExitStack)
    """What is open for reading members; closing it ends that."""

    def hidden_note(self) -> list[str]:
        """Say in one line (or none) what was passed over for its name."""
        if not self.hidden:
            return []
        kinds = [f"{name} ({count})" if count > 1 else name for name, count in sorted(self.hidden.items())]
        return [f"passed over {self.hidden.total()} hidden or system names: {some(kinds)}"]


def is_system(name: str) -> bool:
    """Say whether one part of a path is hidden or a leaving of Finder, Explorer, notebooks or storage boxes."""
    return name.startswith(".") or name.casefold() in _SYSTEM_NAMES or "@Syno" in name


def system_part(path: str) -> str | None:
    """Find the first hidden or system part of a path; None when there is none."""
    return next((part for part in path.split("/") if is_system(part)), None)


def suffix(name: str) -> str:
    """The lower-case ending of a file's name with its dot, or ""."""
    base = name.rpartition("/")[2]
    stem, dot, end = base.rpartition(".")
    return f".{end.lower()}" if dot and stem else ""


def looks_like_picture(name: str) -> bool:
    """Say whether the name promises a picture."""
    return suffix(name) in PICTURE_SUFFIXES


def readable(name: str) -> str:
    """Make a file's name safe to print and to write as UTF-8, and the same on every system (NFC)."""
    clean = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean))


def some(items: Iterable[str], limit: int = 8) -> str:
    """Join names for a message; of many, the first few and how many more."""
    items = list(items)
    shown = ", ".join(items[:limit])
    return f"{shown} and {len(items) - limit} more" if len(items) > limit else shown


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it must be: 1 file, 2 files."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def too_large(size: int) -> ImageError:
    """The fault of a file that is not read because of its size."""
    return ImageError(f"the file has {size} bytes, more than the limit of {MAX_FILE_BYTES}")
