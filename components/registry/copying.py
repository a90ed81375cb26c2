"""Copy a version to another store, such as one in another region: file by file, checked by digest, manifest last."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from components.bundle.files import MANIFEST
from components.classifier.errors import IntegrityError, ObjectExists, UsageError
from components.registry.manifest import Manifest
from components.storage.store import Progress

if TYPE_CHECKING:
    from components.registry.registry import ModelVersion, Registry


def copy(source: "Registry", target: "Registry", version: str, progress: Progress | None = None) -> "ModelVersion":
    """Copy a version with its manifest as it is; returns the version in the target.

    A copy that broke off is gone on with: files that lie there with the right digest are kept. Every file is hashed when it is
    read from the source and again in the target, before the manifest makes the version exist there. Raises IntegrityError when
    a digest does not fit, naming the file and the store.
    """
    if (source.store.url, source.name) == (target.store.url, target.name) or source.name != target.name:
        raise UsageError(f"version {version} can only be copied to the same model name in another store, not to {target.uri(version)}")
    found = source.get(version)
    target.store.require_create_only()
    present = target.sizes(version)
    for name in sorted(found.manifest.files):
        if not _intact(target, found.manifest, name, present):
            _copy_file(source, target, found.manifest, name)
        if progress:
            progress(found.manifest.files[name].size)
    try:
        target.store.create(target.key(version, MANIFEST), found.manifest.to_bytes())
    except ObjectExists:
        there = target.get(version)
        if there.manifest.files != found.manifest.files:
            raise IntegrityError(f"{there.uri} holds another model card than {found.uri}; delete one of them and copy again") from None
        return there
    return target.get(version)


def _intact(target: "Registry", manifest: Manifest, name: str, present: dict[str, int]) -> bool:
    wanted = manifest.files[name]
    return present.get(name) == wanted.size and target.hash_file(manifest.version, name) == wanted.sha256


def _copy_file(source: "Registry", target: "Registry", manifest: Manifest, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        passing = Path(folder, "file")
        if not source.fetch_file(manifest, name, passing):
            raise IntegrityError(f"{name} in {source.uri(manifest.version)} was changed; publish the version again")
        target.store.upload(passing, target.key(manifest.version, name))
    if target.hash_file(manifest.version, name) != manifest.files[name].sha256:
        raise IntegrityError(f"{name} arrived damaged in {target.uri(manifest.version)}; copy again, and look at that store")
