"""The objects below an address of a store, such as s3://bucket/prefix, or one object that is an archive."""

from functools import partial
from pathlib import Path

from components.classifier.errors import DataError
from components.ingest import archives
from components.ingest.listing import MAX_MEMBERS, Listing, Member, readable, system_part
from components.storage import Store, open_store

READ_AT_ONCE = 10
"""Objects that are fetched at once, as many as boto3 keeps connections: the time goes into waiting."""

_ODD_PARTS = {"", ".", ".."}


def list_objects(address: str, workspace: Path) -> Listing:
    """List what lies below an address, or in the archive that lies there.

    Empty objects that only stand for folders are passed over, and no folder is known but by its objects.
    Raises DataError when nothing lies there, and StoreError when the store does not answer.
    """
    parent, _, leaf = address.rstrip("/").rpartition("/")
    if leaf and not parent.endswith("/") and not address.endswith("/"):
        store = open_store(parent)
        if store.exists(leaf) and not next(iter(store.names(f"{leaf}/")), None):
            return _archive(store, leaf, address, workspace)
    return _prefix(open_store(address), address)


def _archive(store: Store, key: str, address: str, workspace: Path) -> Listing:
    local = workspace / "download"
    store.download(key, local)
    listing = archives.list_archive(local, address, workspace)
    if listing is None:
        raise DataError(f"{address} is one object and no tar or zip; give an archive, or the prefix that holds the class folders")
    return listing


def _prefix(store: Store, address: str) -> Listing:
    listing = Listing(address, workers=READ_AT_ONCE)
    for entry in store.list():
        name = readable(entry.key)
        if (hidden := system_part(name)) is not None:
            listing.hidden[hidden if name.endswith(hidden) else f"{hidden}/"] += 1
        elif not _ODD_PARTS.isdisjoint(entry.key.split("/")):
            listing.faults.append((name, "its key has an empty part, '.' or '..'; rename the object"))
        else:
            listing.members.append(Member(name, entry.size, partial(store.read, entry.key)))
        if len(listing.members) > MAX_MEMBERS:
            raise DataError(f"{address} holds more than {MAX_MEMBERS} objects; give a prefix that holds fewer")
    if not listing.members and not listing.hidden:
        raise DataError(f"there is no object below {address}; check bucket and prefix, in which upper and lower case differ")
    return listing
