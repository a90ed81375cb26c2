"""Parquet and Arrow files with one column of encoded pictures: binary in any encoding, or a struct with `bytes` (Hugging Face's form).

Arrow files are streams or random-access files of the IPC format, as Hugging Face's `save_to_disk` and Feather write them.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from components.classifier.errors import DataError, one_line
from components.readers.records import Encoded, Reading, Record, Unreadable
from components.readers.table import LABEL_COLUMNS, Table, label_column, path_column, table_of, text_of

ROWS, _AT_ONCE = 64, 8
"""Rows that are read at once, and of them those whose pictures are taken out together: each may be large."""
_END_OF_STREAM = b"\xff\xff\xff\xff\0\0\0\0"
SUFFIXES = frozenset([".parquet", ".arrow", ".feather"])


def is_cache(name: str) -> bool:
    """Say whether a file is one that Hugging Face's `map` left beside a saved dataset, with the same rows again."""
    return name.rpartition("/")[2].startswith("cache-") and name.endswith(".arrow")


class _File(Protocol):
    """A file of rows."""

    schema: pa.Schema
    rows: int

    def batches(self, columns: list[str], start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Batches that hold rows `start` to before `stop`, each with the number of its first row."""


def count(path: Path, name: str, reading: Reading) -> int:
    """Return the number of rows; raises DataError when the file is damaged or it is not clear which column holds the pictures."""
    with _opened(path, name) as table:
        _column(table.schema, name, reading.image_column)
        return table.rows


def read(path: Path, name: str, reading: Reading, start: int = 0, stop: int | None = None) -> Iterator[Record]:
    """Yield rows `start` to before `stop`, streaming; a row without a picture is Unreadable, in its place."""
    with _opened(path, name) as table:
        chosen = _column(table.schema, name, reading.image_column)
        last = table.rows if stop is None else min(stop, table.rows)
        for first, batch in table.batches([chosen], start, last):
            begin, end = max(start - first, 0), min(last - first, len(batch))
            for at in range(begin, end, _AT_ONCE):
                held = _pictures(batch.column(chosen).slice(at, min(_AT_ONCE, end - at)))
                yield from (_record(name, first + at + k, data, place) for k, (data, place) in enumerate(held))


def read_labels(path: Path, name: str) -> tuple[list[str | None], dict[str, list[str | None]]]:
    """Read the label of each row, None where it has none, and all other columns of text and numbers, as text.

    Numbers of a Hugging Face ClassLabel become its names; 1.0 is 1. Raises DataError when the file is damaged or no column holds labels.
    """
    with _opened(path, name) as opened:
        column, columns = _texts(opened, name)
        if column is None:
            listed = ", ".join(f"{field.name} ({field.type})" for field in opened.schema) or "none"
            raise DataError(f"{name} has no column of labels ({', '.join(LABEL_COLUMNS)}); its columns are: {listed}; rename the right one")
    return columns.pop(column), columns


def read_paths(path: Path, name: str, required: bool = True) -> Table | None:
    """Read a table whose rows name their pictures by paths; returns None, and raises, as `table.read_table` does."""
    with _opened(path, name) as opened:
        _, columns = _texts(opened, name)
    rows = ((number, dict(zip(columns, row, strict=True))) for number, row in enumerate(zip(*columns.values(), strict=True), 1))
    return table_of(name, list(columns), rows, required)


def names_pictures(path: Path, name: str) -> bool:
    """Say whether a file's rows name their pictures by paths, and hold none; raises DataError for one that is damaged."""
    with _opened(path, name) as opened:
        return path_column(opened.schema.names) is not None and not any(_holds_bytes(field.type) for field in opened.schema)


def _texts(opened: _File, name: str) -> tuple[str | None, dict[str, list[str | None]]]:
    """The column of labels, and all columns of text and numbers, as text."""
    schema = opened.schema
    plain = [field.name for field in schema if _is_text_or_whole(field.type)]
    numbers = [field.name for field in schema if pa.types.is_floating(field.type)]
    column = label_column(plain) or label_column(numbers)
    kept = pa.schema([field for field in schema if field.name in {*plain, *numbers}])
    table = pa.Table.from_batches([batch for _, batch in opened.batches(kept.names, 0, opened.rows)], kept)
    names = (_features(schema).get(column or "") or {}).get("names")
    texts = {other: [text_of(value) for value in table[other].to_pylist()] for other in kept.names if other != column}
    return column, {**({column: _label_texts(table[column], names, name)} if column else {}), **texts}


def _label_texts(values: pa.ChunkedArray, names: list[str] | None, name: str) -> list[str | None]:
    found = values.to_pylist()
    if pa.types.is_floating(values.type):  # as pandas stores whole numbers beside empty cells
        if broken := [value for value in found if value is not None and value == value and not value.is_integer()]:
            raise DataError(f"{name} holds label {broken[0]}; labels are text or whole numbers")
        found = [None if value is None or value != value else int(value) for value in found]
    if not names:
        return [text_of(value) or None for value in found]
    outside = [value for value in found if isinstance(value, int) and value >= len(names)]
    if outside:
        raise DataError(f"{name} holds label {outside[0]}, and its metadata names {len(names)} classes; write it again")
    return [names[value] if isinstance(value, int) and value >= 0 else None for value in found]


def _is_text_or_whole(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind))


