"""From an address to labelled pictures: which kind of source it is, its files, their labels, their pixels."""

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from components.classifier.contents import refuse_stand_in
from components.classifier.errors import DataError
from components.classifier.metadata import UNREAD
from components.ingest import arrays, published
from components.ingest.collection import SPLIT_CODE, Collection, natural
from components.ingest.labels import label
from components.ingest.layout import WANTED, Labelled, arrange, class_folders
from components.ingest.pixels import PROCESS_MODULES, DecodedPictures, Log, Workers, decode_all
from components.ingest.tables import only_addresses
from components.readers import HEAD, kind_of, parquet
from components.readers.archives import ArchiveSet, ArchiveSource
from components.readers.listing import (
    Found,
    Listing,
    SourceFile,
    counted,
    holds_pictures,
    is_archive,
    looks_like_picture,
    quoted,
    some,
    suffix,
)
from components.readers.places import InputSource, open_source, refuse_stand_ins
from components.readers.processes import prepare, processes_for
from components.readers.table import may_be_table
from components.settings.ingest import NAMED_SOURCES, IngestSettings, check_source

LOOKED_UP_AT = 10_000
"""After each so many files it is asked whether processes will be worth it."""
MAX_UNREADABLE = 0.25
"""Share of the pictures that may be set aside before the source is refused as a whole."""


def load(address: str, settings: IngestSettings, workspace: Path, log: Log) -> Collection:
    """Read a source: a named set, or the arrays or pictures of a folder, an archive, a table or an s3:// address.

    `workspace` is an empty folder for what does not fit in memory. Raises UsageError for a source that is none of these, and
    DataError when nothing says what the pictures are, or too many cannot be read.
    """
    address = address.strip()
    if address in NAMED_SOURCES:
        return published.load(address, log)
    check_source(address)
    with ExitStack() as stack:
        source, listing, table = _open(address, settings.names, workspace, stack)
        prepare(processes_for(len(listing.files)), PROCESS_MODULES)
        only_pictures = not isinstance(source, ArchiveSet) and all(map(looks_like_picture, listing.files.names))
        files = [] if only_pictures or table else arrays.find(source, listing)
        if files:
            refuse_stand_ins(source, files)
            collection = arrays.load(source, files, workspace)
            collection.set_aside += [{"file": fault.input, "reason": fault.reason} for fault in listing.faults]
        else:
            labelled = class_folders(source, listing, arrange(listing)) if only_pictures else label(source, listing, table)
            collection = _decode(listing, labelled, Workers(source.remote, source.shared), settings, workspace, log)
    collection.notes = [*listing.remarks(), *collection.notes]
    return collection


def _open(address: str, names: str, workspace: Path, stack: ExitStack) -> tuple[InputSource, Listing, SourceFile | None]:
    """The source, its files, and the table of labels where the address is one."""
    source = stack.enter_context(open_source(address))
    listing = Listing.of(source.address, _met(source))
    if not source.single:
        return (*_join_archives(source, listing, names, workspace), None)
    (file,) = listing.files
    head = source.head(file, HEAD)
    refuse_stand_in(file.name, head)
    kind = kind_of(file.name, head)
    if kind in {"tar", "zip"}:
        archive = ArchiveSource(source.local(file.key), address, workspace, names)
        return archive, archive.listing(), None
    if kind in {"arrow", "npz", "pixels"} or (kind == "parquet" and not parquet.names_pictures(source.local(file.key), file.name)):
        return source, listing, None
    if may_be_table(file.name) and only_addresses(source, file):
        return source, listing, file
    if may_be_table(file.name):
        folder = stack.enter_context(open_source(address.rpartition("/")[0] or ("/" if address.startswith("/") else ".")))
        return folder, Listing.of(folder.address, _met(folder)), file
    if is_archive(file.name):
        raise DataError(f"{address} is an archive of a kind that is not read; unpack it and give the folder, or pack it as tar or zip")
    raise DataError(
        f"{address} is one file and not an archive, Parquet, Arrow, an npz or a table of labels or pixels; give the folder that holds the "
        "class folders, or the arrays with their labels"
    )


def _met(source: InputSource) -> Iterator[Found]:
    """Yield all that a source has; what other processes will need is imported meanwhile, once it is seen that they will be worth it."""
    for count, found in enumerate(source.found(), 1):
        yield found
        if count % LOOKED_UP_AT == 0:
            prepare(processes_for(count), PROCESS_MODULES)


