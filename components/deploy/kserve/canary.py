"""A version is tried on little before it serves all: a share of the traffic (Knative), or a service of its own (Standard)."""

import copy
import time
from contextlib import suppress

from components.classifier.errors import RolloutConflict
from components.deploy.kserve.cluster import Cluster, Stale
from components.deploy.kserve.golden import Golden
from components.deploy.kserve.service import Object, adoption_patch, agrees, uri_of, with_lock
from components.deploy.kserve.watch import Say, Watcher
from components.settings.serving import KServeSettings

_ATTEMPTS = 20


def shares(settings: KServeSettings, live: Object | None) -> list[int | None]:
    """Return the percents of the traffic to go through; None is all of it, without a split, and always the last."""
    return [*(settings.canary_steps if live is not None else ()), None]


def try_apart(cluster: Cluster, wanted: Object, golden: Golden, settings: KServeSettings, tell: Say) -> None:
    """Serve the version in an InferenceService `<name>-canary`, send its golden requests, and take it away again.

    Raises NotServed when it does not serve. Standard mode splits no traffic, so users never meet the canary.
    """
    apart = copy.deepcopy(wanted)
    name = apart["metadata"]["name"] = f"{wanted['metadata']['name']}-canary"
    apart["spec"]["predictor"].update(minReplicas=1, maxReplicas=1)
    own = settings.model_copy(update={"url": "", "host": ""})
    _put(cluster, apart)
    tell(f"{name}: {golden.version} applied")
    try:
        Watcher(cluster, name, own, tell).wait(uri_of(apart), golden, time.monotonic() + settings.timeout_seconds)
    finally:
        _take_away(cluster, name)
        tell(f"{name}: taken away again")


def _put(cluster: Cluster, wanted: Object) -> None:
    """Make the canary, or change the one that a killed rollout left."""
    for _ in range(_ATTEMPTS):
        live = cluster.find("InferenceService", wanted["metadata"]["name"])
        if live is not None and "deletionTimestamp" in live["metadata"]:
            time.sleep(1)
            continue
        try:
            if live is None:
                live = cluster.create(wanted)
            if operations := adoption_patch(live):
                live = cluster.patch("InferenceService", wanted["metadata"]["name"], operations)
            if not agrees(live, wanted):
                cluster.apply(with_lock(wanted, live))
        except Stale:
            continue
        return
    raise RolloutConflict(f"{wanted['metadata']['name']} is changed by another deployer; run again")


def _take_away(cluster: Cluster, name: str) -> None:
    for _ in range(_ATTEMPTS):
        live = cluster.find("InferenceService", name)
        if live is None:
            return
        if "deletionTimestamp" in live["metadata"]:
            time.sleep(1)
            continue
        with suppress(Stale):
            cluster.delete(live)
