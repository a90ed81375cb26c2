"""Tables of labels: which of a source's files they are, which pictures their rows mean, and what is said of each.

- A table that is the source itself stands alone. In a source it is called `labels` or `metadata`; else each split may have its own,
  which say their split by their name or their folder (`train_labels.csv`, `train.csv`, `test/metadata.csv`) and are read as one.
- Paths start at the table's folder. Where none of a table's paths is there so, they may be written from another folder, without
  endings (as identifiers) or with backslashes: each that is there must be there once, and not in the folder of another split.
- Absolute paths none of which is there were written on another machine. Their beginning is left out where all rows are then found below
  the table's folder, and nothing in it says another split; else the table is refused.
- A table without a column of labels whose other columns are 0 or 1, with one 1 in each row, names the class by the column (one-hot).
"""

import os
import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import takewhile
from operator import eq
from pathlib import Path
from urllib.parse import unquote

from components.bundle.dataset import SPLITS, SplitName
from components.classifier.errors import DataError, ImageError
from components.ingest.layout import Labelled, Layout, place_of, record_of, split_like
from components.readers import parquet, webdataset
from components.readers.listing import PICTURE_SUFFIXES, Listing, SourceFile, looks_like_picture, readable, some, suffix
from components.readers.places import InputSource, LocalSource, local_path, read_object
from components.readers.records import Encoded
from components.readers.table import LABEL_COLUMNS, SPLIT_COLUMN, SPLIT_NAMES, Table, is_label, read_table

STEMS = ("labels", "metadata")
"""What a table of labels is called in a source."""
_SPLIT_STEM = re.compile(r"[_\W]*(labels?|metadata|classes|list)?[_\W]*", re.IGNORECASE)
"""What the name of a split's table may hold beside the split."""
_BOXES = frozenset(["xmin", "x_min", "x1", "bbox"])
_WEB = ("http://", "https://")
_ABSOLUTE = re.compile(r"/|\\\\|[A-Za-z]:[\\/]")
"""How a path begins that no folder of the table leads to: on Linux and macOS, on Windows a share or a drive."""
_ONE, _ZERO = frozenset(["1", "1.0"]), frozenset(["0", "0.0", ""])


@dataclass
class LabelTable:
    """A table of labels, or those of the splits joined; its rows by the pictures' names in the source."""

    table: Table
    files: set[str]
    root: str
    """The folder of the table, or the one that holds those of all splits; "" for the source's own."""
    notes: list[str] = field(default_factory=list)
    of_splits: bool = False


def content(source: InputSource, file: SourceFile) -> bytes:
    """Return the bytes of a file that is not a picture; raises DataError where it cannot be read."""
    return webdataset.content(record_of(source, file))


def _read(source: InputSource, file: SourceFile, required: bool = True) -> Table | None:
    """Read a table from a file of a source; raises DataError, and returns None, as `read_table` does."""
    if suffix(file.name) == ".parquet":
        return parquet.read_paths(source.local(file.key), file.name, required)
    return read_table(file.name, content(source, file), required)


def only_addresses(source: InputSource, file: SourceFile) -> bool:
    """Say whether a table names no picture that may lie below its own folder; raises DataError for one that is not a table."""
    table = _read(source, file)
    return table is not None and all(map(_is_address, table.rows)) and not _are_of_another_machine(table)


def given(source: InputSource, listing: Listing, file: SourceFile) -> LabelTable:
    """Read the table that is the source; raises DataError where it is not a table, or has no labels."""
    table = _read(source, file)
    assert table is not None
    found = _with_classes(listing, table, _split_of_words(file.name.rpartition("/")[2]))
    if found is None:
        raise DataError(f"{table.name} has the columns {some(table.columns)} and none of labels; call it label")
    return found


