"""A namespace of its own for each test, set up by the project's own manifests, and the ways in which a predictor can be bad there."""

import copy
import itertools
import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from components.deploy.kserve.rollout import deploy_kserve
from components.deploy.request import DeployRequest
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.cluster import webhook
from tests.cluster.api import SERVING, Api, Object, service_path
from tests.storage.servers import BUCKET, Server

ROOT = Path(__file__).parent.parent.parent
SETTLE, TIMEOUT = 2.0, 60.0
_runs = itertools.count(1)


@dataclass
class Place:
    """Where a test deploys to."""

    api: Api
    namespace: str
    registry: Registry
    versions: dict[str, str]
    """v1, v2, v3: good ones, rising. wrong: computes other probabilities than evaluated."""
    kubeconfig: Path
    said: list[str] = field(default_factory=list)

    def request(
        self, version: str, *, run: str = "", strategy: str = "manual", variables: dict[str, str] | None = None, **serving: Any
    ) -> DeployRequest:
        """A request as the pipeline makes it."""
        serving = {"settle_seconds": SETTLE, "timeout_seconds": TIMEOUT, **serving}
        return DeployRequest(
            version=self.versions.get(version, version),
            strategy=strategy,
            environment="dev",
            actor="ann",
            reason="test",
            target="kserve",
            namespace=self.namespace,
            run=run or f"run-{next(_runs)}",
            serving=serving,
            predictor=variables or {},
        )

    def deploy(self, version: str, **options: Any) -> str:
        """Deploy with the deployer's rights only; the lines that it says are kept in `said`."""
        self.said.clear()
        return deploy_kserve(self.registry, self.request(version, **options), self.said.append)

    def service(self, name: str = "digits") -> Object | None:
        """The InferenceService as it is now."""
        return self.api.find(service_path(self.namespace, name))

    def served(self, name: str = "digits") -> str:
        """The short name of the version in its spec; empty when it is not there."""
        service = self.service(name)
        if service is None:
            return ""
        version = service["spec"]["predictor"]["model"]["storageUri"].rstrip("/").rpartition("/")[2]
        return next((short for short, full in self.versions.items() if full == version), version)

    def ledger(self) -> list[tuple[str, str, str]]:
        """Action, version and champion of each record, by their short names."""
        names = {full: short for short, full in self.versions.items()} | {"": ""}
        return [(r.action, names[r.version], names[r.champion]) for r in Registry(self.registry.store, "digits").ledger.records()]

    def last(self) -> Record:
        """The newest record."""
        record = Registry(self.registry.store, "digits").ledger.last()
        assert record is not None
        return record

    def runtime(self, name: str, change: Object) -> str:
        """Make a ServingRuntime like the manifests', changed; returns its name."""
        path = f"{SERVING}/v1alpha1/namespaces/{self.namespace}/servingruntimes"
        base = self.api.ask("GET", f"{path}/penstock-onnx-v1")
        it = {key: copy.deepcopy(base[key]) for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": name}}
        it["spec"]["containers"][0].update(change)
        self.api.apply(f"{path}/{name}", it)
        return name

    def account(self, name: str) -> str:
        """Make a ServiceAccount without credentials for the store."""
        self.api.ask("POST", f"/api/v1/namespaces/{self.namespace}/serviceaccounts", {"metadata": {"name": name}})
        return name


CRASHES = {"command": ["sh", "-c", 'echo \'{"error": "the model has an operator that is not known"}\'; sleep 1; exit 3'], "args": []}
CRASHES_LATER = {
    # Answers as it should, and ends some seconds after it was ready.
    "command": ["sh", "-c", 'python3 -m components.predictor "$@" & sleep ${SECONDS_TO_LIVE:-14}; kill -9 $!; exit 4', "predictor"],
}
NEVER_READY = {"readinessProbe": {"httpGet": {"path": "/never", "port": 8080}, "periodSeconds": 2}}
NO_IMAGE = {"image": "registry.invalid/no-such-image:1"}
NEEDS_GPU = {"resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}}


@contextmanager
def new_namespace(api: Api, prefix: str, s3: Server, bundles: Path, folder: Path) -> Iterator[Place]:
    """Make a namespace that enforces Pod Security "restricted" and delete it afterwards."""
    name = f"{prefix}{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted", webhook.LABEL: prefix.strip("-")}
    api.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    try:
        _apply_manifests(api, name, s3)
        registry = Registry(open_store(f"s3://{BUCKET}/{name}"), "digits")
        shorts = ("v1", "v2", "v3", "wrong")
        versions = {short: publish_directory(registry, bundles / f"v{n}").version for n, short in enumerate(shorts, 1)}
        yield Place(api, name, registry, versions, kubeconfig_of(api, name, "penstock-deployer", folder))
    finally:
        api.ask("DELETE", f"/api/v1/namespaces/{name}")


def this_machine(api: Api) -> str:
    """This machine's address as the pods see it."""
    return os.environ.get("CLUSTER_TESTS_HOST") or str(urlsplit(api.server).hostname)


def _apply_manifests(api: Api, namespace: str, s3: Server) -> None:
    built = subprocess.run(["kubectl", "kustomize", str(ROOT / "manifests" / "base")], check=True, capture_output=True, text=True).stdout
    objects = list(yaml.safe_load_all(built))
    for it in objects:
        it["metadata"]["namespace"] = namespace
        for subject in it.get("subjects", []):
            subject["namespace"] = namespace
        if it["kind"] == "Secret":
            host = this_machine(api)
            it["stringData"] = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
            it["metadata"]["annotations"] |= {
                "serving.kserve.io/s3-endpoint": f"{host}:{urlsplit(s3.endpoint).port}", "serving.kserve.io/s3-usehttps": "0"
            }  # fmt: skip
        if it["kind"] == "ServingRuntime":
            _make_small(it)
        if it["kind"] == "NetworkPolicy":
            continue  # the test's S3 server listens on a port of its own
        plural = {"NetworkPolicy": "networkpolicies"}.get(it["kind"], it["kind"].lower() + "s")
        group = "/api/v1" if it["apiVersion"] == "v1" else f"/apis/{it['apiVersion']}"
        api.apply(f"{group}/namespaces/{namespace}/{plural}/{it['metadata']['name']}", it, "tests")


def _make_small(runtime: Object) -> None:
    """A tiny model on a test's machine needs little, and is looked at often."""
    container = runtime["spec"]["containers"][0]
    container["image"] = os.environ.get("CLUSTER_TESTS_IMAGE") or container["image"]
    container["resources"] = {"requests": {"cpu": "10m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
    container["readinessProbe"] |= {"periodSeconds": 1}


def kubeconfig_of(api: Api, namespace: str, account: str, folder: Path, server: str = "", ca: bool = True) -> Path:
    """Write a kubeconfig of a ServiceAccount; `server` is another address to reach the API server by."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = api.ask("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body)["status"]["token"]
    cluster = {"server": server or api.server, **({"certificate-authority-data": api.ca} if ca else {})}
    document = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": namespace}}],
    }  # fmt: skip
    path = folder / f"{account}{'-' + str(urlsplit(server).port) if server else ''}.kubeconfig"
    path.write_text(yaml.safe_dump(document))
    return path
