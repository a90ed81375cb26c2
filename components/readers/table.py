"""Tables beside the pictures: labels, splits and further attributes in CSV (comma, semicolon or tab) or JSON Lines.

The first line of a CSV names its columns; a line of JSON is an object. One column names the picture (PATH_COLUMNS), one may give
its label (LABEL_COLUMNS) and one its split; all others are attributes by which an evaluation can be sliced, or groups. Text stays
text: `NA` and `None` are values.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from components.bundle.dataset import SplitName
from components.classifier.contents import refuse_stand_in
from components.classifier.errors import DataError
from components.readers.listing import looks_like_picture, readable, some, suffix

PATH_COLUMNS = ("file", "path", "file_name", "filename", "image", "uri", "file_path", "filepath", "image_path", "image_name", "image_id")
LABEL_COLUMNS = ("label", "class", "cls", "class_name", "class_id", "classid")
SPLIT_COLUMN = "split"
SPLIT_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
TABLE_SUFFIXES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson"])

SEPARATORS = ",;\t"
_SEPARATOR_LINE = re.compile(r"sep=([,;\t])\s*")


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
        return _column(self.columns, LABEL_COLUMNS)

    @property
    def split(self) -> str | None:
        """The column of splits."""
        return _column(self.columns, (SPLIT_COLUMN,))


def is_label(column: str) -> bool:
    """Say whether a column's name is one of labels."""
    return _column([column], LABEL_COLUMNS) is not None


def _column(columns: Iterable[str], names: tuple[str, ...]) -> str | None:
    """The column of the first of these names that there is, in any case, and with spaces as Excel's users write them ("File Name")."""
    known = {column.casefold().replace(" ", "_"): column for column in reversed(list(columns))}
    return next((name if name in known.values() else known[name] for name in names if name in known), None)


def is_table(name: str) -> bool:
    """Say whether a file's name is that of a table."""
    return suffix(name) in TABLE_SUFFIXES


def read_table(name: str, data: bytes, required: bool = True) -> Table | None:
    """Read a table from the bytes of a file; None for one that has no column for the picture, or no other, and is not `required` to.

    Raises DataError naming the line when the file is not UTF-8 or UTF-16 text of that form, has no column for the picture, or
    says two things of one picture.
    """
    refuse_stand_in(name, data)
    try:
        header, lines = _json_lines(name, text_of_file(data)) if suffix(name) in {".jsonl", ".ndjson"} else _csv(name, data)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as a table in UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    path = _column(header, PATH_COLUMNS)
    if not required and (path is None or len(header) < 2):
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
    """Decode a text file: UTF-16 by its byte order mark, or as one of its first two bytes is 0, else UTF-8; raises UnicodeDecodeError."""
    if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
        return data.decode("utf-16")
    return data.decode({0: "utf-16-be", 1: "utf-16-le"}.get(data[:2].find(0), "utf-8-sig"))


def csv_rows(data: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV with their line numbers, the header's first, lines without any text left out.

    The separator is the one that the header has most of, or that which Excel's first line names (`sep=;`). Raises
    UnicodeDecodeError, and csv.Error for an open quote.
    """
    lines = io.StringIO(text_of_file(data), newline="")
    first = lines.readline()
    said = _SEPARATOR_LINE.fullmatch(first)
    if not said:
        lines.seek(0)
    reader = csv.reader(lines, delimiter=said[1] if said else max(SEPARATORS, key=first.count), strict=True)
    yield from ((reader.line_num + bool(said), row) for row in reader if any(map(str.strip, row)))


def text_of(value: Any) -> str | None:
    """A JSON value as the text that a CSV would hold: 3 is "3", true is "true"; null, and the number NaN of a table, is None."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if value == value else None


def _csv(name: str, data: bytes) -> tuple[list[str], list[tuple[int, dict[str, str | None]]]]:
    lines = csv_rows(data)
    number, first = next(lines, (0, []))
    header = [column.strip() for column in first]
    if _column(header, PATH_COLUMNS) is None and sum(map(looks_like_picture, header)) == 1:
        found = [(number, first), *lines]
        header, lines = _names_of_columns(name, header, [row for _, row in found]), iter(found)
    if "" in header:
        header, lines = _without_unnamed(header, list(lines))
    rows: list[tuple[int, dict[str, str | None]]] = []
    for number, row in lines:
        if len(row) != len(header):
            raise DataError(f"{name} line {number} has {len(row)} fields where the header has {len(header)}; correct it")
        rows.append((number, dict(zip(header, row, strict=True))))
    return header, rows


def _without_unnamed(header: list[str], rows: list[tuple[int, list[str]]]) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Leave out columns without a name that say nothing: empty ones, as of spreadsheets, and the rows' numbers, as of pandas and R."""
    if any(len(row) != len(header) for _, row in rows):
        return header, iter(rows)

    def says_something(place: int) -> bool:
        values = [row[place].strip() for _, row in rows]
        return any(values) and not (len(set(values)) == len(values) and all(map(str.isdecimal, values)))

    kept = [place for place, column in enumerate(header) if column or says_something(place)]
    return [header[place] for place in kept], ((number, [row[place] for place in kept]) for number, row in rows)


def _names_of_columns(name: str, first: list[str], rows: list[list[str]]) -> list[str]:
    """Name the columns of a table that begins with a picture and not with names: its path, its split, and the one left, its label."""
    named = ["file" if looks_like_picture(field) else "" for field in first]
    for place, column in enumerate(named):
        if not column and all(len(row) > place and row[place].strip().casefold() in SPLIT_NAMES for row in rows):
            named[place] = SPLIT_COLUMN
    if sorted(filter(None, named)) not in (["file"], ["file", SPLIT_COLUMN]) or named.count("") != 1:
        raise DataError(
            f"{name} has no names of columns, and its first line names a picture ({some(first)}); write a line above such as file,label"
        )
    return [column or LABEL_COLUMNS[0] for column in named]


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
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} line {number} is not JSON ({error}); write one object per line") from error
        if not isinstance(found, dict):
            raise DataError(f'{name} line {number} is not a JSON object; write one per line, such as {{"file": "a.png", "label": "cat"}}')
        if several := [column for column, value in found.items() if is_label(column) and isinstance(value, dict | list)]:
            raise DataError(f"{name} line {number} has an object or list in column {several[0]!r}; a label is one text or number")
        header |= dict.fromkeys(found)
        rows.append((number, {column: text_of(value) for column, value in found.items()}))
    return list(header), rows
