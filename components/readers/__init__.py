"""The one way in for pictures and labels: training, batch scoring and all else read files by these modules.

| module | what it reads |
|---|---|
| places.py, cloud.py | the files of a folder, of a store (`s3://`), of Google's and Azure's stores |
| archives.py, archive_rows.py | tar and zip: in any order, for training; from front to back, as a whole or in parts, for scoring |
| members.py, zip_names.py | what they have in common: which members are refused, limits, cuts, names |
| webdataset.py | samples in a tar: a picture, and its label in `.cls` or `.json` beside it |
| npy.py, npz.py, idx.py, pixel_table.py | arrays of pictures: NumPy's, MNIST's format, CSVs of pixels |
| parquet.py | Parquet and Arrow: tables with a column of encoded pictures |
| table.py | labels and further attributes in CSV and JSONL |
| listing.py, records.py, spool.py, processes.py | what these have in common: names, pictures in order, decoding side by side |

One policy holds for all of them, so that the same input gives the same names and the same refusals in training and scoring:

| met | what happens |
|---|---|
| hidden and system names (`.x`, `Thumbs.db`, `.DS_Store`, `__MACOSX`, `@eaDir`, `_SUCCESS` …) | passed over and counted |
| Unicode form | names are composed (NFC), as most systems and tables write them; every character is kept, except: |
| bytes that are not UTF-8; control characters | shown as `\\xNN`; as `\\n` and the like |
| a name twice in an archive | refused by name: nothing tells which is meant |
| two files or objects whose names differ in Unicode form only | refused by name |
| a link, device, pipe or sparse file in an archive | refused by name |
| a name in an archive that leads outside (`..`, absolute, a drive) | refused by name |
| an archive within an archive | not opened, and named: one unreadable picture |
| an encrypted member; one compressed in an unknown way | refused by name |
| `./`, `//` and, in a zip, backslashes of names that are wholly ASCII | separate folders and leave no trace in the name |
| names of a zip in a code page that they do not say | refused by name, unless `names` says it (zip_names.py) |
| a link in a folder | followed; one back into the folders above it is passed over, one that leads nowhere is named |
| a pipe, device or socket in a folder; a key of a store with `.` or `..` in it | named, never opened |
| a damaged member of a zip | one unreadable picture |
| a tar that is cut (it ends before its end mark) | what lies before the cut is used; the cut is one unreadable picture |
| a zip or array that is cut; an archive that is damaged or joined from several | refused as a whole |
| limits of a picture | 256 MiB, 64 million pixels |
| limits of an archive | 2,000,000 members, 128 GiB unpacked, 200 times its own size (from 64 MiB) |
| limits of a folder or prefix | 5,000,000 files (100,000,000 for scoring, which lists them on disk), 40 folders deep |

"Refused by name" ends an ingest, since a training set must be right as a whole. Scoring gives the member a row with the same words as
its error, and goes on; of a name that is there twice the first member is scored.
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.classifier.contents import stand_in
from components.readers import archive_rows, idx, members, npy, npz, parquet, pixel_table
from components.readers.listing import is_record, suffix
from components.readers.records import Reading, Record

HEAD = 4096
"""Bytes of a file that tell its kind."""
_PROMISES = frozenset([".npy", ".npz", ".parquet", ".arrow", ".feather", ".tar", ".tgz", ".zip"])
PICTURE, LABELS = "picture", "labels"


@dataclass(frozen=True)
class Container:
    """How a kind of container is read; its files are given as (path on this machine, name in the output)."""

    count: Callable[[Path, str, Reading], int | None]
    """Number of rows, or None when only reading tells; raises DataError for a file that cannot be read."""
    read: Callable[[Path, str, Reading, int, int | None], Iterator[Record]]
    """Rows from `start` to before `stop` (None: the end) in order; raises DataError."""


CONTAINERS: dict[str, Container] = {
    "npy": Container(npy.count, npy.read),
    "npz": Container(npz.count, npz.read),
    "pixels": Container(pixel_table.count, pixel_table.read),
    "idx": Container(idx.count, idx.read),
    "parquet": Container(parquet.count, parquet.read),
    "arrow": Container(parquet.count, parquet.read),
    "tar": Container(lambda *_: None, archive_rows.read_tar),
    "zip": Container(archive_rows.count_zip, archive_rows.read_zip),
}


def kind_of(name: str, head: bytes) -> str | None:
    """Tell a file's kind by its first bytes: PICTURE, LABELS, a key of CONTAINERS, or None for what is not an input at all."""
    return _container(name, head) or (PICTURE if is_record(name, head) else None)


def not_as_promised(name: str, head: bytes) -> str | None:
    """Say what a file of no kind is whose name promises a container, such as a git-lfs pointer that is called x.tar; None for others."""
    if parquet.is_cache(name) or not (suffix(name) in _PROMISES or name.lower().endswith(".tar.gz")):
        return None
    return stand_in(head) or f"not a file of the kind that its name says ({suffix(name)}); copy it again"


def _container(name: str, head: bytes) -> str | None:
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith((b"PAR1", b"PARE")):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")) and suffix(name) in {".arrow", ".feather"} and not parquet.is_cache(name):
        return "arrow"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "npz" if suffix(name) == ".npz" else "zip"
    if head.startswith((b"BZh", b"\xfd7zXZ\0")):
        return "tar"
    content = _inflate(head) if head.startswith(b"\x1f\x8b") else head
    if len(content) >= 8 and idx.is_idx(content):
        return LABELS if idx.is_labels(content) else "idx"
    if pixel_table.is_pixel_table(name, content):
        return "pixels"
    return "tar" if members.is_tar(content, name) else None


def _inflate(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""
