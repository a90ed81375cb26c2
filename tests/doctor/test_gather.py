"""What doctor asks of a Kubeflow server and of a store."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from components.doctor.gather import ask_kubeflow
from components.doctor.store import look_at_store, makes_missing_buckets
from components.registry import Record, Registry
from components.storage import open_store

ANSWERS = {
    "/well": (200, b'{"tag_name": "2.17.0"}'),
    "/login": (302, b""),
    "/page": (200, b"<!DOCTYPE html>"),
    "/down": (503, b"no healthy upstream"),
}


class Kubeflow(BaseHTTPRequestHandler):
    """Answers by the first part of the path, with the token that it got."""

    def do_GET(self) -> None:
        status, body = ANSWERS[f"/{self.path.split('/')[1]}"]
        assert self.path.endswith("/apis/v2beta1/healthz")
        self.send_response(status)
        self.send_header("X-Token", self.headers.get("Authorization", ""))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class GenerousStore(BaseHTTPRequestHandler):
    """An S3 server that makes every bucket that is written to."""

    buckets: ClassVar[set[str]] = set()
    asked: ClassVar[list[str]] = []

    def answer(self, status: int) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append(f"{self.command} {self.path.rpartition('/')[2]}")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        self.buckets.add(self.path.split("/")[1])
        self.answer(200)

    def do_DELETE(self) -> None:
        if self.path.count("/") == 1:
            self.buckets.discard(self.path.strip("/"))
        self.answer(204)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with serving(Kubeflow) as address:
        yield address


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.mark.parametrize(
    ("path", "told"), [("login", "answered 302 (it asks for a login)"), ("page", "no JSON; is it a login page?"), ("down", "answered 503")]
)
def test_a_kubeflow_that_does_not_answer_as_itself_is_a_problem(server: str, path: str, told: str) -> None:
    assert str(ask_kubeflow(f"{server}/{path}")["problem"]).endswith(told)


def test_a_kubeflow_tells_its_version(server: str) -> None:
    assert ask_kubeflow(f"{server}/well/") == {"tag_name": "2.17.0"}


def test_a_kubeflow_that_cannot_be_reached_is_a_problem() -> None:
    assert "cannot be reached" in str(ask_kubeflow("http://127.0.0.1:9")["problem"])


def test_a_store_is_written_only_when_told_and_left_as_it_was(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    registry = Registry(store, "digits")
    registry.ledger.append(Record(action="deployed", version="v1", champion="v1", strategy="manual"))
    before = [it.key for it in store.list()]
    quiet, written = look_at_store(str(tmp_path), "digits"), look_at_store(str(tmp_path), "digits", write=True)
    assert (quiet.written, written.written, quiet.champion, quiet.problem) == (False, True, "v1", "")
    assert registry.uri("v1") == f"{quiet.models}v1/"
    assert [it.key for it in store.list()] == before


def use_s3(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    environment = {"ENDPOINT_URL": address, "ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "DEFAULT_REGION": "us-east-1"}
    for name, value in environment.items():
        monkeypatch.setenv(f"AWS_{name}", value)


def test_a_store_that_makes_buckets_is_found_and_left_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(GenerousStore) as address:
        use_s3(monkeypatch, address)
        assert makes_missing_buckets()
    assert GenerousStore.buckets == set()
    assert [it.split()[0] for it in GenerousStore.asked] == ["PUT", "DELETE", "DELETE"]


def test_a_store_that_cannot_be_reached_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    use_s3(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setenv("PENSTOCK_S3_DEADLINE_S", "1")
    assert "127.0.0.1:9" in look_at_store("s3://models/x", "digits").problem
