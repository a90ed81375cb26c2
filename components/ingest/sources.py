"""Which kind of source an address is."""

from pathlib import Path

from components.classifier.errors import DataError, UsageError
from components.ingest import digits, folders, idx, pictures
from components.ingest.collection import Collection
from components.ingest.decoding import Log
from components.ingest.listing import Listing
from components.ingest.options import IngestOptions

NAMED = ("digits",)


def load(source: str, options: IngestOptions, workspace: Path, log: Log) -> Collection:
    """Read a source: a named set, or the IDX files or pictures of a folder, an archive or an s3:// address.

    `workspace` is an empty folder for what does not fit in memory. Raises UsageError for a source that is none of these.
    """
    source = source.strip()
    if not source:
        raise UsageError("no source was given; use one of digits, mnist, fashion_mnist, kmnist, cifar10, a folder, an archive or s3://…")
    if source == "digits":
        return digits.load()
    listing = _list(source)
    idx_files = idx.find(listing)
    collection = idx.load(listing, idx_files) if idx_files else pictures.load(listing, options, workspace / "pixels", log)
    collection.notes = [*listing.hidden_note(), *collection.notes]
    return collection


def _list(source: str) -> Listing:
    path = Path(source).expanduser()
    if path.is_dir():
        return folders.list_folder(path)
    if path.exists():
        raise DataError(f"{source} is neither a folder nor an archive that can be read; give a folder, a tar or a zip")
    raise UsageError(
        f"there is no source {source!r}: it is no folder or file here, and no known set "
        "(digits, mnist, fashion_mnist, kmnist, cifar10); check the path"
    )
