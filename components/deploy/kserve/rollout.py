"""The kserve target: change what an InferenceService serves, confirm that it really serves it, or put back what was there.

1. Read the InferenceService, then the ledger; refuse what the ledger says is stale.
2. Note in the store what to go back to, and apply the version under the resourceVersion that was read.
3. Wait until only new pods serve and every golden request is answered as evaluated; watch on for a while.
4. Write the ledger's record.

Whatever fails after the apply is undone: the failure is recorded, what served before is put back, confirmed to serve, and
recorded. Killed at any point and run again, a rollout continues from what it finds.
"""

import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import NoReturn

from components.classifier.errors import RegistryError, RolloutConflict, RolloutError, StoreError, UsageError
from components.classifier.stopping import raised_at
from components.deploy.kserve import canary
from components.deploy.kserve.cluster import Cluster, Stale, connect
from components.deploy.kserve.journal import Journal
from components.deploy.kserve.live import compare_live
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
from components.deploy.kserve.watch import Golden, NotServed, Say, Watcher, say
from components.deploy.request import DeployRequest, Overtaken
from components.doctor.before import refuse_what_breaks
from components.registry import Record, Registry
from components.registry.ledger import champion_of
from components.settings.serving import KServeSettings, canonical, check_owner, check_store
from components.storage.store import write_optimistically


def deploy_kserve(registry: Registry, request: DeployRequest, tell: Say = say) -> str:
    """Make a version the one that an InferenceService serves; returns "deployed", or "unchanged" when it serves already.

    Raises UsageError and IntegrityError before anything is changed; Overtaken or RolloutConflict when another deployer was first;
    RolloutError with the pod's reason when the version does not serve, after what served before was put back.
    """
    settings = KServeSettings.read(request.serving, request.namespace)
    check_store(registry.store.url)
    settings.service_name(registry.name)
    registry.require_intact(request.version)
    return Rollout(registry, request, settings, connect(settings.namespace), tell).run()


def put_back_unconfirmed(registry: Registry, request: DeployRequest, tell: Say = say) -> str:
    """Put back what served before, where a run applied a version and its step ended before that was seen to serve.

    `request`: its version is the one that the run meant, if that is known. A canary of it that was left is deleted. Returns what was found
    and done, or nothing where the service serves what the ledger says, or what another run applied. Raises UsageError for a cluster that
    cannot be reached.
    """
    settings = KServeSettings.read(request.serving, request.namespace)
    rollout = Rollout(registry, request, settings, connect(settings.namespace), tell)
    if settings.canary:
        canary.clear(rollout.cluster, rollout.service, rollout.models, request.version, tell)
    live = rollout.live()
    serves = version_of(live, rollout.models)
    if live is None or not serves or serves == champion_of(registry.ledger.records()):
        return ""
    first = live["metadata"]["generation"] == 1 and serves == request.version  # nothing notes who made a service
    if not first and (not request.run or rollout.journal.run_of(live) != request.run):
        return ""
    rollout = Rollout(registry, replace(request, version=serves), settings, rollout.cluster, tell)
    rollout.replaced, rollout.stable = live, rollout.rollback_target(live)
    try:
        rollout.undo("the deploy step ended before it was seen to serve")
    except RolloutError as undone:  # how an undo ends
        return str(undone)


class Stopped(RolloutError):
    """The step was told to end while the version was not yet seen to serve."""


