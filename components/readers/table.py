"""Tables beside the pictures: labels, splits and further attributes in CSV (comma, semicolon or tab) or JSON Lines.

The first line of a CSV names its columns; a line of JSON is an object. One column names the picture (PATH_COLUMNS), one may give
its label (LABEL_COLUMNS) and one its split; all others are attributes by which an evaluation can be sliced, or groups. Text stays
text: `NA` and `None` are values.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from components.classifier.contents import stand_in
from components.classifier.errors import DataError
from components.readers.listing import readable, some, suffix

PATH_COLUMNS = ("file", "path", "file_name", "filename", "image", "uri")
LABEL_COLUMNS = ("label", "class", "cls", "class_name")
SPLIT_COLUMN = "split"
TABLE_SUFFIXES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson"])

SEPARATORS = ",;\t"


@dataclass(frozen=True)
class Table:
    """The rows of a table, by the picture's path as it is shown (see `readable`); `columns` without the path's."""

    name: str
    columns: list[str]
    rows: dict[str, dict[str, str | None]]
    spelled: dict[str, str] = field(default_factory=dict)
    """Paths as the table itself spells them, where that differs."""

    @property
    def label(self) -> str | None:
        """The column of labels."""
        return next((name for name in LABEL_COLUMNS if name in self.columns), None)


def is_table(name: str) -> bool:
    """Say whether a file's name is that of a table."""
    return suffix(name) in TABLE_SUFFIXES


def read_table(name: str, data: bytes, required: bool = True) -> Table | None:
    """Read a table from the bytes of a file; None for one that has no column for the picture and is not `required` to.

    Raises DataError naming the line when the file is not UTF-8 or UTF-16 text of that form, has no column for the picture, or
    says two things of one picture.
    """
    if told := stand_in(data):
        raise DataError(f"{name} is {told}")
    try:
        header, lines = _json_lines(name, text_of_file(data)) if suffix(name) in {".jsonl", ".ndjson"} else _csv(name, data)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as a table in UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    path = next((column for column in PATH_COLUMNS if column in header), None)
    if path is None and not required:
        return None
    if path is None or len(header) < 2 or len(set(header)) < len(header) or not all(header):
        wanted = f"it needs one for the picture ({', '.join(PATH_COLUMNS)}) and others, each once and with a name, such as file,label"
        if "pixels" in header:
            wanted = "pixels in one column are not read: save them as an array (N, H, W) with np.save, and the labels as another beside it"
        raise DataError(f"{name} has the columns {some(header) or 'none'}; {wanted}")
    rows: dict[str, dict[str, str | None]] = {}
    spelled: dict[str, str] = {}
    for number, row in lines:
        written = (row.pop(path, None) or "").strip().removeprefix("./")
        if not written:
            raise DataError(f"{name} line {number} has no value in column {path!r}; add the picture's path")
        picture = readable(written)
        if picture != written:
            spelled[picture] = written
        if rows.setdefault(picture, row) != row:
            raise DataError(f"{name} line {number} says something else of {picture} than a line before; keep one of them")
    return Table(name, [column for column in header if column != path], rows, spelled)


def text_of_file(data: bytes) -> str:
    """Decode a text file: UTF-16 by its byte order mark, else UTF-8 with or without one; raises UnicodeDecodeError."""
    return data.decode("utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")


def csv_rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV with their line numbers, the header's first, empty lines left out.

    The separator is the one that the header has most of. Raises UnicodeDecodeError, and csv.Error for an open quote.
    """
    text = text_of_file(data)
    first = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(SEPARATORS, key=first.count), strict=True)
    yield from ((reader.line_num, row) for row in reader if row)


def text_of(value: Any) -> str | None:
    """A JSON value as the text that a CSV would hold: 3 is "3", true is "true"; null, and the number NaN of a table, is None."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if value == value else None


def _csv(name: str, data: bytes) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    lines = csv_rows(data)
    header = [column.strip() for column in next(lines, (0, []))[1]]
    rows: list[tuple[int, dict[str, str | None]]] = []
    for number, row in lines:
        if len(row) != len(header):
            raise DataError(f"{name} line {number} has {len(row)} fields where the header has {len(header)}; correct it")
        rows.append((number, dict(zip(header, row, strict=True))))
    return header, rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return dict(pairs)


def _json_lines(name: str, text: str) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    header: dict[str, None] = {}
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line, object_pairs_hook=_object)
        except ValueError as error:
            raise DataError(f"{name} line {number} is not JSON ({error}); write one object per line") from error
        if not isinstance(found, dict):
            raise DataError(f'{name} line {number} is not a JSON object; write one per line, such as {{"file": "a.png", "label": "cat"}}')
        header |= dict.fromkeys(found)
        rows.append((number, {column: text_of(value) for column, value in found.items()}))
    return list(header), rows
