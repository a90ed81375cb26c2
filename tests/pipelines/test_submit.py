"""Submitting, against a small server that answers as the Kubeflow Pipelines API does."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from components.classifier.errors import UsageError
from pipelines.submit import Server, SubmissionFailed, submit, watch

pytestmark = pytest.mark.filterwarnings("ignore")


class Kubeflow(ThreadingHTTPServer):
    """Keeps the runs that were created; `refuse_with` is the status it answers instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: list[dict[str, Any]] = []
        self.tokens: list[str | None] = []
        self.refuse_with = 0
        self.run_id = "r-1"
        self.states: list[tuple[str, dict[str, str]]] = []
        """What the run is at each look at it: its state and its steps'."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Kubeflow

    def answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.server.tokens.append(self.headers.get("authorization"))
        if self.server.refuse_with:
            self.answer({"error": "no access to namespace"}, self.server.refuse_with)
        elif self.path.endswith("/healthz"):
            self.answer({"multi_user": False})
        elif self.path.endswith("/runs/r-1"):
            state, steps = self.server.states.pop(0)
            tasks = [{"task_id": name, "display_name": name, "state": of} for name, of in steps.items()]
            self.answer({"run_id": "r-1", "state": state, "run_details": {"task_details": tasks}})
        else:
            self.answer({"experiments": [{"experiment_id": "e1", "display_name": "penstock", "namespace": ""}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith("/runs"):
            self.server.runs.append(body)
            self.answer({"run_id": self.server.run_id, "display_name": body.get("display_name", "")})
        else:
            self.answer({"experiment_id": "e1", "display_name": "penstock"})

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def kubeflow() -> Iterator[Kubeflow]:
    server = Kubeflow()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_is_created_with_its_arguments_and_token(kubeflow: Kubeflow) -> None:
    sent = submit("training", {"epochs": 3, "gpus": "1"}, Server(kubeflow.url, token="secret"), experiment="penstock")
    (run,) = kubeflow.runs
    assert run["runtime_config"]["parameters"] == {"epochs": 3, "gpus": "1"}
    assert run["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "penstock-training"
    assert "Bearer secret" in kubeflow.tokens
    assert sent.url.startswith(kubeflow.url)
    assert sent.run_id == "r-1"


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
        ("RUNNING", {"root": "RUNNING", "ingest-driver": "SUCCEEDED", "ingest": "RUNNING"}),
        ("RUNNING", {"ingest": "RUNNING"}),
        ("SUCCEEDED", {"ingest": "SUCCEEDED"}),
    ]
    told: list[tuple[str, str]] = []
    watch("r-1", Server(kubeflow.url), lambda step, state: told.append((step, state)), seconds=0)
    assert told == [("ingest", "running"), ("ingest", "succeeded")]
    assert kubeflow.states == []


def test_a_followed_run_that_fails_is_an_error_with_its_address(kubeflow: Kubeflow) -> None:
    kubeflow.states = [("FAILED", {"train": "FAILED"})]
    with pytest.raises(SubmissionFailed, match=f"ended as failed.*{kubeflow.url}/#/runs/details/r-1"):
        watch("r-1", Server(kubeflow.url), lambda step, state: None, seconds=0)
