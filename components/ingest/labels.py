"""Which pictures a source has, and what each is: by class folders, by a table, by webdataset's files, or by columns of Parquet and Arrow.

- A table that is the source itself (`source=…/labels.csv`) decides alone.
- A table in the source, or one for each split (see tables.py), gives the labels where the folders give none. Beside class folders it must
  agree with them, and adds splits and attributes; where none of its labels is its picture's folder, the folders are not classes
  and the table decides. One that agrees in part is refused.
- Files `.cls` or `.json` beside the pictures of an archive are webdataset's labels.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain, groupby, islice

from components.bundle.dataset import SplitName
from components.classifier.errors import DataError
from components.classifier.images import ImageSpec
from components.ingest import saved_dataset, tables
from components.ingest.arrays import split_of
from components.ingest.layout import Labelled, Layout, arrange, class_folders, place_of, placed, record_of
from components.ingest.pixels import PROCESS_MODULES
from components.ingest.tables import content
from components.readers import parquet, webdataset
from components.readers.archives import ArchiveSet, ArchiveSource
from components.readers.listing import Listing, SourceFile, counted, holds_pictures, looks_like_picture, readable, some, suffix
from components.readers.places import InputSource, refuse_stand_ins
from components.readers.processes import in_processes, prepare, processes_for
from components.readers.records import Encoded, Reading, Unreadable
from components.readers.table import SPLIT_NAMES, Table, is_label, may_be_table, read_table

COLUMNS_FILE = "columns.csv"
LABELS_AT_ONCE = 2000
"""Labels of a webdataset that are read together."""


def label(source: InputSource, listing: Listing, table: SourceFile | None) -> Labelled:
    """Find the pictures and their labels; `table` is the source itself where it is a table.

    Raises DataError where nothing says what the pictures are, or two things contradict each other.
    """
    rows = row_files(listing)
    if rows and table is None:
        return _from_rows(source, listing, rows)
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


def row_files(listing: Listing) -> list[SourceFile]:
    """The Parquet and Arrow files of a source in which no file is named as a picture."""
    if holds_pictures(listing):
        return []
    return listing.files.where(lambda name: suffix(name) in parquet.SUFFIXES and not parquet.is_cache(name))


def _from_table_or_folders(source: InputSource, listing: Listing, given: SourceFile | None) -> Labelled:
    if given is not None:
        return tables.label(source, listing, tables.given(source, listing, given))
    try:
        layout, refusal = arrange(listing), None
    except DataError as error:
        layout, refusal = Layout(""), error
    folders = len(layout.class_names) > 1
    files = listing.files.where(may_be_table)
    found = tables.find(source, listing, files)
    try:
        found = found or tables.find_of_splits(source, listing, files)
    except DataError as error:
        if not folders:
            raise
        layout.notes.append(f"the folders are the classes, and no table is read: {error}")
    if found is None:
        if refusal:
            raise refusal
        splits_unread = tables.named_like_splits(listing, files)
        if splits_unread and not any(place.split for place in layout.places.values()):
            layout.notes.append(f"no split is taken from {some(splits_unread)}; columns.csv with the columns file and split gives them")
        return class_folders(source, listing, layout)
    table = found.table
    named = {name: row for name, row in table.rows.items() if name in layout.places}
    differ = [name for name, row in named.items() if row.get(table.label or "") != layout.places[name].class_name.strip()]
    pairs = {(layout.places[name].class_name, row.get(table.label or "")) for name, row in named.items()}
    if found.of_splits and len(differ) == len(named) and _are_other_names(pairs):
        layout.notes.append(f"{table.name} has other names of the class folders: the folders' are taken")
        differ = []
    if not folders or len(differ) == len(named):
        labelled = tables.label(source, listing, found)
        if refusal is None:
            told = "the labels" if found.of_splits else f"{table.name} gives the labels: they"
            labelled.layout.notes.append(f"{told} are not the names of the folders")
        return labelled
    if differ:
        row = named[differ[0]]
        raise DataError(
            f"{table.name} calls {differ[0]} {row.get(table.label or '')!r}, and it lies in folder {layout.places[differ[0]].class_name!r} "
            f"({len(differ)} of {len(named)} differ); correct the table, remove it, or give it as the source, so that it decides alone"
        )
    for name, row in named.items():
        _add_split(layout, table, name, row)
        layout.attributes[name] = tables.attributes(table, row)
    layout.notes += found.notes
    labelled = class_folders(source, listing, layout)
    labelled.read_too |= found.files
    return labelled


def _add_split(layout: Layout, table: Table, name: str, row: dict[str, str | None]) -> None:
    place, split = layout.places[name], tables.split(table, name, row)
    if split and place.split and split != place.split:
        raise DataError(f"{table.name} puts {name} into the {split} split, and it lies in that of {place.split}; correct one of the two")
    layout.places[name] = place_of(place.class_name, place.split or split)


def _are_other_names(pairs: set[tuple[str, str | None]]) -> bool:
    """Say whether each class folder has one label, and no two have the same."""
    return len(pairs) > 1 and len(pairs) == len({name for name, _ in pairs}) == len({text for _, text in pairs})


def _webdataset(source: InputSource, listing: Listing) -> Labelled | None:
    """Samples of a picture and a label; None where the source has none."""
    if not any(map(webdataset.label_suffix, listing.files.names)) or not _is_webdataset(source, listing):
        return None
    joined = isinstance(source, ArchiveSet)
    layout, faults, read_too, several = Layout(""), [], set[str](), 0
    given = _splits_of_files(list(dict.fromkeys(name.partition("/")[0] for name in listing.files.names))) if joined else {}
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
                    split = tables.split(table, name, found)
                    if attributes := tables.attributes(table, found):
                        layout.attributes[name] = attributes
                split = split or given.get(name.partition("/")[0])
                layout.places[name] = place_of(readable(found["label"]), split)
    layout.class_names = {place.class_name for place in layout.places.values()}
    if several:
        told = "may lie in different splits unless group_pattern keeps them together"
        layout.notes.append(f"{counted(several, 'sample')} with several pictures, each of which counts by itself and {told}")
    return Labelled(layout, placed(source, listing, layout), len(layout.places), True, faults, read_too)


def _splits_of_files(names: list[str]) -> dict[str, SplitName | None]:
    """The split that each of several files speaks of by its name; raises DataError where some do, and others do not."""
    given = {name: split_of(name) if len(names) > 1 else None for name in names}
    with_split, without = [name for name in names if given[name]], [name for name in names if not given[name]]
    if with_split and without:
        raise DataError(f"{some(without)} names no split, but {some(with_split)} does; name all files train-…, val-… or test-…, or none")
    return given


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
    return is_cls or webdataset.read_label(first.name, content(source, first)) is not None


def _from_rows(source: InputSource, listing: Listing, files: list[SourceFile]) -> Labelled:
    layout, faults, count = Layout(""), list[tuple[str, str]](), 0
    saved = saved_dataset.find(source, listing)
    given = saved.splits if saved else _splits_of_files([file.name for file in files])
    files = [file for file in files if file.name in given]
    refuse_stand_ins(source, files)
    for file in files:
        labels, others = parquet.read_labels(source.local(file.key), file.name)
        prepare(processes_for(len(labels)), PROCESS_MODULES)
        if second := [column for column in others if is_label(column)]:
            layout.notes.append(f"{file.name}: {some(second)} may hold labels too, and is an attribute")
        table = Table(file.name, list(others), {})
        for index, class_name in enumerate(labels):
            name = f"{file.name}#{index}"
            if class_name is None:
                faults.append((name, "the row has no label"))
                continue
            row = {column: values[index] for column, values in others.items()}
            split = tables.split(table, name, row) or given[file.name]
            layout.places[name] = place_of(readable(class_name), split)
            if attributes := tables.attributes(table, row):
                layout.attributes[name] = attributes
        count += len(labels)
    layout.class_names = {place.class_name for place in layout.places.values()}
    rows = chain.from_iterable(_rows(source, file) for file in files)
    records = _named_alike(rows, iter(layout.places), layout)
    read_too = {file.name for file in files} | (saved.read_too if saved else set())
    return Labelled(layout, records, count, all_pictures=True, faults=faults, read_too=read_too)


def _named_alike(rows: Iterable[Encoded | Unreadable], names: Iterator[str], layout: Layout) -> Iterator[Encoded | Unreadable]:
    """The rows that have a place, in its order; each takes over the name that is there, as a second text of millions costs memory."""
    for record in rows:
        if record.input in layout.places:
            if isinstance(record, Encoded):
                record.input = next(names)  # which costs a tenth of a new record
                yield record
            else:
                yield replace(record, input=next(names))


def _rows(source: InputSource, file: SourceFile) -> Iterator[Encoded | Unreadable]:
    for record in parquet.read(source.local(file.key), file.name, Reading(ImageSpec(1, 1, 1))):
        name = f"{record.input}#{record.index}" if isinstance(record, Encoded | Unreadable) else ""
        if isinstance(record, Encoded):
            yield Encoded(name, 0, record.load, record.size)
        elif isinstance(record, Unreadable):
            yield Unreadable(name, 0, record.reason)


def _add_columns(source: InputSource, listing: Listing, labelled: Labelled) -> None:
    """Read columns.csv beside the class folders: splits, and attributes that become columns of the dataset."""
    layout = labelled.layout
    file = next(iter(listing.files.where((layout.root + COLUMNS_FILE).__eq__)), None)
    if file is None:
        return
    table = read_table(file.name, content(source, file))
    assert table is not None
    rows = {layout.root + path.lstrip("/"): row for path, row in table.rows.items()}
    says_splits = {(row.get(table.split or "") or "").strip().casefold() for row in rows.values()} <= {"", *SPLIT_NAMES}
    for name in layout.places:
        if name in rows:
            row = dict(rows[name])
            if table.split and says_splits:
                _add_split(layout, table, name, row)
                del row[table.split]
            layout.attributes[name] = layout.attributes.get(name, {}) | row
    labelled.attributes_of = (file.name, set(rows))
    labelled.read_too.add(file.name)
