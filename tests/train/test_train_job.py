"""The TrainJob that Kubeflow's SDK sends, against the schema of Kubeflow Trainer, and what the step does with the API server's answers."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.classifier.errors import TrainingError
from components.settings.resources import Resources
from components.settings.training import TrainingSettings
from components.train import train_job
from components.train.nodes import JobRequest, NodeWork, job_request
from components.train.train_job import RUNTIME, run_job
from tests.api_server import api_server
from tests.manifests.building import MANIFESTS
from tests.manifests.schemas import problems

RUNTIME_OBJECT = yaml.safe_load((MANIFESTS / "components" / "trainer" / "runtime.yaml").read_text())
SETTINGS = TrainingSettings(gpus="2")
WORK = NodeWork(dataset="s3://b/datasets/1", store="s3://b", result="trainings/abc", settings=SETTINGS)
REQUEST = job_request(WORK, Resources(nodes=2, node_selector={"disk": "ssd"}), "penstock-pipeline:1")


@dataclass
class Trainer:
    """What an API server with Kubeflow Trainer holds, of one namespace; the states of the job follow one another at each look."""

    states: list[str] = field(default_factory=list)
    logs: dict[str, str] = field(default_factory=dict)
    job: dict[str, Any] | None = None
    posted: list[dict[str, Any]] = field(default_factory=list)
    container: dict[str, Any] = field(default_factory=dict)
    """The state of the pods' containers, where it is not running."""
    events: list[dict[str, Any]] = field(default_factory=list)
    runtime: bool = True
    looked: threading.Event = field(default_factory=threading.Event)

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        path = path.split("?")[0]
        if path.endswith(f"/trainingruntimes/{RUNTIME}") and self.runtime:
            return 200, RUNTIME_OBJECT
        if path.endswith("/trainjobs") and method == "POST":
            if self.job:
                return 409, {"reason": "AlreadyExists"}
            self.posted.append(body)
            self.job = body
            return 201, body
        if "/trainjobs/" in path and self.job:
            if method == "DELETE":
                self.job = None
                return 200, {}
            self.looked.set()
            state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
            met = [{"type": state, "status": "True", "reason": "r", "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]
            meta = {**self.job["metadata"], "namespace": "runs", "creationTimestamp": "2026-01-01T00:00:00Z"}
            return 200, {**self.job, "metadata": meta, "status": {"conditions": met} if state in {"Complete", "Failed"} else {}}
        if path.endswith("/pods"):
            return 200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [self.pod(name) for name in self.logs]}
        if path.endswith("/events"):
            return 200, {"items": self.events}
        if (found := re.search(r"/pods/([^/]+)/log", path)) is not None:
            return 200, self.logs[found[1]]
        return 404, {"kind": "Status", "reason": "NotFound"}

    def pod(self, name: str) -> dict[str, Any]:
        labels = {"jobset.sigs.k8s.io/replicatedjob-name": "node", "batch.kubernetes.io/job-completion-index": name[-1]}
        phase = "Failed" if self.states[0] == "Failed" else "Running"
        spec = {"containers": [{"name": "node", "image": "i", "resources": {}}]}
        status: dict[str, Any] = {"phase": "Pending" if "waiting" in self.container else phase}
        if self.container:
            told = {"name": "node", "image": "i", "imageID": "", "ready": False, "restartCount": 0}
            status["containerStatuses"] = [{**told, "state": self.container}]
        return {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trainer]:
    held = Trainer()
    with api_server(held.answer, tmp_path, monkeypatch):
        yield held


def said(request: JobRequest = REQUEST) -> list[str]:
    lines: list[str] = []
    run_job(request, lines.append, seconds=0.01)
    return lines


def test_the_job_is_one_that_the_trainer_takes_and_is_deleted_when_it_is_complete(trainer: Trainer) -> None:
    trainer.states, trainer.logs = ["Running", "Complete"], {"abc-node-0-0": "epoch 1\nepoch 2\n", "abc-node-0-1": ""}
    lines = said()
    (job,) = trainer.posted
    assert problems(job) == []
    assert job["spec"]["runtimeRef"] == {"kind": "TrainingRuntime", "name": RUNTIME}
    node = job["spec"]["trainer"]
    assert (node["numNodes"], node["image"], node["command"][-1]) == (2, "penstock-pipeline:1", "components.train.on_node")
    assert node["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "2"
    assert '"nodeSelector": {"disk": "ssd"}' in json.dumps(job["spec"]["runtimePatches"])
    assert lines.count("epoch 1") == lines.count("epoch 2") == 1
    assert trainer.job is None


def test_a_failed_node_is_told_by_its_own_error_and_the_job_is_deleted(trainer: Trainer) -> None:
    trainer.states, trainer.logs = ["Failed"], {"abc-node-0-0": "epoch 1\n", "abc-node-0-1": "error: the loss is NaN; lower it\n"}
    with pytest.raises(TrainingError, match=r"^node-1 of TrainJob penstock-abc failed: the loss is NaN; lower it$"):
        said()
    assert trainer.job is None


def test_a_job_that_is_there_from_before_the_step_was_lost_is_followed(trainer: Trainer) -> None:
    trainer.states = ["Complete"]
    trainer.job = {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": REQUEST.name}}
    trainer.job["spec"] = {"runtimeRef": {"name": RUNTIME}}
    said()
    assert trainer.posted == []
    assert trainer.job is None


def test_a_node_that_was_ended_for_its_memory_is_told_so(trainer: Trainer) -> None:
    trainer.states, trainer.logs = ["Failed"], {"abc-node-0-0": ""}
    trainer.container = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    with pytest.raises(TrainingError, match=r"node-0 of TrainJob penstock-abc was ended for its memory \(OOMKilled\)"):
        said()


def test_pods_that_a_quota_refuses_are_told_with_the_reason_once(trainer: Trainer) -> None:
    trainer.states = ["Running", "Running", "Running", "Complete"]
    about = {"kind": "Job", "name": f"{REQUEST.name}-node-0"}
    for number in (1, 2):
        refused = f'Error creating: pods "{REQUEST.name}-node-0-0-ab2c{number}" is forbidden: exceeded quota: small, requested: cpu=2'
        trainer.events.append({"type": "Warning", "involvedObject": about, "message": refused, "lastTimestamp": f"2026-01-0{number}"})
    trainer.events.append({"type": "Warning", "involvedObject": {"kind": "Job", "name": "another"}, "message": "no"})
    waited = [line for line in said() if "no pods yet" in line]
    assert [line.partition("; ")[2] for line in waited if "Created" in line] == [
        "no pods yet: Error creating: pods is forbidden: exceeded quota: small, requested: cpu=2"
    ]


def test_an_image_that_is_not_there_ends_the_step_with_its_name(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_job, "STUCK_SECONDS", 0.05)
    trainer.states, trainer.logs = ["Running"], {"abc-node-0-0": "", "abc-node-0-1": ""}
    trainer.container = {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}
    with pytest.raises(TrainingError, match=r"does not start: node-0: ImagePullBackOff Back-off pulling image; .*penstock-pipeline:1"):
        said()
    assert trainer.job is None


def test_without_the_runtime_the_step_says_what_to_apply(trainer: Trainer) -> None:
    trainer.runtime = False
    with pytest.raises(TrainingError, match="apply manifests/components/trainer"):
        said()


def test_a_step_that_is_stopped_deletes_its_job(trainer: Trainer) -> None:
    trainer.states = ["Running"]
    program = (
        "from components.classifier.stopping import stoppable\nfrom tests.train.test_train_job import REQUEST, run_job\n"
        "with stoppable():\n    run_job(REQUEST, seconds=0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=MANIFESTS.parent) as step:
        assert trainer.looked.wait(60)
        step.send_signal(signal.SIGTERM)
        assert step.wait(60) == 128 + signal.SIGTERM
    assert trainer.job is None
