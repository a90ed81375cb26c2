"""Tables of pixels, as MNIST is often passed on: a CSV of one picture per line, its label and its grey values from 0 to 255.

With a header (`label,pixel0,pixel1,…` or `label,1x1,1x2,…,28x28`) its names say which column is which; pixels must stand in the order
of rows. Without one, a table of H x H + 1 whole numbers per line has its labels in the first or the last column: in the one of the
two that cannot be a pixel (it goes beyond 255) or can be a label, being the only one that changes. Else it is refused. `.csv` and
`.tsv`, gzipped or not.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from components.classifier.errors import DataError, one_line
from components.readers import npy
from components.readers.listing import some, suffix
from components.readers.records import Reading, Record
from components.readers.table import LABEL_COLUMNS, PATH_COLUMNS, SEPARATORS, SPLIT_COLUMN

MIN_PIXELS = 16
"""Tables of fewer columns are not taken for pixels."""
MAX_BYTES = 8 * 2**30
"""Largest table that is read, unpacked."""

_PIXEL = re.compile(r"(?:(?:pixel|px|p|x|f)[ _]?)?(\d+)(?:[x_](\d+))?", re.IGNORECASE)
_WHOLE = re.compile(r"\d+")
_BLOCK = 16 * 2**20


@dataclass(frozen=True)
class PixelTable:
    """N pictures uint8 (N, H, W, 1), with what their table says: text (N,) of labels and of splits, None where it does not."""

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.str_] | None
    splits: npt.NDArray[np.str_] | None


def is_pixel_table(name: str, head: bytes) -> bool:
    """Say whether a file is a table of pixels, by its name and its unpacked first bytes."""
    if suffix(name.lower().removesuffix(".gz")) not in {".csv", ".tsv"}:
        return False
    line, end, _ = head.partition(b"\n")
    try:
        fields = _fields(line.decode("utf-8-sig", "ignore"))
    except csv.Error:
        return False
    fields = fields if end else fields[:-1]  # the last may be cut
    pixels = sum(_PIXEL.fullmatch(field) is not None for field in fields)
    return pixels >= MIN_PIXELS and len(fields) - pixels <= 2 and not set(fields) & set(PATH_COLUMNS)


def read_table(path: Path, name: str) -> PixelTable:
    """Read a table as a whole.

    Raises DataError naming the column where it is not one of pixels, or where nothing tells which column holds the labels.
    """
    if path.stat().st_size > MAX_BYTES:
        raise DataError(f"{name} is larger than {MAX_BYTES >> 30} GiB; split it, or save its pictures as an array with np.save")
    separator, header = _first_line(path, name)
    named = not all(map(_WHOLE.fullmatch, header))
    columns = header if named else [str(place) for place in range(len(header))]
    if len(set(columns)) < len(columns):
        raise DataError(f"{name} has two columns of one name in its first line ({some(columns)}); name each once, such as label,pixel0,…")
    label, split, pixels = _roles(name, columns) if named else (_label_place(path, name, columns, separator), None, columns)
    pixels = [column for column in pixels if column != label]
    height, width = _shape(name, pixels if named else [], len(pixels))
    parts: list[npt.NDArray[np.uint8]] = []
    texts: dict[str, list[str]] = {column: [] for column in (label, split) if column}
    kinds = dict.fromkeys(pixels, pa.uint8()) | dict.fromkeys(texts, pa.string())
    for batch in _batches(path, name, columns, separator, named, kinds):
        parts.append(np.stack([batch.column(column).to_numpy(zero_copy_only=False) for column in pixels], axis=1))
        for column, values in texts.items():
            values += batch.column(column).to_pylist()
    array = np.concatenate(parts) if parts else np.zeros((0, len(pixels)), np.uint8)
    if not len(array):
        raise DataError(f"{name} holds no pictures below its first line; write it again")
    pictures = npy.to_pixels(array.reshape(-1, height, width, 1), name)
    found = {column: np.array([value.strip() for value in values], dtype=np.str_) for column, values in texts.items()}
    return PixelTable(pictures, found.get(label or ""), found.get(split or ""))


def count(_path: Path, _name: str, _reading: Reading) -> None:
    """How many pictures a table holds, only reading tells."""


def read(path: Path, name: str, _reading: Reading, _start: int = 0, _stop: int | None = None) -> Iterator[Record]:
    """Yield all pictures of a table; its labels take no part. Raises DataError as `read_table` does."""
    yield from npy.blocks(read_table(path, name).pixels, name)


def _first_line(path: Path, name: str) -> tuple[str, list[str]]:
    """The separator of a table, and the fields of its first line."""
    with _opened(path, name) as file:
        line = file.read(_BLOCK).partition(b"\n")[0]
    try:
        text = line.decode("utf-8-sig")
        return _separator(text), _fields(text)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as a table in UTF-8 ({error}); save it as 'CSV UTF-8'") from error


def _fields(line: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line.rstrip("\r")], delimiter=_separator(line)), [])]


def _separator(line: str) -> str:
    return max(SEPARATORS, key=line.count)


def _opened(path: Path, name: str) -> pa.NativeFile:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        return pa.input_stream(str(path), compression="gzip" if packed else None)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read ({one_line(error)}); copy it again") from error


def _batches(
    path: Path, name: str, columns: list[str], separator: str, named: bool, kinds: dict[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    """The rows of some columns, as they are read; every value must be of the column's kind, none may be empty but text."""
    options = {
        "read_options": arrow_csv.ReadOptions(use_threads=False, block_size=_BLOCK, column_names=columns, skip_rows=int(named)),
        "parse_options": arrow_csv.ParseOptions(delimiter=separator),
        "convert_options": arrow_csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[]),
    }
    try:
        with _opened(path, name) as file, arrow_csv.open_csv(file, **options) as reader:
            yield from reader
    except (pa.ArrowException, OSError) as error:
        if "Could not skip initial 1 rows" in str(error):  # there is the header only
            return
        raise DataError(f"{name} is not a table of whole numbers from 0 to 255 ({one_line(error)}); correct or copy it again") from error


