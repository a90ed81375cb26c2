"""The client: the same probabilities in each form, one error that says why, and never a proxy for addresses nearby."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import InferenceError, UsageError
from components.inference_client import InferenceClient, batches, png_base64, proxy_for
from tests.predictor.versions import NAME


@dataclass
class Recorder:
    """A server that gives one response to everything, and records what it was asked."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


@contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            recorder.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            time.sleep(recorder.delay)
            self.send_response(recorder.status)
            for name, value in recorder.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(recorder.body)))
            self.end_headers()
            self.wfile.write(recorder.body)

        do_POST = do_CONNECT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    recorder.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_pictures_give_the_same_probabilities_in_each_form(url: str, pictures: np.ndarray, expected: np.ndarray) -> None:
    client = InferenceClient(url, NAME)
    version = client.metadata()["versions"][0]
    for form in ("binary", "json", "png"):
        answer = client.infer(pictures, form, labels=True)
        assert answer.version == version
        np.testing.assert_allclose(answer.probabilities, expected, atol=1e-6, err_msg=form)
        assert answer.labels == [str(row.argmax()) for row in expected]
    document = client.predict([{"b64": png_base64(picture)} for picture in pictures], return_probabilities=True)
    assert document["model_version"] == version
    np.testing.assert_allclose([list(entry["probabilities"].values()) for entry in document["predictions"]], expected, atol=1e-6)


def test_a_refusal_carries_the_status_and_the_predictors_own_words(url: str) -> None:
    with pytest.raises(InferenceError, match=r"answers 400: no pictures in the request") as caught:
        InferenceClient(url, NAME).predict([])
    assert (caught.value.status, caught.value.detail) == (400, "no pictures in the request; send at least one")


def test_a_server_that_is_not_there_or_too_slow_is_status_0(pictures: np.ndarray) -> None:
    with recording(Recorder(delay=0.5)) as slow:
        client = InferenceClient(slow.url, NAME, seconds=0.05)
        with pytest.raises(InferenceError, match="does not answer") as caught:
            client.infer(pictures)
        assert caught.value.status == 0
    with pytest.raises(InferenceError, match=r"does not answer \(NewConnectionError\)") as caught:
        InferenceClient(slow.url, NAME).metadata()
    assert caught.value.status == 0


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[1]",
        b"{}",
        b'{"predictions": [[1.0]], "model_version": "v"}',
        b'{"outputs": [{"name": "probabilities"}]}',
        b'{"outputs": 1}',
    ],
)
def test_a_server_that_speaks_something_else_is_told(pictures: np.ndarray, body: bytes) -> None:
    with recording(Recorder(body=body)) as other:
        client = InferenceClient(other.url, NAME)
        with pytest.raises(InferenceError, match=r"something else than the V2 protocol") as caught:
            client.infer(pictures)
        assert not caught.value.detail
        with pytest.raises(InferenceError, match=r"something else than the V1 protocol"):
            client.predict([1])


def test_redirects_are_not_followed(pictures: np.ndarray) -> None:
    with recording(Recorder()) as login, recording(Recorder(302, b"sign in", {"location": login.url})) as ingress:
        with pytest.raises(InferenceError, match="answers 302: sign in"):
            InferenceClient(ingress.url, NAME).infer(pictures)
        assert login.seen == []


def test_host_and_token_go_with_each_request(pictures: np.ndarray) -> None:
    with recording(Recorder(body=b'{"classes": []}')) as ingress:
        InferenceClient(ingress.url, NAME, headers={"host": "digits.example.com", "authorization": "Bearer t"}).metadata()
    path, headers = ingress.seen[0]
    assert path == "/v2/models/digits"
    assert (headers["host"], headers["authorization"]) == ("digits.example.com", "Bearer t")


def test_this_machines_addresses_are_reached_directly_and_others_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with recording(Recorder(body=b'{"through": "proxy"}')) as proxy, recording(Recorder(body=b'{"through": "nothing"}')) as near:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert InferenceClient(near.url, NAME).metadata() == {"through": "nothing"}
        assert InferenceClient(near.url.replace("127.0.0.1", "localhost"), NAME).metadata() == {"through": "nothing"}
        assert proxy.seen == []
        assert InferenceClient("http://models.example.com", NAME).metadata() == {"through": "proxy"}
    assert [path for path, _ in proxy.seen] == ["http://models.example.com/v2/models/digits"]


@pytest.mark.parametrize(
    ("address", "proxied"),
    [
        ("http://127.0.0.1:8080", False),
        ("http://[::1]:8080", False),
        ("http://localhost:8080", False),
        ("http://10.244.0.7:8080", False),
        ("http://[fd00::7]:8080", False),
        ("http://digits-predictor", False),
        ("http://digits-predictor.prod.svc", False),
        ("http://digits-predictor.prod.svc.cluster.local", False),
        ("http://digits.internal.example.org", False),
        ("http://digits.example.com", True),
        ("https://digits.example.com", True),
        ("http://93.184.216.34", True),
    ],
)
def test_only_addresses_far_away_go_through_a_proxy(monkeypatch: pytest.MonkeyPatch, address: str, proxied: bool) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", ".internal.example.org")
    assert proxy_for(address) == ("http://proxy.example:3128" if proxied else "")


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://host", "127.0.0.1:8080"])
def test_an_address_must_be_http(address: str) -> None:
    with pytest.raises(UsageError, match="is not an address of a predictor"):
        InferenceClient("http://[::1", NAME)
    with pytest.raises(UsageError, match="http://"):
        InferenceClient(address, NAME)


@given(st.integers(0, 300), st.sampled_from([(8, 8, 1), (28, 28, 3), (224, 224, 3), (1024, 1024, 3)]))
def test_batches_hold_every_picture_once_and_stay_small(number: int, shape: tuple[int, int, int]) -> None:
    images = np.broadcast_to(np.uint8(255), (number, *shape))
    slices = list(batches(images))
    assert [index for part in slices for index in range(number)[part]] == list(range(number))
    for part in slices:
        assert len(images[part]) == 1 or images[part].size * len("255,") <= 2 * 1024 * 1024
    if number and images[0].size < 1000:
        assert len(json.dumps(images[slices[0]].tolist(), separators=(",", ":"))) < 2.5 * 1024 * 1024
