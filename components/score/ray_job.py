"""A shard that is scored by a RayJob of KubeRay, as far as it needs no cluster: the job, its status in words, and its files in the store.

    scorings/KEY/plan.json, …   the plan, for the job
    scorings/KEY/result.json    what the job did; written last

The scoring step takes both away when the job has ended. Decoding and answering run in the pods `workers`; the pod `head` only
leads, and writes the pieces. All of them are like the step's own pod: its image, account, nodes and Secrets.
"""

import hashlib
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from components.integrations.observe import RUN
from components.score.plan import Plan
from components.storage import Store

Object = dict[str, Any]

WORK = "PENSTOCK_RAY_WORK"
"""The environment variable in which the head finds its work."""
RESULT = "result.json"
CONTAINER = "main"
"""The container of a step's pod that runs the step; Kubeflow has others beside it."""
DEADLINE_SECONDS = 24 * 3600
"""After so long KubeRay ends a job, whose step may be gone."""
TTL_SECONDS = 300
"""For so long the pods of a job that has ended stay, where its step is gone."""
_SAME_POD = ("serviceAccountName", "imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")
_SMALL = {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}}
_HEAD = {"requests": {"cpu": "500m", "memory": "2Gi"}, "limits": {"cpu": "2", "memory": "4Gi"}}
_REASONS = {
    "SubmissionFailed": "KubeRay could not hand the work to Ray",
    "DeadlineExceeded": f"it did not end within {DEADLINE_SECONDS // 3600} hours",
    "PreRunningDeadlineExceeded": "its pods did not start in time",
    "AppFailed": "the scoring ended with an error, or its pod was ended, by too little memory for example",
    "JobDeploymentStatusTransitionGracePeriodExceeded": "Ray's head does not answer KubeRay",
    "JobStatusCheckTimeoutExceeded": "Ray's head does not answer KubeRay",
    "ValidationFailed": "KubeRay refuses it",
}


class RayWork(BaseModel):
    """What the head is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    store: str
    folder: str
    """The folder in the store with the plan."""
    shard: str
    gpus: str
    """GPUs of each pod that scores."""

    @property
    def name(self) -> str:
        """The RayJob's name."""
        return f"penstock-{self.folder.rpartition('/')[2]}"


def work_of(plan: Plan, shard: str, run: str) -> RayWork:
    """Return the work of a shard: a step that is started again in the same run gets the same, without a run it is new each time."""
    identity = "\n".join((run or uuid.uuid4().hex, plan.key, plan.output, shard))
    key = hashlib.sha256(identity.encode()).hexdigest()[:20]
    return RayWork(store=plan.store.rstrip("/"), folder=f"scorings/{key}", shard=shard, gpus=str(plan.settings.ray_gpus))


def ray_job(plan: Plan, work: RayWork, pod: Object, gpu_resource: str, ray_version: str, run: str) -> Object:
    """Return the RayJob of a work. `pod` is the step's own pod, and `ray_version` Ray's version in its image."""
    settings = plan.settings
    amounts = {"cpu": str(settings.ray_cpu), "memory": settings.ray_memory}
    if settings.ray_gpus:
        amounts[gpu_resource] = str(settings.ray_gpus)
    variables = {WORK: work.model_dump_json(), **({RUN: run} if run else {})}
    workers = {
        "groupName": "workers",
        "replicas": settings.ray_nodes,
        "minReplicas": settings.ray_nodes,
        "maxReplicas": settings.ray_nodes,
        "rayStartParams": {},
        "template": _pod("worker", pod, {"requests": amounts, "limits": amounts}),
    }
    cluster = {
        "rayVersion": ray_version,
        "authOptions": {"mode": "token"},  # else anyone who reaches the head could run any code
        "headGroupSpec": {"rayStartParams": {"num-cpus": "0"}, "template": _pod("head", pod, _HEAD, variables)},
        "workerGroupSpecs": [workers],
    }
    submitter = _pod("submitter", pod, _SMALL)
    submitter["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": work.name, "labels": _labels()},
        "spec": {
            "entrypoint": "python3 -m components.score.on_ray_head",
            "submissionMode": "K8sJobMode",  # the other modes have a pod that Pod Security "restricted" refuses, or show no log
            "submitterPodTemplate": submitter,
            "backoffLimit": 0,  # the step's own retry finds the pieces that are there
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": TTL_SECONDS,
            "rayClusterSpec": cluster,
        },
    }


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/part-of": "penstock", "app.kubernetes.io/component": "scoring"}


