"""Pretrained weights in the store, for trainings that start from them: each file once, under its SHA-256, and a record for each name.

| key | what |
|---|---|
| `weights/files/SHA256` | the file as it was given |
| `weights/names/NAME.json` | a WeightRecord |
"""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field

from components.bundle import files
from components.bundle.config import BundleConfig
from components.bundle.formats import Strict, parsed
from components.classifier.errors import IntegrityError, ObjectExists, ObjectNotFound, RegistryError, UsageError, did_you_mean
from components.registry.manifest import hash_file
from components.storage import Store, open_store
from components.storage.files import explain_os_errors

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_MAX_RECORD_BYTES = 100_000
_MIN_DIGITS = 8
"""How much of a digest names weights."""


class WeightRecord(Strict):
    """Weights in the store: their name, and what is known of them."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int
    """Bytes of the file."""
    file: str
    """What it was called."""
    tensors: int
    architecture: str = ""
    """The network that they were trained in; empty where it is not known."""
    mean: list[float] | None = None
    """Per channel, of pixels / 255, as the pictures were normalised that they were trained on; None where it is not known."""
    std: list[float] | None = None
    added_at: str
    """UTC, ISO 8601 with seconds."""


class Weights:
    """The pretrained weights of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(self, file: Path, tensors: int, name: str = "") -> WeightRecord:
        """Keep a file of weights under a name, by default made of the file's; the same file under the same name is no error.

        Of a model.safetensors with its config.json beside it, architecture and normalisation are recorded too. Raises UsageError for a
        name that is not possible or stands for another file, and StoreError.
        """
        name = name or re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("._-")[:63]
        if not _NAME.fullmatch(name):
            raise UsageError(f"weights cannot be called {name!r}; take small letters, digits, '.', '_' and '-', 63 at most, by --name")
        with explain_os_errors(f"cannot read {file}"):
            entry = hash_file(file)
        record = WeightRecord(
            name=name,
            sha256=entry.sha256,
            size=entry.size,
            file=file.name,
            tensors=tensors,
            added_at=datetime.now(UTC).isoformat(timespec="seconds"),
            **_about(file),
        )
        self.store.require_create_only()
        self.store.upload(file, _file_key(entry.sha256))
        try:
            self.store.create(_name_key(name), record.model_dump_json(indent=1).encode())
        except ObjectExists:
            there = self._read(name)
            if there.sha256 != entry.sha256:
                self._delete_unused(entry.sha256)
                raise UsageError(
                    f"{name!r} stands for other weights in {self.store.url} (SHA-256 {there.sha256[:12]}…); choose another --name, or "
                    f"remove them first"
                ) from None
            return there
        return record

    def list(self) -> list[WeightRecord]:
        """Return all records in the order of names. Raises RegistryError for one that cannot be read."""
        return [self._read(file.removesuffix(".json")) for file in self.store.names("weights/names/") if file.endswith(".json")]

    def find(self, selector: str) -> WeightRecord:
        """Return the record of a name, or of a digest of which at least 8 digits are given.

        Raises UsageError when there is none, naming the nearest; RegistryError for a record that cannot be read.
        """
        if _NAME.fullmatch(selector) and self.store.exists(_name_key(selector)):
            return self._read(selector)
        records = self.list()
        if len(selector) >= _MIN_DIGITS:
            for record in records:
                if record.sha256.startswith(selector.lower()):
                    return record
        names = [record.name for record in records]
        hint = did_you_mean(selector.lower(), names, "add them by `penstock weights add FILE`", cutoff=0.4)
        raise UsageError(f"there are no weights {selector!r} in {self.store.url}; {hint}")

    def fetch(self, record: WeightRecord, destination: Path) -> Path:
        """Copy the file of weights to a path, and verify its digest.

        Raises IntegrityError for a file that is missing or is not the one that was added, and StoreError.
        """
        try:
            self.store.download(_file_key(record.sha256), destination)
        except ObjectNotFound as error:
            raise IntegrityError(f"the file of the weights {record.name!r} is not in {self.store.url}; {_ANEW}") from error
        found = hash_file(destination).sha256
        if found != record.sha256:
            destination.unlink()
            raise IntegrityError(
                f"the file of the weights {record.name!r} in {self.store.url} is damaged: its SHA-256 is {found[:12]}… in place of "
                f"{record.sha256[:12]}…; {_ANEW}"
            )
        return destination

    def remove(self, selector: str) -> WeightRecord:
        """Remove a name, and the file when no other name stands for it; raises what `find` raises."""
        record = self.find(selector)
        self.store.delete(_name_key(record.name))
        self._delete_unused(record.sha256)
        return record

    def _delete_unused(self, digest: str) -> None:
        if all(record.sha256 != digest for record in self.list()):
            self.store.delete(_file_key(digest))

    def _read(self, name: str) -> WeightRecord:
        text = self.store.read(_name_key(name), _MAX_RECORD_BYTES)
        return parsed(WeightRecord, text, f"{_name_key(name)} in {self.store.url}", _ANEW, RegistryError)


_ANEW = "delete it, and add the weights again"


def find_weights(store: str, selector: str, architecture: str) -> WeightRecord:
    """Return the record of the weights that a training of an architecture starts from; `store` is the model store's address.

    Raises UsageError when they are not there, or were trained in another architecture.
    """
    if not store:
        raise UsageError(f"weights={selector} are kept in a model store, and this training has none; give it a store")
    record = Weights(open_store(store)).find(selector)
    if record.architecture not in {"", architecture}:
        raise UsageError(
            f"the weights {record.name!r} are those of architecture {record.architecture!r}, not of {architecture!r}; "
            f"set architecture={record.architecture}"
        )
    return record


def _file_key(digest: str) -> str:
    return f"weights/files/{digest}"


def _name_key(name: str) -> str:
    return f"weights/names/{name}.json"


def _about(file: Path) -> dict[str, Any]:
    """What the config.json of a model's folder says of its weights."""
    if file.name != files.WEIGHTS or not (file.parent / files.CONFIG).is_file():
        return {}
    config = BundleConfig.load(file.parent)
    return {"architecture": config.architecture, "mean": config.input.mean, "std": config.input.std}
