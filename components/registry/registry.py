"""Model versions in a store: either complete and verified, or not there.

`models/NAME/VERSION/FILE`, and manifest.json last: a version exists when its manifest does, and every reader checks digests.
"""

import hashlib
import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from components.bundle.files import MANIFEST
from components.classifier.errors import DiskError, IntegrityError, ObjectNotFound, RegistryError, UsageError, VersionNotFound
from components.registry.ledger import Ledger
from components.registry.manifest import MAX_BYTES, VERSION_PATTERN, Manifest, holds, parse, size_problems
from components.settings.base import check_model_name, is_model_name
from components.storage import Store
from components.storage.files import atomic_directory, write_file

MIN_PREFIX = 4
"""Characters that the beginning of a version's name has at least where it stands for the version."""


def model_names(store: Store) -> list[str]:
    """Return the models that a store holds versions of; what else lies beside them, such as .DS_Store, is left out."""
    return [name for name in store.names("models/") if is_model_name(name)]


@dataclass(frozen=True)
class ModelVersion:
    """A complete model version: `uri` is the address of its folder, with a slash at the end."""

    version: str
    uri: str
    manifest: Manifest


class Registry:
    """The versions of one model name in a store, and its deployment `ledger`."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, check_model_name(name)
        self.ledger = Ledger(store, name)

    def newest(self) -> Iterator[str]:
        """Yield the names of the complete versions, newest first; quick for the first few of very many.

        Whatever else lies among them, such as a copy of a version's folder under another name, is passed over.
        """
        for version in reversed(list(self.store.names(f"models/{self.name}/"))):
            if VERSION_PATTERN.fullmatch(version) and self.store.exists(self.key(version, MANIFEST)):
                yield version

    def get(self, version: str) -> ModelVersion:
        """Read a version's manifest.

        Raises VersionNotFound when there is no complete version of that name, IntegrityError when its manifest was changed.
        """
        found = self.find(version)
        if found is None:
            raise self._not_found(version)
        return found

    def find(self, version: str) -> ModelVersion | None:
        """Like `get`, but None when there is no such version."""
        if not VERSION_PATTERN.fullmatch(version):
            return None
        key = self.key(version, MANIFEST)
        try:
            data = self.store.read(key, MAX_BYTES)
        except ObjectNotFound:
            return None
        manifest = parse(data, f"{self.store.url}/{key}")
        if (manifest.name, manifest.version) != (self.name, version):
            raise IntegrityError(
                f"{self.store.url}/{key} belongs to version {manifest.version} of {manifest.name}; delete this one and publish it again"
            )
        manifest.require_signature()
        return ModelVersion(version, self.uri(version), manifest)

    def fetch(self, version: str, destination: Path, files: Iterable[str] | None = None) -> Path:
        """Download a version, or some of its files, and its manifest into a folder that is new or empty; returns it.

        Every file is checked on the way. Raises IntegrityError naming each bad file; nothing is left on failure.
        A folder that already holds the whole, intact version is left as it is.
        """
        manifest = self.get(version).manifest
        if destination.is_dir() and any(destination.iterdir()):
            if files is None and holds(destination, version):
                return destination
            raise UsageError(f"{destination} is not empty; name a folder that is new or empty")
        self.refuse(version, size_problems(self.sizes(version), manifest))
        wanted = sorted(manifest.files) if files is None else sorted(set(files) - {MANIFEST})
        if unknown := set(wanted) - manifest.files.keys():
            raise RegistryError(f"version {version} has no file {sorted(unknown)}; it has {sorted(manifest.files)}")
        try:
            with atomic_directory(destination) as folder:
                self.refuse(version, [f"{name} was changed" for name in wanted if not self.fetch_file(manifest, name, folder / name)])
                write_file(folder / MANIFEST, [manifest.to_bytes()])
        except DiskError:
            if not (files is None and holds(destination, version)):  # another process that fetched it may have been first
                raise
        return destination

    @contextmanager
    def opened(self, version: str, files: Iterable[str] | None = None) -> Iterator[Path]:
        """Fetch a version, or some of its files, into a temporary folder, and yield it; raises as `fetch` does."""
        with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
            yield self.fetch(version, Path(folder) / version, files)

    def verify(self, version: str) -> list[str]:
        """Hash a version again in the store; returns the problems, one line each: missing, changed and extra files."""
        try:
            manifest = self.get(version).manifest
        except IntegrityError as error:
            return [str(error)]
        sizes = self.sizes(version)
        problems = size_problems(sizes, manifest)
        return problems + [f"{name} was changed" for name in self.changed(manifest, sizes)]

    def changed(self, manifest: Manifest, sizes: Mapping[str, int]) -> list[str]:
        """Hash the files of a version whose sizes are right, and return the names of those with other content than its manifest says."""
        suspects = [name for name in sorted(manifest.files) if sizes.get(name) == manifest.files[name].size]
        return [name for name in suspects if self.store.sha256(self.key(manifest.version, name)) != manifest.files[name].sha256]

    def resolve(self, selector: str) -> str:
        """Return the version that "champion", "previous" or a version's name stands for.

        Raises VersionNotFound, saying which versions there are.
        """
        version: str | None = selector
        if selector == "champion":
            version = self.ledger.champion()
        elif selector == "previous":
            version = self.ledger.previous()
        if not version:
            why = "nothing has been deployed yet; deploy a version first"
            if selector == "previous" and (champion := self.ledger.champion()):
                why = f"nothing was deployed before the champion {champion}; name a version"
            raise VersionNotFound(f"{self.name} has no {selector} in {self.store.url}: {why} ({self._there_are()})")
        return self.get(version).version

    def match(self, selector: str) -> str:
        """Return the version that people mean: "champion", "previous", or the beginning of a name or of its last part.

        A full name, and a text that begins no complete version's name, are returned as they are. Raises VersionNotFound where there is
        no champion or previous version, and UsageError where several versions begin so.
        """
        if selector in {"champion", "previous"}:
            return self.resolve(selector)
        if VERSION_PATTERN.fullmatch(selector) or len(selector) < MIN_PREFIX:
            return selector
        found = [version for version in self.newest() if version.startswith(selector) or version.rpartition("-")[2].startswith(selector)]
        if len(found) > 1:
            raise UsageError(f"several versions of {self.name} begin with {selector!r}: {', '.join(found[:5])}; give more of the name")
        return found[0] if found else selector

    def select(self, selector: str) -> str:
        """Like `match`, and raises VersionNotFound unless the version is complete."""
        return self.resolve(self.match(selector))

    def delete(self, version: str) -> None:
        """Remove a version, its manifest first, so that it ceases to exist at once; one that is published again meanwhile goes whole too.

        Raises RegistryError for the champion, VersionNotFound for a version that is not there at all.
        """
        self.refuse_champion(version)
        if not VERSION_PATTERN.fullmatch(version) or not self.sizes(version):
            raise self._not_found(version)
        manifest_key = self.key(version, MANIFEST)
        while True:
            keys = {entry.key for entry in self.store.list(self.key(version, ""))}
            manifest = None
            with suppress(ObjectNotFound):
                manifest = self.store.read(manifest_key, MAX_BYTES)
            self.store.delete(manifest_key)
            try:
                self.refuse_champion(version)  # it may have been deployed since
            except RegistryError:
                if manifest is not None:
                    self.store.create(manifest_key, manifest)
                raise
            for key in sorted(keys - {manifest_key}):
                self.store.delete(key)
            if not self.store.exists(manifest_key):
                return

    def uri(self, version: str) -> str:
        """Return the address of a version's folder, with a slash at the end."""
        return f"{self.store.url}/{self.key(version, '')}"

    def fetch_file(self, manifest: Manifest, name: str, destination: Path) -> bool:
        """Download one file of a version; says whether it has the digest that the manifest gives."""
        sha = hashlib.sha256()

        def pieces() -> Iterator[bytes]:
            for chunk in self.store.chunks(self.key(manifest.version, name)):
                sha.update(chunk)
                yield chunk

        write_file(destination, pieces())
        return sha.hexdigest() == manifest.files[name].sha256

    def sizes(self, version: str) -> dict[str, int]:
        """Return the files that lie in a version's folder, and their sizes in bytes, complete or not."""
        prefix = self.key(version, "")
        return {entry.key[len(prefix) :]: entry.size for entry in self.store.list(prefix)}

    def require_intact(self, version: str) -> None:
        """Raise IntegrityError, naming each bad file, unless all of a version's files in the store have their digests."""
        self.refuse(version, self.verify(version))

    def refuse(self, version: str, problems: list[str]) -> None:
        """Raise IntegrityError when there are problems."""
        if problems:
            raise IntegrityError(
                f"version {version} of {self.name} in {self.store.url} is damaged: {'; '.join(problems)}; "
                "publish it again, or use another version"
            )

    def refuse_champion(self, version: str) -> None:
        """Raise RegistryError when the version serves."""
        if version == self.ledger.champion():
            raise RegistryError(f"version {version} of {self.name} is the champion and serves; deploy another one, then delete it")

    def _not_found(self, version: str) -> VersionNotFound:
        return VersionNotFound(f"no version {version!r} of {self.name} in {self.store.url}; {self._there_are()}")

    def _there_are(self) -> str:
        some = list(itertools.islice(self.newest(), 6))
        if not some:
            return "there are none yet: run `penstock run training` first"
        return f"there {'is' if len(some) == 1 else 'are'} {', '.join(some[:5])}{' and older ones' if len(some) > 5 else ''}"

    def key(self, version: str, file: str) -> str:
        """Return the key in the store of a version's file."""
        return f"models/{self.name}/{version}/{file}"
