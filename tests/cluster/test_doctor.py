"""`penstock doctor` on a real API server: each fault made by hand is named, mended as printed, and well afterwards."""

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.classifier.errors import RolloutError
from components.deploy.kserve.service import render
from components.doctor import Result, State, examine
from components.doctor.before import refuse_what_breaks
from components.doctor.gather import gather
from components.doctor.seen import Scope
from components.doctor.store import look_at_store
from components.registry import Record, Registry
from components.settings.serving import KServeSettings
from components.storage import open_store
from pipelines.cli.doctor import requested_by_steps
from tests.cluster.api import Api, Object
from tests.cluster.place import ROOT, kubeconfig_of
from tests.storage.servers import BUCKET, Server

pytestmark = pytest.mark.xdist_group("doctor")  # it adds kinds to the cluster and removes them: one process does that

DOCTOR = [sys.executable, "-c", "from pipelines.cli import main; main()", "doctor", "--json"]
VERSION, OTHER = "20260101-120000-0123456789ab", "20260102-120000-0123456789ab"


steps = cache(requested_by_steps)


@dataclass
class Ward:
    """A namespace that serves models and one of runs, both well, and the account that deploys."""

    api: Api
    namespace: str
    runs: str
    store: str
    kubeconfig: str

    def doctor(self, *options: str, kubeconfig: str = "") -> tuple[int, list[Object]]:
        """Exit code and results of the command."""
        places = ["--namespace", self.namespace, "--run-namespace", self.runs, "--service-account", "pipeline-runner"]
        environment = os.environ | {"KUBECONFIG": kubeconfig or self.kubeconfig}
        command = [*DOCTOR, *places, "--store", self.store, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=600)
        assert done.returncode in (0, 1), done.stderr
        return done.returncode, json.loads(done.stdout)

    def unwell(self, check: str) -> list[Result]:
        """What a check says that is not well; as the command would, without its start."""
        scope = Scope(self.namespace, self.runs, f"{self.runs}:pipeline-runner", steps=steps())
        store = look_at_store(self.store, "digits") if "ledger" in check or "store" in check else None
        return [it for it in examine(gather(scope, store)) if it.check == check and it.state != State.OK]

    def shell(self, script: str) -> str:
        """Run a script as an administrator, from the project's folder; {ns} and {runs} are the namespaces."""
        text = script.replace("{ns}", self.namespace).replace("{runs}", self.runs)
        environment = os.environ | {"KUBECONFIG": self.kubeconfig}
        done = subprocess.run(["bash", "-ec", text], capture_output=True, text=True, check=False, env=environment, cwd=ROOT, timeout=600)
        assert done.returncode == 0, f"{text}\n{done.stderr}"
        return done.stdout

    def versions(self) -> dict[str, str]:
        """The resourceVersion of everything that the doctor could have changed: all of its namespaces, and what KServe defines."""
        # not "all", which asks for the kinds that other tests define and remove meanwhile too
        kinds = "po,svc,deploy,rs,sts,job,cj,hpa,pdb,sa,secret,cm,role,rolebinding,quota,limitrange,networkpolicy"
        kinds += ",inferenceservice,servingruntime"
        found = {}
        for scope in (f"-n {self.namespace}", f"-n {self.runs}"):
            for it in json.loads(self.shell(f"kubectl get {kinds} {scope} -o json"))["items"]:
                metadata = it["metadata"]
                found[f"{it['kind']} {metadata['namespace']}/{metadata['name']}"] = metadata["resourceVersion"]
        for it in json.loads(self.shell("kubectl get ns,crd,clusterrole,clusterrolebinding,clusterstoragecontainer -o json"))["items"]:
            kind, name = it["kind"], it["metadata"]["name"]
            if {"Namespace": name in (self.namespace, self.runs), "CustomResourceDefinition": name.endswith("kserve.io")}.get(kind, True):
                found[f"{kind} {name}"] = it["metadata"]["resourceVersion"]
        return found


