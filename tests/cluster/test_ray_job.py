"""A RayJob on a real API server, with KubeRay's schema and the rights of the steps; a stand-in for its operator runs the entrypoint.

CLUSTER_TESTS_RAY_IMAGE: the pipeline's image with the extra `ray`, as the nodes have it, for a cluster in which KubeRay itself runs.
"""

import copy
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from components.classifier.errors import EvaluationError, UsageError
from components.score.kuberay import require_kuberay, score_by_ray_job
from components.score.merge import merge
from components.score.plan import Plan
from components.score.shard import score_shard
from components.settings.resources import POD, POD_NAMESPACE
from components.storage import open_store
from tests.cluster.account import bound_account, define
from tests.cluster.api import Api
from tests.cluster.place import ROOT, this_machine
from tests.score import cases
from tests.score.conftest import Model, plan_of, publish
from tests.score.ray_operator import STEP, run_entrypoint
from tests.storage.servers import BUCKET, Server

RAY = "/apis/ray.io/v1"
ROLE = ROOT / "manifests" / "components" / "ray" / "role.yaml"
IMAGE = os.environ.get("CLUSTER_TESTS_RAY_IMAGE", "")
RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


@pytest.fixture
def namespace(administrator: Api, s3: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace whose account `steps` has the component's Role and nothing else, with the pod of a step in it, and a store."""
    define(administrator, "rayjobs", f"{RAY}/rayjobs")
    name = f"penstock-ray-{secrets.token_hex(3)}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    administrator.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
    bound_account(administrator, name, ROLE, tmp_path / "kubeconfig")
    keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
    administrator.ask("POST", f"/api/v1/namespaces/{name}/secrets", {"metadata": {"name": "penstock-s3"}, "stringData": keys})
    address = {"AWS_ENDPOINT_URL": f"http://{this_machine(administrator)}:{urlsplit(s3.endpoint).port}"}
    administrator.ask("POST", f"/api/v1/namespaces/{name}/configmaps", {"metadata": {"name": "penstock-storage"}, "data": address})
    administrator.ask("POST", f"/api/v1/namespaces/{name}/pods", step_pod())
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv(POD, "score-1")
    monkeypatch.setenv(POD_NAMESPACE, name)
    for key, value in s3.environment.items():
        monkeypatch.setenv(key, value)
    yield name
    administrator.ask("DELETE", f"/api/v1/namespaces/{name}")


def step_pod() -> dict[str, Any]:
    """The pod of a step, which need not run: no scheduler of that name does."""
    pod: dict[str, Any] = copy.deepcopy(STEP)
    pod["metadata"] = {"name": "score-1"}
    secure = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod["spec"] |= {"schedulerName": "none", "nodeSelector": {"kubernetes.io/os": "linux"}, "securityContext": secure}
    for container in pod["spec"]["containers"]:
        container["securityContext"] = RESTRICTED
    pod["spec"]["containers"][1]["image"] = IMAGE or pod["spec"]["containers"][1]["image"]
    return pod


@dataclass
class Operator:
    """What became of the RayJobs of a namespace."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)


@contextmanager
def operator(api: Api, namespace: str) -> Iterator[Operator]:
    """Note each new RayJob, and where KubeRay's operator is not there bring it to its end, and write its statuses."""
    path, seen, end = f"{RAY}/namespaces/{namespace}/rayjobs", Operator(), threading.Event()

    def work() -> None:
        try:
            while not end.wait(0.2):
                for job in (api.find(path) or {"items": []})["items"]:
                    if job["metadata"]["uid"] in {it["metadata"]["uid"] for it in seen.jobs}:
                        continue
                    seen.jobs.append(job)
                    if IMAGE:
                        continue
                    own = f"{path}/{job['metadata']['name']}/status"
                    api.merge(own, {"status": {"jobDeploymentStatus": "Initializing", "rayClusterName": "c"}})
                    time.sleep(1)
                    api.merge(own, {"status": {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}})
                    api.merge(own, {"status": run_entrypoint(job)[0]})
        except BaseException as error:  # told by the test
            seen.errors.append(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join(120)


@pytest.fixture
def planned(namespace: str, tiny_bundle: Path, tmp_path: Path) -> tuple[Model, Plan, Path]:
    """A model in S3, a plan by a RayJob whose pieces go to S3, and the pictures."""
    model = publish(tiny_bundle, f"s3://{BUCKET}/{namespace}/store")
    pictures = cases.folder(tmp_path / "in", 25)
    cases.put(pictures / "cut.png", cases.png(0)[:40])
    store, source = open_store(f"s3://{BUCKET}/{namespace}/in"), f"s3://{BUCKET}/{namespace}/in"
    for picture in sorted(pictures.iterdir()):
        store.upload(picture, picture.name)
    output = f"s3://{BUCKET}/{namespace}/ray"
    plan = plan_of(model, tmp_path / "plan", source, output, shards=1, engine="ray", ray_nodes=2, ray_cpu=1, ray_memory="2Gi", batch_size=4)
    return model, plan, pictures


def is_gone(api: Api, namespace: str, job: dict[str, Any]) -> bool:
    """Whether a RayJob goes, within a minute: KubeRay ends its work first."""
    end = time.monotonic() + 60
    while there := api.find(f"{RAY}/namespaces/{namespace}/rayjobs/{job['metadata']['name']}") is not None:
        if time.monotonic() > end:
            break
        time.sleep(0.2)
    return not there


def test_a_shard_is_scored_by_a_job_to_the_bytes_of_the_engine_on_one_machine(
    administrator: Api, namespace: str, planned: tuple[Model, Plan, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, plan, _ = planned
    require_kuberay()
    with operator(administrator, namespace) as seen:
        done = score_by_ray_job(plan, "0", "nvidia.com/gpu")
    assert seen.errors == []
    assert (done.scored, done.failed) == (26, 0)
    (job,) = seen.jobs
    assert job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] == 2
    assert job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["nodeSelector"] == {"kubernetes.io/os": "linux"}
    assert is_gone(administrator, namespace, job), "it is deleted"
    said = capsys.readouterr().out
    assert f"RayJob {job['metadata']['name']}: 2 pods of {step_pod()['spec']['containers'][1]['image']}" in said
    assert "Complete SUCCEEDED" in said
    local = plan_of(model, tmp_path / "plan-local", plan.input, f"s3://{BUCKET}/{namespace}/local", shards=1, batch_size=4)
    tables = {}
    for it, result in ((plan, done), (local, score_shard(local, "0"))):
        merge(it, [result.to_json()], tmp_path / f"predictions-{it.settings.engine}")
        tables[it.settings.engine] = open_store(it.output).read("predictions.parquet")
    assert tables["ray"] == tables["local"]


def test_an_error_of_the_scoring_is_the_step_s_and_the_job_is_deleted(
    administrator: Api, namespace: str, planned: tuple[Model, Plan, Path]
) -> None:
    _, plan, _ = planned
    lost = replace(plan, version="20260101-000000-000000000000")
    raw = json.loads((plan.folder / "plan.json").read_text())
    (plan.folder / "plan.json").write_text(json.dumps({**raw, "version": lost.version}))
    with (
        operator(administrator, namespace) as seen,
        pytest.raises(EvaluationError, match=r"^RayJob penstock-\w+ failed: .*20260101-000000"),
    ):
        score_by_ray_job(lost, "0", "nvidia.com/gpu")
    assert seen.errors == []
    assert is_gone(administrator, namespace, seen.jobs[0])


def test_an_account_without_the_role_is_told_what_to_apply(administrator: Api, namespace: str, planned: tuple[Model, Plan, Path]) -> None:
    administrator.ask("DELETE", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings/penstock-ray")
    with pytest.raises(UsageError, match=r"may not create rayjobs in namespace .*; apply manifests/components/ray"):
        require_kuberay()
    with pytest.raises(UsageError, match=r"own pod .* cannot be read .403 .*; apply manifests/components/ray"):
        score_by_ray_job(planned[1], "0", "nvidia.com/gpu")
    assert list(open_store(planned[1].store).list("scorings/")) == []
