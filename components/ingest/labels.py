"""Which pictures a source has, and what each is: by class folders, by a table, by webdataset's files, or by columns of Parquet and Arrow.

- A table that is the source itself (`source=…/labels.csv`) decides alone.
- A table `labels.*` or `metadata.*` in the source's folder, with a column for the picture and one for the label, gives the labels
  where the folders give none. Beside class folders it must agree with them, and adds splits and attributes; where none of its
  labels is its picture's folder, the folders are not classes and the table decides. One that agrees in part is refused.
- Files `.cls` or `.json` beside the pictures of an archive are webdataset's labels.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import lru_cache, partial
from itertools import chain, groupby, islice

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError
from components.classifier.images import ImageSpec
from components.ingest import saved_dataset
from components.ingest.arrays import split_of
from components.ingest.layout import SPLIT_NAMES, Labelled, Layout, arrange, class_folders, place_of, placed, record_of
from components.ingest.pixels import PROCESS_MODULES
from components.readers import parquet, webdataset
from components.readers.archives import ArchiveSet, ArchiveSource
from components.readers.listing import (
    PICTURE_SUFFIXES,
    Listing,
    SourceFile,
    counted,
    holds_pictures,
    looks_like_picture,
    readable,
    some,
    suffix,
)
from components.readers.places import InputSource, LocalSource, local_path, read_object, refuse_stand_ins
from components.readers.processes import in_processes, processes_for
from components.readers.records import Encoded, Reading, Unreadable
from components.readers.table import LABEL_COLUMNS, SPLIT_COLUMN, Table, is_table, read_table

COLUMNS_FILE = "columns.csv"
_TABLE_STEMS = ("labels", "metadata")
LABELS_AT_ONCE = 2000
"""Labels of a webdataset that are read together."""


def label(source: InputSource, listing: Listing, table: SourceFile | None) -> Labelled:
    """Find the pictures and their labels; `table` is the source itself where it is a table.

    Raises DataError where nothing says what the pictures are, or two things contradict each other.
    """
    tables = row_files(listing)
    if tables and table is None:
        return _from_rows(source, listing, tables)
    if table is None:
        samples = _webdataset(source, listing)
        if samples:
            return samples
        if isinstance(source, ArchiveSet):
            raise DataError(
                f"{listing.address} holds archives without labels (.cls, .json) beside the pictures; give one archive, or unpack them"
            )
    labelled = _from_table_or_folders(source, listing, table)
    _add_columns(source, listing, labelled)
    return labelled


def only_addresses(source: InputSource, file: SourceFile) -> bool:
    """Say whether a table names no picture by a path relative to its own folder; raises DataError for one that is not a table."""
    table = read_table(file.name, _content(source, file))
    return table is not None and all(map(_is_address, table.rows))


def row_files(listing: Listing) -> list[SourceFile]:
    """The Parquet and Arrow files of a source in which no file is named as a picture."""
    if holds_pictures(listing):
        return []
    return listing.files.where(lambda name: suffix(name) in parquet.SUFFIXES and not parquet.is_cache(name))


def _from_table_or_folders(source: InputSource, listing: Listing, given: SourceFile | None) -> Labelled:
    if given is not None:
        table = read_table(given.name, _content(source, given))
        assert table is not None
        return _from_table(source, listing, table, given)
    file, table = _find_table(source, listing)
    if table is None or file is None:
        return class_folders(source, listing, arrange(listing))
    try:
        layout = arrange(listing)
    except DataError:
        return _from_table(source, listing, table, file)
    root = file.name.rpartition("/")[0]
    named = {name: row for path, row in table.rows.items() if (name := _joined(root, path)) in layout.places}
    differ = [name for name, row in named.items() if row.get(table.label or "") != layout.places[name].class_name]
    if len(layout.class_names) < 2 or len(differ) == len(named):
        labelled = _from_table(source, listing, table, file)
        labelled.layout.notes.append(f"{table.name} gives the labels: they are not the names of the folders")
        return labelled
    if differ:
        row = named[differ[0]]
        raise DataError(
            f"{table.name} calls {differ[0]} {row.get(table.label or '')!r}, and it lies in folder {layout.places[differ[0]].class_name!r} "
            f"({len(differ)} of {len(named)} differ); correct the table, remove it, or give it as the source, so that it decides alone"
        )
    for name, row in named.items():
        place = layout.places[name]
        split = _split(table, name, row)
        if split and place.split and split != place.split:
            raise DataError(
                f"{table.name} puts {name} into the {split} split, and it lies in that of {place.split}; correct one of the two"
            )
        layout.places[name] = place_of(place.class_name, place.split or split)
        layout.attributes[name] = _attributes(table, row)
    labelled = class_folders(source, listing, layout)
    labelled.read_too.add(file.name)
    return labelled


def _find_table(source: InputSource, listing: Listing) -> tuple[SourceFile | None, Table | None]:
    """A table of labels in the source's folder, or in the one folder that all else lies in."""
    top = {name.partition("/")[0] if "/" in name else "" for name in listing.files.names}
    wrapper = next(iter(top)) if len(top) == 1 else ""
    for file in listing.files.where(is_table):
        stem = file.name.rpartition("/")[2].rpartition(".")[0].casefold()
        if stem in _TABLE_STEMS and file.name.rpartition("/")[0] in {"", wrapper}:
            table = read_table(file.name, _content(source, file), required=False)
            if table is not None and table.label:
                return file, table
    return None, None


