"""Follows the deployment ledger: fetches, verifies and loads each new champion beside the one that serves, then switches."""

import shutil
import time
from pathlib import Path

from components.classifier.errors import IntegrityError, PenstockError, StoreError, VersionNotFound
from components.predictor.logs import log
from components.predictor.served import ServedModel, load
from components.predictor.server import PredictorServer
from components.registry import Registry
from components.storage import open_store


def champion_of(registry: Registry) -> str:
    """Return the version that the ledger names; raises VersionNotFound while there is none."""
    champion = registry.ledger.champion()
    if not champion:
        raise VersionNotFound(
            f"no version of {registry.name!r} is deployed in {registry.store.url} yet; train and deploy one with `penstock run training`"
        )
    return champion


class Follower:
    """Loader of a PredictorServer that serves the champion of `name` in a store, and goes on looking for another.

    Files are copied to `cache`, so that nothing that happens to the store changes what serves. A version that cannot be
    fetched, verified and loaded never answers a request: the one before goes on, and the log says why.
    """

    def __init__(self, store: str, name: str, cache: Path, poll_seconds: float = 1.0) -> None:
        self._registry = Registry(open_store(store), name)
        self._name = name
        self._cache = cache / name
        self._poll_seconds = poll_seconds
        self._refused = ""
        self._unreachable = False

    def __call__(self, server: PredictorServer) -> None:
        """Load the champion, raising PenstockError when there is none or it does not serve; then follow until the process ends."""
        server.serve(self.load(champion_of(self._registry), server.settings.threads))
        while not server.model.draining:
            time.sleep(self._poll_seconds)
            self.look(server)

    def look(self, server: PredictorServer) -> None:
        """Switch to the champion if it is another version than the one that serves, and sound."""
        champion = self._champion()
        serving = server.model.current().version
        if champion in ("", serving, self._refused):
            return
        try:
            server.serve(self.load(champion, server.settings.threads))
        except StoreError as error:
            self._tell_unreachable(error)
        except PenstockError as error:
            self._refused = champion
            server.metrics.swaps.labels("refused").inc()
            log().error("new champion refused", version=champion, still_serving=serving, error=" ".join(str(error).split()))
        else:
            self._refused = ""
            server.metrics.swaps.labels("switched").inc()
            self._forget(keep={champion, serving})

    def load(self, version: str, threads: int) -> ServedModel:
        """Fetch a version into the cache, verify it and load it."""
        folder = self._cache / version
        try:
            self._registry.fetch(version, folder)
        except IntegrityError:
            if not folder.exists():
                raise
            shutil.rmtree(folder)  # the copy is damaged; whether the version is, fetching it again tells
            self._registry.fetch(version, folder)
        return load(self._name, folder, threads)

    def _champion(self) -> str:
        """The ledger's champion, or "" when the store does not answer."""
        try:
            champion = self._registry.ledger.champion()
        except PenstockError as error:
            self._tell_unreachable(error)
            return ""
        self._unreachable = False
        return champion or ""

    def _tell_unreachable(self, error: PenstockError) -> None:
        if not self._unreachable:
            log().warning("cannot read the store, the version that serves goes on", error=" ".join(str(error).split()))
        self._unreachable = True

    def _forget(self, keep: set[str]) -> None:
        for folder in self._cache.iterdir():
            if folder.is_dir() and folder.name not in keep:
                shutil.rmtree(folder, ignore_errors=True)