def find(source: InputSource, listing: Listing, files: list[SourceFile]) -> LabelTable | None:
    """Find among the files that are tables the one called labels or metadata.

    Raises DataError where it cannot be read, or where two differ.
    """
    wrapper, found = _wrapper(listing, files), list[LabelTable]()
    for file in files:
        folder, stem = _parts(file.name)
        if stem.casefold() in STEMS and folder in {"", wrapper}:
            table = _read(source, file, required=False)
            if table is not None and table.label:
                found.append(_placed(listing, table, None))
    for other in found[1:]:
        if _said(other) != _said(found[0]):
            raise DataError(
                f"{found[0].table.name} and {other.table.name} both give labels, and differ; keep one, or give it as the source"
            )
    if found and (others := named_like_splits(listing, files)):
        found[0].notes.append(f"{some(others)} may say the splits, and is not read beside {found[0].table.name}")
    return found[0] if found else None


def named_like_splits(listing: Listing, files: list[SourceFile]) -> list[str]:
    """Names of the files that are called like the table of one split."""
    wrapper = _wrapper(listing, files)
    return [file.name for file in files if _split_of_table(file.name, wrapper)]


def _said(found: LabelTable) -> dict[str, tuple[str | None, SplitName | None]]:
    table = found.table
    return {name: (row.get(table.label or ""), split(table, name, row)) for name, row in table.rows.items()}


def find_of_splits(source: InputSource, listing: Listing, files: list[SourceFile]) -> LabelTable | None:
    """Find those of the splits, as one table; None where there is none for training, or where they name no picture that is there.

    Raises DataError where one cannot be read, or a path may mean several pictures.
    """
    wrapper, found, notes = _wrapper(listing, files), list[tuple[SplitName, LabelTable]](), list[str]()
    for file in files:
        part = _split_of_table(file.name, wrapper)
        table = _read(source, file, required=False) if part else None
        one = _with_classes(listing, table, part) if table else None
        if part and one:
            found.append((part, one))
        elif part:
            notes.append(f"{file.name} has no column for the picture, or none of labels ({', '.join(LABEL_COLUMNS)}), and is not used")
    parts = Counter(part for part, _ in found)
    if twice := next((part for part, count in parts.items() if count > 1), None):
        names = some(one.table.name for part, one in found if part == twice)
        raise DataError(f"{names} give the labels of the {twice} split each; join them to one, or give one table as the source")
    there = set(listing.files.names) if found else set()
    if "train" not in parts or not any(name in there for _, one in found for name in one.table.rows):
        return None
    return _joined(sorted(found, key=lambda one: SPLITS.index(one[0])), notes, wrapper)


def label(source: InputSource, listing: Listing, found: LabelTable) -> Labelled:
    """Say of each picture what a table does, whose rows are used up; raises DataError for a row that cannot be meant."""
    table = found.table
    layout = Layout(f"{found.root}/" if found.root else "", notes=[*found.notes])
    if others := [column for column in table.columns if is_label(column) and column != table.label]:
        layout.notes.append(f"{table.name} gives the labels in column {table.label}; {some(others)} may hold some too, and is an attribute")
    if boxes := [column for column in table.columns if column.casefold() in _BOXES]:
        layout.notes.append(f"{table.name} has boxes of objects ({some(boxes)}), which are not read: a label is that of the whole picture")
    files = {name: place for place, name in enumerate(listing.files.names)}
    faults: list[tuple[str, str]] = []
    missing: list[str] = []
    for name in [*table.rows]:
        row = table.rows.pop(name)  # there may be a million: what is taken from it needs its memory
        class_name = row.get(table.label or "")
        if not class_name:
            faults.append((name, f"{table.name} gives it no label"))
            continue
        if _is_address(name):
            _check_address(source, name, table)
        elif name not in files:
            missing.append(name)
            continue
        layout.places[name] = place_of(readable(class_name), split(table, name, row))
        layout.attributes[name] = attributes(table, row)
    faults += [(name, f"{table.name} names it, and it is not there{hint}") for hint in [_meant(missing, files)] for name in missing]
    layout.class_names = {place.class_name for place in layout.places.values()}
    unnamed = [name for name in files if looks_like_picture(name) and name not in layout.places and name.startswith(layout.root)]
    if unnamed:
        layout.notes.append(f"{table.name} has no line for {len(unnamed)} pictures, which are not used: {some(unnamed)}")
    records = (
        _at_address(table.spelled.get(name, name), name) if _is_address(name) else record_of(source, listing.files[files[name]])
        for name in sorted(layout.places)
    )
    return Labelled(layout, records, len(layout.places), all_pictures=True, faults=faults, read_too={*found.files, *unnamed})


