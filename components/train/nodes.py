"""A training on several nodes, as far as it needs no cluster: what a node is told, the job, what statuses say, and the result's way back.

    trainings/KEY/…             the files of the finished model, written by the first node
    trainings/KEY/result.json   its figures; written last, so that without it nothing is there

The training step takes both away when it has copied them.
"""

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from components.bundle.dataset import DatasetInfo, is_kept_in, kept_address, kept_folder
from components.classifier.errors import UsageError, one_line
from components.doctor.seen import CREATE_FAILURES, PULL_FAILURES, Object
from components.settings.resources import Resources, check_batches
from components.settings.training import TrainingSettings
from components.storage import Store
from components.storage.files import atomic_directory

WORK = "PENSTOCK_NODE_WORK"
"""The environment variable in which a node finds its work."""
IMAGE_VARIABLE = "PENSTOCK_IMAGE"
"""The environment variable that holds the image of the training step; empty: the image that the TrainingRuntime names."""
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
RESULT = "result.json"
_GONE_TOO = "ended with exit code"
ENDED = ("Complete", "Failed")
"""The states that a TrainJob does not leave."""
_STARTING = ("ContainerCreating", "PodInitializing")
_POD_NAME = re.compile(r' "[^" ]+-[a-z0-9]{5}"')  # a new one at each try to make the pod


class NodeWork(BaseModel):
    """What every node is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str
    """The address of the kept dataset version."""
    store: str
    result: str
    """The folder in the store for the finished model."""
    settings: TrainingSettings


@dataclass(frozen=True)
class JobRequest:
    """A TrainJob in our words; amounts and names are Kubernetes'."""

    name: str
    image: str
    nodes: int
    command: list[str]
    environment: dict[str, str]
    resources: dict[str, str]
    """What each node is promised and gets at most."""
    node_selector: dict[str, str]


def work_of(info: DatasetInfo, options: TrainingSettings, store: Store, run: str) -> NodeWork:
    """Return what the nodes are told: a step that is started again in the same run gets the same, without a run it is new each time.

    Raises UsageError where the nodes could not read the dataset, as it is not kept in the store.
    """
    if not is_kept_in(store, info.digest):
        raise UsageError(
            f"nodes read the dataset from {store.url}, which does not keep {kept_folder(info.digest)}; set keep_dataset=true in ingest"
        )
    identity = "\n".join((run or uuid.uuid4().hex, info.digest, options.model_dump_json()))
    key = hashlib.sha256(identity.encode()).hexdigest()[:20]
    return NodeWork(dataset=kept_address(store, info.digest), store=store.url.rstrip("/"), result=f"trainings/{key}", settings=options)


def job_request(work: NodeWork, asked: Resources, image: str) -> JobRequest:
    """Return the TrainJob of a work. Raises UsageError for batches that are too small for the nodes."""
    check_batches(work.settings, asked)
    cpu, memory = asked.limits(busy=True)
    resources = {"cpu": cpu, "memory": memory}
    if int(work.settings.gpus or 0):
        resources[asked.gpu_resource] = work.settings.gpus
    return JobRequest(
        name=f"penstock-{work.result.rpartition('/')[2]}",
        image=image,
        nodes=asked.nodes,
        command=["python3", "-m", "components.train.on_node"],
        environment={WORK: work.model_dump_json()},
        resources=resources,
        node_selector=asked.node_selector,
    )


@dataclass(frozen=True)
class Waiting:
    """Why a TrainJob's pods do not run, in one line; empty where they do, or the cluster does not tell."""

    reason: str = ""
    stuck: bool = False
    """Whether that does not pass by itself."""


def waiting_for(name: str, nodes: int, since: datetime, pods: Iterable[Object], events: Iterable[Object]) -> Waiting:
    """Return why not all pods of a TrainJob run, by its pods and the events of its namespace as the API server gives them.

    `since`: when the job was made; events before it are about one of the same name, of a step before this one.
    """
    found = list(pods)
    for pod in found:
        node, status = _node_of(pod), pod.get("status", {})
        for container in status.get("containerStatuses") or []:
            waits = (container.get("state") or {}).get("waiting") or {}
            if (reason := waits.get("reason")) and reason not in _STARTING:
                return Waiting(one_line(f"{node}: {reason} {waits.get('message', '')}", 300), reason in {*PULL_FAILURES, *CREATE_FAILURES})
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return Waiting(one_line(f"{node}: {condition.get('message', '')}"))
    if len(found) < nodes:
        makers = {name, f"{name}-node-0"}  # the TrainJob and its JobSet, and the Job that makes the pods
        told = {
            str(it.get("lastTimestamp") or it.get("eventTime") or ""): str(it.get("message", ""))
            for it in events
            if it.get("type") == "Warning" and it["involvedObject"].get("name") in makers
        }
        newest = max(told, default="")
        if newest >= since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S"):
            return Waiting(one_line(_POD_NAME.sub("", told[newest]), 300))
    return Waiting()


