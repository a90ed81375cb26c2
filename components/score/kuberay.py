"""A RayJob of KubeRay: made, followed, and deleted when it or its step ends, by the account of the step."""

import json
import os
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import urllib3
from kubernetes import client
from kubernetes.client.rest import ApiException
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from components.classifier.errors import EvaluationError, UsageError, first_line
from components.classifier.stopping import stoppable
from components.doctor.gather import Reader, client_configuration
from components.doctor.seen import Unseen
from components.integrations.observe import run_id
from components.score.plan import Plan
from components.score.ray_job import RESULT, Object, cause, has_failed, is_complete, put_plan, ray_job, status_line, work_of
from components.score.shard import ShardResult
from components.settings.resources import POD, POD_NAMESPACE
from components.settings.scoring import check_engine
from components.storage import open_store

SECONDS = 5.0
"""Between two looks at the job."""
MAX_SILENCE = 300.0
"""Seconds for which the API server may fail before the step gives up."""
GOING_SECONDS = 120.0
"""Seconds that a deleted job of the same name may take to go."""
REQUEST_SECONDS = (5.0, 30.0)
"""To connect, and to wait for an answer."""
RIGHTS = (
    ("create", "ray.io", "rayjobs"),
    ("get", "ray.io", "rayjobs"),
    ("delete", "ray.io", "rayjobs"),
    ("get", "", "pods"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)
"""What the steps' account needs, as manifests/components/ray gives it."""
_KIND = ("ray.io", "v1")
_MANY = "rayjobs"
_INSTALL = "install KubeRay 1.6 or later, or leave ray_nodes out"
_FAILURES = (ApiException, urllib3.exceptions.HTTPError)


def require_kuberay() -> None:
    """Raise UsageError where the cluster has no KubeRay, or this account may not make and follow a RayJob."""
    namespace, reader = _namespace(), Reader()
    if reader.get("/apis/ray.io/v1") is None:
        raise UsageError(f"ray_nodes needs RayJobs (ray.io/v1), which this cluster does not know; {_INSTALL}")
    for verb, group, resource in RIGHTS:
        allowed = reader.may("", (namespace, verb, group, resource))
        if not allowed and not isinstance(allowed, Unseen):  # where the server does not tell, the job will
            raise UsageError(f"ray_nodes: this step's account may not {verb} {resource} in namespace {namespace}; {_bind(namespace)}")


def score_by_ray_job(plan: Plan, shard: str, gpu_resource: str) -> ShardResult:
    """Do what `score_shard` does by a RayJob; the plan and the result go through the store.

    Raises UsageError where Ray is not installed, or this step's pod cannot be read, EvaluationError where the job cannot be made or
    fails, and StoreError.
    """
    check_engine("ray")
    store, run = open_store(plan.store), run_id()
    work = work_of(plan, shard, run)
    result = f"{work.folder}/{RESULT}"
    with stoppable():
        try:
            if store.exists(result):  # this step was lost after its job had ended, which would keep its pods for minutes
                _Job(work.name, _namespace(), print).delete()
            else:
                put_plan(store, work.folder, plan.folder)
                run_job(ray_job(plan, work, own_pod(), gpu_resource, version("ray"), run))
            return ShardResult(**json.loads(store.read(result)))
        finally:
            store.delete_all(f"{work.folder}/")


def own_pod() -> Object:
    """Return the pod of this step; raises UsageError outside of a pod, and where the account may not read it."""
    name, namespace = os.environ.get(POD, ""), _namespace()
    if not name:
        raise UsageError(f"ray_nodes makes pods like the step's own, whose name {POD} does not tell; compile the pipeline again")
    core = client.CoreV1Api(_api())
    try:
        found: Object = core.api_client.sanitize_for_serialization(
            core.read_namespaced_pod(name, namespace, _request_timeout=REQUEST_SECONDS)
        )
    except _FAILURES as error:
        raise UsageError(f"the step's own pod {namespace}/{name} cannot be read ({_reason(error)}); {_bind(namespace)}") from error
    return found


def run_job(job: Object, show: Callable[[str], None] = print, seconds: float = SECONDS) -> None:
    """Make a RayJob, or find the one of that name, and show its status and its log until it is complete.

    However that ends, the job is deleted. Raises EvaluationError when it cannot be made, when it fails, or when it is deleted.
    """
    followed = _Job(job["metadata"]["name"], _namespace(), show)
    try:
        followed.make(job)
        followed.follow(seconds)
    finally:
        followed.delete()


class _Job:
    def __init__(self, name: str, namespace: str, show: Callable[[str], None]) -> None:
        self._name, self._namespace, self._show = name, namespace, show
        api = _api()
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._shown = 0

    def make(self, job: Object) -> None:
        create = Retrying(retry=retry_if_exception(self._is_going), stop=stop_after_delay(GOING_SECONDS), wait=wait_fixed(1), reraise=True)
        try:
            create(self._jobs.create_namespaced_custom_object, *_KIND, self._namespace, _MANY, job, _request_timeout=REQUEST_SECONDS)
        except _FAILURES as error:
            if _status(error) != 409:  # there is one: of this step, before its pod was lost
                raise EvaluationError(f"RayJob {self._name} cannot be made ({_reason(error)}); {self._advice(error)}") from error
        workers = job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]
        self._show(f"RayJob {self._name}: {workers['replicas']} pods of {workers['template']['spec']['containers'][0]['image']}")

    def follow(self, seconds: float) -> None:
        patient = Retrying(retry=retry_if_exception(_passes), stop=stop_after_delay(MAX_SILENCE), wait=wait_fixed(seconds), reraise=True)
        said = ""
        while True:
            try:
                status: Object = patient(self._look).get("status") or {}
            except _FAILURES as error:
                if _status(error) == 404:
                    raise EvaluationError(f"RayJob {self._name} was deleted by somebody; run again, what is complete is kept") from error
                raise EvaluationError(f"RayJob {self._name} cannot be followed ({_reason(error)}); {self._advice(error)}") from error
            if (line := status_line(status, self._pods(f"ray.io/cluster={status.get('rayClusterName') or '-'}"))) != said:
                self._show(f"RayJob {self._name}: {line}")
                said = line
            log = self._log()
            for line in log[self._shown :]:
                self._show(line)
            self._shown = max(self._shown, len(log))
            if is_complete(status):
                return
            if has_failed(status):
                raise EvaluationError(cause(self._name, status, log))
            time.sleep(seconds)

    def delete(self) -> None:
        try:
            self._jobs.delete_namespaced_custom_object(
                *_KIND, self._namespace, _MANY, self._name, propagation_policy="Background", _request_timeout=REQUEST_SECONDS
            )
        except _FAILURES as error:
            if _status(error) != 404:
                what = f"`kubectl -n {self._namespace} delete rayjob {self._name}`"
                self._show(f"note: RayJob {self._name} could not be deleted ({_reason(error)}); {what}")

    def _is_going(self, error: BaseException) -> bool:
        """Whether the name is that of a job which is being deleted: that of a step before this one."""
        if _status(error) != 409:
            return False
        try:
            return "deletionTimestamp" in self._look()["metadata"]
        except _FAILURES as gone:
            return bool(_status(gone) == 404)

    def _look(self) -> Object:
        found: Object = self._jobs.get_namespaced_custom_object(
            *_KIND, self._namespace, _MANY, self._name, _request_timeout=REQUEST_SECONDS
        )
        return found

    def _pods(self, labels: str) -> list[Object]:
        try:
            found = self._core.list_namespaced_pod(self._namespace, label_selector=labels, _request_timeout=REQUEST_SECONDS)
        except _FAILURES:  # the job's own status says the most, and the next look is soon
            return []
        return [self._core.api_client.sanitize_for_serialization(it) for it in found.items]

    def _log(self) -> list[str]:
        """What the scoring printed: the pod that handed it to Ray prints it, and the one that took its place prints all of it again."""
        submitters = self._pods(f"job-name={self._name}")
        if not submitters:
            return []
        newest = max(submitters, key=lambda it: str(it["metadata"].get("creationTimestamp") or ""))
        try:
            text = self._core.read_namespaced_pod_log(newest["metadata"]["name"], self._namespace, _request_timeout=REQUEST_SECONDS)
        except _FAILURES:  # the container has not started, or its machine does not answer: the next look is soon
            return []
        return str(text).splitlines()

    def _advice(self, error: BaseException) -> str:
        return _bind(self._namespace) if _status(error) == 403 else _INSTALL if _status(error) == 404 else "run again"


def _api() -> client.ApiClient:
    settings = client_configuration()
    settings.retries = urllib3.Retry(1, redirect=0)
    return client.ApiClient(settings)


def _namespace() -> str:
    namespace = os.environ.get(POD_NAMESPACE, "")
    if not namespace:
        raise UsageError(f"ray_nodes needs a pod of a cluster, whose namespace {POD_NAMESPACE} does not tell; compile the pipeline again")
    return namespace


def _bind(namespace: str) -> str:
    return f"apply manifests/components/ray in namespace {namespace}, and bind the Role penstock-ray to the account of the steps"


def _passes(error: BaseException) -> bool:
    return isinstance(error, _FAILURES) and _status(error) not in {401, 403, 404}


def _status(error: BaseException) -> Any:
    return getattr(error, "status", None)


def _reason(error: BaseException) -> str:
    return f"{error.status} {error.reason}" if isinstance(error, ApiException) else first_line(error)
