"""Limits on what one client can take: bytes, pictures, pixels, connections and time."""

import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from components.validate_serving.predictor_process import PredictorProcess
from tests.predictor.versions import INFER, PREDICT, b64, binary, elements, error_of, png, tensor


def bomb(side: int) -> bytes:
    """A black PNG of side x side pixels with one bit each: a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes((side + 7) // 8 + 1) * side, 9)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.fixture
def strict(strict_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=strict_url, timeout=20) as client:
        yield client


@pytest.fixture
def body(pictures: np.ndarray) -> dict:
    return {"instances": [pictures[0].tolist()]}


def connect(url: str) -> socket.socket:
    return socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=60)


def read_all(connection: socket.socket) -> bytes:
    try:
        return b"".join(iter(lambda: connection.recv(65536), b""))
    except ConnectionResetError:
        return b""


def test_bodies_beyond_the_limit_are_413_naming_it(strict: httpx.Client, body: dict) -> None:
    for path in (PREDICT, INFER):
        assert "20000 bytes" in error_of(strict.post(path, content=b" " * 20_001), 413)
        assert "20000 bytes" in error_of(strict.post(path, content=iter([b" " * 1000] * 40)), 413)  # chunked, of no known length
    assert strict.post(PREDICT, json=body).status_code == 200


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(strict_url: str) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\nExpect: 100-continue\r\n\r\n"
    with closing(connect(strict_url)) as connection:
        connection.sendall(head.encode())
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


def test_a_chunked_body_without_end_does_not_fill_the_memory(
    server: tuple[PredictorProcess, str], client: httpx.Client, body: dict
) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(60):
            yield b" " * 1024 * 1024

    before = server[0].memory()
    assert "bytes" in error_of(client.post(PREDICT, content=endless()), 413)
    assert server[0].memory() - before < 40 * 1024 * 1024
    assert client.post(PREDICT, json=body).status_code == 200


def test_a_damaged_picture_is_called_so_without_what_a_library_says_of_it(client: httpx.Client) -> None:
    whole = png(np.arange(4096, dtype=np.uint8).reshape(64, 64, 1))
    refused = error_of(client.post(PREDICT, json={"instances": [{"b64": b64(whole[: len(whole) // 2])}]}))
    assert refused == "instances[0]: the picture is cut or damaged"


def test_too_many_pictures_are_413_naming_the_limit(strict: httpx.Client, client: httpx.Client, pictures: np.ndarray) -> None:
    assert "limit is 4" in error_of(strict.post(PREDICT, json={"instances": pictures[:5].tolist()}), 413)
    assert "limit is 4" in error_of(strict.post(INFER, json={"inputs": [tensor([5, 8, 8, 1], data=pictures[:5].ravel().tolist())]}), 413)
    data = elements(*[png(pictures[0])] * 5)
    for number in (5, -1):  # -1: as many as there are
        header = {"inputs": [tensor([number], "BYTES", parameters={"binary_data_size": len(data)})]}
        assert "limit is 4" in error_of(strict.post(INFER, **binary(header, data)), 413)
    one = {"b64": b64(png(pictures[0]))}
    assert "limit is 256" in error_of(client.post(PREDICT, json={"instances": [one] * 20_000}), 413)


def cpu_seconds(server: PredictorProcess) -> float:
    """What the server has used so far; other work on the machine adds nothing to it."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_bombs_are_refused_in_no_time_and_in_no_memory(server: tuple[PredictorProcess, str], client: httpx.Client, body: dict) -> None:
    bombs = [{"instances": [{"b64": b64(bomb(side))}]} for side in (6_000, 40_000)]
    before, began = server[0].memory(), cpu_seconds(server[0])
    for request in bombs:
        assert "pixels" in error_of(client.post(PREDICT, json=request), (400, 413))
    assert cpu_seconds(server[0]) - began < 2  # decoding them takes many seconds
    assert server[0].memory() - before < 30 * 1024 * 1024
    assert client.post(PREDICT, json=body).status_code == 200


def test_pictures_of_one_request_have_a_limit_together(strict: httpx.Client) -> None:
    large = {"b64": b64(bomb(99))}
    assert strict.post(PREDICT, json={"instances": [large] * 4}).status_code == 200
    assert "10000" in error_of(strict.post(PREDICT, json={"instances": [{"b64": b64(bomb(101))}]}))


