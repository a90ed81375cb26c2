"""Dataset versions that are kept in the store by their digest, so that a later run, or an audit, is given the same bytes.

    datasets/DIGEST/dataset.json, report.html, SPLIT/…    the files of the dataset version (components/bundle/dataset.py)
    datasets/DIGEST/manifest.json                         their digests; written last, create-only: without it nothing is there

DIGEST (64 hexadecimal digits) is that of classes, shape, pixels, labels, splits, levels and weights. What it does not cover, file
names, columns and checks, is that of the run which kept the dataset first.
"""

import hashlib
import re
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.bundle import dataset
from components.bundle.dataset import SPLITS, Dataset, DatasetInfo
from components.bundle.files import MANIFEST
from components.bundle.formats import parsed
from components.classifier.errors import DataError, IntegrityError, ObjectExists, ObjectNotFound, UsageError
from components.readers.places import local_path
from components.registry.manifest import MAX_BYTES, FileEntry, hash_file
from components.settings.ingest import IngestSettings
from components.storage import Store, open_store

SCHEMA_VERSION = 1
_ADDRESS = re.compile(r"(?:.*/)?datasets/[0-9a-f]{64}/?")
_PIXELS = frozenset(f"{split}/{file}" for split in SPLITS for file in ("images.npy", "labels.npy"))
"""Files that the digest determines: several writers write the same."""
_FILES = frozenset([*_PIXELS, *(f"{split}/columns.parquet" for split in SPLITS), dataset.REPORT, "dataset.json"])


class KeptManifest(BaseModel):
    """What `manifest.json` of a kept dataset holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    schema_version: int = SCHEMA_VERSION
    digest: str
    files: dict[str, FileEntry]


def keep(path: Path, info: DatasetInfo, store: str) -> str:
    """Write the dataset version of a folder to a store; returns its address there, which is a source of later runs.

    One that the store has already is left as it is; one that is not complete there is completed. Raises StoreError where the store fails.
    """
    place = open_store(store)
    folder, address = dataset.kept_folder(info.digest), dataset.kept_address(place, info.digest)
    if dataset.is_kept_in(place, info.digest):
        return address
    place.require_create_only()
    entries = {name: _put(place, f"{folder}/{name}", path / name, name) for name in sorted(_FILES) if (path / name).is_file()}
    manifest = KeptManifest(digest=info.digest, files=entries)
    with suppress(ObjectExists):  # another run kept the same dataset
        place.create(f"{folder}/{MANIFEST}", (manifest.model_dump_json(indent=1) + "\n").encode())
    return address


def _put(place: Store, key: str, file: Path, name: str) -> FileEntry:
    if name in _PIXELS:
        place.upload(file, key)
        return hash_file(file)
    data = file.read_bytes()
    try:
        place.create(key, data)
    except ObjectExists:  # of a run that broke off, or goes on beside this one
        data = place.read(key)
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size=len(data))


def is_kept(address: str) -> bool:
    """Say whether an address is one of a kept dataset version, as `keep` returns it."""
    return _ADDRESS.fullmatch(address.strip()) is not None


def fetch(address: str, path: Path, options: IngestSettings) -> DatasetInfo:
    """Copy a kept dataset version to a folder, each file checked by its digest, and the whole by the digest of its address.

    Raises UsageError for settings that would change it, DataError where it is not complete, IntegrityError where a file was changed.
    """
    changed = [name for name, value in options if name != "keep_dataset" and value != IngestSettings.model_fields[name].default]
    if changed:
        raise UsageError(f"source {address} is a dataset version, which is taken as it is; remove {', '.join(changed)}")
    root, _, digest = address.strip().rstrip("/").rpartition("datasets/")
    place = open_store(root.rstrip("/") if "://" in root and not root.startswith("file://") else str(local_path(root or ".")))
    folder = dataset.kept_folder(digest)
    manifest = _manifest(place, folder, address)
    damaged = [name for name, entry in sorted(manifest.files.items()) if not _fetched(place, f"{folder}/{name}", entry, path / name)]
    if damaged:
        (path / "dataset.json").unlink(missing_ok=True)
        raise IntegrityError(
            f"{', '.join(damaged)} of dataset {address} was changed or is missing; remove the folder and keep the dataset again"
        )
    kept = Dataset.load(path)
    parts = {name: kept.split(name) for name in SPLITS}
    pictures = {name: (part.images, part.labels) for name, part in parts.items()}
    weights = parts["train"].weights(kept.info.weight)
    content = dataset.digest(kept.info.classes, kept.info.shape, pictures, kept.info.levels, weights)
    if not content == kept.info.digest == digest:
        (path / "dataset.json").unlink()
        raise IntegrityError(
            f"dataset {address} has the digest {content}: its files are those of another one; remove the folder and keep the dataset again"
        )
    return kept.info


def _manifest(place: Store, folder: str, address: str) -> KeptManifest:
    try:
        data = place.read(f"{folder}/{MANIFEST}", MAX_BYTES)
    except ObjectNotFound as error:
        raise DataError(
            f"there is no complete dataset version under {address}: it has no {MANIFEST}; give the address that keep_dataset told"
        ) from error
    manifest = parsed(KeptManifest, data, f"{MANIFEST} of dataset {address}", "keep the dataset again", IntegrityError)
    if manifest.schema_version != SCHEMA_VERSION or not manifest.files.keys() <= _FILES:
        raise DataError(f"{MANIFEST} of dataset {address} is not of this release's form; read it with the release that wrote it")
    return manifest


def _fetched(place: Store, key: str, entry: FileEntry, target: Path) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        place.download(key, target)
    except ObjectNotFound:
        return False
    if hash_file(target) == entry:
        return True
    target.unlink()
    return False
