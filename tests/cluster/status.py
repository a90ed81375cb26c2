"""What KServe's status says of an InferenceService, true or not; pure, but for the clock."""

import time
from datetime import UTC, datetime

from tests.cluster.api import Object


def standard_status(service: Object, deployment: Object, pods: list[Object]) -> Object:
    """Ready while any pod answers; the model UpToDate as soon as one does, although a newer pod crashes."""
    status = deployment.get("status", {})
    available = status.get("availableReplicas", 0) > 0
    failing = next(filter(None, (load_failure(pod) for pod in pods)), None)
    young = time.time() - seconds_of(progressed(deployment)) < 3
    if failing:
        model = model_status("BlockedByFailedLoad", "Loaded" if available else "Pending", "FailedToLoad", ("ModelLoadFailed", failing))
    elif not available or young:
        model = model_status("InProgress", "Loaded" if available else "Pending", "Loading")
    else:
        model = model_status("UpToDate", "Loaded", "Loaded")
    state, reason = ("True", "") if available else ("False", "MinimumReplicasUnavailable")
    return {
        "observedGeneration": deployment["metadata"]["generation"],  # the Deployment's, as seen
        "deploymentMode": "Standard",
        "modelStatus": model,
        **conditions(state, reason),
    }


def progressed(deployment: Object) -> str:
    conditions = deployment.get("status", {}).get("conditions") or []
    return next((c["lastTransitionTime"] for c in conditions if c["type"] == "Progressing"), deployment["metadata"]["creationTimestamp"])


def seconds_of(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def load_failure(pod: Object) -> str:
    for status in pod.get("status", {}).get("initContainerStatuses") or []:
        ended = (status["state"].get("terminated") or status.get("lastState", {}).get("terminated")) or {}
        if ended.get("exitCode"):
            return str(ended.get("message", ""))
    return ""


def model_status(transition: str, active: str, target: str, failure: tuple[str, str] | None = None) -> Object:
    status: Object = {"transitionStatus": transition, "states": {"activeModelState": active, "targetModelState": target}}
    if failure:
        status["lastFailureInfo"] = {"reason": failure[0], "message": failure[1]}
    return status


def conditions(state: str, reason: str) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("IngressReady", "PredictorReady", "Ready")
    return {
        "conditions": [
            {
                "type": kind,
                "status": "True" if kind == "IngressReady" else state,
                "lastTransitionTime": now,
                **({"reason": reason} if reason else {}),
            }
            for kind in kinds
        ]
    }


def states(status: Object) -> list[tuple[str, str]]:
    return [(c["type"], c["status"]) for c in status.get("conditions") or []]


def traffic(service: Object, revisions: list[Object]) -> Object:
    """Where the requests go: to the newest ready revision, or split between it and the one that had all of them before."""
    old = service.get("status", {}).get("components", {}).get("predictor", {})
    names = [r["metadata"]["labels"]["serving.knative.dev/revision"] for r in revisions]
    ready = [n for n, r in zip(names, revisions, strict=True) if r.get("status", {}).get("availableReplicas", 0) > 0]
    component: Object = {"latestCreatedRevision": names[-1]}
    if not ready:
        return component
    component["latestReadyRevision"] = ready[-1]
    percent = service["spec"]["predictor"].get("canaryTrafficPercent")
    rolled = old.get("latestRolledoutRevision") or ready[-1]
    if percent is None or rolled == ready[-1]:
        return component | {
            "latestRolledoutRevision": ready[-1],
            "traffic": [{"revisionName": ready[-1], "latestRevision": True, "percent": 100}],
        }
    split = [
        {"revisionName": ready[-1], "latestRevision": True, "percent": percent},
        {"revisionName": rolled, "latestRevision": False, "percent": 100 - percent},
    ]
    return component | {"latestRolledoutRevision": rolled, "traffic": split}
