"""What an observation means: still waiting, served, failed for good, or replaced by another deployer. Nothing here talks to a cluster."""

import json
from dataclasses import dataclass
from typing import Any, Literal

from components.deploy.kserve.state import ContainerState, DeploymentState, Observation, PodState
from components.doctor.seen import CREATE_FAILURES, PULL_FAILURES

RolloutState = Literal["waiting", "served", "failed", "replaced"]

_FATAL = {"CrashLoopBackOff", *PULL_FAILURES, *CREATE_FAILURES, "PostStartHookError"} - {"ErrImagePull"}
"""Waiting reasons that do not pass by themselves. ErrImagePull is one when it comes again."""
_PASSING = ("failed to sync", "timed out waiting for the condition")
"""In a fatal reason's message: the kubelet was too slow, and tries again."""
_CRASHES = 2
_FAILED_PULLS = 2
_INVALID_SECONDS = 5.0
"""Just after an apply the status still describes the former spec."""
_PERMANENT = ("forbidden", "violates PodSecurity", "exceeded quota", "denied the request")


@dataclass(frozen=True)
class Readiness:
    """`line` says the state in words; for a failure it is the reason, with the pod's own words."""

    state: RolloutState
    line: str
    pod: str = ""
    container: str = ""
    """Whose log tells more."""


def assess(seen: Observation, uri: str, seconds: float, *, digest: str = "", percent: int = 100, settled: bool = False) -> Readiness:
    """Say what an observation means, made `seconds` after the apply of a spec, of that digest, that serves `uri`.

    `percent`: the share of traffic that the new revision must get (Knative). `settled`: it has answered before, so that a
    single crash now counts. Unknown or stale conditions are never a failure, and Ready is never a success.
    """
    if seen.uri != uri:
        return Readiness("replaced", f"the InferenceService serves {seen.uri or 'nothing'} by now")
    if seen.digest != digest:
        return Readiness("replaced", f"the InferenceService serves {uri} by another spec than was applied")
    if seen.invalid and seen.deployment is None and seconds >= _INVALID_SECONDS:
        return Readiness("failed", f"KServe refuses the spec: {seen.invalid}")
    if any(sign in seen.not_created for sign in _PERMANENT):
        return Readiness("failed", f"no pod can be made: {seen.not_created}{_remedy(seen.not_created)}")
    for pod in seen.pods:
        for container in pod.containers:
            if _has_failed(container, settled):
                return Readiness("failed", f"pod {pod.name}: {_reason(container)}", pod.name, container.name)
    if seen.deployment is None:
        return Readiness("waiting", "KServe has not taken up the new spec yet" + (f" ({seen.invalid})" if seen.invalid else ""))
    if not seen.deployment.complete or not seen.revision_ready:
        return Readiness("waiting", _progress(seen, seen.deployment), *_suspect(seen))
    if seen.deployment.replicas < seen.least:
        serve = f"{seen.deployment.available} of {seen.least} pods serve"
        return Readiness("waiting", f"{serve}; the autoscaler has not raised their number yet")
    if seen.percent < percent:
        return Readiness("waiting", f"the new revision gets {seen.percent} of {percent} percent of the traffic")
    return Readiness("served", f"{seen.deployment.available} of {seen.deployment.replicas} new pods serve, the old ones are gone")


def _remedy(not_created: str) -> str:
    if "violates PodSecurity" in not_created and "storage-initializer" in not_created:
        return "; KServe's own container is not allowed here: patch it with manifests/components/restricted/storage-initializer.yaml"
    return ""


def _has_failed(container: ContainerState, settled: bool) -> bool:
    if container.waiting in _FATAL and not any(sign in container.message for sign in _PASSING):
        return True
    if container.waiting == "ErrImagePull" and container.failed_pulls >= _FAILED_PULLS:
        return True
    return bool(container.ended) and container.restarts >= (1 if settled else _CRASHES)


def _reason(container: ContainerState) -> str:
    where = {"storage-initializer": "the model cannot be fetched", "kserve-container": "the predictor"}.get(
        container.name, f"container {container.name}"
    )
    if container.ended and (container.waiting in {"", "CrashLoopBackOff", "PodInitializing"}):
        ended = "was killed for memory (OOMKilled)" if container.ended == "OOMKilled" else f"ended with exit code {container.exit_code}"
        again = f", {container.restarts} restarts" if container.restarts else ""
        words = error_in_log(container.ended_message)
        said = f": {words}" if words else ""
        return f"{where} ({ended}{again}){said}" if container.init else f"{where} {ended}{again}{said}"
    return f"{where}: {container.waiting}{': ' + container.message if container.message else ''}"


def _progress(seen: Observation, deployment: DeploymentState) -> str:
    line = f"{sum(pod.ready for pod in seen.pods)} of {deployment.replicas} new pods ready"
    reasons = [_pending(pod) for pod in seen.pods if not pod.ready]
    if seen.not_created:
        reasons = [f"no pod can be made: {seen.not_created}"]
    if reasons:
        return f"{line}; {reasons[0]}"
    if deployment.observed < deployment.generation:
        return f"{line}; the Deployment was changed just now"
    if deployment.total > deployment.updated:
        return f"{line}; {deployment.total - deployment.updated} old ones end"
    return line if seen.revision_ready else f"{line}; its revision is not ready yet"


def _pending(pod: PodState) -> str:
    """Why a pod is not ready, by what holds it up first."""
    if pod.unschedulable:
        return f"pod {pod.name} cannot be scheduled: {pod.unschedulable}"
    for container in pod.containers:
        if container.ended and not container.ready:
            return f"pod {pod.name}: {_reason(container)}"
        if container.waiting not in {"", "PodInitializing", "ContainerCreating"}:
            return f"pod {pod.name}: {container.waiting}{': ' + container.message if container.message else ''}"
        if container.init and not container.ready:
            return f"pod {pod.name}: {container.name} runs{_warned(pod)}"
    if pod.containers and not any(c.waiting for c in pod.containers):
        return f"pod {pod.name} runs but is not ready{_warned(pod)}"
    return f"pod {pod.name} is being made{_warned(pod)}"


def _warned(pod: PodState) -> str:
    return f" ({pod.warning})" if pod.warning else ""


def _suspect(seen: Observation) -> tuple[str, str]:
    for pod in seen.pods:
        for container in pod.containers:
            if not container.ready and not container.init and not container.waiting:
                return pod.name, container.name
    return "", ""


def error_in_log(log: str) -> str:
    """Return the line of a log that says most: the last error logged as JSON, else the last line that is more than information."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = [(line, _logged(line)) for line in lines]
    errors = [str(entry["error"]) for _, entry in said if entry.get("error")]
    others = [line for line, entry in said if str(entry.get("level", "")).lower() not in {"info", "debug"} and not line.startswith("INFO")]
    return next(iter([*errors[-1:], *others[-1:]]), "")[-300:]


def _logged(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line) if line.startswith("{") else None
    except ValueError:
        entry = None
    return entry if isinstance(entry, dict) else {}
