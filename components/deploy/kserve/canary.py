"""Tries a version on a share of the traffic first (Knative), or in a service of its own without users (Standard)."""

import copy
import time
from collections.abc import Callable

from components.classifier.errors import RolloutConflict, RolloutError, UsageError
from components.deploy.kserve.cluster import Cluster, Stale
from components.deploy.kserve.service import Object, adoption_patch, agrees, uri_of, version_of, with_lock
from components.deploy.kserve.watch import Golden, Say, Watcher
from components.settings.serving import KServeSettings
from components.storage.store import write_optimistically

CANARY = "penstock/canary-of"
"""The annotation that tells a canary, which is deleted again, from a service that has the name by chance; it names the service."""


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
    RolloutConflict when others change it too, and UsageError where a service of its own has that name. Standard mode does not split
    traffic, so users never meet the canary.
    """
    apart = copy.deepcopy(wanted)
    service = wanted["metadata"]["name"]
    name = apart["metadata"]["name"] = apart_name(service)
    apart["metadata"]["annotations"][CANARY] = service
    apart["spec"]["predictor"].update(minReplicas=1, maxReplicas=1)
    own = settings.model_copy(update={"url": "", "host": ""})
    _put(cluster, apart)
    tell(f"{name}: {golden.version} applied")
    try:
        watcher = Watcher(cluster, name, own, tell)
        watcher.wait(apart, golden, time.monotonic() + settings.timeout_seconds)
        live(watcher, apart)
    finally:
        _take_away(cluster, name, tell)


def clear(cluster: Cluster, service: str, models: str, version: str, tell: Say) -> None:
    """Delete the canary of a service where it serves a version, below the address `models`, whose deploy step was killed."""
    live = cluster.find("InferenceService", apart_name(service))
    if live is not None and is_canary(live, service) and version and version_of(live, models) == version:
        _take_away(cluster, apart_name(service), tell)


def is_canary(live: Object, service: str) -> bool:
    """Say whether an InferenceService is a canary of another one."""
    return bool((live["metadata"].get("annotations") or {}).get(CANARY) == service)


def refuse_other(live: Object, service: str) -> None:
    """Raise UsageError for an InferenceService that is not a canary of the service: it would be replaced, and deleted in the end."""
    if not is_canary(live, service):
        serves = uri_of(live) or "something else"
        raise UsageError(
            f"{live['metadata']['name']} is a service of its own, which serves {serves}, and not a canary of {service}; "
            "call one of the two otherwise by serving.service, delete it, or leave out serving.canary"
        )


def _put(cluster: Cluster, wanted: Object) -> None:
    """Make the canary, or change the one that a killed rollout left."""
    name = wanted["metadata"]["name"]

    def attempt() -> None:
        live = cluster.find_settled("InferenceService", name) or cluster.create(wanted)
        refuse_other(live, wanted["metadata"]["annotations"][CANARY])
        if operations := adoption_patch(live):
            live = cluster.patch("InferenceService", name, operations)
        if not agrees(live, wanted):
            cluster.apply(with_lock(wanted, live))

    write_optimistically(attempt, Stale, RolloutConflict(f"{name} is changed by another deployer; run again"))


def _take_away(cluster: Cluster, name: str, tell: Say) -> None:
    def attempt() -> None:
        live = cluster.find_settled("InferenceService", name)
        if live is not None:
            cluster.delete(live)
            cluster.find_settled("InferenceService", name)

    try:
        write_optimistically(attempt, Stale, RolloutConflict(f"{name} is changed by another deployer; delete it"))
        tell(f"{name}: deleted again")
    except RolloutError as error:  # the next canary changes or deletes it; what was found out about the version counts
        tell(f"{name}: could not be deleted: {error}")
