"""A training on several nodes: what is asked of the cluster, what its statuses say, and two nodes that train as one does."""

import json
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from safetensors.numpy import load_file

from components.bundle import files
from components.bundle.dataset import Dataset
from components.classifier.errors import ObjectNotFound, UsageError
from components.registry import kept_dataset
from components.settings.resources import Resources
from components.settings.training import TrainingSettings
from components.storage import open_store
from components.train.distributed import Nodes
from components.train.nodes import (
    INDEX_LABEL,
    WORK,
    NodeWork,
    Waiting,
    cause,
    has_result,
    job_request,
    put_result,
    status_line,
    take_result,
    waiting_for,
    without_memory,
    work_of,
)
from components.train.training import TrainingResult, train
from tests.train.together import without_export

WORKED = NodeWork(dataset="s3://b/datasets/1", store="s3://b", result="trainings/abc", settings=TrainingSettings(gpus="2"))


def test_the_job_asks_for_each_node_what_the_run_asks_for() -> None:
    asked = Resources(nodes=3, cpu="4", memory="8Gi", gpu_resource="amd.com/gpu", node_selector={"disk": "ssd"})
    job = job_request(WORKED, asked, "penstock-pipeline:1")
    assert (job.name, job.image, job.nodes, job.node_selector) == ("penstock-abc", "penstock-pipeline:1", 3, {"disk": "ssd"})
    assert job.resources == {"cpu": "4", "memory": "8Gi", "amd.com/gpu": "2"}
    assert NodeWork.model_validate_json(job.environment[WORK]) == WORKED


def test_no_gpu_is_asked_for_where_the_run_has_none() -> None:
    work = WORKED.model_copy(update={"settings": TrainingSettings()})
    assert job_request(work, Resources(nodes=2), "i").resources == {"cpu": "2", "memory": "4Gi"}


def test_a_step_that_only_follows_holds_no_gpu_and_may_run_on_any_node() -> None:
    asked = {"cpu": "8", "memory": "32Gi", "node_selector": {"gpu": "l4"}}
    own, following = Resources(**asked).of_step("4"), Resources(**asked, nodes=2).of_step("4")  # type: ignore[arg-type]
    assert (own.gpus, own.cpu, own.node_selector) == ("4", "8", {"gpu": "l4"})
    assert (following.gpus, following.cpu, following.memory_limit, following.node_selector) == ("0", "100m", "2Gi", {})


def test_batches_too_small_for_all_processes_are_refused_with_the_size_that_does() -> None:
    work = WORKED.model_copy(update={"settings": TrainingSettings(gpus="2", batch_size=10)})
    with pytest.raises(UsageError, match="set batch_size=12 or more"):
        job_request(work, Resources(nodes=3), "i")


def test_a_dataset_that_is_not_kept_is_refused_with_the_remedy(digits_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="set keep_dataset=true"):
        work_of(digits_dataset.info, TrainingSettings(), open_store(str(tmp_path)), "run")


def test_a_step_that_starts_again_in_its_run_finds_its_job_and_other_runs_do_not(digits_dataset: Dataset, tmp_path: Path) -> None:
    store, info = open_store(str(tmp_path)), digits_dataset.info
    kept_dataset.keep(digits_dataset.path, info, str(tmp_path))
    names = [
        work_of(info, TrainingSettings(seed=seed), store, run).result
        for seed, run in ((0, "a"), (0, "a"), (1, "a"), (0, "b"), (0, ""), (0, ""))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 5


def test_statuses_name_the_pods_or_what_they_wait_for() -> None:
    assert status_line("Running", {"node-1": "Pending", "node-0": "Running"}) == "Running; node-0 Running, node-1 Pending"
    assert "controller of Kubeflow Trainer" in status_line("Created", {})
    assert status_line("Failed", {}) == "Failed; no pods are left"


def test_why_nodes_do_not_run_is_told_by_their_pods_or_by_who_makes_them() -> None:
    full = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}
    pods = [{"metadata": {"labels": {INDEX_LABEL: "1"}}, "status": {"conditions": [full]}}]
    made = datetime(2026, 1, 2, 3, 4, 5, 600_000, UTC)
    assert waiting_for("j", 2, made, pods, []) == Waiting("node-1: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    starting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    assert waiting_for("j", 1, made, [{"metadata": {"labels": {}}, "status": {"containerStatuses": [starting]}}], []) == Waiting()
    refused = {"type": "Warning", "involvedObject": {"name": "j"}, "message": "TrainJob resources reconciliation failed: no"}
    assert waiting_for("j", 2, made, [], [{**refused, "eventTime": "2026-01-02T03:04:05.700000Z"}]).reason.endswith("failed: no")
    assert waiting_for("j", 2, made, [], [{**refused, "lastTimestamp": "2026-01-02T03:04:04Z"}]) == Waiting(), "of the job before"
    assert "no room" in status_line("Created", {"node-0": "Pending"}, "no room")


def test_the_node_that_failed_is_told_and_not_those_that_lost_it() -> None:
    lost = ["epoch 1", "error: process 0 of 2 ended with exit code 1; what it printed is above"]
    assert cause("j", {"node-0": lost, "node-1": ["error: the loss is NaN; lower learning_rate", ""]}) == (
        "node-1 of TrainJob j failed: the loss is NaN; lower learning_rate"
    )
    assert cause("j", {"node-0": lost}).startswith("node-0 of TrainJob j failed: process 0 of 2")
    assert cause("j", {"node-0": ["Killed"]}) == "node-0 of TrainJob j failed: Killed"
    assert "kubectl describe pods" in cause("j", {"node-0": []})
    assert "goes on from the last checkpoint" in cause("j", {}), "Kubernetes deletes the pods of a Job of which one was deleted"


def test_a_node_whose_memory_was_full_is_told_with_the_setting_to_change() -> None:
    killed = {"state": {"terminated": {"reason": "OOMKilled", "exitCode": 137}}}
    pods = [{"metadata": {"labels": {INDEX_LABEL: "1"}}, "status": {"containerStatuses": [killed]}}]
    assert without_memory(pods) == ["node-1"]
    lost = "error: process 0 of 2 ended with exit code 1; what it printed is above"
    assert cause("j", {"node-0": [lost], "node-1": []}, ["node-1"]).startswith(
        "node-1 of TrainJob j was ended for its memory (OOMKilled); raise"
    )
    assert "NaN" in cause("j", {"node-0": ["error: the loss is NaN"]}, ["node-1"])


def test_a_result_is_there_when_it_is_whole_and_gone_when_it_was_taken(tmp_path: Path) -> None:
    store, made = open_store(str(tmp_path / "store")), tmp_path / "made"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "a").write_text("A")
    store.upload(made / "sub" / "a", "trainings/k/sub/a")
    assert not has_result(store, "trainings/k")
    with pytest.raises(ObjectNotFound):
        take_result(store, "trainings/k", tmp_path / "model")
    put_result(store, "trainings/k", made, b"{}")
    assert take_result(store, "trainings/k", tmp_path / "model") == b"{}"
    assert (tmp_path / "model" / "sub" / "a").read_text() == "A"
    assert list(store.list("trainings/")) == []