def _from_table(source: InputSource, listing: Listing, table: Table, file: SourceFile) -> Labelled:
    if not table.label:
        raise DataError(f"{table.name} has the columns {some(table.columns)} and none of labels; call it label")
    root = file.name.rpartition("/")[0]
    layout = Layout(f"{root}/" if root else "")
    if others := [column for column in table.columns if column in LABEL_COLUMNS and column != table.label]:
        layout.notes.append(f"{table.name} gives the labels in column {table.label}; {some(others)} may hold some too, and is an attribute")
    files = {file.name: file for file in listing.files}
    records: list[Encoded] = []
    faults: list[tuple[str, str]] = []
    missing: list[str] = []
    for path, row in table.rows.items():
        class_name = row.get(table.label)
        name = path if _is_address(path) else _joined(root, path)
        if not class_name:
            faults.append((name, f"{table.name} gives it no label"))
            continue
        record = _locate(source, files, name, path, table)
        if record is None:
            missing.append(name)
            continue
        records.append(record)
        layout.places[name] = place_of(readable(class_name), _split(table, name, row))
        layout.attributes[name] = _attributes(table, row)
    faults += [(name, f"{table.name} names it, and it is not there{hint}") for hint in [_meant(missing, files)] for name in missing]
    layout.class_names = {place.class_name for place in layout.places.values()}
    unnamed = [name for name in files if looks_like_picture(name) and name not in layout.places and _joined(root, "") in name]
    if unnamed:
        layout.notes.append(f"{table.name} has no line for {len(unnamed)} pictures, which are not used: {some(unnamed)}")
    records.sort(key=lambda record: record.input)
    return Labelled(layout, records, len(records), all_pictures=True, faults=faults, read_too={file.name, *unnamed})


def _meant(missing: list[str], files: dict[str, SourceFile]) -> str:
    """Which picture the first missing name that is like one may mean: in another folder, by another ending, or in other letters."""

    def rough(name: str) -> str:
        base = re.split(r"[/\\]", name)[-1].casefold()
        return base.removesuffix(suffix(base)) if suffix(base) in PICTURE_SUFFIXES else base

    known: dict[str, list[str]] = {}
    for name in files if missing else ():
        if looks_like_picture(name):
            known.setdefault(rough(name), []).append(name)
    for name in missing:
        if len(found := known.get(rough(name), [])) == 1:
            return f"; is {found[0]} meant by {name}? Write paths from the table's folder, with their endings"
    return ""


