"""Tables beside the pictures: labels, splits and further attributes in CSV (comma, semicolon or tab), JSON Lines, or lists of text.

The first line of a CSV names its columns; a line of JSON is an object; one of a list is a picture and its label, as Caffe writes it
(`cats/1.png 0`). One column names the picture (PATH_COLUMNS), one may give
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
from components.readers.listing import PICTURE_SUFFIXES, looks_like_picture, readable, some, suffix

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
TABLE_SUFFIXES, _LIST_SUFFIX = frozenset([".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"]), ".txt"

SEPARATORS = ",;\t|"
_SEPARATOR_LINE = re.compile(r"sep=([,;\t|])\s*")
_LIST_LINE = re.compile(rf"(.+(?:{'|'.join(map(re.escape, sorted(PICTURE_SUFFIXES)))}))[\s,;]+([^\s,;]+)", re.IGNORECASE)
"""The path may have spaces in it, the label has none."""
_BASE64 = re.compile(r"data:image/|iVBORw0KGgo|/9j/[24]")
"""How a PNG or a JPEG as text begins."""


_MAX_KNOWN = 10_000
Rows = Iterable[tuple[int, dict[str, str | None]]]
"""Each row by its columns, with the number of its line."""


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
        return label_column(self.columns)

    @property
    def split(self) -> str | None:
        """The column of splits."""
        return _column(self.columns, (SPLIT_COLUMN,))


def is_label(column: str) -> bool:
    """Say whether a column's name is one of labels."""
    return label_column([column]) is not None


def _column(columns: Iterable[str], names: tuple[str, ...]) -> str | None:
    """The column of the first of these names that there is, in any case, and with spaces as Excel's users write them ("File Name")."""
    known = {column.casefold().replace(" ", "_"): column for column in reversed(list(columns))}
    return next((name if name in known.values() else known[name] for name in names if name in known), None)


def path_column(columns: Iterable[str]) -> str | None:
    """Return the column that names the picture: of several the first of PATH_COLUMNS, None for none."""
    return _column(columns, PATH_COLUMNS)


def label_column(columns: Iterable[str]) -> str | None:
    """Return the column of labels: of several that are called so the first of LABEL_COLUMNS, None for none."""
    return _column(columns, LABEL_COLUMNS)


def is_table(name: str) -> bool:
    """Say whether a file's name is that of a table."""
    return suffix(name) in TABLE_SUFFIXES


def may_be_table(name: str) -> bool:
    """Say whether a file's name is that of a table, or of a text, which may be a list of pictures and labels."""
    return is_table(name) or suffix(name) == _LIST_SUFFIX


def read_table(name: str, data: bytes, required: bool = True) -> Table | None:
    """Read a table from the bytes of a file; None for one that has no column for the picture, or no other, and is not `required` to.

    Raises DataError naming the line when the file is not UTF-8 or UTF-16 text of that form, has no column for the picture, or
    says two things of one picture.
    """
    refuse_stand_in(name, data)
    try:
        return _read_rows(name, data, required)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name} cannot be read as a table in UTF-8 ({error}); save it as 'CSV UTF-8'") from error


def _read_rows(name: str, data: bytes, required: bool) -> Table | None:
    if suffix(name) == _LIST_SUFFIX:
        header, lines = _list(name, text_of_file(data), required)
    else:
        header, lines = _json_lines(name, text_of_file(data)) if suffix(name) in {".jsonl", ".ndjson"} else _csv(name, data)
    return table_of(name, header, lines, required)


def table_of(name: str, header: list[str], lines: Rows, required: bool) -> Table | None:
    """Make a table of a file's columns and rows; returns None, and raises, as `read_table` does."""
    path = path_column(header)
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
        if _BASE64.match(written):
            raise DataError(
                f"{name} line {number} has a picture in base64 in column {path!r}; save the pictures as files, and write their paths"
            )
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

    The separator is that which Excel's first line names (`sep=;`), or by which the header names a picture's column, or of which it has
    most. Raises
    UnicodeDecodeError, and csv.Error for an open quote.
    """
    lines = io.StringIO(text_of_file(data), newline="")
    first = lines.readline()
    said = _SEPARATOR_LINE.fullmatch(first)
    if not said:
        lines.seek(0)
    reader = csv.reader(lines, delimiter=said[1] if said else _separator(first), strict=True)
    yield from ((reader.line_num + bool(said), row) for row in reader if any(map(str.strip, row)))


def _separator(header: str) -> str:
    def fits(separator: str) -> tuple[bool, int]:
        columns = [column.strip('" \r\n') for column in header.split(separator)]
        return path_column(columns) is not None, len(columns)

    return max(SEPARATORS, key=fits)


def text_of(value: Any) -> str | None:
    """A JSON value as the text that a CSV would hold: 3 is "3", true is "true"; null, and the number NaN of a table, is None."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False) if value == value else None


def _csv(name: str, data: bytes) -> tuple[list[str], Rows]:
    lines = csv_rows(data)
    number, first = next(lines, (0, []))
    header = [column.strip() for column in first]
    if path_column(header) is None and sum(map(looks_like_picture, header)) == 1:
        found = [(number, first), *lines]
        header, lines = _names_of_columns(name, header, [row for _, row in found]), iter(found)
    if "" in header:
        header, lines = _without_unnamed(header, list(lines))
    return header, _as_dicts(name, header, lines)


def _as_dicts(name: str, header: list[str], lines: Iterable[tuple[int, list[str]]]) -> Rows:
    """The rows by the columns' names; equal values are one text in memory, as there may be a million rows."""
    known: dict[str, str] = {}
    for number, row in lines:
        if len(row) != len(header):
            remedy = "put a value that holds a separator in double quotes" if len(row) > len(header) else "correct it"
            raise DataError(f"{name} line {number} has {len(row)} fields where the header has {len(header)}; {remedy}")
        values = (known.setdefault(value, value) if len(known) < _MAX_KNOWN else known.get(value, value) for value in row)
        yield number, dict(zip(header, values, strict=True))


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


def _list(name: str, text: str, required: bool) -> tuple[list[str], Rows]:
    """A list of pictures and labels; without columns where the first line is none of that, and it need not be."""
    rows: list[tuple[int, dict[str, str | None]]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        found = _LIST_LINE.fullmatch(line.strip())
        if found and not looks_like_picture(found[2]):
            rows.append((number, {PATH_COLUMNS[0]: found[1], LABEL_COLUMNS[0]: found[2]}))
        elif rows or required:
            raise DataError(f"{name} line {number} is not a picture and its label, such as cats/1.png 0; correct it")
        else:
            break
    return ([PATH_COLUMNS[0], LABEL_COLUMNS[0]] if rows else []), rows


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError(f"{next(key for key in keys if keys.count(key) > 1)!r} is there twice")
    return dict(pairs)


def _json_lines(name: str, text: str) -> tuple[list[str], Rows]:
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