def crd(group: str, kind: str, plural: str, version: str, scope: str) -> Object:
    """A kind that this cluster lacks, of any content."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": scope,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "versions": [{"name": version, "served": True, "storage": True, "schema": schema}],
        },
    }


@contextmanager
def present(api: Api, *wanted: Object) -> Iterator[None]:
    """Kinds that are there meanwhile; those that this made are taken away again."""
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    made = [it["metadata"]["name"] for it in wanted if api.find(f"{path}/{it['metadata']['name']}") is None]
    for it in wanted:
        if it["metadata"]["name"] in made:
            api.apply(f"{path}/{it['metadata']['name']}", it, "tests")
    try:
        yield
    finally:
        for name in made:
            api.ask("DELETE", f"{path}/{name}")


@pytest.fixture(scope="module")
def kinds(administrator: Api) -> Iterator[None]:
    """The kinds of KServe and Argo that doctor reads, where they are missing."""
    storage = crd("serving.kserve.io", "ClusterStorageContainer", "clusterstoragecontainers", "v1alpha1", "Cluster")
    workflows = crd("argoproj.io", "Workflow", "workflows", "v1alpha1", "Namespaced")
    results = crd("argoproj.io", "WorkflowTaskResult", "workflowtaskresults", "v1alpha1", "Namespaced")
    with present(administrator, storage, workflows, results):
        subprocess.run(
            ["kubectl", "wait", "--for=condition=Established", "crd", "--all", "--timeout=120s"],
            check=True,
            env=os.environ | {"KUBECONFIG": os.environ["KUBECONFIG"]},
            capture_output=True,
        )
        container = {"apiVersion": "serving.kserve.io/v1alpha1", "kind": "ClusterStorageContainer", "metadata": {"name": "default"}}
        context = yaml.safe_load((ROOT / "manifests/components/restricted/storage-initializer.yaml").read_text())
        path = "/apis/serving.kserve.io/v1alpha1/clusterstoragecontainers/default"
        if administrator.find(path) is None:
            administrator.apply(path, container | context, "tests")
        yield


SETUP = r"""
kubectl create namespace {ns}
kubectl create namespace {runs}
kubectl label namespace {ns} pod-security.kubernetes.io/enforce=restricted
kubectl kustomize manifests/base | sed 's/namespace: penstock$/namespace: {ns}/' | kubectl apply -f -
kubectl -n {ns} delete networkpolicy --all
kubectl -n {ns} annotate secret penstock-s3 serving.kserve.io/s3-endpoint=minio.minio:9000 serving.kserve.io/s3-usehttps=0 --overwrite
kubectl -n {ns} patch secret penstock-s3 --patch '{"stringData": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}}'
kubectl -n {runs} create serviceaccount pipeline-runner
kubectl -n {ns} create rolebinding runner --role=penstock-deployer --serviceaccount={runs}:pipeline-runner
kubectl -n {runs} create role runner --verb=get,create,patch \
    --resource=configmaps,pods,workflows.argoproj.io,workflowtaskresults.argoproj.io