def _locate(source: InputSource, files: dict[str, SourceFile], name: str, path: str, table: Table) -> Encoded | None:
    """How a row's picture is read: a file of the source, or one elsewhere, by its address."""
    if not _is_address(path):
        return record_of(source, files[name]) if name in files else None
    address = table.spelled.get(path, path)
    if "://" in path and not path.startswith("file://"):
        return Encoded(name, 0, partial(_read_object, address))
    if not isinstance(source, LocalSource):
        raise DataError(f"{table.name} names the local file {path}, but does not lie on this machine itself; use paths relative to it")
    return Encoded(name, 0, local_path(address).read_bytes)


def _is_address(path: str) -> bool:
    return "://" in path or path.startswith("/")


def _read_object(address: str) -> bytes:
    scheme, _, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return read_object(f"{scheme}://{bucket}", key)


def _split(table: Table, name: str, row: dict[str, str | None]) -> SplitName | None:
    text = (row.get(SPLIT_COLUMN) or "").strip()
    if not text:
        return None
    split = SPLIT_NAMES.get(text.casefold())
    if split is None:
        raise DataError(f"{table.name} puts {name} into split {text!r}; use train, validation or test, or leave it empty")
    return split


def _attributes(table: Table, row: dict[str, str | None]) -> dict[str, str | None]:
    return {column: row.get(column) for column in table.columns if column not in {table.label, SPLIT_COLUMN}}


def _webdataset(source: InputSource, listing: Listing) -> Labelled | None:
    """Samples of a picture and a label; None where the source has none."""
    if not any(map(webdataset.label_suffix, listing.files.names)) or not _is_webdataset(source, listing):
        return None
    joined = isinstance(source, ArchiveSet)
    layout, faults, read_too, several = Layout(""), [], set[str](), 0
    given = lru_cache(split_of)
    with closing(_labels(source, listing)) as labels:
        for mark, pictures in _samples(listing):
            found = next(labels) if mark is not None and pictures else None
            several += len(pictures) > 1
            if mark is not None:
                read_too.add(listing.files.names[mark])
            for name in pictures:
                if not found or not found["label"]:
                    faults.append((name, "no label (.cls or .json) of its name is beside it"))
                    continue
                split = None
                if len(found) > 1:
                    table = Table(name, [column for column in found if column != "label"], {})
                    split = _split(table, name, found)
                    if attributes := _attributes(table, found):
                        layout.attributes[name] = attributes
                split = split or (given(name.partition("/")[0]) if joined else None)
                layout.places[name] = place_of(readable(found["label"]), split)
    layout.class_names = {place.class_name for place in layout.places.values()}
    if several:
        told = "may lie in different splits unless group_pattern keeps them together"
        layout.notes.append(f"{counted(several, 'sample')} with several pictures, each of which counts by itself and {told}")
    return Labelled(layout, placed(source, listing, layout), len(layout.places), True, faults, read_too)


def _samples(listing: Listing) -> Iterator[tuple[int | None, list[str]]]:
    """Each sample's label, by its place in the listing, and pictures; names in order have those of one sample side by side.

    Of several labels the first counts: `.cls`, which says nothing else, before `.json`.
    """
    for _, places in groupby(range(len(listing.files)), lambda place: webdataset.sample(listing.files.names[place])):
        mark, pictures = None, list[str]()
        for place in places:
            name = listing.files.names[place]
            if webdataset.label_suffix(name):
                mark = place if mark is None else mark
            elif looks_like_picture(name):
                pictures.append(name)
        yield mark, pictures


def _labels(source: InputSource, listing: Listing) -> Generator[dict[str, str | None] | None]:
    """What the label of each sample says that has one beside its pictures, in order; many are read in processes."""
    marks = (record_of(source, listing.files[mark]) for mark, pictures in _samples(listing) if mark is not None and pictures)
    groups = iter(lambda: list(islice(marks, LABELS_AT_ONCE)), [])
    processes = processes_for(len(listing.files)) if source.shared else 1
    read = webdataset.read_labels
    for found in in_processes(groups, read, processes, PROCESS_MODULES) if processes > 1 else map(read, groups):
        yield from found