def test_lists_that_cost_more_than_their_bytes_are_refused(server: tuple[PredictorProcess, str], client: httpx.Client, body: dict) -> None:
    before = server[0].memory()
    for item in (b"[]", b'""', b"{}", b"1.5", b"[[]]"):
        content = b'{"instances": [' + b",".join([item] * (1_000_000 // len(item))) + b"]}"
        refused = client.post(PREDICT, content=content)
        assert refused.status_code in (400, 413)
        assert item == b"1.5" or "more lists, objects or strings" in error_of(refused, 413), item
    long_and_short = (
        b'{"inputs": [{"name": "image", "shape": [1, 8, 8, 1], "datatype": "UINT8", "data": ["'
        + b"a" * 100_000
        + b'", 1'
        + b", 1" * 100_000
        + b"]}]}"
    )
    error_of(client.post(INFER, content=long_and_short))
    names = b",".join(b'"%x":0' % number for number in range(100_000))
    for content in (b'{"instances": [[1]],' + names + b"}", b'{"instances": [[1]], "parameters": {' + names + b"}}"):
        assert "strings" in error_of(client.post(PREDICT, content=content), 413)
    assert server[0].memory() - before < 120 * 1024 * 1024
    assert client.post(PREDICT, json=body).status_code == 200


def test_v2_elements_and_sizes_beyond_the_limit_are_not_looked_at(server: tuple[PredictorProcess, str], client: httpx.Client) -> None:
    data = elements(*[b"ab"] * 1_200_000)
    before = server[0].memory()
    refused = client.post(INFER, **binary({"inputs": [tensor([1], "BYTES", parameters={"binary_data_size": len(data)})]}, data))
    assert "more came" in error_of(refused)
    assert server[0].memory() - before < 45 * 1024 * 1024
    assert len(error_of(client.post(INFER, json={"inputs": [tensor([1] * 100_000, data=[0])]}))) < 200


def drip(url: str, data: bytes, results: list[tuple[float, bytes]]) -> None:
    """Send a byte every tenth of a second until the server has enough."""
    with closing(connect(url)) as connection:
        began = time.monotonic()
        try:
            for byte in data:
                connection.sendall(bytes([byte]))
                time.sleep(0.1)
        except OSError:
            pass
        try:
            answer = connection.recv(65536)
        except OSError:
            answer = b""
        results.append((time.monotonic() - began, answer))


def test_slow_clients_are_let_go_and_others_do_not_wait(strict_url: str, strict: httpx.Client, body: dict) -> None:
    headers = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n".encode()
    results: list[tuple[float, bytes]] = []
    slow = [threading.Thread(target=drip, args=(strict_url, headers * 9, results)) for _ in range(10)]
    for thread in slow:
        thread.start()
    bodies = [connect(strict_url) for _ in range(10)]
    for connection in bodies:
        connection.sendall(headers + b"{")
    silent = [connect(strict_url) for _ in range(10)]
    times: list[float] = []
    for _ in range(20):
        began = time.monotonic()
        assert strict.post(PREDICT, json=body).status_code == 200
        times.append(time.monotonic() - began)
        time.sleep(0.05)
    assert sorted(times)[-3] < 1, times  # all but two, since the machine may stand still for a while
    for connections, what in ((bodies, b"body did not arrive within 2 seconds"), (silent, b"headers did not arrive within 1 seconds")):
        for connection in connections:
            with closing(connection):
                answer = read_all(connection)
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert what in answer
    for thread in slow:
        thread.join()
    assert len(results) == 10
    assert all(seconds < 40 for seconds, _ in results), "of the 90 that all their bytes take"


def test_idle_connections_are_closed_quietly(strict_url: str) -> None:
    with closing(connect(strict_url)) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read_all(connection)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"408" not in answer


def test_a_slow_body_after_a_refusal_ends_without_a_second_answer(strict_url: str) -> None:
    with closing(connect(strict_url)) as connection:
        connection.sendall(b"POST /v1/models/other:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
        answer = read_all(connection)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_pipelined_requests_are_answered_in_order(strict_url: str) -> None:
    paths = ("/v2/health/live", "/v1/models", "/v2/nope")
    with closing(connect(strict_url)) as connection:
        connection.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths))
        answer = read_all(connection)
    assert [part[:3] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"404"]


def exchange(url: str, request: bytes) -> bytes:
    """What the server answers to raw bytes, which it may stop reading."""
    with closing(connect(url)) as connection:
        with suppress(OSError):
            connection.sendall(request)
        try:
            return connection.recv(65536)
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize("trailer", [b"a:b\r\n" * 4_000_000, b"a:" + b"b" * 20_000_000], ids=["many", "one without end"])
def test_trailers_are_bounded_like_headers(server: tuple[PredictorProcess, str], client: httpx.Client, body: dict, trailer: bytes) -> None:
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n".encode()
    before, began = server[0].memory(), cpu_seconds(server[0])
    assert exchange(server[1], head + trailer)[9:12] in (b"431", b"")  # a reset may overtake the answer
    assert server[0].memory() - before < 20 * 1024 * 1024
    assert cpu_seconds(server[0]) - began < 1
    assert client.post(PREDICT, json=body).status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_an_offered_upgrade_to_http_2_is_ignored_and_the_body_is_read(url: str, body: dict, chunked: bool) -> None:
    data = json.dumps(body).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n".encode()
    length = b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % len(data)
    sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data) if chunked else data
    with closing(connect(url)) as connection:
        for pause in (0, 0.2, 0):  # three requests on one connection; the body comes with the headers, or after them
            connection.sendall(head + length)
            time.sleep(pause)
            connection.sendall(sent)
            answer = connection.recv(65536)
            while not answer.endswith(b"}"):
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"predictions"' in answer


