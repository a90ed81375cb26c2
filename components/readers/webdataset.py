"""webdataset's form: the members of a sample share their name up to the first dot, `003.jpg` and `003.cls` or `003.json`.

They need not lie side by side. Format: https://github.com/webdataset/webdataset
"""

import json
from typing import Any

from components.classifier.errors import DataError, ImageError
from components.readers.processes import load
from components.readers.records import Encoded
from components.readers.table import LABEL_COLUMNS, SPLIT_COLUMN, text_of

LABEL_SUFFIXES = (".cls", ".json")


def sample(member: str) -> str:
    """The sample that a member belongs to."""
    folder, _, base = member.rpartition("/")
    return f"{folder}/{base.partition('.')[0]}"


def label_suffix(member: str) -> str:
    """`.cls` or `.json` where a member may hold the label of its sample, else ""."""
    extension = f".{member.rpartition('/')[2].partition('.')[2].lower()}"
    return extension if extension in LABEL_SUFFIXES else ""


def read_labels(records: list[Encoded]) -> list[dict[str, str | None] | None]:
    """Fetch and read the labels of several members, in another process too; raises DataError as `read_label` does."""
    return [read_label(record.input, content(record)) for record in records]


def content(record: Encoded) -> bytes:
    """Fetch the bytes of a file that is not a picture; raises DataError where it cannot be read."""
    try:
        return load(record)
    except ImageError as error:
        raise DataError(f"{record.input} cannot be read: {error}") from error


def read_label(member: str, data: bytes) -> dict[str, str | None] | None:
    """Read `label`, and what else a `.json` says (`split`, `group` …), as text; None for a `.json` without a label.

    Raises DataError for a `.cls` that is not one line of text.
    """
    try:
        text = data.decode("utf-8-sig").strip()
        if label_suffix(member) == ".cls":
            if not text or len(text.splitlines()) > 1:
                raise DataError(f"{member} is not one label; write one line, the class' name or number")
            return {"label": text}
        found: Any = json.loads(text)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise DataError(f"{member} cannot be read as {'text' if member.endswith('.cls') else 'JSON'} ({error}); write it again") from error
    if not isinstance(found, dict):
        return None
    key = next((name for name in LABEL_COLUMNS if name in found), None)
    if key is None or isinstance(found[key], dict | list):
        return None
    others = {name: text_of(value) for name, value in found.items() if name != key and not isinstance(value, dict | list)}
    return {"label": text_of(found[key]), **{name: value for name, value in others.items() if name == SPLIT_COLUMN or value is not None}}
