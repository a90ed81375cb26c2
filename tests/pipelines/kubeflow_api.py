"""A small server that answers as the Kubeflow Pipelines API does, for the tests of what is sent to it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest


class Kubeflow(ThreadingHTTPServer):
    """Keeps the runs and recurring runs that were created; `refuse_with` is the status it answers instead.

    A recurring run's `status` follows enable and disable; lists come in pages of `page` items, 100 by default.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.runs: list[dict[str, Any]] = []
        self.recurring: dict[str, dict[str, Any]] = {}
        self.page = 100
        self.tokens: list[str | None] = []
        self.refuse_with = 0
        self.run_id = "r-1"
        self.states: list[tuple[str, dict[str, str]]] = []
        """What the run is at each look at it: its state and its steps'."""
        self.between: Callable[[], object] | None = None
        """What happens once, when a recurring run is about to be made."""

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
        elif "/recurringruns" in self.path:
            start = int(dict(parse_qsl(urlsplit(self.path).query)).get("page_token", 0))
            stop = start + self.server.page
            listed = list(self.server.recurring.values())
            self.answer({"recurringRuns": listed[start:stop], "next_page_token": str(stop) if stop < len(listed) else ""})
        elif self.path.endswith("/runs/r-1"):
            state, steps = self.server.states.pop(0)
            tasks = [{"task_id": name, "display_name": name, "state": of} for name, of in steps.items()]
            self.answer({"run_id": "r-1", "state": state, "run_details": {"task_details": tasks}})
        elif "/runs/" in self.path:
            self.answer({"error": "no such run"}, 404)
        else:
            self.answer({"experiments": [{"experiment_id": "e1", "display_name": "penstock", "namespace": ""}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
        if self.path.endswith("/recurringruns"):
            between, self.server.between = self.server.between, None
            if between:
                between()
            number = len(self.server.recurring) + 1
            made = {**body, "recurring_run_id": f"s-{number}", "status": "ENABLED", "created_at": f"2026-01-02T03:04:{number:02d}Z"}
            self.server.recurring[made["recurring_run_id"]] = made
            self.answer(made)
        elif "/recurringruns/" in self.path:
            identifier, _, action = self.path.rpartition("/")[2].partition(":")
            self.server.recurring[identifier]["status"] = {"enable": "ENABLED", "disable": "DISABLED"}[action]
            self.answer({})
        elif self.path.endswith("/runs"):
            self.server.runs.append(body)
            wanted = body.get("plugins_input", {}).get("mlflow", {"disabled": True})
            page = {"value": f"http://mlflow/{wanted.get('experiment_name')}", "render_type": "URL"}
            told = {} if wanted.get("disabled") else {"mlflow": {"entries": {"run_url": page}, "state": "PLUGIN_SUCCEEDED"}}
            self.answer({"run_id": self.server.run_id, "display_name": body.get("display_name", ""), "plugins_output": told})
        else:
            self.answer({"experiment_id": "e1", "display_name": "penstock"})

    def do_DELETE(self) -> None:
        del self.server.recurring[self.path.rpartition("/")[2]]
        self.answer({})

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