def _pod(name: str, like: Object, resources: Object, variables: Mapping[str, str] | None = None) -> Object:
    """A pod of Ray's that reaches the stores as a step's pod does, by the same Secrets and ConfigMaps, and runs on the same nodes."""
    (step,) = (it for it in like["spec"]["containers"] if it["name"] == CONTAINER)
    given = [it for it in step.get("env", []) if it.get("valueFrom", {}).keys() & {"secretKeyRef", "configMapKeyRef"}]
    volumes = [it for it in like["spec"].get("volumes", []) if it.keys() & {"secret", "configMap"}]
    there = {it["name"] for it in volumes}
    mounts = [it for it in step.get("volumeMounts", []) if it["name"] in there]
    container = {
        "name": name,
        "image": step["image"],
        "env": [
            *given,
            {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},  # no usage figures are sent to Ray's makers
            *({"name": key, "value": value} for key, value in (variables or {}).items()),
        ],
        "resources": resources,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [*mounts, {"name": "ray-tmp", "mountPath": "/tmp"}],
    }
    mounted = {it["name"] for it in mounts}
    return {
        "metadata": {"labels": {**_labels(), "sidecar.istio.io/inject": "false"}},  # a sidecar would take the ports from Ray
        "spec": {
            **{key: like["spec"][key] for key in _SAME_POD if like["spec"].get(key)},
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [*(it for it in volumes if it["name"] in mounted), {"name": "ray-tmp", "emptyDir": {}}],
        },
    }


def status_line(status: Object, pods: list[Object]) -> str:
    """Return the line about a RayJob's status and its pods: `Initializing; head-x Running, workers-y Pending (Unschedulable: …)`."""
    words = [status.get("jobDeploymentStatus") or "New", status.get("jobStatus") or ""]
    if not status:
        return "New; it waits for KubeRay's operator, or a queue"
    states = sorted(_state(it, status.get("rayClusterName") or "") for it in pods)
    return f"{' '.join(filter(None, words))}; {', '.join(states) or 'no pods yet'}"


def _state(pod: Object, cluster: str) -> str:
    status = pod.get("status") or {}
    waiting = [it["state"]["waiting"] for it in status.get("containerStatuses") or [] if (it.get("state") or {}).get("waiting")]
    barred = [it for it in status.get("conditions") or [] if it["type"] == "PodScheduled" and it["status"] == "False"]
    why = next((f": {it['message']}" if it.get("message") else "" for it in [*barred, *waiting]), "")
    reason = next((f" ({it['reason']}{why})" for it in [*barred, *waiting] if it.get("reason")), "")
    name = pod["metadata"]["name"].removeprefix(f"{cluster}-")
    return f"{name} {status.get('phase') or 'Unknown'}{reason}"


def is_complete(status: Object) -> bool:
    """Say whether the work of a RayJob is done."""
    return status.get("jobDeploymentStatus") == "Complete" and status.get("jobStatus") == "SUCCEEDED"


def has_failed(status: Object) -> bool:
    """Say whether a RayJob has ended without its work being done."""
    ended = status.get("jobDeploymentStatus") in {"Complete", "Failed", "ValidationFailed"}
    return ended and not is_complete(status)


def cause(name: str, status: Object, log: list[str]) -> str:
    """Return in one line why a RayJob failed: the error of the scoring, as its log or KubeRay's message ends, or KubeRay's reason."""
    message = str(status.get("message") or "").splitlines()
    if errors := [line for line in [*message, *log] if line.startswith("error: ")]:
        return f"RayJob {name} failed: {errors[-1].removeprefix('error: ')}"
    if status.get("jobStatus") == "STOPPED":
        return f"RayJob {name} was stopped by somebody; run again, what is complete is kept"
    reason = str(status.get("reason") or "")
    last = next((line.strip() for line in [*reversed(message), *reversed(log)] if line.strip()), "")
    return f"RayJob {name} failed: {_REASONS.get(reason) or reason or 'KubeRay gives no reason'}{f' ({last})' if last else ''}"


def put_plan(store: Store, folder: str, plan: Path) -> None:
    """Write a plan to the store; raises StoreError."""
    for file in sorted(it for it in plan.iterdir() if it.is_file()):
        store.upload(file, f"{folder}/{file.name}")


def fetch_plan(store: Store, folder: str, plan: Path) -> Plan:
    """Read a plan from the store into a new directory; raises StoreError, and DataError when it is not whole."""
    plan.mkdir()
    for entry in store.list(f"{folder}/"):
        store.download(entry.key, plan / entry.key.rpartition("/")[2])
    return Plan.load(plan)
