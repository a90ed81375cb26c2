"""The kinds of input, told by their bytes; one module a kind.

| kind | what it is | rows |
|---|---|---|
| picture | one encoded picture | 1 |
| npy | a NumPy array of pictures | one a picture |
| idx | an IDX file of pictures, gzipped or not | one a picture |
| parquet | one column of encoded pictures | one a row |
| tar, zip | an archive of pictures, webdataset's form included | one a picture |
"""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from components.score.inputs import idx, npy, table, tar, zips
from components.score.inputs.names import is_record
from components.score.inputs.records import Reading, Record

HEAD = 4096
"""Bytes of a file that tell its kind."""
PICTURE, LABELS = "picture", "labels"


@dataclass(frozen=True)
class Kind:
    """How a kind of container is read; its files are given as (path on this machine, name in the output)."""

    count: Callable[[Path, str, Reading], int | None]
    """Number of rows, or None when only reading tells; raises DataError for a file that cannot be scored."""
    read: Callable[[Path, str, Reading, int, int | None], Iterator[Record]]
    """Rows from `start` to before `stop` (None: the end) in order; raises DataError."""


CONTAINERS: dict[str, Kind] = {
    "npy": Kind(npy.count, npy.read),
    "idx": Kind(idx.count, idx.read),
    "parquet": Kind(table.count, table.read),
    "tar": Kind(tar.count, tar.read),
    "zip": Kind(zips.count, zips.read),
}


def kind_of(name: str, head: bytes) -> str | None:
    """Tell a file's kind by its first bytes: PICTURE, LABELS, a key of CONTAINERS, or None for what is no input at all."""
    return _container(name, head) or (PICTURE if is_record(name, head) else None)


def _container(name: str, head: bytes) -> str | None:
    if head.startswith(b"\x93NUMPY"):
        return "npy"
    if head.startswith((b"PAR1", b"PARE")):
        return "parquet"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head.startswith((b"BZh", b"\xfd7zXZ\0")):
        return "tar"
    content = _inflate(head) if head.startswith(b"\x1f\x8b") else head
    if idx.is_idx(content):
        return LABELS if idx.is_labels(content) else "idx"
    return "tar" if tar.is_tar(content, name) else None


def _inflate(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""
