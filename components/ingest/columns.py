"""columns.csv beside the class folders: further attributes of the pictures, which become columns of the dataset.

The first column is `file`, a picture's path from the folder that columns.csv lies in (`cat/1.png`); each other column is an
attribute, by which an evaluation can be sliced: `file,camera,site`.
"""

import csv
import io

from components.classifier.errors import DataError
from components.ingest.listing import Listing, readable, some

FILE = "columns.csv"


def read(listing: Listing, root: str, names: list[str]) -> tuple[dict[str, list[str | None]], list[str]]:
    """Read columns.csv of a listing's unwrapped folder `root`: per column one text a picture of `names`, None where it has no row.

    Returns (columns, notes); no columns when there is no such file. Raises DataError when the file is not of that form.
    """
    member = next((m for m in listing.members if m.name == root + FILE), None)
    if member is None:
        return {}, []
    try:
        rows = list(csv.reader(io.StringIO(member.read().decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{member.name} cannot be read as UTF-8 text with commas ({error}); save it again") from error
    header = [name.strip() for name in rows[0]] if rows else []
    _check_header(member.name, header)
    table: dict[str, list[str]] = {}
    for number, row in enumerate(rows[1:], 2):
        if row and len(row) != len(header):
            raise DataError(f"{member.name} line {number} has {len(row)} fields where the header has {len(header)}; correct it")
        if row:
            table[root + readable(row[0].strip().lstrip("/"))] = row
    columns: dict[str, list[str | None]] = {
        name: [table[n][k] if n in table else None for n in names] for k, name in enumerate(header) if k
    }
    return columns, _notes(member.name, table, names)


def _check_header(name: str, header: list[str]) -> None:
    if len(header) < 2 or header[0] != "file" or len(set(header)) < len(header) or not all(header):
        raise DataError(
            f"{name} begins with {some(header) or 'nothing'!r}; its header is file and then other names, each once, such as file,camera"
        )


def _notes(name: str, table: dict[str, list[str]], names: list[str]) -> list[str]:
    known = set(names)
    unknown = [file for file in table if file not in known]
    without = sum(file not in table for file in names)
    notes = []
    if unknown:
        notes.append(f"{name} names {len(unknown)} files that are no usable pictures here: {some(unknown)}")
    if without:
        notes.append(f"{name} has no line for {without} of {len(names)} pictures")
    return notes
