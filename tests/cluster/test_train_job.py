"""A TrainJob on a real API server, with the schemas of Kubeflow Trainer and the rights of the step; the test writes the statuses."""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.classifier.errors import TrainingError
from components.settings.resources import Resources
from components.settings.training import TrainingSettings
from components.train.nodes import NodeWork, job_request
from components.train.train_job import run_job
from tests.cluster.account import bound_account, define
from tests.cluster.api import Api
from tests.cluster.place import ROOT

TRAINER = "/apis/trainer.kubeflow.org/v1alpha1"
MANIFESTS = ROOT / "manifests" / "components" / "trainer"
WORK = NodeWork(dataset="s3://b/datasets/1", store="s3://b", result=f"trainings/{secrets.token_hex(6)}", settings=TrainingSettings())
REQUEST = job_request(WORK, Resources(nodes=2, node_selector={"penstock.test/none": "there"}), "penstock-pipeline:1")


@pytest.fixture
def namespace(administrator: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A namespace with the component's manifests, whose account `steps` has the Role and nothing else."""
    for kind in ("trainjobs", "trainingruntimes"):
        define(administrator, kind, f"{TRAINER}/{kind}")
    name = f"penstock-nodes-{secrets.token_hex(3)}"
    administrator.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    administrator.ask("POST", f"{TRAINER}/namespaces/{name}/trainingruntimes", yaml.safe_load((MANIFESTS / "runtime.yaml").read_text()))
    bound_account(administrator, name, MANIFESTS / "role.yaml", tmp_path / "kubeconfig")
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    yield name
    administrator.ask("DELETE", f"/api/v1/namespaces/{name}")


def ended(api: Api, namespace: str, state: str) -> tuple[list[str], dict[str, Any], BaseException | None]:
    """Run the job until the status that the controller would write; returns what was shown, the job as it was kept, and the error."""
    path, shown, errors = f"{TRAINER}/namespaces/{namespace}/trainjobs/{REQUEST.name}", list[str](), list[BaseException]()

    def step() -> None:
        try:
            run_job(REQUEST, shown.append, seconds=0.2)
        except TrainingError as error:
            errors.append(error)

    thread = threading.Thread(target=step)
    thread.start()
    end = time.monotonic() + 60
    while not (job := api.find(path)) or len(shown) < 2:
        assert thread.is_alive(), errors
        assert time.monotonic() < end, "the job was not made and followed"
        time.sleep(0.1)
    met = {"type": state, "status": "True", "reason": "Test", "message": "by the test", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    api.merge(f"{path}/status", {"status": {"conditions": [met]}})
    thread.join(60)
    assert not thread.is_alive()
    assert api.find(path) is None, "it is deleted"
    return shown, job, errors[0] if errors else None


def test_a_job_is_made_followed_to_its_end_and_deleted(administrator: Api, namespace: str) -> None:
    shown, job, error = ended(administrator, namespace, "Complete")
    assert error is None
    assert (job["spec"]["trainer"]["numNodes"], job["spec"]["runtimeRef"]["kind"]) == (2, "TrainingRuntime")
    assert "penstock.test/none" in json.dumps(job["spec"]["runtimePatches"])
    assert any("Created" in line for line in shown)
    assert any("Complete" in line for line in shown)


def test_a_job_that_failed_is_an_error_and_deleted_too(administrator: Api, namespace: str) -> None:
    _, _, error = ended(administrator, namespace, "Failed")
    assert str(error).startswith(f"TrainJob {REQUEST.name} failed")