@contextmanager
def _opened(path: Path, name: str) -> Iterator[_File]:
    with path.open("rb") as file:
        kind = "Parquet" if file.read(4) in {b"PAR1", b"PARE"} or name.endswith(".parquet") else "Arrow"
    try:
        if kind == "Parquet":
            with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as parquet:
                yield _Parquet(parquet)
        else:
            with pa.memory_map(str(path)) as mapped:
                yield _Arrow(mapped)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{name} is a cut or damaged {kind} file ({one_line(error)}); write it again") from error


class _Parquet:
    def __init__(self, file: pq.ParquetFile) -> None:
        self._file, self.schema, self.rows = file, file.schema_arrow, int(file.metadata.num_rows)

    def batches(self, columns: list[str], start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        groups, row = self._groups(start, stop)
        for batch in self._file.iter_batches(ROWS, row_groups=groups, columns=columns, use_threads=False):
            yield row, batch
            row += len(batch)

    def _groups(self, start: int, stop: int) -> tuple[list[int], int]:
        """Return the row groups that hold rows `start` to `stop`, and the number of the first row in them."""
        groups: list[int] = []
        first = row = 0
        for group in range(self._file.metadata.num_row_groups):
            end = row + self._file.metadata.row_group(group).num_rows
            if end > start and row < stop:
                if not groups:
                    first = row
                groups.append(group)
            row = end
        return groups, first


class _Arrow:
    """A mapped file: its batches are looked through from the front, and nothing of them is copied."""

    def __init__(self, mapped: pa.MemoryMappedFile) -> None:
        self._mapped = mapped
        reader = self._reader()
        self.schema: pa.Schema = reader.schema
        self.rows = sum(len(batch) for batch in self._all(reader))

    def batches(self, columns: list[str], start: int, stop: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        row = 0
        for batch in self._all(self._reader()):
            if row < stop and row + len(batch) > start:
                yield row, batch.select(columns)
            row += len(batch)

    def _reader(self) -> pa.RecordBatchFileReader | pa.RecordBatchStreamReader:
        self._mapped.seek(0)
        is_file = self._mapped.read(6) == b"ARROW1"
        if not is_file and self._mapped.read_at(8, max(0, self._mapped.size() - 8)) != _END_OF_STREAM:
            raise pa.ArrowInvalid("its end mark is missing")  # pyarrow takes a stream that is cut between two batches for a whole one
        self._mapped.seek(0)
        return pa.ipc.open_file(self._mapped) if is_file else pa.ipc.open_stream(self._mapped)

    def _all(self, reader: pa.RecordBatchFileReader | pa.RecordBatchStreamReader) -> Iterator[pa.RecordBatch]:
        if isinstance(reader, pa.RecordBatchFileReader):
            yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
        else:
            yield from reader


def _column(schema: pa.Schema, name: str, wanted: str) -> str:
    candidates: list[str] = [field.name for field in schema if _holds_bytes(field.type)]
    listed = ", ".join(f"{field.name} ({field.type})" for field in schema) or "none"
    if wanted:
        if wanted not in candidates:
            raise DataError(f"{name} has no column {wanted!r} with encoded pictures; its columns are: {listed}")
        return wanted
    declared = [column for column, feature in _features(schema).items() if feature.get("_type") == "Image" and column in candidates]
    if len(declared) == 1:
        return declared[0]
    if len(candidates) != 1:
        what = "no column with encoded pictures" if not candidates else f"{len(candidates)} columns that may hold pictures"
        raise DataError(f"{name} has {what}; its columns are: {listed}; keep one of them, or name it with image_column")
    return candidates[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What Hugging Face's metadata says of the columns; nothing where it is not of their form."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {column: feature for column, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _pictures(column: pa.Array) -> Iterator[tuple[bytes | None, Any]]:
    """The bytes of each picture, and the path that Hugging Face's form has beside them."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not pa.types.is_struct(column.type):
        return zip(column.to_pylist(), repeat(None))
    fields = dict(zip((field.name for field in column.type), column.flatten(), strict=True))
    paths = fields["path"].to_pylist() if "path" in fields else [None] * len(column)
    return zip(fields["bytes"].to_pylist(), paths, strict=True)


def _record(name: str, index: int, held: bytes | None, path: Any) -> Record:
    if held is None and path:
        return Unreadable(name, index, f"the row holds only a path ({path}), not the picture's bytes")
    if held is None:
        return Unreadable(name, index, "the row holds no picture (null)")
    return Encoded(name, index, partial(bytes, held), len(held))