def _join_archives(source: InputSource, listing: Listing, names: str, workspace: Path) -> tuple[InputSource, Listing]:
    """Open the shards of a webdataset, where a folder has tar files and no file that is named as a picture or an array."""
    shards = listing.files.where(lambda name: suffix(name) in {".tar", ".tgz"} or name.lower().endswith(".tar.gz"))
    if not shards or holds_pictures(listing) or any(suffix(name) in {".npy", ".npz", *parquet.SUFFIXES} for name in listing.files.names):
        return source, listing
    refuse_stand_ins(source, shards)
    archives = {}
    for number, file in enumerate(shards):
        path = source.local(file.key)
        if source.remote:  # which keeps one copy at a time
            path = Path(shutil.move(path, workspace / f"shard-{number}"))
        archives[file.name] = ArchiveSource(path, file.name, workspace, names)
    joined = ArchiveSet(listing.address, archives, PROCESS_MODULES)
    return joined, joined.listing()


def _decode(listing: Listing, labelled: Labelled, workers: Workers, settings: IngestSettings, workspace: Path, log: Log) -> Collection:
    """Decode labelled pictures; raises DataError when those that cannot be read are refused: by setting, or being too many."""
    layout = labelled.layout
    decoded = decode_all(labelled.records, labelled.count, settings, workspace / "pixels", workers, log, all_pictures=labelled.all_pictures)
    faults = [*((fault.input, fault.reason) for fault in listing.faults), *labelled.faults, *decoded.faults]
    _check_faults(faults, len(decoded.names), settings)
    classes = natural(sorted(layout.class_names))
    index = {name: k for k, name in enumerate(classes)}
    places = [layout.places[name] for name in decoded.names]
    columns = dict.fromkeys(column for values in layout.attributes.values() for column in values)
    collection = Collection(
        images=decoded.images,
        labels=np.array([index[place.class_name] for place in places], np.int64),
        classes=classes,
        given=np.array([SPLIT_CODE[place.split] for place in places], np.int8),
        names=decoded.names,
        prints=np.frombuffer(decoded.prints, "S16"),
        constant=np.frombuffer(decoded.constant, bool),
        set_aside=[{"file": name, "reason": reason} for name, reason in faults],
        notes=[*layout.notes, *_others(listing, labelled, decoded), *_unread(decoded), *_column_notes(labelled, decoded.names)],
        columns={column: [layout.attributes.get(name, {}).get(column) for name in decoded.names] for column in columns},
        deep=decoded.deep,
        peak=decoded.peak,
        other_files=Counter(layout.places[name].class_name for name in decoded.others),
    )
    if not len(collection) and not faults:
        raise DataError(f"{listing.address} holds no pictures in its class folders ({some(classes)}); {WANTED}")
    return collection


def _others(listing: Listing, labelled: Labelled, decoded: DecodedPictures) -> list[str]:
    places, known = labelled.layout.places, labelled.read_too
    others = [*decoded.others]
    others += [name for name in listing.files.names if name not in places and name not in known and not looks_like_picture(name)]
    if not others:
        return []
    kinds = [f"{quoted(kind) or 'no suffix'} ({count})" for kind, count in sorted(Counter(suffix(name) for name in others).items())]
    return [f"passed over {counted(len(others), 'file')} without a picture, such as {quoted(others[0])}: {some(kinds)}"]


def _unread(decoded: DecodedPictures) -> list[str]:
    """What of the pictures' metadata cannot be read, though it would change their pixels: a line for each kind."""
    names = {what: [name for kind, name in decoded.unread if kind == what] for what in UNREAD}
    return [f"{counted(len(found), 'picture')} with {UNREAD[what]}: {some(map(quoted, found))}" for what, found in names.items() if found]


def _column_notes(labelled: Labelled, names: list[str]) -> list[str]:
    file, rows = labelled.attributes_of
    if not file:
        return []
    unknown, without = sorted(rows - set(names)), sum(name not in rows for name in names)
    notes = []
    if unknown:
        notes.append(f"{file} names {len(unknown)} files that are not usable pictures here: {some(unknown)}")
    if without:
        notes.append(f"{file} has no line for {without} of {len(names)} pictures")
    return notes


def _check_faults(faults: list[tuple[str, str]], good: int, settings: IngestSettings) -> None:
    if not faults:
        return
    if settings.on_unreadable == "fail":
        raise DataError(f"{counted(len(faults), 'file')} cannot be used and on_unreadable is 'fail': {_by_reason(faults)}")
    if len(faults) > MAX_UNREADABLE * (good + len(faults)):
        raise DataError(
            f"{len(faults)} of {good + len(faults)} pictures cannot be used, more than {MAX_UNREADABLE:.0%}; "
            f"repair or remove them: {_by_reason(faults)}"
        )


def _by_reason(faults: list[tuple[str, str]]) -> str:
    names: dict[str, list[str]] = {}
    for name, reason in faults:
        names.setdefault(reason, []).append(name)
    return "; ".join(f"{some(files, 5)}: {reason}" for reason, files in list(names.items())[:6])
