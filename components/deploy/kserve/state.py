"""What is really served, read from the Deployment, its new ReplicaSet and that one's pods.

`Ready` of the InferenceService can be true while old pods still serve.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.deploy.kserve.cluster import Cluster
from components.deploy.kserve.service import Object, digest_of, uri_of

SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""The pod template's annotation in which KServe names the model's address."""
SERVICE_LABEL = "serving.kserve.io/inferenceservice"
_REVISION = "deployment.kubernetes.io/revision"


@dataclass(frozen=True)
class ContainerState:
    """One container of a pod; `waiting` is the reason that the kubelet gives, `ended_*` are of its last end, the message in lines."""

    name: str
    ready: bool = False
    init: bool = False
    restarts: int = 0
    waiting: str = ""
    message: str = ""
    failed_pulls: int = 0
    """How often its image could not be pulled."""
    ended: str = ""
    exit_code: int = 0
    ended_message: str = ""


@dataclass(frozen=True)
class PodState:
    """One pod of the new ReplicaSet."""

    name: str
    ready: bool = False
    address: str = ""
    """Where it answers, as http://IP:PORT."""
    unschedulable: str = ""
    containers: tuple[ContainerState, ...] = ()
    warning: str = ""
    """Its newest warning event."""


@dataclass(frozen=True)
class DeploymentState:
    """A Deployment that carries the new address and the new spec's digest in its template."""

    name: str
    generation: int = 0
    observed: int = 0
    replicas: int = 0
    updated: int = 0
    available: int = 0
    unavailable: int = 0
    total: int = 0
    """Pods of all its ReplicaSets."""

    @property
    def complete(self) -> bool:
        """Whether only new pods are there, as many as asked for, and all answer."""
        return (
            self.observed == self.generation
            and self.updated == self.available == self.replicas
            and self.total == self.replicas
            and self.unavailable == 0
        )


@dataclass(frozen=True)
class Observation:
    """An InferenceService and what serves it, read at one moment."""

    uri: str = ""
    digest: str = ""
    """Of the spec, where we applied it."""
    generation: int = 0
    address: str = ""
    deployment: DeploymentState | None = None
    """None until a Deployment carries the new address and the new spec's digest."""
    not_created: str = ""
    """Why the new ReplicaSet cannot make pods."""
    pods: tuple[PodState, ...] = ()
    invalid: str = ""
    """Why KServe cannot use the spec."""
    least: int = 1
    """Standard: the pods that must serve; an autoscaler raises them to that after a first one."""
    revision_ready: bool = True
    """Knative: the newest revision is the one that is ready."""
    percent: int = 100
    """Knative: the share of the traffic that the newest revision gets."""


def observe(cluster: Cluster, service: str, uri: str, digest: str = "", *, standard: bool) -> Observation:
    """Read what serves `uri` by the spec of a digest; an InferenceService that is not there gives an empty observation."""
    live = cluster.find("InferenceService", service)
    if live is None:
        return Observation()
    labels = f"{SERVICE_LABEL}={service}"
    if standard:
        found = cluster.find("Deployment", f"{service}-predictor")
        deployments = [found] if found else []
    else:
        deployments = cluster.all("Deployment", labels)
    replica_sets, pods = cluster.all("ReplicaSet", labels), cluster.all("Pod", labels)
    events: list[Object] = []
    if any(not is_ready(pod) for pod in pods):
        events = cluster.all("Event", fields="type=Warning")
    return read(live, deployments, replica_sets, pods, events, uri, digest, standard=standard)


def read(
    live: Object,
    deployments: Sequence[Object],
    replica_sets: Sequence[Object],
    pods: Sequence[Object],
    events: Sequence[Object],
    uri: str,
    digest: str = "",
    *,
    standard: bool,
) -> Observation:
    """Build an observation from the API server's answers."""
    status = live.get("status", {})
    component = status.get("components", {}).get("predictor", {})
    deployment = _newest([d for d in deployments if _made_from(d) == (uri, digest)])
    replica_set = None
    if deployment is not None:
        replica_set = _newest([r for r in replica_sets if _owned_by(r, deployment) and _made_from(r) == (uri, digest)])
    own = [pod for pod in pods if replica_set is not None and _owned_by(pod, replica_set)]
    return Observation(
        uri=uri_of(live),
        digest=digest_of(live),
        generation=live["metadata"].get("generation", 0),
        address=str(status.get("address", {}).get("url") or status.get("url") or ""),
        deployment=_deployment_state(deployment) if deployment else None,
        not_created=_failed_create(replica_set, events) if replica_set else "",
        pods=tuple(_pod_state(pod, events) for pod in own if "deletionTimestamp" not in pod["metadata"]),
        invalid=_invalid(live),
        least=(live["spec"]["predictor"].get("minReplicas") or 1) if standard else 1,
        revision_ready=standard or _revision_ready(component, deployment),
        percent=100 if standard else _percent(component),
    )


def _newest(objects: list[Object]) -> Object | None:
    def age(it: Object) -> tuple[int, str]:
        annotations = it["metadata"].get("annotations") or {}
        return int(annotations.get(_REVISION, 0)), str(it["metadata"].get("creationTimestamp", ""))

    return max(objects, key=age, default=None)


def _made_from(it: Object) -> tuple[str, str]:
    """The model's address and the spec's digest that a pod template carries."""
    template = it["spec"]["template"]
    return str((template["metadata"].get("annotations") or {}).get(SOURCE, "")), digest_of(template)


