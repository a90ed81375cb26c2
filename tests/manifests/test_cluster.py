"""The manifests on a real API server: applied into a namespace of the test's own that enforces Pod Security "restricted"."""

import copy
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.manifests.building import EXAMPLE, MANIFESTS, Object, built, composed, folders, only
from tests.manifests.pods import predictor_pod

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="KUBECONFIG is not set; docs/deploying.md says how to make a cluster"),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]
ENFORCED = {"pod-security.kubernetes.io/enforce": "restricted"}
KUSTOMIZATIONS = {str(folder.relative_to(MANIFESTS)): folder for folder in folders("Kustomization")}


def kubectl(*arguments: str, given: Any = None) -> subprocess.CompletedProcess[str]:
    text = None if given is None else yaml.safe_dump_all(given)
    return subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False, timeout=600)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def suffix() -> Iterator[str]:
    """What makes names the test's own; each namespace of the manifests is there with it, and enforces "restricted"."""
    if kubectl("get", "crd", "inferenceservices.serving.kserve.io").returncode != 0:
        pytest.skip("the cluster has no InferenceServices: install KServe, or its CustomResourceDefinitions")
    own = secrets.token_hex(4)
    places = sorted({it["metadata"]["namespace"] for folder in KUSTOMIZATIONS.values() for it in moved(built(folder), own)})
    made = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": it, "labels": ENFORCED}} for it in places]
    succeeded(kubectl("create", "-f", "-", given=made))
    yield own
    kubectl("delete", "namespace", "--wait=false", *places)


@pytest.fixture(scope="module")
def namespace(suffix: str) -> str:
    """The namespace in which the base is applied for real."""
    objects = moved(built(MANIFESTS / "base"), suffix)
    succeeded(kubectl("apply", "-f", "-", given=objects))
    place: str = objects[0]["metadata"]["namespace"]
    return place


def moved(objects: list[Object], suffix: str) -> list[Object]:
    """The objects in namespaces of the test's own; without those, and without what needs the Prometheus operator."""
    kept = [copy.deepcopy(it) for it in objects if not it["apiVersion"].startswith("monitoring.coreos.com/") and it["kind"] != "Namespace"]
    for place in chain.from_iterable([it["metadata"], *it.get("subjects", ())] for it in kept):
        place["namespace"] = f"{place.get('namespace', 'default')}-{suffix}"
    return kept


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_the_api_server_takes_it(name: str, suffix: str) -> None:
    objects = moved(built(KUSTOMIZATIONS[name]), suffix)
    for way in ([], ["--server-side", "--force-conflicts"]):
        done = kubectl("apply", *way, "--dry-run=server", "--validate=strict", "-f", "-", given=objects)
        succeeded(done)
        assert "Warning" not in done.stderr


@pytest.mark.parametrize("scaling", ["hpa", "keda", "knative"])
def test_the_api_server_takes_an_example_that_scales(scaling: str, namespace: str, tmp_path: Path) -> None:
    objects = composed(tmp_path / "mine", scaling, "gpu", "s3-minio", "private-ca", "review", namespace=namespace)
    succeeded(kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-", given=objects))


def pod(namespace: str, **options: Any) -> Object:
    made = predictor_pod(only(built(MANIFESTS / "base"), "ServingRuntime"), only(built(EXAMPLE), "InferenceService"), **options)
    made["metadata"]["namespace"] = namespace
    return made


def test_the_predictor_s_pod_passes_restricted_and_has_no_token(namespace: str) -> None:
    made = json.loads(succeeded(kubectl("create", "--dry-run=server", "-o", "json", "-f", "-", given=[pod(namespace)])))
    assert not [it for it in made["spec"]["volumes"] if "projected" in it]


def test_without_the_administrator_s_patch_the_init_container_is_refused(namespace: str) -> None:
    refused = kubectl("create", "--dry-run=server", "-f", "-", given=[pod(namespace, patched_initializer=False)])
    assert refused.returncode != 0
    assert "violates PodSecurity" in refused.stderr
    assert "storage-initializer" in refused.stderr
    assert "kserve-container" not in refused.stderr


@pytest.mark.parametrize("way", [("--server-side",), ()], ids=["server-side", "client-side"])
def test_keys_survive_when_everything_is_applied_again(way: tuple[str, ...], namespace: str, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two"}
    succeeded(kubectl("-n", namespace, "patch", "secret", "penstock-s3", "--patch", json.dumps({"stringData": keys})))
    objects = composed(tmp_path / "mine", "s3-minio", resources=(MANIFESTS / "base",), namespace=namespace)
    succeeded(kubectl("apply", *way, *(["--force-conflicts"] if way else []), "-f", "-", given=objects))
    secret = json.loads(succeeded(kubectl("-n", namespace, "get", "secret", "penstock-s3", "-o", "json")))
    assert secret["data"].keys() == keys.keys()
    assert secret["metadata"]["annotations"]["serving.kserve.io/s3-endpoint"] == "minio.minio:9000"


def may(namespace: str, account: str, verb: str, what: str) -> bool:
    return kubectl("auth", "can-i", verb, what, "-n", namespace, f"--as=system:serviceaccount:{account}").stdout.strip() == "yes"


def test_the_deployer_may_deploy_here_and_nothing_else(namespace: str) -> None:
    deployer = f"{namespace}:penstock-deployer"
    services = "inferenceservices.serving.kserve.io"
    assert all(may(namespace, deployer, verb, services) for verb in ("get", "list", "watch", "create", "patch", "delete"))
    assert all(may(namespace, deployer, "list", what) for what in ("deployments.apps", "replicasets.apps", "pods", "events"))
    assert may(namespace, deployer, "get", "pods/log")
    read = ("servingruntimes.serving.kserve.io", "serviceaccounts")  # by name, before a training whose rollout would fail
    assert all(may(namespace, deployer, "get", what) for what in read)
    assert not any(may(namespace, deployer, verb, what) for what in read for verb in ("list", "create", "patch", "delete"))
    assert not any(may(namespace, deployer, "create", what) for what in ("serviceaccounts/token", "rolebindings.rbac.authorization.k8s.io"))
    assert not any(may(namespace, deployer, "get", what) for what in ("secrets", "configmaps"))
    assert not any(may(namespace, deployer, "patch", what) for what in ("deployments.apps", "pods"))
    assert not may("default", deployer, "create", services)
    assert not may(namespace, f"{namespace}:penstock-predictor", "get", services)
