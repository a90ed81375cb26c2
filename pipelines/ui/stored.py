"""What the pages read: the store and the runs of this folder. What never changes is read once and kept, within bounds."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from components.classifier.errors import DataError, IntegrityError, PenstockError, StoreError, VersionNotFound
from components.registry import Manifest, Record, Registry, model_names
from components.registry.evaluated import read_evaluated
from components.registry.ledger import deployments
from components.registry.manifest import VERSION_PATTERN
from components.review import ReviewQueue
from components.score.output import MANIFEST, SUMMARY
from components.score.summary import Summary, read_summary
from components.storage import open_store
from pipelines.local_runs import RUNS

MAX_VERSIONS = 200
"""Versions of a model that are listed and drawn, the newest ones."""
MAX_MANIFESTS = 5_000
"""Manifests that are kept: a few kB each."""
MAX_EVALUATED = 4
"""Evaluations with all their predictions that are kept: up to some tens of MB each."""
MAX_SCORES = 50
"""Outputs of scoring that are shown."""
_READERS = 16


@dataclass(frozen=True)
class Row:
    """A version in a list: its manifest, or the problem of one that cannot be read; `serves` is champion, previous or ""."""

    version: str
    manifest: Manifest | None
    problem: str = ""
    serves: str = ""


@dataclass(frozen=True)
class Scored:
    """An output of scoring: what it came to, or the problem of one that cannot be read."""

    folder: str
    summary: Summary | None
    problem: str = ""


@dataclass(frozen=True)
class Model:
    """A model of the store in a list; `problem` says why its ledger cannot be read."""

    name: str
    versions: int
    champion: Row | None
    last: Record | None
    problem: str = ""


class Stored:
    """Reads a store for pages. On S3 a page costs a list or two, and a read for each object that was not read before."""

    def __init__(self, url: str, runs: Path = RUNS) -> None:
        self.store, self.runs = open_store(url), runs
        self.registry = lru_cache(None)(self._registry)
        self.queue = lru_cache(None)(lambda name: ReviewQueue(self.store, self.registry(name).name))
        self.manifest = lru_cache(MAX_MANIFESTS)(self._manifest)
        self.evaluated = lru_cache(MAX_EVALUATED)(lambda name, version: read_evaluated(self.registry(name), version))

    def names(self) -> list[str]:
        """The models of the store."""
        return model_names(self.store)

    def models(self) -> list[Model]:
        """Every model with its champion and the last record of its ledger."""
        with ThreadPoolExecutor(_READERS) as pool:
            return list(pool.map(self._model, self.names()))

    def version_names(self, name: str) -> list[str]:
        """The names of a model's versions, newest first; one that is just being published may be among them."""
        return [it for it in reversed(list(self.store.names(f"models/{name}/"))) if VERSION_PATTERN.fullmatch(it)]

    def rows(self, name: str, records: Sequence[Record]) -> list[Row]:
        """The newest MAX_VERSIONS versions that are complete."""
        stack = deployments(list(records))
        marks = dict(zip(reversed(stack[-2:]), ("champion", "previous"), strict=False))

        def row(version: str) -> Row | None:
            try:
                return Row(version, self.manifest(name, version), serves=marks.get(version, ""))
            except VersionNotFound:
                return None
            except (IntegrityError, StoreError) as error:
                return Row(version, None, str(error), marks.get(version, ""))

        with ThreadPoolExecutor(_READERS) as pool:
            return [found for found in pool.map(row, self.version_names(name)[:MAX_VERSIONS]) if found]

    def listed(self, name: str) -> list[str]:
        """The names of those of the newest MAX_VERSIONS versions whose manifests can be read, newest first."""
        return [row.version for row in self.rows(name, []) if row.manifest]

    def select(self, name: str, selector: str) -> str:
        """The version that a name, `champion`, `previous` or the beginning of a name stands for; raises VersionNotFound, UsageError."""
        version = self.registry(name).match(selector)
        return self.manifest(name, version).version

    def scores(self, name: str) -> list[Scored]:
        """The complete outputs of scoring that lie in the store, at most MAX_SCORES: those of the newest versions."""
        prefix = f"scores/{name}/"
        folders = list(self.store.names(prefix))[-MAX_SCORES:]

        def scored(folder: str) -> Scored | None:
            try:
                complete = self.store.exists(f"{prefix}{folder}/{MANIFEST}")
                return Scored(folder, read_summary(self.store.read(f"{prefix}{folder}/{SUMMARY}"))) if complete else None
            except (DataError, StoreError) as error:
                return Scored(folder, None, str(error))

        with ThreadPoolExecutor(_READERS) as pool:
            return [found for found in pool.map(scored, reversed(folders)) if found]

    def _registry(self, name: str) -> Registry:
        registry = Registry(self.store, name)
        if next(iter(self.store.names(f"models/{name}/")), None) is None:
            raise VersionNotFound(f"no model {name!r} in {self.store.url}; it has {', '.join(self.names()[:20]) or 'none yet'}")
        return registry

    def _manifest(self, name: str, version: str) -> Manifest:
        found = self.registry(name).find(version)
        if found is None:
            raise VersionNotFound(f"no version {version!r} of {name} in {self.store.url}")
        return found.manifest

    def _model(self, name: str) -> Model:
        versions = len(self.version_names(name))
        try:
            last = self.registry(name).ledger.last()
            champion = last.champion if last else ""
            return Model(name, versions, Row(champion, self.manifest(name, champion), serves="champion") if champion else None, last)
        except PenstockError as error:
            return Model(name, versions, None, None, str(error))