def _roles(name: str, columns: list[str]) -> tuple[str | None, str | None, list[str]]:
    """Which columns hold the label, the split, and the pixels, by their names."""
    label = next((column for column in LABEL_COLUMNS if column in columns), None)
    split = SPLIT_COLUMN if SPLIT_COLUMN in columns else None
    pixels = [column for column in columns if column not in {label, split}]
    strange = [column for column in pixels if not _PIXEL.fullmatch(column)]
    if strange:
        raise DataError(f"{name} has columns of pixels, and beside them {some(strange)}; keep one of labels, called label, and split")
    return label, split, pixels


def _label_place(path: Path, name: str, columns: list[str], separator: str) -> str | None:
    """The column of labels of a table without a header, None where the columns are exactly a picture."""
    if isqrt(len(columns)) ** 2 == len(columns):
        return None
    first, last = columns[0], columns[-1]
    low, high = dict.fromkeys((first, last), 2**62), dict.fromkeys((first, last), 0)
    for batch in _batches(path, name, columns, separator, False, dict.fromkeys((first, last), pa.int64())):
        for column in (first, last):
            found = pc.min_max(batch.column(column)).as_py()
            low[column], high[column] = min(low[column], found["min"]), max(high[column], found["max"])
    beyond = [column for column in (first, last) if high[column] > 255]
    changing = beyond or [column for column in (first, last) if low[column] < high[column]]
    if len(changing) != 1:
        raise DataError(
            f"{name} has no header, and nothing tells whether its first or its last column holds the labels; "
            f"put a line above it, such as label,{','.join(f'pixel{k}' for k in range(3))},…"
        )
    return changing[0]


def _shape(name: str, names: list[str], count: int) -> tuple[int, int]:
    """Height and width, by the columns' names or as a square."""
    places = [tuple(int(part) for part in found.groups() if part) for column in names if (found := _PIXEL.fullmatch(column))]
    if pairs := [place for place in places if len(place) == 2]:
        rows, columns = (sorted({pair[axis] for pair in pairs}) for axis in (0, 1))
        if places != [(row, column) for row in rows for column in columns]:
            raise DataError(
                f"{name} names its pixels {names[0]} to {names[-1]}, and not all of them in the order of rows; put them in order"
            )
        return len(rows), len(columns)
    numbers = [place[0] for place in places]
    if numbers and numbers != list(range(numbers[0], numbers[0] + count)):
        raise DataError(f"{name} names its pixels {names[0]} to {names[-1]}, and not all of them in order; put them in order")
    side = isqrt(count)
    if side * side == count:
        return side, side
    if count % 3 == 0 and isqrt(count // 3) ** 2 == count // 3:
        side = isqrt(count // 3)
        raise DataError(
            f"{name} has {count} pixels per picture, {side}x{side} in three colours, and not in which order; save the pictures as an array "
            f"(N, {side}, {side}, 3) with np.save, and the labels beside it"
        )
    raise DataError(f"{name} has {count} pixels per picture, which is not a square; name them by row and column: label,1x1,1x2,…")
