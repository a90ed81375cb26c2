"""Which kind of source an address is."""

import difflib
from pathlib import Path
from urllib.parse import unquote

from components.classifier.errors import DataError, UsageError
from components.ingest import archives, digits, folders, idx, objects, pictures, published
from components.ingest.collection import Collection
from components.ingest.decoding import Log
from components.ingest.listing import Listing
from components.settings.ingest import NAMED_SOURCES, SOURCE_FORMS, IngestSettings


def load(source: str, options: IngestSettings, workspace: Path, log: Log) -> Collection:
    """Read a source: a named set, or the IDX files or pictures of a folder, an archive or an s3:// address.

    `workspace` is an empty folder for what does not fit in memory. Raises UsageError for a source that is none of these.
    """
    source = source.strip()
    if source in NAMED_SOURCES:
        return digits.load() if source == "digits" else published.load(source, log)
    listing = _list(source, workspace)
    with listing.resources:
        idx_files = idx.find(listing)
        collection = idx.load(listing, idx_files) if idx_files else pictures.load(listing, options, workspace / "pixels", log)
    collection.notes = [*listing.hidden_note(), *collection.notes]
    return collection


def _list(source: str, workspace: Path) -> Listing:
    if not source:
        raise UsageError(f"no source was given; use {SOURCE_FORMS}")
    scheme, separator, rest = source.partition("://")
    if separator and scheme != "file":
        return objects.list_objects(source, workspace)
    path = Path(unquote(rest) if separator else source).expanduser()
    try:
        if path.is_dir():
            return folders.list_folder(path)
        if path.is_file():
            return _file(path, source, workspace)
    except OSError as error:
        raise DataError(f"source {source} cannot be opened ({error.strerror}); check the path and the right to read it") from error
    near = difflib.get_close_matches(source.lower().replace("-", "_"), NAMED_SOURCES, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UsageError(f"there is no source {source!r}: {hint}use {SOURCE_FORMS}")


def _file(path: Path, source: str, workspace: Path) -> Listing:
    listing = archives.list_archive(path, source, workspace)
    if listing is None:
        raise DataError(f"{source} is one file and no tar or zip archive; give the folder that holds the class folders or the IDX files")
    return listing