def stopping(done: str) -> AbstractContextManager[None]:
    """Raise Stopped at SIGTERM, which says what was `done` then: a step whose node is drained must not leave what nobody has seen to serve.

    A run that is terminated in Kubeflow may give no time for that; its exit handler knows by the journal, and the next deployment too.
    This says nothing about the version: run again, the step starts anew.
    """
    return raised_at(
        (signal.SIGTERM,), lambda: Stopped(f"the step was told to stop (SIGTERM) before the version was seen to serve; {done}")
    )


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
        """Roll out; returns "deployed" or "unchanged". Raises Overtaken where the gate let it through and another version came first."""
        try:
            return self._run()
        except RolloutConflict as conflict:
            rival = version_of(self.live(), self.models)
            if self.request.strategy == "quality" and rival not in {"", self.version}:
                raise Overtaken(f"overtaken by {rival}: {conflict}") from conflict
            raise

    def _run(self) -> str:
        if failure := self._failed_before():
            self._finish_undo(failure)
        records = self.registry.ledger.records()
        if self.request.recorded(records) and champion_of(records) != self.version:
            return "unchanged"
        self.golden = Golden.of(self.registry, self.version)
        self._check_permissions()
        if self.settings.canary:
            self._try_apart()
        steps = canary.shares(self.settings, self.live())
        self.replaced = self.live()
        self._apply(steps[0], self.replaced)
        deadline = time.monotonic() + self.settings.timeout_seconds
        try:
            with stopping("what served before was put back"):
                self._shift_traffic(steps, deadline)
                self.watcher.settle(self.wanted(), self.golden, deadline)
                self._require_kept()
        except NotServed as failure:
            self.undo(str(failure))
        except (Stopped, Overtaken):
            self._restore(self.stable)
            raise
        return self._record()

    def live(self) -> Object | None:
        """Read the InferenceService; one that is being deleted is waited for."""
        return self.cluster.find_settled("InferenceService", self.service)

    def wanted(self, percent: int | None = None) -> Object:
        """Return the InferenceService that serves the version."""
        # The service may have another name than the model whose signed versions it may load.
        variables = {**self.request.predictor, "PENSTOCK_VERIFY_NAME": self.registry.name}
        if self.settings.shadow_share:
            variables["PENSTOCK_SHADOW_SHARE"] = f"{self.settings.shadow_share:g}"
        return render(self.service, self.version, self.uri, self.settings, variables, percent=percent)

    def wanted_apart(self) -> Object:
        """Return the same for a canary that gets copies of requests: it queues none of their pictures for review once more."""
        variables = {"PENSTOCK_VERIFY_NAME": self.registry.name, "PENSTOCK_REVIEW_THRESHOLD": "0", "PENSTOCK_AUDIT_RATE": "0"}
        return render(self.service, self.version, self.uri, self.settings, {**self.request.predictor, **variables})

    def rollback_target(self, live: Object | None) -> Object | None:
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
        """Return this run's failure, if it recorded one: a version that failed is not tried again in it, only undone to the end."""
        if not self.request.run:
            return None
        mine = [record for record in self.registry.ledger.records() if record.run == self.request.run]
        return next((r for r in mine if (r.action, r.version, r.target) == ("failed", self.version, self.request.target)), None)

    def _check_permissions(self) -> None:
        """Read everything that the rollout will read, and ask for every right, so that what is missing is reported before any change.

        Raises UsageError for a service that is another's, or runs in another mode.
        """
        live = self.live()
        self._check_owner(live)
        now = mode_of(live) if live else ""
        if now and canonical(now) != canonical(self.settings.mode):
            raise UsageError(
                f"{self.service} runs in mode {now}, which cannot be changed to {self.settings.mode}; set serving.mode={now}, "
                "or serving.service to another name"
            )
        for kind in ("Deployment", "ReplicaSet", "Pod", "Event"):
            self.cluster.all(kind, f"serving.kserve.io/inferenceservice={self.service}")
        refuse_what_breaks(self.settings, self.service)

    def _check_owner(self, live: Object | None) -> None:
        champion = champion_of(self.registry.ledger.records())
        check_owner(self.service, uri_of(live) if live else "", self.models, champion, self.settings.take_over)

    def _try_apart(self) -> None:
        assert self.golden is not None
        champion = version_of(self.live(), self.models)

        def live(watcher: Watcher, apart: Object) -> None:
            self._compare((self.service, canary.apart_name(self.service)), champion, 1, lambda: watcher.require_served(apart), shadow=True)

        try:
            with stopping("its canary was deleted"):
                canary.try_apart(self.cluster, self.wanted_apart(), self.golden, self.settings, self.tell, live)
        except NotServed as failure:
            self.registry.ledger.append(self.request.draft_failure(f"canary: {failure}"))
            raise RolloutError(f"{self.version} failed as a canary: {failure}; {self.service} was not touched") from failure

    def _compare(self, services: tuple[str, ...], champion: str, steps: int, still: Callable[[], None], *, shadow: bool = False) -> None:
        """Judge the version on live requests beside the champion, where that is asked for; raises NotServed when it is worse."""
        if champion and champion != self.version:
            compare_live(self.cluster, services, champion, self.version, self.settings, steps, still, self.tell, shadow=shadow)

    def _apply(self, percent: int | None, first: Object | None) -> None:
        """Put the version on the cluster, bound to what was read first; raises RolloutConflict when that is gone."""

        def attempt() -> None:
            live = self.live()
            self._check_owner(live)
            self._refuse_change(first, live)
            records = self.registry.ledger.records()
            if champion_of(records) != self.version and not self.request.recorded(records):
                self.request.refuse_stale(records)
            self.stable = self.rollback_target(live)
            wanted = keep_mode_name(self.wanted(percent), live) if live else self.wanted(percent)
            if live and agrees(live, wanted) and not adoption_patch(live):
                return
            self._write(live, wanted)
            self.changed = True
            self.tell(f"{self.service}: {self.version} applied{f' for {percent} percent of the traffic' if percent else ''}")

        write_optimistically(attempt, Stale, RolloutConflict(f"others change {self.service} all the time; run again"))

    def _write(self, live: Object | None, wanted: Object) -> None:
        if live is None:
            live = self.cluster.create(wanted)
        if operations := adoption_patch(live):
            live = self.cluster.patch("InferenceService", self.service, operations)
        if agrees(live, wanted):
            return
        if not agrees_in_spec(live, wanted):  # nothing else makes a new generation
            self.journal.write(live, self.stable, self.request.run)
        self.cluster.apply(with_lock(wanted, live), force=self.settings.take_over)

    def _refuse_change(self, first: Object | None, now: Object | None, *, only_ours: bool = False) -> None:
        before, after = (uri_of(it) if it else "" for it in (first, now))
        if after != self.uri and (only_ours or after != before):
            raise RolloutConflict(
                f"another deployer changed {self.service} meanwhile: it serves {version_of(now, self.models) or after or 'nothing'} now, "
                f"{version_of(first, self.models) or before or 'nothing'} before; {self.version} is not deployed, run again to replace that"
            )

    def _shift_traffic(self, steps: list[int | None], deadline: float) -> None:
        """Raise the new version's share of the traffic step by step, each once the one before is answered as evaluated."""
        assert self.golden is not None
        for number, percent in enumerate(steps):
            if number:
                self._apply(percent, self.live())
            if percent is None:
                self.watcher.wait(self.wanted(), self.golden, deadline)
                continue
            self.watcher.wait(self.wanted(percent), None, deadline, percent=percent)
            if problem := self.watcher.traffic(self.golden, percent):
                raise NotServed(f"at {percent} percent of the traffic: {problem}")
            self.tell(f"{self.service}: {percent} percent of the traffic is answered as evaluated")
            self._compare(
                (self.service,),
                version_of(self.replaced, self.models),
                len(steps) - 1,
                lambda share=percent: self.watcher.require_served(self.wanted(share), share),  # type: ignore[misc]
            )

    def _require_kept(self) -> None:
        """Raise NotServed where the version was deleted from the store meanwhile: its pods would not start again."""
        if self.registry.find(self.version) is None:
            raise NotServed(f"it was deleted from {self.registry.store.url} meanwhile")

    def _record(self) -> str:
        """Write the record while the version still is what the cluster serves; returns "deployed" or "unchanged"."""
        outcome = "unchanged"

        def decide(records: list[Record]) -> Record | None:
            nonlocal outcome
            self._refuse_change(self.replaced, self.live(), only_ours=True)
            if champion_of(records) == self.version:
                outcome = "deployed" if self.changed else "unchanged"
                return None
            return None if self.request.recorded(records) else self.request.draft()

        if self.registry.ledger.append_if(decide) is None:
            return outcome
        self.tell(f"{self.service}: {self.version} serves, and is recorded")
        return "deployed"

    def undo(self, reason: str) -> NoReturn:
        """Record the failure, put back what served before, confirm that it serves, record that, and raise RolloutError."""
        self.tell(f"{self.service}: {self.version} failed: {reason}")
        records = self.registry.ledger.records()
        if champion_of(records) == self.version and not self.changed:
            raise RolloutError(f"{self.version} is what {self.service} should serve, and it does not: {reason}")
        unrecorded = _try(lambda: self.registry.ledger.append(self.request.draft_failure(reason)))
        self._go_back(reason, unrecorded)

    def _finish_undo(self, failure: Record) -> NoReturn:
        """Undo to the end what an earlier, interrupted attempt of this run found to fail; raises RolloutError with its reason."""
        records = self.registry.ledger.records()
        after = records[failure.sequence :]
        if any(record.run == failure.run and record.action == "rolled_back" for record in after):
            raise RolloutError(f"{failure.version} failed in this run already: {failure.reason}; {champion_of(records)} serves")
        live = self.live()
        if live is None or (uri_of(live) != self.uri and version_of(live, self.models) != champion_of(records)):
            raise RolloutError(f"{failure.version} failed in this run already: {failure.reason}")
        self.stable = self.rollback_target(live)
        self._go_back(failure.reason, None)

    def _go_back(self, reason: str, unrecorded: Exception | None) -> NoReturn:
        champion = champion_of(self.registry.ledger.records())
        if champion and self.replaced and version_of(self.replaced, self.models) == champion:
            self.stable = applied_part(self.replaced)  # what it replaced was confirmed since
        stable = self.stable
        try:
            self._restore(stable)
            if stable is None:
                outcome = f"{self.service} was deleted again, since nothing served before"
            else:
                outcome = self._confirm_restored(stable, reason)
        except RolloutConflict as conflict:
            outcome = str(conflict)
        except RolloutError as error:  # the API server's refusal, or its silence
            outcome = f"what served before could not be put back: {error}; run the step again, which continues with that"
        unwritten = f"; the ledger could not be written: {unrecorded}" if unrecorded else ""
        raise RolloutError(f"{self.version} failed: {reason}; {outcome}{unwritten}") from unrecorded

    def _restore(self, stable: Object | None) -> None:
        """Put `stable` back where our version is; raises RolloutConflict when something else came there meanwhile."""

        def attempt() -> None:
            live = self.live()
            if live is None:
                if stable is None:
                    return
                raise RolloutConflict(f"{self.service} was deleted meanwhile")
            if stable is not None and agrees(live, stable):
                return
            if uri_of(live) != self.uri:
                raise RolloutConflict(f"another deployer changed {self.service} meanwhile, to {uri_of(live)}; that was not touched")
            if stable is None:
                self.cluster.delete(live)
                if self.live() is not None:
                    raise RolloutConflict(f"another deployer made {self.service} anew meanwhile; that was not touched")
                self.tell(f"{self.service}: deleted again")
                return
            self._put_back(live, stable)
            self.tell(f"{self.service}: {version_of(stable, self.models) or uri_of(stable)} applied again")

        write_optimistically(attempt, Stale, RolloutConflict(f"others change {self.service} all the time; it could not be put back"))

    def _put_back(self, live: Object, stable: Object) -> None:
        if live["spec"]["predictor"].get("canaryTrafficPercent"):
            # The traffic leaves the failed revision at once; the old spec is a new revision, which must start first.
            self.journal.write(live, stable, self.request.run)
            none = applied_part(live)
            none["spec"]["predictor"]["canaryTrafficPercent"] = 0
            live = self.cluster.apply(with_lock(none, live), force=True)
        self.journal.write(live, stable, self.request.run)
        self.cluster.apply(with_lock(stable, live), force=True)

    def _confirm_restored(self, stable: Object, reason: str) -> str:
        """Wait until what was put back serves, and record it; returns what came of it."""
        version = version_of(stable, self.models)
        golden = Golden.of(self.registry, version) if version and self.registry.find(version) else None
        back = version or uri_of(stable)
        try:
            self.watcher.wait(stable, golden, time.monotonic() + self.settings.timeout_seconds)
        except NotServed as failure:
            return f"{back} was put back, but does not serve either: {failure}"
        if version and (problem := _try(lambda: self.registry.ledger.append(self.request.draft_return(version, reason)))):
            return f"{back} serves again, but the ledger could not be written: {problem}"
        return f"{back} serves again"


def _try(write: Callable[[], object]) -> Exception | None:
    """Write to the ledger; a store that fails then must not keep the old version from being put back."""
    try:
        write()
    except (StoreError, RegistryError) as error:
        return error
    return None
