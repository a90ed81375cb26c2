"""The files of a local folder, symbolic links followed, loops ended."""

import os
import stat
from functools import partial
from pathlib import Path

from components.classifier.errors import DataError, ImageError
from components.ingest.listing import MAX_MEMBERS, Listing, Member, is_system, readable

MAX_DEPTH = 40


def list_folder(root: Path) -> Listing:
    """List a folder with all folders below it, in the order of names.

    Links are followed, to folders outside as well; a link to a folder above itself ends there. Raises DataError when a
    folder cannot be opened, since a class would be lost in silence.
    """
    listing = Listing(address=str(root))
    _walk(root, "", (os.path.realpath(root),), listing)
    return listing


def _walk(folder: Path, prefix: str, above: tuple[str, ...], listing: Listing) -> None:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"folder {readable(str(folder))} cannot be opened ({error.strerror}); give read access to it") from error
    for entry in entries:
        name = prefix + readable(entry.name)
        if is_system(entry.name):
            listing.hidden[readable(entry.name) + ("/" if entry.is_dir() else "")] += 1
        elif entry.is_dir():
            _enter(entry, name, above, listing)
        else:
            _add(entry, name, listing)


def _enter(entry: os.DirEntry[str], name: str, above: tuple[str, ...], listing: Listing) -> None:
    real = os.path.realpath(entry.path)
    if real in above:
        listing.notes.append(f"passed over link {name}: it leads back to a folder above it")
        return
    if len(above) > MAX_DEPTH:
        raise DataError(
            f"folder {name} lies more than {MAX_DEPTH} folders deep; is there a loop of links? Give the folder that holds the classes"
        )
    listing.folders.add(name)
    _walk(Path(entry.path), f"{name}/", (*above, real), listing)


def _add(entry: os.DirEntry[str], name: str, listing: Listing) -> None:
    try:
        status = entry.stat()
    except OSError as error:
        reason = "a link that leads nowhere" if entry.is_symlink() else (error.strerror or "cannot be read")
        listing.faults.append((name, reason))
        return
    if not stat.S_ISREG(status.st_mode):
        listing.faults.append((name, "neither a file nor a folder, but a device, pipe or socket"))
        return
    if len(listing.members) >= MAX_MEMBERS:
        raise DataError(f"{listing.address} holds more than {MAX_MEMBERS} files; give a folder that holds fewer")
    listing.members.append(Member(name, status.st_size, partial(read_file, entry.path)))


def read_file(path: str) -> bytes:
    """Read a file whole; raises ImageError with the system's reason."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"the file cannot be read ({error.strerror})") from error