@pytest.mark.parametrize("missing", ["PET_NNODES", "PET_MASTER_PORT"])
def test_a_node_that_the_trainer_did_not_start_says_which_variable_is_missing(missing: str) -> None:
    variables = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "a", "PET_MASTER_PORT": "29400"}
    assert Nodes.read(variables) == Nodes(2, 1, "a:29400")
    del variables[missing]
    with pytest.raises(UsageError, match=missing):
        Nodes.read(variables)


def free_port() -> int:
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return int(it.getsockname()[1])


def start_nodes(work: NodeWork) -> list[subprocess.Popen[str]]:
    """Two nodes as Kubeflow Trainer starts them: what differs is the rank."""
    port = str(free_port())
    given = {
        WORK: work.model_dump_json(),
        "PET_NNODES": "2",
        "PET_NPROC_PER_NODE": "2",
        "PET_MASTER_ADDR": "127.0.0.1",
        "PET_MASTER_PORT": port,
    }
    command = [sys.executable, "-m", "components.train.on_node"]
    return [
        subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", **given, "PET_NODE_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_two_nodes_end_with_the_weights_of_one(digits_dataset: Dataset, tmp_path: Path) -> None:
    options = TrainingSettings.read(
        {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05, "batch_size": 95, "augmentation": "none", "precision": "float32"},
        name="digits",
        device="cpu",
        architecture="tests.train.flat:two_layers",
    )
    store = tmp_path / "store"
    kept_dataset.keep(digits_dataset.path, digits_dataset.info, str(store))
    work = work_of(digits_dataset.info, options, open_store(str(store)), "run")
    nodes = start_nodes(work)
    said = [node.communicate()[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    assert "2 x " in said[0]
    assert "of torch" in said[0], "the model was exported and compared"
    assert "epoch" not in said[1], "one node prints"
    together = TypeAdapter(TrainingResult).validate_json(take_result(open_store(str(store)), work.result, tmp_path / "two"))
    with without_export():
        alone = train(digits_dataset.path, tmp_path / "one", options)
    assert together.validation_accuracy == pytest.approx(alone.validation_accuracy, abs=0.01)
    one, two = (load_file(tmp_path / it / files.WEIGHTS) for it in ("one", "two"))
    assert one.keys() == two.keys()
    for name, weights in one.items():
        np.testing.assert_allclose(two[name], weights, atol=1e-4)


@pytest.mark.integration
def test_a_node_that_cannot_read_the_dataset_ends_with_one_line(tmp_path: Path) -> None:
    work = WORKED.model_copy(update={"dataset": f"{tmp_path}/datasets/{'0' * 64}", "store": str(tmp_path)})
    given = {WORK: work.model_dump_json(), "PET_NNODES": "2", "PET_NODE_RANK": "0", "PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": "1"}
    ran = subprocess.run(
        [sys.executable, "-m", "components.train.on_node"], env={**os.environ, **given}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("error: there is no complete dataset version")
    assert json.loads(work.model_dump_json())["dataset"] in ran.stderr
