"""MLflow's own store, by a folder in this process, or a server's where TEST_MLFLOW_SERVER names one."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

from mlflow import MlflowClient
from mlflow.entities import Run

from components.bundle.files import CARD, ONNX, REPORT
from components.bundle.training import Epoch
from components.deploy.conclusion import conclude
from components.deploy.request import DeployRequest
from components.deploy.step import deploy
from components.integrations.mlflow_run import listener
from components.integrations.observe import Event, Report
from components.integrations.steps import chosen
from components.publish.publishing import publish
from components.registry import Registry
from components.settings.training import TrainingSettings
from components.storage import open_store
from tests.registry import bundles

SERVER = os.environ.get("TEST_MLFLOW_SERVER", "")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MlflowClient:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", SERVER or f"file:{tmp_path / 'mlruns'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", tmp_path.as_posix())
    monkeypatch.setenv("PENSTOCK_RUN", f"run of {tmp_path.name}")
    return MlflowClient()


def runs(client: MlflowClient) -> list[Run]:
    experiment = client.get_experiment_by_name(os.environ["MLFLOW_EXPERIMENT_NAME"])
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def step(report: Report, state: Any = "COMPLETE", error: Exception | None = None) -> None:
    """Tell as a step does in a process of its own."""
    tell = listener()
    tell(Event("START", Report(report.step, report.model)))
    tell(Event(state, report, error))


EPOCHS = [Epoch(1, 0.9, 0.8, 0.7, 3e-3, 1.0), Epoch(2, 0.5, 0.4, 0.9, 1e-3, 1.0)]
TRAINED = Report("train", "digits", parameters={"epochs": 2}, metrics={"seconds": 2.0}, epochs=EPOCHS, tags={"device": "cpu"})


def test_steps_of_a_run_share_one_mlflow_run_with_curves_by_epoch(client: MlflowClient) -> None:
    step(TRAINED)
    step(Report("evaluate", "digits", metrics={"test_accuracy": 0.97}))
    (run,) = runs(client)
    assert (run.data.params, run.data.metrics["test_accuracy"], run.data.tags["penstock.device"]) == ({"epochs": "2"}, 0.97, "cpu")
    history = client.get_metric_history(run.info.run_id, "epoch_validation_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.7), (2, 0.9)]
    assert run.info.status == "RUNNING"


def test_steps_that_start_at_once_share_one_mlflow_run(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.create_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    search, all_have_looked = MlflowClient.search_runs, threading.Barrier(3)

    def looked(self: MlflowClient, *arguments: Any, **options: Any) -> Any:
        found = search(self, *arguments, **options)
        if not found:
            all_have_looked.wait(60)
        return found

    shards = [listener() for _ in range(3)]
    with monkeypatch.context() as slow, ThreadPoolExecutor(3) as pool:
        slow.setattr(MlflowClient, "search_runs", looked)
        list(pool.map(lambda tell: tell(Event("START", Report("score", "digits"))), shards))
    for shard, tell in enumerate(shards):  # in turn: MLflow's folder cannot be read while a metric is written, its server can
        tell(Event("COMPLETE", Report("score", "digits", metrics={f"rows_of_shard_{shard}": 10.0})))
    (run,) = runs(client)
    assert run.data.metrics == {f"rows_of_shard_{shard}": 10.0 for shard in range(3)}


def test_a_step_that_is_started_again_writes_nothing_twice_and_goes_on_where_a_longer_training_does(client: MlflowClient) -> None:
    step(TRAINED)
    step(TRAINED)
    step(Report("train", "digits", epochs=[*EPOCHS, Epoch(3, 0.4, None, None, 1e-4, 1.0)]))
    (run,) = runs(client)
    steps = {
        name: [metric.step for metric in client.get_metric_history(run.info.run_id, name)]
        for name in ("epoch_train_loss", "epoch_validation_loss", "seconds")
    }
    assert steps == {"epoch_train_loss": [1, 2, 3], "epoch_validation_loss": [1, 2], "seconds": [0]}


def test_the_curves_of_a_long_training_are_whole(client: MlflowClient) -> None:
    step(Report("train", "digits", epochs=[Epoch(number, 0.9, 0.8, 0.7, 3e-3, 1.0) for number in range(1, 301)]))
    (run,) = runs(client)
    for name in ("epoch_train_loss", "epoch_validation_loss", "epoch_validation_accuracy", "epoch_learning_rate"):
        assert [metric.step for metric in client.get_metric_history(run.info.run_id, name)] == list(range(1, 301)), name


def test_a_run_that_failed_says_at_which_step_and_is_reopened_when_it_goes_on(client: MlflowClient) -> None:
    step(TRAINED, "FAIL", ValueError("the loss diverged"))
    (run,) = runs(client)
    assert (run.info.status, run.data.tags["penstock.failed"]) == ("FAILED", "train: the loss diverged")
    step(TRAINED)
    assert [run.info.status for run in runs(client)] == ["RUNNING"]


def test_a_version_brings_its_card_its_model_and_its_digests_and_the_end_of_the_run_ends_it(client: MlflowClient, tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    bundle = bundles.evaluated(tmp_path / "bundle")
    step(Report("evaluate", "digits", files={REPORT: bundle / REPORT}))
    version = publish(bundle, bundle, store=store, name="digits", run="r")
    registry = Registry(open_store(store), "digits")
    request = DeployRequest(version, "manual", actor="ann", reason="a test", run="r")
    deploy(registry, request)
    conclude(registry, request, "COMPLETE")
    (run,) = runs(client)
    tags, manifest = run.data.tags, registry.get(version).manifest
    assert (tags["penstock.version"], tags["penstock.content_digest"]) == (version, manifest.content_digest)
    assert (tags["penstock.deployment"], run.info.status) == ("deployed", "FINISHED")
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {CARD, ONNX, REPORT}
    assert Path(client.download_artifacts(run.info.run_id, ONNX)).read_bytes() == (bundle / ONNX).read_bytes()


def test_where_kubeflows_plugin_started_a_run_for_the_step_its_parent_is_used_and_left_running(
    client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = client.create_experiment(os.environ["MLFLOW_EXPERIMENT_NAME"])
    parent = client.create_run(experiment)
    nested = client.create_run(experiment, tags={"mlflow.parentRunId": parent.info.run_id})
    monkeypatch.setenv("MLFLOW_RUN_ID", nested.info.run_id)
    step(TRAINED)
    step(Report("conclude", "digits", tags={"deployment": "deployed"}, run_ended="FINISHED"))
    told = client.get_run(parent.info.run_id)
    assert (told.data.params, told.data.tags["penstock.deployment"], told.info.status) == ({"epochs": "2"}, "deployed", "RUNNING")
    assert len(runs(client)) == 2


def test_parameters_are_the_main_ones_and_those_that_differ_from_their_defaults() -> None:
    assert chosen(TrainingSettings(name="digits", dropout=0.3)) == {
        "name": "digits",
        "architecture": "small_cnn",
        "pretrained": False,
        "epochs": "auto",
        "batch_size": 128,
        "learning_rate": 0.003,
        "optimizer": "adamw",
        "seed": 0,
        "dropout": 0.3,
    }