def _is_webdataset(source: InputSource, listing: Listing) -> bool:
    """Say whether files beside pictures are labels: `.cls` in an archive always, all others only where no folder may be a class."""
    paired = (mark for mark, pictures in _samples(listing) if mark is not None and pictures)
    place = next(paired, None)
    if place is None:
        return False
    first = listing.files[place]
    is_cls = webdataset.label_suffix(first.name) == ".cls"
    if is_cls and isinstance(source, ArchiveSource | ArchiveSet):
        return True
    depth = 1 if isinstance(source, ArchiveSet) else 0
    if any(listing.files.names[mark].count("/") != depth for mark in (place, *paired)):
        return False
    return is_cls or webdataset.read_label(first.name, _content(source, first)) is not None


def _from_rows(source: InputSource, listing: Listing, files: list[SourceFile]) -> Labelled:
    layout, faults, count = Layout(""), list[tuple[str, str]](), 0
    saved = saved_dataset.find(source, listing)
    given = saved.splits if saved else {file.name: split_of(file.name) if len(files) > 1 else None for file in files}
    files = [file for file in files if file.name in given]
    refuse_stand_ins(source, files)
    for file in files:
        labels, others = parquet.read_labels(source.local(file.key), file.name)
        table = Table(file.name, list(others), {})
        for index, class_name in enumerate(labels):
            name = f"{file.name}#{index}"
            if class_name is None:
                faults.append((name, "the row has no label"))
                continue
            row = {column: values[index] for column, values in others.items()}
            split = _split(table, name, row) or given[file.name]
            layout.places[name] = place_of(readable(class_name), split)
            if attributes := _attributes(table, row):
                layout.attributes[name] = attributes
        count += len(labels)
    layout.class_names = {place.class_name for place in layout.places.values()}
    rows = chain.from_iterable(_rows(source, file) for file in files)
    records = _named_alike(rows, iter(layout.places), layout)
    read_too = {file.name for file in files} | (saved.read_too if saved else set())
    return Labelled(layout, records, count, all_pictures=True, faults=faults, read_too=read_too)


def _named_alike(rows: Iterable[Encoded | Unreadable], names: Iterator[str], layout: Layout) -> Iterator[Encoded | Unreadable]:
    """The rows that have a place, in its order; each takes over the name that is there, as a second text of millions costs memory."""
    return (replace(record, input=next(names)) for record in rows if record.input in layout.places)


def _rows(source: InputSource, file: SourceFile) -> Iterator[Encoded | Unreadable]:
    for record in parquet.read(source.local(file.key), file.name, Reading(ImageSpec(1, 1, 1))):
        name = f"{record.input}#{record.index}" if isinstance(record, Encoded | Unreadable) else ""
        if isinstance(record, Encoded):
            yield Encoded(name, 0, record.load, record.size)
        elif isinstance(record, Unreadable):
            yield Unreadable(name, 0, record.reason)


def _add_columns(source: InputSource, listing: Listing, labelled: Labelled) -> None:
    """Read columns.csv beside the class folders: attributes that become columns of the dataset."""
    layout = labelled.layout
    file = next(iter(listing.files.where((layout.root + COLUMNS_FILE).__eq__)), None)
    if file is None:
        return
    table = read_table(file.name, _content(source, file))
    assert table is not None
    rows = {layout.root + path.lstrip("/"): row for path, row in table.rows.items()}
    for name in layout.places:
        if name in rows:
            layout.attributes[name] = layout.attributes.get(name, {}) | rows[name]
    labelled.attributes_of = (file.name, set(rows))
    labelled.read_too.add(file.name)


def _content(source: InputSource, file: SourceFile) -> bytes:
    return webdataset.content(record_of(source, file))


def _joined(root: str, path: str) -> str:
    return f"{root}/{path}" if root else path
