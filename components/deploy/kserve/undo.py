"""Undoing a rollout: what served before is put back, seen to serve, and recorded."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from components.classifier.errors import RegistryError, RolloutConflict, RolloutError, StoreError
from components.deploy.kserve.cluster import Stale
from components.deploy.kserve.golden import Golden
from components.deploy.kserve.service import Object, agrees, applied_part, uri_of, version_of, with_lock
from components.deploy.kserve.watch import NotServed
from components.deploy.records import champion_of, draft, draft_return
from components.registry import Record

if TYPE_CHECKING:
    from components.deploy.kserve.rollout import Rollout

ATTEMPTS = 50


def undo(rollout: "Rollout", reason: str) -> NoReturn:
    """Record the failure, put back what served before, see that it serves, record that, and raise RolloutError."""
    rollout.tell(f"{rollout.service}: {rollout.version} failed: {reason}")
    records = rollout.registry.ledger.records()
    if champion_of(records) == rollout.version and not rollout.changed:
        raise RolloutError(f"{rollout.version} is what {rollout.service} should serve, and it does not: {reason}")
    unrecorded = _try(lambda: rollout.registry.ledger.append(draft(rollout.request, failed=reason)))
    _go_back(rollout, reason, unrecorded)


def finish(rollout: "Rollout", failure: Record) -> NoReturn:
    """Undo to the end what an earlier, broken-off attempt of this run found to fail; raises RolloutError with its reason."""
    records = rollout.registry.ledger.records()
    after = records[failure.sequence :]
    if any(record.run == failure.run and record.action == "rolled_back" for record in after):
        raise RolloutError(f"{failure.version} failed in this run already: {failure.reason}; {champion_of(records)} serves")
    live = rollout.live()
    if live is None or (uri_of(live) != rollout.uri and version_of(live, rollout.models) != champion_of(records)):
        raise RolloutError(f"{failure.version} failed in this run already: {failure.reason}")
    rollout.stable = rollout.going_back_to(live)
    _go_back(rollout, failure.reason, None)


def _go_back(rollout: "Rollout", reason: str, unrecorded: Exception | None) -> NoReturn:
    champion = champion_of(rollout.registry.ledger.records())
    if champion and rollout.replaced and version_of(rollout.replaced, rollout.models) == champion:
        rollout.stable = applied_part(rollout.replaced)  # what it replaced was confirmed since
    stable = rollout.stable
    try:
        restore(rollout, stable)
        if stable is None:
            outcome = f"{rollout.service} was taken away again, since nothing served before"
        else:
            outcome = _see(rollout, stable, reason)
    except RolloutConflict as conflict:
        outcome = str(conflict)
    except RolloutError as error:  # the API server's refusal, or its silence
        outcome = f"what served before could not be put back: {error}; run the step again, which goes on with that"
    if unrecorded is not None:
        raise RolloutError(f"{rollout.version} failed: {reason}; {outcome}; the ledger could not be written: {unrecorded}") from unrecorded
    raise RolloutError(f"{rollout.version} failed: {reason}; {outcome}")


def restore(rollout: "Rollout", stable: Object | None) -> None:
    """Put `stable` back where our version is; raises RolloutConflict when something else came there meanwhile."""
    for _ in range(ATTEMPTS):
        live = rollout.live()
        if live is None:
            if stable is None:
                return
            raise RolloutConflict(f"{rollout.service} was deleted meanwhile")
        if stable is not None and agrees(live, stable):
            return
        if uri_of(live) != rollout.uri:
            raise RolloutConflict(f"another deployer changed {rollout.service} meanwhile, to {uri_of(live)}; that was left alone")
        try:
            if stable is None:
                rollout.cluster.delete(live)
                if rollout.live() is not None:
                    raise RolloutConflict(f"another deployer made {rollout.service} anew meanwhile; that was left alone")
                rollout.tell(f"{rollout.service}: taken away again")
                return
            _put_back(rollout, live, stable)
        except Stale:
            continue
        rollout.tell(f"{rollout.service}: {version_of(stable, rollout.models) or uri_of(stable)} applied again")
        return
    raise RolloutConflict(f"{rollout.service} was changed {ATTEMPTS} times while it was to be put back")


def _put_back(rollout: "Rollout", live: Object, stable: Object) -> None:
    if live["spec"]["predictor"].get("canaryTrafficPercent"):
        # The traffic leaves the failed revision at once; the old spec is a new revision, which must start first.
        rollout.journal.write(live, stable)
        none = applied_part(live)
        none["spec"]["predictor"]["canaryTrafficPercent"] = 0
        live = rollout.cluster.apply(with_lock(none, live), force=True)
    rollout.journal.write(live, stable)
    rollout.cluster.apply(with_lock(stable, live), force=True)


def _see(rollout: "Rollout", stable: Object, reason: str) -> str:
    """Wait until what was put back serves, and record it; returns what came of it."""
    version = version_of(stable, rollout.models)
    golden = Golden.of(rollout.registry, version) if version and rollout.registry.find(version) else None
    back = version or uri_of(stable)
    try:
        rollout.watcher.wait(uri_of(stable), golden, time.monotonic() + rollout.settings.timeout_seconds)
    except NotServed as failure:
        return f"{back} was put back, but does not serve either: {failure}"
    if version and (problem := _try(lambda: rollout.registry.ledger.append(draft_return(rollout.request, version, reason)))):
        return f"{back} serves again, but the ledger could not be written: {problem}"
    return f"{back} serves again"


def _try(write: Callable[[], object]) -> Exception | None:
    """Write to the ledger; a store that fails then must not keep the old version from being put back."""
    try:
        write()
    except (StoreError, RegistryError) as error:
        return error
    return None