kubectl -n {runs} create rolebinding runner --role=runner --serviceaccount={runs}:pipeline-runner
kubectl -n {runs} create configmap kfp-launcher --from-literal=defaultPipelineRoot=s3://mlpipeline/root
kubectl -n {runs} create configmap workflow-controller-configmap --from-literal=workflowDefaults='
spec: {templateDefaults: {retryStrategy: {limit: "2", retryPolicy: Always}}}'
"""


@contextmanager
def made(api: Api) -> Iterator[Ward]:
    """Two namespaces as the docs make them, with a service that is served."""
    own = f"doctor-{secrets.token_hex(3)}"
    it = Ward(api, own, f"{own}-runs", f"s3://{BUCKET}/{own}", os.environ["KUBECONFIG"])
    store = open_store(it.store)
    Registry(store, "digits").ledger.append(
        Record(action="deployed", version=VERSION, champion=VERSION, strategy="manual", target="kserve", environment="dev")
    )
    try:
        it.shell(SETUP)
        settings = KServeSettings(namespace=own)
        it.api.ask(
            "POST",
            f"/apis/serving.kserve.io/v1beta1/namespaces/{own}/inferenceservices",
            render("digits", VERSION, Registry(store, "digits").uri(VERSION), settings),
        )
        yield it
    finally:
        it.shell("kubectl delete namespace --ignore-not-found --wait=false {ns} {runs}")


@pytest.fixture
def keys(s3: Server, monkeypatch: pytest.MonkeyPatch, clean_environment: None) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def ward(administrator: Api, kinds: None, s3: Server, keys: None) -> Iterator[Ward]:
    with made(administrator) as it:
        yield it


@pytest.fixture(scope="module")
def lasting(administrator: Api, kinds: None, s3: Server) -> Iterator[Ward]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3.environment.items():
            patch.setenv(name, value)
        with made(administrator) as it:
            yield it


@pytest.fixture
def mended(lasting: Ward, keys: None) -> Ward:
    """One for all faults: each test leaves it as well as it found it."""
    return lasting


RUNTIME = "kubectl -n {ns} patch servingruntime penstock-onnx-v1 --type merge --patch"
SECRET = "kubectl -n {ns} annotate --overwrite secret penstock-s3"
QUOTA = "kubectl -n {ns} create quota"
STEP_QUOTA = "kubectl -n {runs} create quota"
FAULTS: dict[str, tuple[str, str, str]] = {
    # what is wrong -> the script that makes it so, the check that finds it, what it names
    "no runtime": ("kubectl -n {ns} delete servingruntime penstock-onnx-v1", "serving-runtime", "no ServingRuntime penstock-onnx-v1"),
    "a runtime of another format": (
        RUNTIME + """ '{"spec": {"supportedModelFormats": [{"name": "onnx", "version": "1"}]}}'""",
        "serving-runtime",
        "takes onnx, not penstock",
    ),
    "a disabled runtime": (RUNTIME + """ '{"spec": {"disabled": true}}'""", "serving-runtime", "disabled"),
    "no right to deploy": ("kubectl -n {ns} delete rolebinding runner", "deploy-rights", "may not get inferenceservices"),
    "one right less": (
        "kubectl -n {ns} patch role penstock-deployer --type json --patch "
        """'[{"op": "replace", "path": "/rules/0/verbs", "value": ["get", "list", "watch", "create", "delete"]}]'""",
        "deploy-rights",
        "may not patch inferenceservices",
    ),
    "no right to run": ("kubectl -n {runs} delete rolebinding runner", "run-rights", "may not get configmaps"),
    "no account of the predictor": ("kubectl -n {ns} delete serviceaccount penstock-predictor", "storage-secret", "no ServiceAccount"),
    "a Secret that is not listed": (
        """kubectl -n {ns} patch serviceaccount penstock-predictor --type merge --patch '{"secrets": null}'""",
        "storage-secret",
        "lists no Secret",
    ),
    "a Secret that is missing": ("kubectl -n {ns} delete secret penstock-s3", "storage-secret", "which is not in namespace"),
    "a Secret without keys": (
        """kubectl -n {ns} patch secret penstock-s3 --type merge --patch '{"data": null}'""",
        "storage-secret",
        "no AWS_ACCESS_KEY_ID",
    ),
    "a Secret of the steps without keys": (
        "kubectl -n {runs} create secret generic penstock-s3",
        "steps-secret",
        "has no AWS_ACCESS_KEY_ID and no AWS_SECRET_ACCESS_KEY",
    ),
    "a scheme in the endpoint": (f"{SECRET} serving.kserve.io/s3-endpoint=http://minio.minio:9000", "storage-secret", "'http://minio"),
    "a path in the endpoint": (f"{SECRET} serving.kserve.io/s3-endpoint=minio.minio:9000/s3", "storage-secret", "'minio.minio:9000/s3'"),
    "a dot at the endpoint's end": (f"{SECRET} serving.kserve.io/s3-endpoint=minio.minio.", "storage-secret", "'minio.minio.'"),
    "usehttps in words": (f"{SECRET} serving.kserve.io/s3-usehttps=false", "storage-secret", "s3-usehttps is 'false'"),
    "no region": (f"{SECRET} serving.kserve.io/s3-region-", "storage-secret", "no s3-region"),
    "virtual hosts": (f"{SECRET} serving.kserve.io/s3-usevirtualbucket=1", "storage-secret", "usevirtualbucket"),
    "an initializer that restricted refuses": (
        """kubectl patch clusterstoragecontainer default --type merge --patch '{"spec": {"container": {"securityContext": null}}}'""",
        "pod-security",
        "enforces restricted",
    ),
    "too little memory for the predictor": (
        f"{QUOTA} memory --hard=requests.memory=256Mi",
        "resource-quota",
        "leaves requests.memory 256Mi",
    ),
    "too little memory for a step": (f"{STEP_QUOTA} memory --hard=requests.memory=512Mi", "resource-quota", "step ingest-dataset (1Gi)"),
    "a quota of limits": (f"{STEP_QUOTA} limits --hard=limits.memory=64Gi", "resource-quota", "counts limits.memory"),
    "no pod left": (f"{QUOTA} pods --hard=pods=1", "resource-quota", "leaves 1 pods"),
    "limits that are too low": (
        """kubectl -n {runs} apply -f - <<< '{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "low"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "768Mi"}}]}}'""",
        "limit-range",
        "max memory 768Mi",
    ),
    "retries that Argo ignores": (
        """kubectl -n {runs} patch configmap workflow-controller-configmap --type merge --patch
        '{"data": {"workflowDefaults": "spec: {templateDefaults: {retryStrategy: {limit: 2, retryPolicy: OnError}}}"}}'""".replace(
            "\n", " "
        ),
        "argo-retries",
        "OnError",
    ),
    "a minio root": (
        """kubectl -n {runs} patch configmap kfp-launcher --patch '{"data": {"defaultPipelineRoot": "minio://mlpipeline/root"}}'""",
        "pipeline-root",
        "minio://mlpipeline/root",
    ),
    "an image that cannot be pulled": (
        """kubectl -n {runs} run step --image=registry.invalid/x:1 --overrides='{"spec": {"serviceAccountName": "pipeline-runner"}}'
        kubectl -n {runs} patch pod step --subresource=status --patch '{"status": {"containerStatuses": [{"name": "step", "ready": false,
        "restartCount": 0, "imageID": "", "image": "registry.invalid/x:1", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}}'""",
        "images-pulled",
        "pod step waits for image registry.invalid/x:1",
    ),
    "another version than the ledger's": (
        "kubectl -n {ns} patch inferenceservice digits --type merge --patch "
        f"""'{{"spec": {{"predictor": {{"model": {{"storageUri": "s3://{BUCKET}/{OTHER}/"}}}}}}}}'""",
        "service-agrees-with-ledger",
        OTHER,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_and_mended_as_printed(mended: Ward, fault: str, real_kserve: bool) -> None:
    script, check, named = FAULTS[fault]
    if check == "pod-security" and real_kserve:
        pytest.skip("the storage initializer is the whole cluster's, and other tests deploy meanwhile")
    assert mended.unwell(check) == []
    mended.shell(script)
    mend_as_printed(mended, check, named)


def mend_as_printed(ward: Ward, check: str, named: str) -> None:
    for _ in range(3):  # what is mended can show what it hid
        found = ward.unwell(check)
        if not found:
            break
        ward.shell("\n".join(commands(found[0].mend)))
        assert named in found[0].saw
        named = ""
    assert ward.unwell(check) == []


def test_a_namespace_that_is_missing_is_made_as_printed(ward: Ward) -> None:
    assert ward.unwell("namespaces-exist") == []
    ward.shell("kubectl delete namespace {ns}")
    mend_as_printed(ward, "namespaces-exist", "does not exist")


NAMED: dict[str, tuple[str, str, str]] = {
    # what no command alone mends
    "an autoscaler without metrics": (
        """kubectl -n {ns} apply -f - <<< '{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "digits"}, "spec": {"maxReplicas": 2,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits-predictor"}}}'""",
        "autoscaler-without-metrics",
        "digits: an autoscaler, and no metrics server",
    ),
    "policies that nothing enforces": (
        "kubectl kustomize manifests/base | sed 's/namespace: penstock$/namespace: {ns}/' | kubectl apply -f -",
        "network-policies-enforced",
        "NetworkPolicies (penstock-predictor)",
    ),
    "a service in another mode": (
        """kubectl -n {ns} delete inferenceservice digits
        kubectl -n {ns} apply -f - <<< '{"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
        "metadata": {"name": "digits", "annotations": {"serving.kserve.io/deploymentMode": "Knative"}},
        "spec": {"predictor": {"model": {"modelFormat": {"name": "penstock"}}}}}'""",
        "deployment-mode",
        "digits runs in mode Knative, Standard is asked for",
    ),
}


@pytest.mark.parametrize("fault", NAMED)
def test_a_fault_that_needs_a_decision_is_named(ward: Ward, fault: str) -> None:
    script, check, named = NAMED[fault]
    assert ward.unwell(check) == []
    ward.shell(script)
    (it,) = ward.unwell(check)
    assert named in it.saw
    assert it.mend


def test_the_admission_policy_is_looked_for_and_must_let_through_what_is_deployed(ward: Ward) -> None:
    states = []
    try:
        while found := ward.unwell("deployer-policy"):
            states.append(found[0].state)
            assert len(states) < 5, found[0]
            ward.shell("\n".join(commands(found[0].mend)))
    finally:
        ward.shell("kubectl delete -f manifests/components/deployer-policy/policy.yaml")
    assert states == [State.WARNING, State.WARNING, State.BROKEN], "no policy, no label, no store"


def test_a_deployment_is_refused_before_anything_is_changed(ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig_of(ward.api, ward.runs, "pipeline-runner", tmp_path)))
    settings = KServeSettings(namespace=ward.namespace)
    assert "checks passed" in refuse_what_breaks(settings, "digits")
    ward.shell(FAULTS["one right less"][0])
    with pytest.raises(RolloutError, match=f"{ward.runs}:pipeline-runner may not patch inferenceservices in namespace {ward.namespace}"):
        refuse_what_breaks(settings, "digits")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert "was not examined" in refuse_what_breaks(settings, "digits")