def split(table: Table, name: str, row: dict[str, str | None]) -> SplitName | None:
    """The split that a row puts its picture into, None where it says none; raises DataError for one of another name."""
    if not (text := (row.get(table.split or "") or "").strip()):
        return None
    known = SPLIT_NAMES.get(text.casefold())
    if known is None:
        raise DataError(f"{table.name} puts {name} into split {text!r}; use train, validation or test, or leave it empty")
    return known


def attributes(table: Table, row: dict[str, str | None]) -> dict[str, str | None]:
    """What a row says beside label and split."""
    return {column: row.get(column) for column in table.columns if column not in {table.label, table.split}}


def _wrapper(listing: Listing, files: list[SourceFile]) -> str:
    """The one folder that all else lies in, or ""; it only matters where there are tables."""
    tops = {name.partition("/")[0] if "/" in name else "" for name in listing.files.names} if files else set()
    return next(iter(tops)) if len(tops) == 1 else ""


def _joined(found: list[tuple[SplitName, LabelTable]], notes: list[str], root: str) -> LabelTable:
    rows: dict[str, dict[str, str | None]] = {}
    spelled: dict[str, str] = {}
    for part, one in found:
        table = one.table
        spelled |= table.spelled
        for name in [*table.rows]:
            row = table.rows.pop(name)
            said = {"label": row.get(table.label or ""), SPLIT_COLUMN: split(table, name, row) or part, **attributes(table, row)}
            if rows.setdefault(name, said) != said:
                raise DataError(f"{table.name} says something else of {name} than the table of another split; keep one of them")
    columns = list(dict.fromkeys(column for _, one in found for column in ("label", SPLIT_COLUMN, *_others(one.table))))
    names = ("the table of " if len(found) > 1 else "") + " and ".join(one.table.name for _, one in found)
    told = ", ".join(f"{one.table.name} gives the labels of the {part} split" for part, one in found)
    files = set[str]().union(*(one.files for _, one in found))
    notes = [told, *notes, *(note for _, one in found for note in one.notes)]
    return LabelTable(Table(names, columns, rows, spelled), files, root, notes, of_splits=True)


def _others(table: Table) -> list[str]:
    return [column for column in table.columns if column not in {table.label, table.split}]


def _split_of_table(name: str, wrapper: str) -> SplitName | None:
    """The split of a table that is called like labels of one, or like labels in the folder of one."""
    folder, stem = _parts(name.removeprefix(f"{wrapper}/" if wrapper else ""))
    if "/" in folder:
        return None
    words = [word for word in re.findall(r"[^\W\d_]+", stem) if word.casefold() in SPLIT_NAMES]
    rest = re.sub("|".join(words), "", stem, count=1) if words else stem
    if not _SPLIT_STEM.fullmatch(rest) or len(words) > 1:
        return None
    parts = {part for part in (_split_of_words(folder), SPLIT_NAMES[words[0].casefold()] if words else None) if part}
    return parts.pop() if len(parts) == 1 else None


@lru_cache(maxsize=1024)
def _split_of_words(name: str) -> SplitName | None:
    return SPLIT_NAMES.get(name.casefold()) or split_like(name)


