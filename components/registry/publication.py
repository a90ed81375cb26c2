"""How a version comes to be: files first, in any order and as often as it takes, and the manifest last, once."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.bundle.config import BundleConfig
from components.bundle.evaluation import Headline
from components.bundle.files import CARD, CONFIG, EVALUATION, MANIFEST
from components.classifier.errors import DataError, IntegrityError, ObjectExists, StoreError, StoreUnavailable
from components.registry.card import model_card
from components.registry.manifest import FileEntry, Manifest, hash_files, size_problems, version_name
from components.registry.signing import sign
from components.storage.files import told

if TYPE_CHECKING:
    from components.registry.registry import ModelVersion, Registry


def publish_files(registry: "Registry", files: Mapping[str, Path], run: str, parameters: Mapping[str, Any]) -> "ModelVersion":
    """Publish files by their names in the version; see Registry.publish."""
    files = {name: path for name, path in files.items() if name != MANIFEST}
    for name, path in files.items():
        if not path.is_file():
            raise DataError(f"{path} is not a file, and a model version holds only files; remove {name!r} and publish again")
    draft = _draft(registry.name, files, run, parameters)
    return _find(registry, draft) or _Publication(registry, draft, files).publish()


def _draft(name: str, files: Mapping[str, Path], run: str, parameters: Mapping[str, Any]) -> Manifest:
    config = BundleConfig.load(files[CONFIG].parent if CONFIG in files else Path())
    with told("cannot read the files to publish"):
        entries = hash_files(files)
    draft = Manifest(
        name=name,
        version="",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        trained_at=config.trained_at,
        run=run,
        dataset_digest=config.dataset_digest,
        code_version=config.code_version,
        architecture=config.architecture,
        classes=config.classes,
        parameters={**config.parameters, **parameters},
        metrics=Headline.read(files.get(EVALUATION)).figures,
        files=entries,
    )
    return draft.model_copy(update={"version": version_name(config.trained_at, draft.content_digest)})


def _find(registry: "Registry", draft: Manifest) -> "ModelVersion | None":
    found = registry.find(draft.version)
    if found is not None and found.manifest.content_digest != draft.content_digest:
        raise IntegrityError(f"version {draft.version} of {registry.name} holds other files; delete it, then publish again")
    return found


class _Publication:
    """One publishing of a version that is not there yet; others may publish the same files at the same time."""

    def __init__(self, registry: "Registry", draft: Manifest, files: Mapping[str, Path]) -> None:
        self.registry, self.store, self.draft, self.files = registry, registry.store, draft, files

    def publish(self) -> "ModelVersion":
        sign(self.draft)  # a key that cannot sign is found before anything is written
        self.store.require_create_only()
        before = self.registry.sizes(self.draft.version).keys()
        try:
            return self._commit(self._upload())
        except StoreUnavailable:
            raise  # what has arrived is kept for the next try
        except StoreError:
            self._take_back({*self.files, CARD} - before)
            raise

    def _upload(self) -> Manifest:
        for name in sorted(self.files.keys() - {CARD}):
            self._put(name)
        card = self._put_card()
        entry = FileEntry(sha256=hashlib.sha256(card).hexdigest(), size=len(card))
        manifest = self.draft.model_copy(update={"files": dict(sorted({**self.draft.files, CARD: entry}.items()))})
        self.registry.refuse(self.draft.version, size_problems(self.registry.sizes(self.draft.version), manifest))
        return manifest.sealed(sign(manifest))

    def _put(self, name: str) -> None:
        self.store.upload(self.files[name], self._key(name))

    def _put_card(self) -> bytes:
        """Write the card unless one lies there: cards of equal versions may differ, and the manifest must fit the one kept."""
        card = (
            self.files[CARD].read_bytes()
            if CARD in self.files
            else model_card(self.draft, Headline.read(self.files.get(EVALUATION))).encode()
        )
        try:
            self.store.create(self._key(CARD), card)
        except ObjectExists:
            return self.store.read(self._key(CARD))
        return card

    def _commit(self, manifest: Manifest) -> "ModelVersion":
        with suppress(ObjectExists):  # another publisher of the same files was first
            self.store.create(self._key(MANIFEST), manifest.to_bytes())
        # One that failed may have taken its files back just now: they are ours as well.
        for name in self.files.keys() - self.registry.sizes(manifest.version).keys() - {CARD}:
            self._put(name)
        return _find(self.registry, manifest) or self.registry.get(manifest.version)

    def _take_back(self, names: set[str]) -> None:
        """Remove what a failed publish wrote, as far as the store lets it: a full disk must not stay full of it."""
        with suppress(StoreError):  # the error that made it fail is told
            if not self.store.exists(self._key(MANIFEST)):
                for name in names:
                    self.store.delete(self._key(name))

    def _key(self, name: str) -> str:
        return self.registry.key(self.draft.version, name)
