"""IDX files, the format of MNIST, EMNIST and their kin: big-endian header, then raw numbers, gzipped or not; the bytes decide.

Pictures have 3 or 4 dimensions, labels 1. The orientation is left as it is in the file (EMNIST's pictures are transposed).
Format: http://yann.lecun.com/exdb/mnist/ (two zero bytes, type, number of dimensions, sizes, data).
"""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from components.classifier.decode import MAX_PIXELS
from components.classifier.errors import DataError, one_line
from components.readers.records import Decoded, Reading, Record, rows_at_once

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""numpy's names of the value types, by the header's third byte."""
MAX_BYTES = 8 * 2**30
"""Largest IDX file that is read whole, unpacked."""
_GZIP = b"\x1f\x8b"


def is_idx(head: bytes) -> bool:
    """Say whether bytes begin like an IDX file: two zero bytes, a type, and 1 to 4 dimensions."""
    return len(head) >= 4 and head[:2] == b"\0\0" and head[2] in TYPES and 1 <= head[3] <= 4


def parse(data: bytes, name: str = "the file") -> npt.NDArray[np.generic]:
    """Read an IDX file, gzipped or not, as an array of the file's own type and shape.

    Raises DataError naming the file when it is not an IDX file, is cut or too long, or is larger than MAX_BYTES.
    """
    with io.BytesIO(data) as raw, gzip.GzipFile(fileobj=raw) if data[:2] == _GZIP else raw as stream:
        try:
            head = stream.read(4)
            if not is_idx(head):
                raise DataError(
                    f"{name} is not an IDX file: it begins with {head.hex(' ') or 'nothing'} and not with 00 00, type, dimensions"
                )
            sizes = stream.read(4 * head[3])
            if len(sizes) < 4 * head[3]:
                raise DataError(f"{name} ends within its header; copy it again")
            kind, shape = TYPES[head[2]], tuple(int(n) for n in np.frombuffer(sizes, ">u4"))
            expected = prod(shape) * np.dtype(kind).itemsize
            if expected > MAX_BYTES:
                raise DataError(f"{name} says it holds {shape}, more than the limit of {MAX_BYTES} bytes; split it")
            body = stream.read(expected + 1)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{name} is a cut or damaged gzip file ({error}); copy it again") from error
    if len(body) != expected:
        received = f"only {len(body)}" if len(body) < expected else f"more than {expected}"
        raise DataError(
            f"{name} should hold {'x'.join(map(str, shape))} values ({expected} bytes), and holds {received} bytes; copy it again"
        )
    return np.frombuffer(body, np.dtype(kind)).reshape(shape)


def is_labels(head: bytes) -> bool:
    """Say whether an IDX file's first bytes announce one dimension: labels."""
    return is_idx(head) and head[3] == 1


def count(path: Path, name: str, _reading: Reading) -> int | None:
    """Return how many pictures an IDX file holds, None for a gzipped one, which is read from front to back.

    Raises DataError for a file that is cut or holds no pictures.
    """
    with _open(path) as file:
        header, shape = _header(file, name)
    if _is_gzip(path):
        return None
    size, expected = path.stat().st_size, header + prod(shape)
    if size != expected:
        raise DataError(f"{name} has {size} bytes, and its header announces {expected}; it is cut or damaged: copy it again")
    return shape[0]


def read(path: Path, name: str, _reading: Reading, start: int = 0, stop: int | None = None) -> Iterator[Record]:
    """Yield pictures `start` to before `stop` in blocks; a gzipped file is unpacked as it is read, never as a whole."""
    with _open(path) as file:
        header, shape = _header(file, name)
        each, last = prod(shape[1:]), shape[0] if stop is None else min(stop, shape[0])
        try:
            block = rows_at_once(each)
            file.seek(header + start * each)
            for first in range(start, last, block):
                data = file.read(min(block, last - first) * each)
                if len(data) < min(block, last - first) * each:
                    raise DataError(f"{name} is cut within picture {first + len(data) // each} of {shape[0]}; copy it again")
                yield Decoded(name, first, np.frombuffer(data, np.uint8).reshape(-1, *shape[1:]))
            if last == shape[0] and file.read(1):
                raise DataError(f"{name} goes on after its {shape[0]} pictures: its header is wrong; copy it again")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(f"{name} is a cut or damaged gzip file ({one_line(error)}); copy it again") from error


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == _GZIP


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if _is_gzip(path) else path.open("rb")


def _header(file: BinaryIO, name: str) -> tuple[int, tuple[int, int, int, int]]:
    """Read the header: its length in bytes, and the shape (N, H, W, C)."""
    try:
        head = file.read(4)
        sizes = struct.unpack(f">{head[3]}I", file.read(4 * head[3]))
    except (struct.error, IndexError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{name} is cut within its header; copy it again") from error
    if len(sizes) == 1:
        raise DataError(f"{name} holds {sizes[0]} labels and no pictures; name the file of pictures (…-images-idx3-ubyte)")
    if head[2] != 8:
        raise DataError(f"{name} holds {np.dtype(TYPES[head[2]]).name} values, but pixels are unsigned bytes; write it again as uint8")
    shape = (*sizes, 1) if len(sizes) == 3 else sizes
    if len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape[1:]:
        raise DataError(f"{name} has shape {sizes}, but (N, H, W) or (N, H, W, C) with C = 1 or 3 is wanted")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise DataError(f"{name} announces pictures of {shape[1]}x{shape[2]}, more than the limit of {MAX_PIXELS} pixels; it is damaged")
    return 4 + 4 * len(sizes), (shape[0], shape[1], shape[2], shape[3])
