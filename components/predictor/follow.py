"""Follows the deployment ledger: fetches, verifies and loads each new champion beside the one that serves, then switches."""

import json
import shutil
import time
from pathlib import Path
from typing import Any, Literal

from components.classifier.errors import (
    DiskError,
    IntegrityError,
    PenstockError,
    RegistryError,
    StoreError,
    VersionNotFound,
    first_line,
    one_line,
)
from components.predictor.loaded_model import LoadedModel, load
from components.predictor.logs import log
from components.predictor.metrics import Behind, LedgerState
from components.predictor.server import PredictorServer
from components.predictor.settings import PredictorSettings
from components.registry import Registry
from components.registry.ledger import refuse_downgrade
from components.storage import open_store
from components.storage.files import write_file

_DISK_SECONDS = 30.0
"""Between two tries to copy a version to a disk that did not take it."""


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
        self._noted = self._remembered()
        if self._noted:
            self._registry.ledger.head = (self._noted["sequence"], self._noted["sha256"])
        self._poll_seconds = poll_seconds
        self._refused = self._waits = ""
        self._retry_at = 0.0
        self._unnoted = False
        """Whether the ledger's newest record could not be kept in the cache."""
        self._told: type[PenstockError] | None = None
        self._server: PredictorServer | None = None

    def __call__(self, server: PredictorServer) -> None:
        """Load the champion, then follow the ledger until the process ends; raises PenstockError when there is no sound champion.

        Where the ledger was tampered with since an earlier process of this cache, what that one served is loaded.
        """
        self._server = server
        server.serve(self.load(self._first(), server.settings))
        self._remember()
        while not server.model.draining:
            time.sleep(self._poll_seconds)
            self.check(server)

    def _first(self) -> str:
        try:
            champion = champion_of(self._registry)
        except RegistryError as error:
            served = str(self._noted.get("served", ""))
            if not (served and (self._cache / served).is_dir()):
                raise
            self._tell(error)
            return served
        self._state("trusted")
        return champion

    def check(self, server: PredictorServer) -> None:
        """Switch to the champion if it is another version than the one that serves, and can be loaded."""
        champion = self._champion()
        serving = server.model.current().version
        if champion == serving:
            self._behind(server, champion, "")
        if champion in ("", serving, self._refused) or (champion == self._waits and time.monotonic() < self._retry_at):
            return
        try:
            refuse_downgrade(serving, champion, self._registry.ledger.deployment())
            server.serve(self.load(champion, server.settings))
        except DiskError as error:
            self._retry_at = time.monotonic() + _DISK_SECONDS
            if self._behind(server, champion, "disk"):
                log().error("the cache does not take the new champion", version=champion, still_serving=serving, error=first_line(error))
        except StoreError as error:
            if self._behind(server, champion, "store"):
                self._tell(error)
        except PenstockError as error:
            self._refused = champion
            self._behind(server, champion, "refused")
            server.metrics.swaps.labels("refused").inc()
            log().error("new champion refused", version=champion, still_serving=serving, error=one_line(error, None))
        else:
            self._refused = ""
            self._behind(server, champion, "")
            server.metrics.swaps.labels("switched").inc()
            self._remember()
            for folder in self._cache.iterdir():
                if folder.is_dir() and folder.name not in {champion, serving}:
                    shutil.rmtree(folder, ignore_errors=True)

    def _behind(self, server: PredictorServer, champion: str, why: Behind | Literal[""]) -> bool:
        """Report why the champion does not serve ("": it does); says whether that is new."""
        told = f"{champion}: {why}" if why else ""
        server.metrics.tell_behind(why)
        before, server.model.behind = server.model.behind, told
        self._waits = champion if why == "disk" else ""
        return told != before

    def load(self, version: str, settings: PredictorSettings) -> LoadedModel:
        """Fetch a version into the cache, verify it and load it."""
        folder = self._cache / version
        try:
            self._registry.fetch(version, folder)
        except IntegrityError:
            if not folder.exists():
                raise
            shutil.rmtree(folder)  # the copy is damaged; fetching it again shows whether the version is too
            self._registry.fetch(version, folder)
        return load(self._name, folder, settings.threads, settings.device, settings.batch_seconds > 0)

    def _champion(self) -> str:
        """The ledger's champion, or "" when the store does not answer or the ledger was tampered with."""
        try:
            champion = self._registry.ledger.champion()
        except PenstockError as error:
            self._tell(error)
            return ""
        if self._told is not None:
            log().info("the ledger is followed again", champion=champion)
        self._told = None
        self._state("trusted")
        self._remember()
        return champion or ""

    def _tell(self, error: PenstockError) -> None:
        untrusted = not isinstance(error, StoreError)
        self._state("untrusted" if untrusted else "unreachable")
        if self._told is not type(error):
            told = "the ledger cannot be trusted" if untrusted else "cannot read the store"
            log().warning(f"{told}; the loaded version goes on serving", error=one_line(error, None))
        self._told = type(error)

    def _state(self, state: LedgerState) -> None:
        if self._server is not None:
            self._server.metrics.tell_ledger(state)
            self._server.model.ledger = state

    def _remembered(self) -> dict[str, Any]:
        """What an earlier process noted of this ledger: its newest record, so that its removal is noticed, and the version that served."""
        try:
            seen = json.loads(self._head_file.read_bytes())
            known = seen["store"] == self._registry.store.url and {"sequence", "sha256"} <= seen.keys()
            return dict(seen) if known else {}
        except (FileNotFoundError, ValueError, KeyError, TypeError):  # not there, or not what this process writes
            return {}

    def _remember(self) -> None:
        head, loaded = self._registry.ledger.head, self._server.model.loaded if self._server else None
        if head is None or loaded is None:
            return
        seen = {"store": self._registry.store.url, "sequence": head[0], "sha256": head[1], "served": loaded.version}
        if seen == self._noted:
            return
        try:
            write_file(self._head_file, [json.dumps(seen).encode()])
        except DiskError as error:  # what serves goes on; the next look at the ledger tries again
            if not self._unnoted:
                log().error("the cache does not take the ledger's newest record", error=first_line(error))
            self._unnoted = True
            return
        self._noted, self._unnoted = seen, False
