"""Tries a version on a share of the traffic first (Knative), or in a service of its own without users (Standard)."""

import copy
import time
from collections.abc import Callable

from components.classifier.errors import RolloutConflict, RolloutError
from components.deploy.kserve.cluster import Cluster, Stale
from components.deploy.kserve.service import Object, adoption_patch, agrees, with_lock
from components.deploy.kserve.watch import Golden, Say, Watcher
from components.settings.serving import KServeSettings
from components.storage.optimistic import write_optimistically


def apart_name(service: str) -> str:
    """Return the name of the service in which a version is tried apart."""
    return f"{service}-canary"


def shares(settings: KServeSettings, live: Object | None) -> list[int | None]:
    """Return the percents of the traffic that the new version gets, one after another; None, always the last, is all of it."""
    return [*(settings.canary_steps if live is not None else ()), None]


def try_apart(
    cluster: Cluster, wanted: Object, golden: Golden, settings: KServeSettings, tell: Say, live: Callable[[Watcher, Object], None]
) -> None:
    """Serve the version in an InferenceService `<name>-canary`, send its golden requests, and delete the service again.

    `live` is called meanwhile, to judge it on copies of live requests. Raises NotServed when it does not serve or is worse,
    RolloutConflict when others change it too. Standard mode does not split traffic, so users never meet the canary.
    """
    apart = copy.deepcopy(wanted)
    name = apart["metadata"]["name"] = apart_name(wanted["metadata"]["name"])
    apart["spec"]["predictor"].update(minReplicas=1, maxReplicas=1)
    own = settings.model_copy(update={"url": "", "host": ""})
    _put(cluster, apart)
    tell(f"{name}: {golden.version} applied")
    try:
        watcher = Watcher(cluster, name, own, tell)
        watcher.wait(apart, golden, time.monotonic() + settings.timeout_seconds)
        live(watcher, apart)
    finally:
        try:
            _take_away(cluster, name)
            tell(f"{name}: deleted again")
        except RolloutError as error:  # the next canary changes or deletes it; what was found out about the version counts
            tell(f"{name}: could not be deleted: {error}")


def _put(cluster: Cluster, wanted: Object) -> None:
    """Make the canary, or change the one that a killed rollout left."""
    name = wanted["metadata"]["name"]

    def attempt() -> None:
        live = cluster.find_settled("InferenceService", name) or cluster.create(wanted)
        if operations := adoption_patch(live):
            live = cluster.patch("InferenceService", name, operations)
        if not agrees(live, wanted):
            cluster.apply(with_lock(wanted, live))

    write_optimistically(attempt, Stale, RolloutConflict(f"{name} is changed by another deployer; run again"))


def _take_away(cluster: Cluster, name: str) -> None:
    def attempt() -> None:
        live = cluster.find_settled("InferenceService", name)
        if live is not None:
            cluster.delete(live)
            cluster.find_settled("InferenceService", name)

    write_optimistically(attempt, Stale, RolloutConflict(f"{name} is changed by another deployer; delete it"))
