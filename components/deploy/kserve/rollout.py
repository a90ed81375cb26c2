"""The kserve target: change what an InferenceService serves, see that it really serves it, or put back what was there.

1. Read the InferenceService, then the ledger; refuse what the ledger says is stale.
2. Note in the store what to go back to, and apply the version under the resourceVersion that was read.
3. Wait until only new pods serve and every golden request is answered as evaluated; watch on for a while.
4. Write the ledger's record.

Whatever fails after the apply is undone (`undo.py`). Killed at any point and run again, it goes on from what it finds.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from components.classifier.errors import IntegrityError, LedgerConflict, RolloutConflict, RolloutError, UsageError
from components.deploy.kserve import canary, undo
from components.deploy.kserve.cluster import Cluster, Stale, connect
from components.deploy.kserve.golden import Golden
from components.deploy.kserve.journal import Journal
from components.deploy.kserve.service import (
    Object,
    adoption_patch,
    agrees,
    agrees_in_spec,
    applied_part,
    keep_mode_name,
    mode_of,
    render,
    uri_of,
    version_of,
    with_lock,
)
from components.deploy.kserve.watch import NotServed, Say, Watcher
from components.deploy.records import champion_of, draft, recorded, refuse_stale
from components.deploy.request import DeployRequest
from components.registry import Record, Registry
from components.settings.serving import KServeSettings, canonical, check_store

ATTEMPTS = 20
GOING_SECONDS = 60
"""How long a deleted InferenceService may take to go."""


def say(line: str) -> None:
    """Print a line at once, so that it is seen while the rollout goes on."""
    print(line, flush=True)


def deploy_kserve(registry: Registry, request: DeployRequest, tell: Say = say) -> str:
    """Make a version the one that an InferenceService serves; returns "deployed", or "unchanged" when it serves already.

    Raises UsageError and IntegrityError before anything is changed; RolloutConflict when another deployer was first;
    RolloutError with the pod's reason when the version does not serve, after what served before was put back.
    """
    request.check()
    settings = KServeSettings.read(request.serving, request.namespace)
    check_store(registry.store.url)
    settings.service_name(registry.name)
    if problems := registry.verify(request.version):
        raise IntegrityError(f"version {request.version} is damaged: {'; '.join(problems)}; publish it again")
    return Rollout(registry, request, settings, connect(settings.namespace), tell).run()


class Stopped(RolloutError):
    """The step was told to end while the version was not yet seen to serve."""


@contextmanager
def stopping() -> Iterator[None]:
    """Raise Stopped at SIGTERM: a step whose node is drained must not leave what nobody has seen to serve.

    A run that is terminated in Kubeflow gives no time for that; the next deployment knows by the journal.
    It is no verdict on the version: run again, the step begins anew.
    """

    def stop(*_: object) -> None:
        raise Stopped("the step was told to stop (SIGTERM) before the version was seen to serve; what served before was put back")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Rollout:
    """One version on its way to an InferenceService."""

    def __init__(self, registry: Registry, request: DeployRequest, settings: KServeSettings, cluster: Cluster, tell: Say) -> None:
        self.registry, self.request, self.settings, self.cluster, self.tell = registry, request, settings, cluster, tell
        self.version = request.version
        self.uri = registry.uri(request.version)
        self.models = self.uri.removesuffix(f"{request.version}/")
        self.service = settings.service_name(registry.name)
        self.journal = Journal(registry)
        self.watcher = Watcher(cluster, self.service, settings, tell)
        self.golden: Golden | None = None
        self.replaced: Object | None = None
        """What was on the cluster before our first apply."""
        self.stable: Object | None = None
        """What to go back to; None: to nothing."""
        self.changed = False

    def run(self) -> str:
        """Roll out; returns "deployed" or "unchanged"."""
        if failure := self._failed_before():
            undo.finish(self, failure)
        records = self.registry.ledger.records()
        if recorded(records, self.request) and champion_of(records) != self.version:
            return "unchanged"
        self.golden = Golden.of(self.registry, self.version)
        self._look_around()
        if self.settings.canary:
            self._try_apart()
        steps = canary.shares(self.settings, self.live())
        self.replaced = self.live()
        self._apply(steps[0], self.replaced)
        deadline = time.monotonic() + self.settings.timeout_seconds
        try:
            with stopping():
                self._climb(steps, deadline)
                self.watcher.settle(self.uri, self.golden, deadline)
        except NotServed as failure:
            undo.undo(self, str(failure))
        except Stopped:
            undo.restore(self, self.stable)
            raise
        return self._record()

    def live(self) -> Object | None:
        """Read the InferenceService, once it is not on its way out."""
        for _ in range(GOING_SECONDS):
            live = self.cluster.find("InferenceService", self.service)
            if live is None or "deletionTimestamp" not in live["metadata"]:
                return live
            time.sleep(1)
        raise RolloutError(f"{self.service} is being deleted and does not go; look at its finalizers, and at KServe's controller")

    def wanted(self, percent: int | None = None) -> Object:
        """Return the InferenceService that serves the version."""
        return render(self.service, self.version, self.uri, self.settings, self.request.predictor, percent=percent)

    def going_back_to(self, live: Object | None) -> Object | None:
        """Return what served before `live` was put there by a rollout, or `live` itself where that was confirmed."""
        if live is None:
            return None
        serves = version_of(live, self.models)
        if serves != champion_of(self.registry.ledger.records()):  # never confirmed: a rollout that is under way, or was killed
            if self.journal.known(live):
                return self.journal.stable(live)
            if serves == self.version and live["metadata"]["generation"] == 1:
                return None
        return applied_part(live)

    def _failed_before(self) -> Record | None:
        """Return this run's failure, if it recorded one: a verdict is not tried again, only undone to the end."""
        if not self.request.run:
            return None
        mine = [record for record in self.registry.ledger.records() if record.run == self.request.run]
        return next((r for r in mine if (r.action, r.version, r.target) == ("failed", self.version, self.request.target)), None)

    def _look_around(self) -> None:
        """Read all that the rollout will have to read, so that a missing right is told before anything is changed."""
        live = self.live()
        now = mode_of(live) if live else ""
        if now and canonical(now) != canonical(self.settings.mode):
            raise UsageError(
                f"{self.service} runs in mode {now}, which cannot be changed to {self.settings.mode}; set serving.mode={now}, "
                "or serving.service to another name"
            )
        for kind in ("Deployment", "ReplicaSet", "Pod", "Event"):
            self.cluster.all(kind, f"serving.kserve.io/inferenceservice={self.service}")

    def _try_apart(self) -> None:
        assert self.golden is not None
        try:
            canary.try_apart(self.cluster, self.wanted(), self.golden, self.settings, self.tell)
        except NotServed as failure:
            self.registry.ledger.append(draft(self.request, failed=f"canary: {failure}"))
            raise RolloutError(f"{self.version} failed as a canary: {failure}; {self.service} was not touched") from failure

    def _apply(self, percent: int | None, first: Object | None) -> None:
        """Put the version on the cluster, bound to what was read first; raises RolloutConflict when that is gone."""
        for _ in range(ATTEMPTS):
            live = self.live()
            self._refuse_change(first, live)
            records = self.registry.ledger.records()
            if champion_of(records) != self.version and not recorded(records, self.request):
                refuse_stale(records, self.request)
            self.stable = self.going_back_to(live)
            wanted = keep_mode_name(self.wanted(percent), live) if live else self.wanted(percent)
            if live and agrees(live, wanted) and not adoption_patch(live):
                return
            try:
                self._write(live, wanted)
            except Stale:
                continue
            self.changed = True
            self.tell(f"{self.service}: {self.version} applied{f' for {percent} percent of the traffic' if percent else ''}")
            return
        raise RolloutConflict(f"{self.service} was changed {ATTEMPTS} times while it was to be applied; run again")

    def _write(self, live: Object | None, wanted: Object) -> None:
        if live is None:
            live = self.cluster.create(wanted)
        if operations := adoption_patch(live):
            live = self.cluster.patch("InferenceService", self.service, operations)
        if agrees(live, wanted):
            return
        if not agrees_in_spec(live, wanted):  # nothing else makes a new generation
            self.journal.write(live, self.stable)
        self.cluster.apply(with_lock(wanted, live), force=self.settings.take_over)

    def _refuse_change(self, first: Object | None, now: Object | None, *, only_ours: bool = False) -> None:
        before, after = (uri_of(it) if it else "" for it in (first, now))
        if after != self.uri and (only_ours or after != before):
            raise RolloutConflict(
                f"another deployer changed {self.service} meanwhile: it serves {version_of(now, self.models) or after or 'nothing'} now, "
                f"{version_of(first, self.models) or before or 'nothing'} before; {self.version} is not deployed, run again to replace that"
            )

    def _climb(self, steps: list[int | None], deadline: float) -> None:
        """Wait at each share of the traffic until it is served well, then take the next."""
        assert self.golden is not None
        for number, percent in enumerate(steps):
            if number:
                self._apply(percent, self.live())
            if percent is None:
                self.watcher.wait(self.uri, self.golden, deadline)
                continue
            self.watcher.wait(self.uri, None, deadline, percent=percent)
            if problem := self.watcher.traffic(self.golden, percent):
                raise NotServed(f"at {percent} percent of the traffic: {problem}")
            self.tell(f"{self.service}: {percent} percent of the traffic is answered well")

    def _record(self) -> str:
        """Write the record while the version still is what the cluster serves."""
        for _ in range(ATTEMPTS):
            records = self.registry.ledger.records()
            self._refuse_change(self.replaced, self.live(), only_ours=True)
            if champion_of(records) == self.version:
                return "deployed" if self.changed else "unchanged"
            if recorded(records, self.request):
                return "unchanged"
            try:
                self.registry.ledger.append(draft(self.request), after=len(records))
            except LedgerConflict:
                continue
            self.tell(f"{self.service}: {self.version} serves, and is recorded")
            return "deployed"
        raise LedgerConflict(f"other writers appended to the ledger of {self.registry.name} {ATTEMPTS} times in a row; run again")
