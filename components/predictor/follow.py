"""Follows the deployment ledger: fetches, verifies and loads each new champion beside the one that serves, then switches."""

import json
import shutil
import time
from pathlib import Path

from components.classifier.errors import IntegrityError, PenstockError, StoreError, VersionNotFound
from components.predictor.loaded_model import LoadedModel, load
from components.predictor.logs import log
from components.predictor.server import PredictorServer
from components.registry import Registry
from components.storage import open_store
from components.storage.files import write_file


def champion_of(registry: Registry) -> str:
    """Return the version that the ledger names; raises VersionNotFound while there is none."""
    champion = registry.ledger.champion()
    if not champion:
        raise VersionNotFound(
            f"no version of {registry.name!r} is deployed in {registry.store.url} yet; train and deploy one with `penstock run training`"
        )
    return champion


class Follower:
    """Loader of a PredictorServer: serves the champion of `name` in a store, and switches to each new one.

    Files are copied to `cache`, so that changes to the store do not affect what serves. A version that cannot be fetched,
    verified and loaded never answers a request: the one before goes on serving, and the log says why.
    """

    def __init__(self, store: str, name: str, cache: Path, poll_seconds: float = 1.0) -> None:
        self._registry = Registry(open_store(store), name)
        self._name = name
        self._cache = cache / name
        self._head_file = cache / f"{name}.ledger-head.json"
        self._head_kept = self._registry.ledger.head = self._remembered_head()
        self._poll_seconds = poll_seconds
        self._refused = ""
        self._told: type[PenstockError] | None = None

    def __call__(self, server: PredictorServer) -> None:
        """Load the champion, then follow the ledger until the process ends; raises PenstockError when there is no sound champion."""
        server.serve(self.load(champion_of(self._registry), server.settings.threads))
        self._remember_head()
        while not server.model.draining:
            time.sleep(self._poll_seconds)
            self.check(server)

    def check(self, server: PredictorServer) -> None:
        """Switch to the champion if it is another version than the one that serves, and can be loaded."""
        champion = self._champion()
        serving = server.model.current().version
        if champion in ("", serving, self._refused):
            return
        try:
            server.serve(self.load(champion, server.settings.threads))
        except StoreError as error:
            self._tell(error)
        except PenstockError as error:
            self._refused = champion
            server.metrics.swaps.labels("refused").inc()
            log().error("new champion refused", version=champion, still_serving=serving, error=" ".join(str(error).split()))
        else:
            self._refused = ""
            server.metrics.swaps.labels("switched").inc()
            self._remove_copies(keep={champion, serving})

    def load(self, version: str, threads: int) -> LoadedModel:
        """Fetch a version into the cache, verify it and load it."""
        folder = self._cache / version
        try:
            self._registry.fetch(version, folder)
        except IntegrityError:
            if not folder.exists():
                raise
            shutil.rmtree(folder)  # the copy is damaged; fetching it again shows whether the version is too
            self._registry.fetch(version, folder)
        return load(self._name, folder, threads)

    def _champion(self) -> str:
        """The ledger's champion, or "" when the store does not answer or the ledger was tampered with."""
        try:
            champion = self._registry.ledger.champion()
        except PenstockError as error:
            self._tell(error)
            return ""
        self._told = None
        self._remember_head()
        return champion or ""

    def _tell(self, error: PenstockError) -> None:
        if self._told is not type(error):
            told = "the ledger cannot be trusted" if isinstance(error, IntegrityError) else "cannot read the store"
            log().warning(f"{told}; the loaded version goes on serving", error=" ".join(str(error).split()))
        self._told = type(error)

    def _remembered_head(self) -> tuple[int, str] | None:
        """The newest record of this ledger that an earlier process saw, so that its removal is noticed after a restart too."""
        try:
            seen = json.loads(self._head_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return (seen["sequence"], seen["sha256"]) if seen["store"] == self._registry.store.url else None

    def _remember_head(self) -> None:
        head = self._registry.ledger.head
        if head is not None and head != self._head_kept:
            seen = {"store": self._registry.store.url, "sequence": head[0], "sha256": head[1]}
            write_file(self._head_file, [json.dumps(seen).encode()])
            self._head_kept = head

    def _remove_copies(self, keep: set[str]) -> None:
        for folder in self._cache.iterdir():
            if folder.is_dir() and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