def status_line(status: str, nodes: Mapping[str, str], reason: str = "") -> str:
    """Return the line about a TrainJob's status and its nodes' pods, by their names: `Running; node-0 Running, node-1 Pending`.

    `reason`: why not all of them run, where that is known.
    """
    pods = ", ".join(f"{name} {phase}" for name, phase in sorted(nodes.items()))
    if not pods and status in ENDED:
        return f"{status}; no pods are left"
    if not pods:
        return f"{status}; no pods yet: {reason or 'they wait for the controller of Kubeflow Trainer, or a queue'}"
    return f"{status}; {pods}{f' ({reason})' if reason else ''}"


def without_memory(pods: Iterable[Object]) -> list[str]:
    """Return the nodes that were ended because their memory was full, by their pods as the API server gives them."""
    return sorted(
        _node_of(pod)
        for pod in pods
        for container in pod.get("status", {}).get("containerStatuses") or []
        if ((container.get("state") or {}).get("terminated") or {}).get("reason") == "OOMKilled"
    )


def _node_of(pod: Object) -> str:
    return f"node-{pod['metadata']['labels'].get(INDEX_LABEL, '?')}"


def cause(name: str, logs: Mapping[str, Iterable[str]], full: Sequence[str] = ()) -> str:
    """Return in one line why a TrainJob failed, by the logs of the nodes that failed, and those whose memory was full.

    A node's own error comes before that of a node which only lost the others; the last line stands for one that left no error.
    """
    last = {node: lines[-1] for node, given in sorted(logs.items()) if (lines := [it for it in given if it.strip()])}
    if full and not any(line.startswith("error: ") and _GONE_TOO not in line for line in last.values()):
        return f"{full[0]} of TrainJob {name} was ended for its memory (OOMKilled); raise memory_limit in resources, or lower batch_size"
    if not logs:
        return (
            f"TrainJob {name} failed, and no node's pod is left to say why: it was deleted, or its machine was drained or lost; run again, "
            "it goes on from the last checkpoint"
        )
    if not last:
        return f"TrainJob {name} failed, and its nodes left no log; `kubectl describe pods` or the events of the namespace say more"
    errors = {node: line for node, line in last.items() if line.startswith("error: ")}
    own = {node: line for node, line in errors.items() if _GONE_TOO not in line}
    node, line = next(iter((own or errors or last).items()))
    return f"{node} of TrainJob {name} failed: {line.removeprefix('error: ')}"


def put_result(store: Store, folder: str, model: Path, result: bytes) -> None:
    """Write a finished model and its figures to the store; raises StoreError."""
    for file in sorted(it for it in model.rglob("*") if it.is_file()):
        store.upload(file, f"{folder}/{file.relative_to(model).as_posix()}")
    store.replace(f"{folder}/{RESULT}", result)


def has_result(store: Store, folder: str) -> bool:
    """Say whether the finished model is in the store; raises StoreError."""
    return store.exists(f"{folder}/{RESULT}")


def take_result(store: Store, folder: str, model: Path) -> bytes:
    """Move the finished model from the store to a directory; returns its figures. Raises StoreError, and ObjectNotFound without them."""
    result = store.read(f"{folder}/{RESULT}")
    keys = [entry.key for entry in store.list(f"{folder}/")]
    with atomic_directory(model, replace=True) as directory:
        for key in keys:
            if (name := key.removeprefix(f"{folder}/")) != RESULT:
                (directory / name).parent.mkdir(parents=True, exist_ok=True)
                store.download(key, directory / name)
    for key in sorted(keys, key=lambda it: it.endswith(f"/{RESULT}"), reverse=True):  # the mark that it is complete goes first
        store.delete(key)
    return result