def _owned_by(it: Object, owner: Object) -> bool:
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in it["metadata"].get("ownerReferences") or [])


def _deployment_state(it: Object) -> DeploymentState:
    status = it.get("status", {})
    return DeploymentState(
        name=it["metadata"]["name"],
        generation=it["metadata"].get("generation", 0),
        observed=status.get("observedGeneration", 0),
        replicas=it["spec"].get("replicas", 1),
        updated=status.get("updatedReplicas", 0),
        available=status.get("availableReplicas", 0),
        unavailable=status.get("unavailableReplicas", 0),
        total=status.get("replicas", 0),
    )


def _failed_create(replica_set: Object, events: Sequence[Object]) -> str:
    conditions = replica_set.get("status", {}).get("conditions") or []
    messages = [c.get("message", "") for c in conditions if c["type"] == "ReplicaFailure" and c["status"] == "True"]
    messages += [e.get("message", "") for e in events if e.get("reason") == "FailedCreate" and _is_about(e, replica_set)]
    running = replica_set.get("status", {}).get("replicas", 0) >= replica_set["spec"].get("replicas", 1)
    return "" if running or not messages else " ".join(str(messages[0]).split())


def _is_about(event: Object, it: Object) -> bool:
    return bool(event.get("involvedObject", {}).get("uid") == it["metadata"]["uid"])


def _is_true(it: Object, condition: str) -> bool:
    return any(c["type"] == condition and c["status"] == "True" for c in it.get("status", {}).get("conditions") or [])


def _pod_state(pod: Object, events: Sequence[Object]) -> PodState:
    status = pod.get("status", {})
    passed = "FailedScheduling" if _is_true(pod, "PodScheduled") else ""  # what it waited for before says nothing any more
    about = [e for e in events if _is_about(e, pod) and not (passed and e.get("reason") == passed)]
    warnings = sorted(about, key=lambda e: str(e.get("lastTimestamp") or e.get("eventTime") or ""))
    unschedulable = [
        str(c.get("message", ""))
        for c in status.get("conditions") or []
        if c["type"] == "PodScheduled" and c["status"] == "False" and c.get("reason") == "Unschedulable"
    ]
    ready = is_ready(pod)
    return PodState(
        name=pod["metadata"]["name"],
        ready=ready,
        address=pod_address(pod),
        unschedulable=unschedulable[0] if unschedulable else "",
        containers=tuple(
            [_container_state(c, about, init=True) for c in status.get("initContainerStatuses") or []]
            + [_container_state(c, about, init=False) for c in status.get("containerStatuses") or []]
        ),
        warning="" if ready or not warnings else " ".join(str(warnings[-1].get("message", "")).split()),
    )


def is_ready(pod: Object) -> bool:
    """Say whether a pod is ready."""
    return _is_true(pod, "Ready")


def pod_address(pod: Object) -> str:
    """Return where a pod answers, as http://IP:PORT; empty while it has no address."""
    address = pod.get("status", {}).get("podIP", "")
    ports = [port for container in pod["spec"]["containers"] for port in container.get("ports") or []]
    port = next((p["containerPort"] for p in ports), 8080)
    host = f"[{address}]" if ":" in address else address
    return f"http://{host}:{port}" if address else ""


def _container_state(status: dict[str, Any], events: Sequence[Object], *, init: bool) -> ContainerState:
    state, last = status.get("state") or {}, status.get("lastState") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or last.get("terminated") or {}
    bad = bool(ended) and (not init or ended.get("exitCode", 0) != 0)  # a server that ends is wrong, whatever code it gives
    return ContainerState(
        name=status["name"],
        ready=bool(status.get("ready")),
        init=init,
        restarts=status.get("restartCount", 0),
        waiting=str(waiting.get("reason", "")),
        message=" ".join(str(waiting.get("message", "")).split()),
        failed_pulls=_failed_pulls(events, status["name"]),
        ended=str(ended.get("reason") or "Error") if bad else "",
        exit_code=ended.get("exitCode", 0),
        ended_message=str(ended.get("message", "")) if bad else "",
    )


def _failed_pulls(events: Sequence[Object], container: str) -> int:
    """Count the pulls of a container's image that failed; its status says ImagePullBackOff only up to half a minute after the second."""
    failed = [e for e in events if e.get("message") == "Error: ErrImagePull"]
    return sum(e.get("count") or 1 for e in failed if e["involvedObject"].get("fieldPath", "").endswith(f"{{{container}}}"))


def _invalid(live: Object) -> str:
    model = live.get("status", {}).get("modelStatus") or {}
    if model.get("transitionStatus") != "InvalidSpec":
        return ""
    failure = model.get("lastFailureInfo") or {}
    message = f"{failure.get('reason', 'InvalidSpec')}: {failure.get('message', 'KServe takes the spec for invalid')}"
    runtime = live["spec"]["predictor"].get("model", {}).get("runtime", "")
    return f"{message} (runtime {runtime} in namespace {live['metadata']['namespace']})" if runtime else message


def _revision_ready(component: Object, deployment: Object | None) -> bool:
    created = component.get("latestCreatedRevision")
    names = deployment["metadata"].get("labels", {}) if deployment else {}
    return bool(created) and component.get("latestReadyRevision") == created == names.get("serving.knative.dev/revision")


def _percent(component: Object) -> int:
    created = component.get("latestCreatedRevision")
    shares = component.get("traffic") or []
    return sum(int(t.get("percent") or 0) for t in shares if t.get("revisionName") == created)