def _parts(name: str) -> tuple[str, str]:
    folder, _, base = name.rpartition("/")
    return folder, base.rpartition(".")[0]


def _with_classes(listing: Listing, table: Table, part: SplitName | None) -> LabelTable | None:
    """A table with its column of labels, or the class by the column that has the 1 (one-hot); None where it has neither."""
    if table.label:
        return _placed(listing, table, part)
    classes = [column for column in table.columns if column != table.split]
    if len(classes) < 2 or not table.rows:
        return None
    rows, several = {}, ""
    for name, row in table.rows.items():
        values = {column: (row.get(column) or "").strip() for column in classes}
        if any(value not in _ONE | _ZERO for value in values.values()):
            return None
        ones = [column for column, value in values.items() if value in _ONE]
        several = several or (f"{name} ({some(ones)})" if len(ones) > 1 else "")
        if not ones:
            return None
        rows[name] = {"label": ones[0], SPLIT_COLUMN: row.get(table.split or "")}
    if several:
        raise DataError(f"{table.name} gives a picture several classes, such as {several}, and a classifier takes one label per picture")
    found = _placed(listing, Table(table.name, ["label", SPLIT_COLUMN], rows, table.spelled), part)
    found.notes.append(f"{table.name} has a column for each class, with one 1 in each line: {some(classes)}")
    return found


def _placed(listing: Listing, table: Table, part: SplitName | None) -> LabelTable:
    """A table with its rows by the pictures' names in the source; raises DataError where a path may mean several of them."""
    root = table.name.rpartition("/")[0]
    prefix = f"{root}/" if root else ""
    names = {path: path if _is_address(path) else _tidy(prefix + path) for path in table.rows}
    notes: list[str] = []
    if _are_of_another_machine(table):
        names, told = _moved(listing, table, prefix, part)
        notes.append(told)
    relative = [path for path in table.rows if not _ABSOLUTE.match(path) and not _is_address(path)]
    there = set(listing.files.names) if relative else set()
    if relative and not any(names[path] in there for path in relative):
        elsewhere = _elsewhere(listing, table.name, relative, prefix, part)
        names |= elsewhere
        if elsewhere:
            path, name = next(iter(elsewhere.items()))
            notes.append(f"{table.name} does not write paths from its folder: {path} is {name}, which is there once")
    for row in table.rows.values():
        row[table.label or ""] = (row.get(table.label or "") or "").strip()
    rows = {names[path]: row for path, row in table.rows.items()}
    if len(rows) < len(names):
        twice, count = Counter(names.values()).most_common(1)[0]
        raise DataError(f"{table.name} names {twice} {count} times, in several spellings; keep one of them")
    return LabelTable(replace(table, rows=rows), {table.name}, root, notes)


def _tidy(path: str) -> str:
    return posixpath.normpath(path) if "./" in path or "//" in path else path


def _are_of_another_machine(table: Table) -> bool:
    """Say whether all paths are absolute, and none is there."""
    paths = [table.spelled.get(path, path) for path in table.rows]
    return bool(paths) and all(map(_ABSOLUTE.match, paths)) and not any(map(os.path.lexists, paths))


def _moved(listing: Listing, table: Table, prefix: str, part: SplitName | None) -> tuple[dict[str, str], str]:
    """The pictures that paths of another machine mean, by as little of their beginning left out as finds them all, and a line that says so.

    Raises DataError where no beginning does, or it speaks of another split than the table or its folder.
    """
    parts = {path: path.replace("\\", "/").strip("/").split("/") for path in table.rows}
    first = next(iter(parts.values()))
    there, above = set(listing.files.names), [folders[:-1] for folders in parts.values()]
    shared = list(takewhile(bool, map(eq, min(above), max(above))))
    own = part or next(filter(None, map(_split_of_words, reversed(prefix.split("/")))), None)
    for dropped in range(1, len(shared) + 1):
        found = {path: prefix + "/".join(folders[dropped:]) for path, folders in parts.items()}
        if there.issuperset(found.values()):
            if {_split_of_words(folder) for folder in first[:dropped]} <= {None, own}:
                path, name = next(iter(found.items()))
                return found, f"{table.name} has paths of another machine, whose beginning is left out: {path} is {name}"
            break
    raise DataError(
        f"{table.name} has paths of another machine ({next(iter(parts))}), none of which is there; write paths from the table's folder, "
        f"such as {first[-1]}"
    )


