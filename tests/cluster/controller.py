"""A stand-in for KServe's controller: `python -m tests.cluster.controller KUBECONFIG PREFIX`, for the namespaces that begin so.

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
from typing import Any

import requests

from tests.cluster.api import SERVING, Api, Object, service_path
from tests.cluster.status import conditions, model_status, seconds_of, standard_status, states, traffic
from tests.cluster.webhook import serve_webhook

APPS = "/apis/apps/v1"
SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
LABEL = "serving.kserve.io/inferenceservice"
INITIALIZER = "kserve/storage-initializer:v0.20.0"
FINALIZER = "inferenceservice.finalizers"
AUTOSCALER_SECONDS = 4.0
KNATIVE = {"Knative", "Serverless"}
ROLLING = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}


class Controller:
    """Watches InferenceServices and what was made of them, and brings one after the other up to date."""

    def __init__(self, api: Api, prefix: str, initializer: str = INITIALIZER) -> None:
        self._api, self._prefix, self._initializer = api, prefix, initializer
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
            if not metadata["namespace"].startswith(self._prefix):
                continue
            if path.endswith("inferenceservices"):
                self._keep_finalizer(it)
                # The real one took between 40 ms and 6 s.
                self._later(metadata["namespace"], metadata["name"], random.choice((0.05, 0.3, 1.5)))
            elif name := (metadata.get("labels") or {}).get(LABEL):
                self._queue.put((metadata["namespace"], name))

    def _keep_finalizer(self, service: Object) -> None:
        """Put the finalizer on a new InferenceService, at once and in the way of whoever made it; take it off one that is deleted."""
        deleted, has = "deletionTimestamp" in service["metadata"], FINALIZER in service["metadata"].get("finalizers", [])
        if deleted is not has or service["event"] == "DELETED":
            return
        path = service_path(service["metadata"]["namespace"], service["metadata"]["name"])
        try:
            self._api.merge(path, {"metadata": {"finalizers": None if deleted else [FINALIZER]}})
        except requests.RequestException as error:
            print(f"{path}: {error}", flush=True)

    def _later(self, namespace: str, name: str, seconds: float) -> None:
        timer = threading.Timer(seconds, self._queue.put, [(namespace, name)])
        timer.daemon = True
        timer.start()

    def _reconcile(self, namespace: str, name: str) -> None:
        path = service_path(namespace, name)
        service = self._api.find(path)
        if service is None or "deletionTimestamp" in service["metadata"]:
            return
        runtime_name = service["spec"]["predictor"]["model"].get("runtime", "")
        runtime = self._api.find(f"{SERVING}/v1alpha1/namespaces/{namespace}/servingruntimes/{runtime_name}")
        if problem := _unsuitable(service, runtime, runtime_name):
            self._tell(
                path, service, {"modelStatus": model_status("InvalidSpec", "", "Pending", problem), **conditions("Unknown", problem[0])}
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
        deployment = self._make_deployment(service, runtime, name, self._replicas(service, name))
        self._api.apply(f"/api/v1/namespaces/{namespace}/services/{name}", _service(service, name))
        pods = list(self._pods(namespace, metadata["name"]))
        self._tell(path, service, standard_status(service, deployment, pods))

    def _replicas(self, service: Object, name: str) -> int:
        """One at first; where an autoscaler is made, it raises the number to the least some seconds later."""
        metadata, least = service["metadata"], service["spec"]["predictor"].get("minReplicas", 1) or 1
        if least == 1:
            return 1
        deployment = self._api.find(f"{APPS}/namespaces/{metadata['namespace']}/deployments/{name}")
        if deployment is None:
            self._later(metadata["namespace"], metadata["name"], AUTOSCALER_SECONDS + 0.5)
            return 1
        old = seconds_of(deployment["metadata"]["creationTimestamp"]) <= time.time() - AUTOSCALER_SECONDS
        return least if old else int(deployment["spec"]["replicas"])

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
        component = traffic(service, revisions)
        state = "True" if component.get("latestReadyRevision") else "Unknown"
        self._tell(path, service, {"components": {"predictor": component}, "deploymentMode": "Knative", **conditions(state, "")})

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
        if any(old.get(key) != value for key, value in status.items() if key != "conditions") or states(old) != states(status):
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
    serve_webhook(administrator, sys.argv[2])
    print("ready", flush=True)
    Controller(administrator, *sys.argv[2:]).run()
