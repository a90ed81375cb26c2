"""A stand-in for KServe's controller: `python -m tests.cluster.controller KUBECONFIG`.

It does what was seen of the real one (release 0.20, Standard mode): the pod template with the storage initializer, a Deployment and a
Service, and a status that says Ready while an old pod answers, whatever becomes of the new one. In Knative mode it makes a Deployment
for each revision and moves the traffic as the status then says.
"""

import copy
import queue
import random
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import requests

from tests.cluster.api import Api, Object
from tests.cluster.webhook import serve_webhook

SERVING, APPS = "/apis/serving.kserve.io", "/apis/apps/v1"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
LABEL = "serving.kserve.io/inferenceservice"
INITIALIZER = "kserve/storage-initializer:v0.20.0"
KNATIVE = {"Knative", "Serverless"}
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


class Controller:
    """Watches InferenceServices and what was made of them, and brings one after the other up to date."""

    def __init__(self, api: Api, initializer: str = INITIALIZER) -> None:
        self._api, self._initializer = api, initializer
        self._queue: queue.Queue[tuple[str, str]] = queue.Queue()

    def run(self) -> None:
        """Work until the process ends."""
        for path in (f"{SERVING}/v1beta1/inferenceservices", f"{APPS}/deployments", "/api/v1/pods"):
            threading.Thread(target=self._watch, args=(path,), daemon=True).start()
        while True:
            namespace, name = self._queue.get()
            try:
                self._reconcile(namespace, name)
            except requests.RequestException as error:
                print(f"{namespace}/{name}: {error}", flush=True)
                if "409" in str(error):
                    self._later(namespace, name, 0.2)
            except Exception:  # noqa: BLE001 - one object that it does not understand must not stop the others
                traceback.print_exc()

    def _watch(self, path: str) -> None:
        for it in self._api.watch(path):
            metadata = it["metadata"]
            if path.endswith("inferenceservices"):
                # The real one took between 40 ms and 6 s.
                self._later(metadata["namespace"], metadata["name"], random.choice((0.05, 0.3, 1.5)))
            elif name := (metadata.get("labels") or {}).get(LABEL):
                self._queue.put((metadata["namespace"], name))

    def _later(self, namespace: str, name: str, seconds: float) -> None:
        timer = threading.Timer(seconds, self._queue.put, [(namespace, name)])
        timer.daemon = True
        timer.start()

    def _reconcile(self, namespace: str, name: str) -> None:
        path = f"{SERVING}/v1beta1/namespaces/{namespace}/inferenceservices/{name}"
        service = self._api.find(path)
        if service is None or "deletionTimestamp" in service["metadata"]:
            return
        runtime_name = service["spec"]["predictor"]["model"].get("runtime", "")
        runtime = self._api.find(f"{SERVING}/v1alpha1/namespaces/{namespace}/servingruntimes/{runtime_name}")
        if problem := _unsuitable(service, runtime, runtime_name):
            self._tell(
                path, service, {"modelStatus": _model_status("InvalidSpec", "", "Pending", problem), **_conditions("Unknown", problem[0])}
            )
            return
        assert runtime is not None
        if service["metadata"]["annotations"].get("serving.kserve.io/deploymentMode") in KNATIVE:
            self._reconcile_knative(path, service, runtime)
        else:
            self._reconcile_standard(path, service, runtime)

    def _reconcile_standard(self, path: str, service: Object, runtime: Object) -> None:
        metadata = service["metadata"]
        name, namespace = f"{metadata['name']}-predictor", metadata["namespace"]
        deployment = self._make_deployment(service, runtime, name, service["spec"]["predictor"].get("minReplicas", 1) or 1)
        self._api.apply(f"/api/v1/namespaces/{namespace}/services/{name}", _service(service, name))
        pods = list(self._pods(namespace, metadata["name"]))
        self._tell(path, service, _standard_status(service, deployment, pods))

    def _make_deployment(self, service: Object, runtime: Object, name: str, replicas: int, extra: Object | None = None) -> Object:
        namespace = service["metadata"]["namespace"]
        template = self._template(service, runtime, name)
        template["metadata"]["labels"] |= extra or {}
        predictor = service["spec"]["predictor"]
        wanted = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": name, "namespace": namespace, "ownerReferences": [_owner(service)],
                "labels": {**template["metadata"]["labels"], **(extra or {})},
            },
            "spec": {
                "replicas": replicas, "progressDeadlineSeconds": 600, "selector": {"matchLabels": {"app": f"isvc.{name}"}},
                "strategy": predictor.get("deploymentStrategy") or ROLLING,
                "template": template,
            },
        }  # fmt: skip
        return self._api.apply(f"{APPS}/namespaces/{namespace}/deployments/{name}", wanted)

    def _template(self, service: Object, runtime: Object, name: str) -> Object:
        metadata, predictor = service["metadata"], service["spec"]["predictor"]
        model, spec = predictor["model"], copy.deepcopy(runtime["spec"])
        containers = spec["containers"]
        main = next(c for c in containers if c["name"] == "kserve-container")
        main["args"] = [argument.replace("{{.Name}}", metadata["name"]) for argument in main.get("args", [])]
        env = {e["name"]: e for e in main.get("env", [])} | {e["name"]: e for e in model.get("env", [])}
        main["env"] = list(env.values())
        mount = {"name": "kserve-provision-location", "mountPath": "/mnt/models"}
        main["volumeMounts"] = [*main.get("volumeMounts", []), {**mount, "readOnly": True}]
        pod = {
            key: value
            for key, value in predictor.items()
            if key in {"serviceAccountName", "automountServiceAccountToken", "securityContext", "terminationGracePeriodSeconds"}
        }
        initializer: Object = {
            "name": "storage-initializer", "image": self._initializer, "args": [model["storageUri"], "/mnt/models"],
            "volumeMounts": [mount], "terminationMessagePolicy": "FallbackToLogsOnError",
            "env": self._storage_env(metadata["namespace"], predictor.get("serviceAccountName", "default")),
            "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
            "securityContext": {
                "allowPrivilegeEscalation": False, "runAsNonRoot": True, "runAsUser": 1000, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
        }  # fmt: skip
        volumes = [*spec.get("volumes", []), {"name": "kserve-provision-location", "emptyDir": {}}]
        labels = {
            **spec.get("labels", {}),
            **metadata.get("labels", {}),
            LABEL: metadata["name"],
            "component": "predictor",
            "app": f"isvc.{name}",
        }
        annotations = {**metadata.get("annotations", {}), SOURCE: model["storageUri"]}
        return {
            "metadata": {"labels": labels, "annotations": annotations},
            "spec": {**pod, "initContainers": [initializer], "containers": containers, "volumes": volumes},
        }

    def _storage_env(self, namespace: str, account: str) -> list[Object]:
        """What the controller reads from the account's Secrets: the keys by reference, the endpoint from annotations."""
        found = self._api.find(f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}") or {}
        for reference in found.get("secrets", []):
            secret = self._api.find(f"/api/v1/namespaces/{namespace}/secrets/{reference['name']}")
            if not secret or "AWS_ACCESS_KEY_ID" not in (secret.get("data") or {}):
                continue
            notes = {k.rpartition("/")[2]: v for k, v in (secret["metadata"].get("annotations") or {}).items()}
            env = [
                {"name": key, "valueFrom": {"secretKeyRef": {"name": reference["name"], "key": key}}}
                for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
            ]
            if endpoint := notes.get("s3-endpoint"):
                scheme = "http" if notes.get("s3-usehttps") == "0" else "https"
                env += [{"name": "S3_ENDPOINT", "value": endpoint}, {"name": "AWS_ENDPOINT_URL", "value": f"{scheme}://{endpoint}"}]
                env += [{"name": "S3_USE_HTTPS", "value": notes.get("s3-usehttps", "1")}]
            return [*env, {"name": "AWS_DEFAULT_REGION", "value": notes.get("s3-region", "us-east-1")}]
        return []

    def _pods(self, namespace: str, service: str) -> Iterator[Object]:
        yield from self._api.ask("GET", f"/api/v1/namespaces/{namespace}/pods", labelSelector=f"{LABEL}={service}")["items"]

    def _reconcile_knative(self, path: str, service: Object, runtime: Object) -> None:
        """A revision for each generation that changes the template; the traffic goes to the newest that is ready, or is split."""
        metadata, predictor = service["metadata"], service["spec"]["predictor"]
        namespace, labels = metadata["namespace"], f"{LABEL}={metadata['name']}"
        deployments = self._api.ask("GET", f"{APPS}/namespaces/{namespace}/deployments", labelSelector=labels)["items"]
        revisions = sorted(deployments, key=lambda d: d["metadata"]["name"])
        template = self._template(service, runtime, "x")["metadata"]["annotations"] | {"spec": str(predictor["model"])}
        stamp = {"tests/template": str(hash_of(template))}
        if not revisions or revisions[-1]["metadata"]["labels"].get("tests/template") != stamp["tests/template"]:
            revision = f"{metadata['name']}-predictor-{len(revisions) + 1:05d}"
            extra = {"serving.knative.dev/revision": revision, **stamp}
            revisions.append(
                self._make_deployment(service, runtime, f"{revision}-deployment", max(1, predictor.get("minReplicas", 1)), extra)
            )
        component = _traffic(service, revisions)
        state = "True" if component.get("latestReadyRevision") else "Unknown"
        self._tell(path, service, {"components": {"predictor": component}, "deploymentMode": "Knative", **_conditions(state, "")})

    def _tell(self, path: str, service: Object, status: Object) -> None:
        old = service.get("status", {})
        name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
        status = {
            "address": {"url": f"http://{name}-predictor.{namespace}.svc.cluster.local"},
            "url": f"http://{name}-{namespace}.example.com",
            **status,
        }  # fmt: skip
        failed = old.get("modelStatus", {}).get("lastFailureInfo")
        if failed and "modelStatus" in status:  # it stays, also when a later rollout is good
            status["modelStatus"].setdefault("lastFailureInfo", failed)
        if any(old.get(key) != value for key, value in status.items() if key != "conditions") or _states(old) != _states(status):
            version = {"metadata": {"resourceVersion": service["metadata"]["resourceVersion"]}}
            self._api.merge(f"{path}/status", {**version, "status": status})


def hash_of(value: Any) -> int:
    """A number that is the same in every process."""
    import zlib

    return zlib.crc32(repr(sorted(value.items())).encode())


def _unsuitable(service: Object, runtime: Object | None, name: str) -> tuple[str, str] | None:
    if runtime is None:
        return "RuntimeNotRecognized", f"Specified runtime {name} does not exist"
    wanted = service["spec"]["predictor"]["model"]["modelFormat"]["name"]
    if wanted not in {f["name"] for f in runtime["spec"].get("supportedModelFormats", [])}:
        return "NoSupportingRuntime", f"Specified runtime {name} does not support specified model format {wanted}"
    return None


def _standard_status(service: Object, deployment: Object, pods: list[Object]) -> Object:
    """Ready while any pod answers; the model UpToDate as soon as one does, although a newer pod crashes."""
    status = deployment.get("status", {})
    available = status.get("availableReplicas", 0) > 0
    failing = next(filter(None, (_load_failure(pod) for pod in pods)), None)
    young = time.time() - _time(_progressed(deployment)) < 3
    if failing:
        model = _model_status("BlockedByFailedLoad", "Loaded" if available else "Pending", "FailedToLoad", ("ModelLoadFailed", failing))
    elif not available or young:
        model = _model_status("InProgress", "Loaded" if available else "Pending", "Loading")
    else:
        model = _model_status("UpToDate", "Loaded", "Loaded")
    state, reason = ("True", "") if available else ("False", "MinimumReplicasUnavailable")
    return {
        "observedGeneration": deployment["metadata"]["generation"],  # the Deployment's, as seen
        "deploymentMode": "Standard",
        "modelStatus": model,
        **_conditions(state, reason),
    }


def _progressed(deployment: Object) -> str:
    conditions = deployment.get("status", {}).get("conditions") or []
    return next((c["lastTransitionTime"] for c in conditions if c["type"] == "Progressing"), deployment["metadata"]["creationTimestamp"])


def _time(stamp: str) -> float:
    return datetime.fromisoformat(stamp).timestamp()


def _load_failure(pod: Object) -> str:
    for status in pod.get("status", {}).get("initContainerStatuses") or []:
        ended = (status["state"].get("terminated") or status.get("lastState", {}).get("terminated")) or {}
        if ended.get("exitCode"):
            return str(ended.get("message", ""))
    return ""


def _model_status(transition: str, active: str, target: str, failure: tuple[str, str] | None = None) -> Object:
    status: Object = {"transitionStatus": transition, "states": {"activeModelState": active, "targetModelState": target}}
    if failure:
        status["lastFailureInfo"] = {"reason": failure[0], "message": failure[1]}
    return status


def _conditions(state: str, reason: str) -> Object:
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


def _states(status: Object) -> list[tuple[str, str]]:
    return [(c["type"], c["status"]) for c in status.get("conditions") or []]


def _traffic(service: Object, revisions: list[Object]) -> Object:
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


def _service(service: Object, name: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": service["metadata"]["namespace"], "ownerReferences": [_owner(service)]},
        "spec": {"selector": {"app": f"isvc.{name}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]},
    }


def _owner(service: Object) -> Object:
    metadata = service["metadata"]
    return {
        "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": metadata["name"], "uid": metadata["uid"],
        "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


if __name__ == "__main__":
    administrator = Api(sys.argv[1])
    serve_webhook(administrator)
    print("ready", flush=True)
    Controller(administrator, *sys.argv[2:3]).run()