def commands(mend: str) -> list[str]:
    """What a person runs of the remedy: its commands, with values in place of "…"."""
    if "EOF" in mend:
        return [mend]
    return [line.replace("…", "value") for line in mend.split("\n") if line.startswith("kubectl")]


def test_doctor_changes_nothing(ward: Ward) -> None:
    before = ward.versions()
    ward.doctor()
    assert ward.versions() == before


def test_doctor_writes_to_the_store_only_when_told(ward: Ward) -> None:
    store = open_store(ward.store)
    before = [it.key for it in store.list()]
    (quiet,) = [it for it in ward.doctor()[1] if it["check"] == "store-usable"]
    (written,) = [it for it in ward.doctor("--write")[1] if it["check"] == "store-usable"]
    assert ("writing was not tried" in quiet["saw"], "written and deleted from" in written["saw"]) == (True, True)
    assert [it.key for it in store.list()] == before


def test_a_missing_bucket_is_named(ward: Ward) -> None:
    ward.store = "s3://no-such-bucket-of-ours/x"
    (it,) = ward.unwell("store-usable")
    assert "no-such-bucket-of-ours" in it.saw
    assert ward.doctor()[0] == 1


def test_an_account_with_few_rights_says_what_it_could_not_see(ward: Ward, tmp_path: Path) -> None:
    ward.shell("kubectl -n {ns} create serviceaccount viewer")
    ward.shell("kubectl -n {ns} create rolebinding viewer --clusterrole=view --serviceaccount={ns}:viewer")
    kubeconfig = str(kubeconfig_of(ward.api, ward.namespace, "viewer", tmp_path))
    before = ward.versions()
    _, results = ward.doctor(kubeconfig=kubeconfig)
    assert ward.versions() == before
    state = {it["check"]: it["state"] for it in results}
    unseen = {it["check"]: it["saw"] for it in results if it["state"] == "not seen"}
    assert state["kubernetes-version"] == state["namespaces-exist"] == "ok"
    assert 'cannot get resource "secrets"' in unseen["storage-secret"]
    assert 'cannot create resource "subjectaccessreviews"' in unseen["deploy-rights"]
    assert 'cannot list resource "nodes"' in unseen["gpu-nodes"]


def test_without_a_cluster_it_says_so(ward: Ward, tmp_path: Path) -> None:
    environment: dict[str, Any] = os.environ | {"KUBECONFIG": str(tmp_path / "none")}
    done = subprocess.run(DOCTOR, capture_output=True, text=True, check=False, env=environment, timeout=300)
    assert (done.returncode, json.loads(done.stdout)["exit_code"]) == (2, 2)
    assert "KUBECONFIG" in done.stderr