def _elsewhere(listing: Listing, table: str, paths: list[str], prefix: str, part: SplitName | None) -> dict[str, str]:
    """The one picture that each path means which is written from another folder, by backslashes, or without its ending."""
    plain = not any(map(looks_like_picture, paths))

    def rough(path: str) -> str:
        ending = suffix(path) if plain else ""
        return path[: -len(ending)] if ending in PICTURE_SUFFIXES else path

    known: dict[str, list[str]] = defaultdict(list)
    for name in listing.files.names:
        if name.startswith(prefix) and looks_like_picture(name) and not _in_other_split(name[len(prefix) :], part):
            known[rough(name).rpartition("/")[2]].append(name)
    found = {}
    for path in paths:
        wanted = path.replace("\\", "/")
        names = [name for name in known.get(wanted.rpartition("/")[2], ()) if f"/{rough(name)}".endswith(f"/{wanted}")]
        own = [name for name in names if rough(name) == prefix + wanted]
        if len(own or names) > 1:
            meant = some(own or names, 3)
            raise DataError(f"{table} names {path}, which may be {meant}; write paths from the table's folder, with their endings")
        if names:
            found[path] = (own or names)[0]
    return found


def _in_other_split(name: str, part: SplitName | None) -> bool:
    return part is not None and any(other not in {None, part} for other in map(_split_of_words, name.split("/")[:-1]))


def _meant(missing: list[str], files: Iterable[str]) -> str:
    """Which picture the first missing name that is like one may mean: elsewhere, by another ending, in other letters or with zeros."""

    def rough(name: str) -> str:
        base = unquote(re.split(r"[/\\]", name)[-1]).casefold().lstrip("0")  # which spreadsheets leave out
        return base.removesuffix(suffix(base)) if suffix(base) in PICTURE_SUFFIXES else base

    if missing and missing[0].startswith("../"):
        return "; move the table to a folder that holds the pictures too, and write paths from there"
    known: dict[str, list[str]] = {}
    for name in files if missing else ():
        if looks_like_picture(name):
            known.setdefault(rough(name), []).append(name)
    for name in missing:
        if len(found := known.get(rough(name), [])) == 1:
            return f"; is {found[0]} meant by {name}? Write paths from the table's folder, with their endings"
    return ""


def _check_address(source: InputSource, name: str, table: Table) -> None:
    if name.startswith(_WEB):
        raise DataError(f"{table.name} names {name}: pictures are not fetched from the web; download them, and write paths, not URLs")
    if _is_local(name) and not isinstance(source, LocalSource):
        raise DataError(f"{table.name} names the local file {name}, but does not lie on this machine itself; use paths relative to it")


def _at_address(address: str, name: str) -> Encoded:
    """How a picture elsewhere is read."""
    if not _is_local(name):
        return Encoded(name, 0, partial(_read_object, address))
    path = local_path(address)
    return Encoded(name, 0, partial(_read_file, path), path.stat().st_size if path.is_file() else 0)


def _is_local(address: str) -> bool:
    return "://" not in address or address.startswith("file://")


def _is_address(path: str) -> bool:
    return "://" in path or path.startswith("/")


def _read_file(path: Path) -> bytes:
    if path.exists() and not path.is_file():
        raise ImageError("neither a file nor a folder, but a device, pipe or socket")
    return path.read_bytes()


def _read_object(address: str) -> bytes:
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return read_object(f"{scheme}://{bucket}", key)
