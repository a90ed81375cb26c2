"""NumPy arrays. Nothing is unpickled, and neither scale nor layout is ever guessed.

Shapes: (N, H, W, C), or one picture (H, W, C), with C = 1 (grey) or 3 (RGB); (N, H, W) where the model takes grey pictures of
exactly that size. Values: whole numbers from 0 to 255 in any type and byte order (`components.classifier.images`, as for live
requests). An array in which nothing is above 1, but not all is 0, was scaled to 0..1 and is refused.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from math import prod
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy_format

from components.classifier.errors import DataError, ImageError, one_line
from components.classifier.images import to_uint8
from components.readers.listing import some
from components.readers.records import Decoded, Reading, Record, rows_at_once


def count(path: Path, name: str, reading: Reading) -> int:
    """Return how many pictures an array file holds; raises DataError for one that is not an array of pictures."""
    return len(_open(path, name, reading))


def read(path: Path, name: str, reading: Reading, start: int = 0, stop: int | None = None) -> Iterator[Record]:
    """Yield pictures `start` to before `stop` in blocks."""
    yield from blocks(_open(path, name, reading), name, start, stop)


def blocks(pictures: npt.NDArray[Any], name: str, start: int = 0, stop: int | None = None) -> Iterator[Record]:
    """Yield pictures `start` to before `stop` of a checked array (N, H, W, C) in blocks of bounded size."""
    last = len(pictures) if stop is None else min(stop, len(pictures))
    block = rows_at_once(prod(pictures.shape[1:]) * pictures.itemsize)
    for first in range(start, last, block):
        yield Decoded(name, first, np.asarray(pictures[first : min(first + block, last)]).astype(np.uint8, copy=False))


def checked(array: npt.NDArray[Any], name: str, reading: Reading) -> npt.NDArray[Any]:
    """Give an array as (N, H, W, C); raises DataError for one that does not hold pictures of whole numbers from 0 to 255."""
    pictures = _shaped(array, name, reading)
    _check_values(pictures, name)
    return pictures


def shapes(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Arrays with their shapes, for a message."""
    return some(f"{name} {array.shape}" for name, array in arrays.items()) or "none"


def to_pixels(pictures: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Check an array (N, H, W, C) of any type, and give it as uint8; an array that is uint8 already is not copied.

    Raises DataError for another shape, and for values that are not pixels from 0 to 255.
    """
    _check_shape(pictures, name, pictures.shape)
    _check_values(pictures, name)
    return pictures.astype(np.uint8, copy=False)


def _open(path: Path, name: str, reading: Reading) -> npt.NDArray[Any]:
    pictures = _shaped(map_array(path, name), name, reading)
    status = path.stat()
    _check_once(str(path), status.st_mtime_ns, status.st_size, name, reading)
    return pictures


@lru_cache(maxsize=64)  # a file is scored piece by piece, and the check reads all of it
def _check_once(path: str, _modified: int, _size: int, name: str, reading: Reading) -> None:
    checked(map_array(Path(path), name), name, reading)


def _check_values(pictures: npt.NDArray[Any], name: str) -> None:
    high = 0
    step = rows_at_once(prod(pictures.shape[1:]) * pictures.itemsize)
    for first in range(0, len(pictures), step):
        block = np.asarray(pictures[first : first + step])
        if pictures.dtype != np.uint8:
            _check_block(block, name, first)
        high = max(high, int(block.max()))
        if pictures.dtype == np.uint8 and high > 1:
            return
    if high == 1:
        raise DataError(f"{name} holds no value above 1, so it is scaled 0 to 1; save np.round(a * 255).astype(np.uint8)")


def _check_block(block: npt.NDArray[Any], name: str, first: int) -> None:
    values = np.append(block.ravel(), block.dtype.type(2))  # that the block alone is dark says nothing: others were brighter
    try:
        to_uint8(values)
    except ImageError as error:
        raise DataError(f"{name}, pictures from {first}: {error}") from error


def _shaped(array: npt.NDArray[Any], name: str, reading: Reading) -> npt.NDArray[Any]:
    spec, shape = reading.spec, array.shape
    if len(shape) == 3 and shape[2] in (1, 3):
        array = array[None]
    elif len(shape) == 3 and spec.channels == 1 and shape[1:] == (spec.height, spec.width):
        array = array[..., None]
    _check_shape(array, name, shape)
    return array


def _check_shape(array: npt.NDArray[Any], name: str, shape: tuple[int, ...]) -> None:
    if array.ndim != 4 or array.shape[3] not in (1, 3) or 0 in array.shape[1:]:
        raise DataError(f"{name} has shape {shape}, but (N, H, W, C) with C = 1 or 3 is wanted; {_remedy(shape)}")
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name} holds {array.dtype} values, but pixels are whole numbers from 0 to 255; save it as uint8")


def _remedy(shape: tuple[int, ...]) -> str:
    if len(shape) == 4 and shape[1] in (1, 3):
        return "channels come last: a.transpose(0, 2, 3, 1)"
    if len(shape) == 3 and shape[0] in (1, 3):
        return "channels come last: a.transpose(1, 2, 0)"
    if len(shape) == 3:
        return "grey pictures need a channel: a[..., None]"
    return "use a.reshape(N, H, W, C)"


def map_array(path: Path, name: str) -> npt.NDArray[Any]:
    """Map an array file, read-only, without unpickling anything; raises DataError for one that is cut or not an array."""
    try:
        with path.open("rb") as file:
            version = npy_format.read_magic(file)
            reader = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
            shape, fortran, dtype = reader(file)
            offset = file.tell()
    except (ValueError, EOFError, SyntaxError, TokenError) as error:
        raise DataError(f"{name} is cut or not a NumPy array ({one_line(error)}); save it again with np.save") from error
    if dtype.hasobject:
        raise DataError(f"{name} holds pickled Python objects, which are never loaded; save a plain uint8 array with np.save")
    expected, size = offset + prod(shape) * dtype.itemsize, path.stat().st_size
    if size < expected:
        raise DataError(f"{name} is cut: it has {size} bytes, and its header announces {expected}; copy or save it again")
    if size > expected:
        raise DataError(f"{name} goes on for {size - expected} bytes after its array; save one array per file with np.save")
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order="F" if fortran else "C")