def test_a_client_that_offers_an_upgrade_may_want_the_connection_closed(url: str) -> None:
    with closing(connect(url)) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n")
        assert b"connection: close" in read_all(connection)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", b"400"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 66_000 + b"\r\n\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 101 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 5000, b"431"),
    ],
    ids=[
        "CONNECT",
        "no host",
        "two hosts",
        "HTTP/1.0 chunked",
        "long URL",
        "long header in one segment",
        "many headers",
        "many without end",
    ],
)
def test_requests_that_http_forbids_are_refused_without_a_line_in_the_log(
    server: tuple[PredictorProcess, str], request_: bytes, status: bytes
) -> None:
    before = server[0].events()
    answer = exchange(server[1], request_)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert b'{"error":"' in answer
    assert server[0].events() == before


def test_a_body_that_is_not_json_is_called_what_it_is(client: httpx.Client, body: dict, pictures: np.ndarray) -> None:
    data = json.dumps(body)
    assert "byte order mark" in error_of(client.post(PREDICT, content=data.encode("utf-8-sig")))
    assert "UTF-16" in error_of(client.post(PREDICT, content=data.encode("utf-16")))
    assert "UTF-16" in error_of(client.post(PREDICT, content=data.encode("utf-16-le")))
    picture = error_of(client.post(PREDICT, content=png(pictures[0])))
    assert "a picture itself" in picture
    assert "b64" in picture
    for binary_data in (b"\x89PNG\r\n\x1a\n" + bytes(40), b"\x1f\x8b\x08" + bytes(40), bytes(100)):
        refused = error_of(client.post(PREDICT, content=binary_data))
        assert "is binary data; send JSON" in refused
        assert "the picture in base64" in refused
    assert "multipart form" in error_of(client.post(PREDICT, files={"file": png(pictures[0])}))


def test_what_all_connections_store_is_bounded_together(server: tuple[PredictorProcess, str], client: httpx.Client, body: dict) -> None:
    head = b"GET / HTTP/1.1\r\nHost: x\r\nx: " + b"a" * 60_000
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connect(server[1]))) for _ in range(600)]  # 36 MB
        for connection in held:
            connection.sendall(head)
        last = held[-1].recv(4096)
        assert last.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1" in last
        assert client.post(PREDICT, json=body).status_code == 200
    deadline = time.monotonic() + 60
    while not exchange(server[1], head + b"\r\n\r\n").startswith(b"HTTP/1.1 200 "):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_requests_sent_before_their_responses_are_limited_in_number(url: str) -> None:
    get = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    assert b"more than 256 requests" in exchange(url, get * 300)
    assert exchange(url, get * 200).startswith(b"HTTP/1.1 200 ")
