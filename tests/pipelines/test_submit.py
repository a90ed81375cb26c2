"""Submitting, against a small server that answers as the Kubeflow Pipelines API does."""

import re
from pathlib import Path

import pytest

from components.classifier.errors import UsageError
from pipelines.submit import Server, SubmissionFailed, submit, watch
from tests.pipelines.kubeflow_api import Kubeflow
from tests.pipelines.kubeflow_api import kubeflow as kubeflow

pytestmark = pytest.mark.filterwarnings("ignore")


def test_a_pod_shows_the_token_that_is_projected_for_it(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("projected\n")
    monkeypatch.setenv("KF_PIPELINES_SA_TOKEN_PATH", str(tmp_path / "token"))
    submit("scoring", {}, Server(kubeflow.url), experiment="penstock")
    assert set(kubeflow.tokens) == {"Bearer projected"}
    kubeflow.tokens.clear()
    submit("scoring", {}, Server(kubeflow.url, token="own"), experiment="penstock")
    assert set(kubeflow.tokens) == {"Bearer own"}


def test_a_run_is_created_with_its_arguments_and_token(kubeflow: Kubeflow) -> None:
    sent = submit("training", {"epochs": 3, "name": "pets"}, Server(kubeflow.url, token="secret"), experiment="penstock")
    (run,) = kubeflow.runs
    assert run["runtime_config"]["parameters"] == {"epochs": 3, "name": "pets"}
    assert re.fullmatch(r"training-pets \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", run["display_name"])
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "penstock-training"
    assert "Bearer secret" in kubeflow.tokens
    assert sent.url.startswith(kubeflow.url)
    assert sent.run_id == "r-1"


def test_kubeflows_mlflow_plugin_is_told_the_experiment_and_tells_the_runs_page(kubeflow: Kubeflow) -> None:
    sent = submit("training", {}, Server(kubeflow.url), experiment="penstock", mlflow="pets")
    assert kubeflow.runs[-1]["plugins_input"] == {"mlflow": {"experiment_name": "pets"}}
    assert sent.mlflow == "http://mlflow/pets"
    sent = submit("training", {}, Server(kubeflow.url), experiment="penstock", mlflow="none")
    assert kubeflow.runs[-1]["plugins_input"] == {"mlflow": {"disabled": True}}
    assert sent.mlflow == ""
    submit("training", {}, Server(kubeflow.url), experiment="penstock")
    assert "plugins_input" not in kubeflow.runs[-1]


def test_a_refusal_names_what_to_set(kubeflow: Kubeflow) -> None:
    kubeflow.refuse_with = 403
    with pytest.raises(SubmissionFailed, match=r"403 .*--token"):
        submit("training", {}, Server(kubeflow.url), experiment="penstock")


def test_nobody_there_is_said_in_one_line() -> None:
    with pytest.raises(SubmissionFailed, match="cannot be reached"):
        submit("training", {}, Server("http://127.0.0.1:9"), experiment="penstock")


def test_a_host_without_scheme_is_refused() -> None:
    with pytest.raises(UsageError, match=r"https://"):
        submit("training", {}, Server("kubeflow.example"), experiment="penstock")


def test_a_server_that_names_no_run_is_an_error(kubeflow: Kubeflow) -> None:
    kubeflow.run_id = ""
    with pytest.raises(SubmissionFailed, match="named no ID"):
        submit("training", {}, Server(kubeflow.url), experiment="penstock")


def test_a_run_is_followed_to_its_end_and_each_change_of_a_step_is_told_once(kubeflow: Kubeflow) -> None:
    kubeflow.states = [
        ("PENDING", {}),
        # as Kubeflow Pipelines 2.17 names what it lists
        (
            "RUNNING",
            {"penstock-training-7z59s": "RUNNING", "root": "RUNNING", "root(0)": "RUNNING", "ingest-dataset-driver(0)": "SUCCEEDED"},
        ),
        ("RUNNING", {"ingest-dataset": "RUNNING", "ingest-dataset(0)": "RUNNING", "executor": "RUNNING", "executor(0)": "PENDING"}),
        ("RUNNING", {"ingest-dataset": "RUNNING", "exit-handler-1": "RUNNING", "condition-branches-2-driver": "PENDING"}),
        ("SUCCEEDED", {"ingest-dataset": "SUCCEEDED"}),
    ]
    told: list[tuple[str, str]] = []
    watch("training", "r-1", Server(kubeflow.url), lambda step, state: told.append((step, state)), seconds=0)
    assert told == [("ingest-dataset", "running"), ("ingest-dataset", "succeeded")]
    assert kubeflow.states == []


def test_a_followed_run_that_fails_is_an_error_with_its_address(kubeflow: Kubeflow) -> None:
    kubeflow.states = [("FAILED", {"train": "FAILED"})]
    with pytest.raises(SubmissionFailed, match=f"ended as failed.*{kubeflow.url}/#/runs/details/r-1"):
        watch("training", "r-1", Server(kubeflow.url), lambda step, state: None, seconds=0)
