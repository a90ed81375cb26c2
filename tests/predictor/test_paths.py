"""Paths, methods and headers: names that differ, encoded colons, closed doors, and what probes ask."""

import socket
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from tests.predictor.versions import INFER, PREDICT, error_of


@pytest.fixture
def body(pictures: np.ndarray) -> dict:
    return {"instances": [pictures[0].tolist()]}


@pytest.mark.parametrize(
    "path", ["/v1/models/digits%3Apredict", "/v1/models/digits%3apredict", "/v1/models/digits:predict/", "/v1/models/%64igits:predict"]
)
def test_encoded_and_slashed_paths_are_the_plain_one(client: httpx.Client, body: dict, path: str) -> None:
    response = client.post(path, json=body)
    assert response.json() == client.post(PREDICT, json=body).json()


@pytest.mark.parametrize(
    "path", ["/v1/models/other:predict", "/v2/models/other/infer", "/v2/models/other/versions/1/infer", "/v1/models/:predict"]
)
def test_an_unknown_model_is_told_which_there_is(client: httpx.Client, body: dict, path: str) -> None:
    assert "'digits'" in error_of(client.post(path, json=body), 404)


@pytest.mark.parametrize("path", ["/v1/models/other", "/v2/models/other", "/v2/models/other/ready"])
def test_metadata_of_an_unknown_model_too(client: httpx.Client, path: str) -> None:
    assert "'digits'" in error_of(client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    ["/v1/models/digits", "/v1/models/digits/", "/v2/models/digits/ready", "/v2/health/ready", "/v2/health/live/", "/", "/v2", "/metrics"],
)
def test_probes_are_answered_with_get_and_head(client: httpx.Client, path: str) -> None:
    assert client.get(path).status_code == 200
    head = client.head(path)
    assert head.status_code == 200
    assert head.content == b""


@pytest.mark.parametrize(
    "path",
    [
        "/nope",
        "/v1",
        "/v1/models/digits/predict",
        "/v1/models/digits:explain",
        "/v2/models",
        "/../etc/passwd",
        "/v2/models/digits/infer/x",
        "//",
        "/%00",
        "/v3/x",
    ],
)
def test_paths_that_are_not_there_are_404_or_405(client: httpx.Client, body: dict, path: str) -> None:
    error_of(client.post(path, json=body), (404, 405))


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", [PREDICT, INFER])
def test_inference_is_by_post_only(client: httpx.Client, method: str, path: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 405
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/v2/repository/models/digits/unload", "/v2/repository/models/digits/load", "/v2/repository/index", "/v2/repository"]
)
def test_the_repository_is_closed(client: httpx.Client, body: dict, path: str) -> None:
    error_of(client.post(path), 403)
    error_of(client.get(path), 403)
    assert client.post(PREDICT, json=body).status_code == 200
    assert client.get("/v2/health/ready").status_code == 200


def test_compressed_bodies_are_refused_by_name(client: httpx.Client) -> None:
    assert "Content-Encoding" in error_of(client.post(PREDICT, content=b"x", headers={"content-encoding": "gzip"}), 415)


@pytest.mark.parametrize(
    "lines",
    [
        b"GARBAGE\r\n\r\n",
        b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/models/digits:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_what_is_not_http_gets_one_line_and_a_closed_connection(url: str, lines: bytes) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as connection:
        connection.sendall(lines)
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.endswith(b'{"error":"this is not a valid HTTP request"}')


def test_headers_have_an_end(url: str) -> None:
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        answer = b""
        try:
            for _ in range(3000):
                connection.sendall(b"x-more: " + b"a" * 100 + b"\r\n")
            answer = connection.recv(4096)
        except OSError:  # closed while we were sending
            return
    assert b" 431 " in answer


def test_upgrades_are_not_followed(client: httpx.Client) -> None:
    headers = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    assert client.get("/v2/health/live", headers=headers).status_code == 200
