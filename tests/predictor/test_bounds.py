"""Bounds that keep one client, or a rare state, from taking the server down: each is crossed here, and left again."""

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from uvicorn.server import ServerState

from components.bundle.model import Answers, Classifier
from components.predictor.dispatch import Dispatcher
from components.predictor.http.app import InferenceApp
from components.predictor.loaded_model import load
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.settings import PredictorSettings
from components.validate_serving.predictor_process import predictor
from tests.predictor.test_connections import connect as connect_in_loop
from tests.predictor.test_connections import serve
from tests.predictor.test_limits import bomb, connect, read_all
from tests.predictor.test_watching import value
from tests.predictor.versions import INFER, NAME, PREDICT, b64, error_of, tensor

PART = 300_000
"""Bytes of one body; four of them are more than the server below may hold."""


@pytest.fixture(scope="module")
def bounded_urls(served_dir: Path) -> Iterator[tuple[str, str]]:
    """The address for all requests, and that for probes."""
    limits = {
        "max_pending_bytes": 1_000_000,
        "max_connections": 8,
        "max_pixels": 10_000,
        "max_images": 16,
        "header_timeout": 60,
        "body_timeout": 60,
        "probe_port": 0,
    }
    options = [text for name, setting in limits.items() for text in (f"--{name}", str(setting))]
    with predictor(NAME, served_dir, 60, *options) as (process, started):
        port = next(event["probe_port"] for event in process.events() if event["event"] == "listening")
        yield started.url, f"http://127.0.0.1:{port}"


@pytest.fixture
def bounded_url(bounded_urls: tuple[str, str]) -> str:
    return bounded_urls[0]


@pytest.fixture
def bounded(bounded_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=bounded_url, timeout=30) as client:
        yield client


def padded(pictures: np.ndarray) -> bytes:
    return json.dumps({"instances": [pictures[0].tolist()]}).encode().ljust(PART)


def begin(url: str, size: int = PART) -> socket.socket:
    """Send the headers of a request and most of its body."""
    connection = connect(url)
    connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {size + 1}\r\n\r\n".encode() + b" " * size)
    return connection


def wait_for(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_more_busy_connections_than_allowed_are_503_until_one_is_closed_and_probes_get_in(bounded_url: str, pictures: np.ndarray) -> None:
    request = {"instances": [pictures[0].tolist()]}
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connect(bounded_url))) for _ in range(8)]
        for connection in held:
            connection.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n1".encode())
        refused = httpx.post(f"{bounded_url}{PREDICT}", json=request, timeout=60)
        assert "too many connections" in error_of(refused, 503)
        assert refused.headers["retry-after"] == "1"
        for probe in ("/", "/v2/health/live", "/v2/health/ready", "/v2/models/digits/ready"):
            assert httpx.get(f"{bounded_url}{probe}", timeout=60).status_code == 200
        held[0].close()
        wait_for(lambda: httpx.post(f"{bounded_url}{PREDICT}", json=request, timeout=60).status_code == 200)


def test_the_connections_beyond_the_limit_are_bounded_too_and_are_there_again_when_they_are_closed(bounded_url: str) -> None:
    probe = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

    def status() -> bytes:
        with closing(connect(bounded_url)) as connection:
            with suppress(OSError):  # it may be refused before it was sent
                connection.sendall(probe)
            return read_all(connection)[9:12]

    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(closing(connect(bounded_url))).sendall(f"POST {PREDICT} HTTP/1.1\r\n".encode())
        with ExitStack() as reserved:
            for _ in range(200):  # as many as are held, and those whose first bytes had not been read when room was needed
                with suppress(OSError):
                    reserved.enter_context(closing(connect(bounded_url))).sendall(b"GET /v2/hea")
            wait_for(lambda: status() in (b"503", b""))  # a reset may overtake the answer
        wait_for(lambda: status() == b"200")


def test_the_port_for_probes_answers_when_the_other_has_no_room_and_takes_no_other_requests(bounded_urls: tuple[str, str]) -> None:
    url, probes = bounded_urls
    with ExitStack() as stack:
        client = stack.enter_context(httpx.Client(timeout=30))
        for _ in range(200):  # more than are held for probes there
            with suppress(OSError):
                stack.enter_context(closing(connect(url))).sendall(b"GET /v2/hea")
        wait_for(lambda: refused(f"{url}/v2/health/live"))
        for _ in range(200):
            stack.enter_context(closing(connect(probes)))  # silent ones make room
        for probe in ("/", "/v2/health/live", "/v2/health/ready", "/v1/models/digits", "/v2/models/digits/ready"):
            assert client.get(f"{probes}{probe}").status_code == 200
        for path in (PREDICT, INFER, "/metrics", "/v2"):
            assert "health checks only" in error_of(client.get(f"{probes}{path}"), 404)
        assert refused(f"{url}/v2/health/live")
    wait_for(lambda: httpx.get(f"{url}/v2/health/live", timeout=60).status_code == 200)


def refused(url: str) -> bool:
    try:
        return httpx.get(url, timeout=60).status_code == 503
    except httpx.HTTPError:  # a reset may overtake the answer
        return True


def test_the_connection_that_has_been_idle_longest_makes_room(bounded_url: str, bounded: httpx.Client, pictures: np.ndarray) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(closing(connect(bounded_url))) for _ in range(8)]
        for connection in held:
            connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.recv(4096)
            while not answer.endswith(b"}"):
                answer += connection.recv(4096)
            assert answer.startswith(b"HTTP/1.1 200 ")
            time.sleep(0.01)  # the server's clock counts milliseconds
        assert bounded.post(PREDICT, json={"instances": [pictures[0].tolist()]}).status_code == 200
        assert read_all(held[0]) == b""  # closed
        held[-1].sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert held[-1].recv(4096).startswith(b"HTTP/1.1 200 ")


def test_bodies_that_together_exceed_the_memory_for_them_are_503_until_the_others_are_gone(
    bounded_url: str, bounded: httpx.Client, pictures: np.ndarray
) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(closing(begin(bounded_url)))
        wait_for(lambda: value(bounded, "penstock_pending_bytes ") == 3 * PART)
        refused = bounded.post(PREDICT, content=padded(pictures))
        assert "too many bytes" in error_of(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        stack.enter_context(closing(begin(bounded_url, 99_000)))
        wait_for(lambda: value(bounded, "penstock_pending_bytes ") == 3 * PART + 99_000)
        small = json.dumps({"instances": [pictures[0].tolist()]}).encode()
        assert "too many bytes" in error_of(bounded.post(PREDICT, content=small.ljust(70_000)), 503), "what is left is for small ones"
        assert bounded.post(PREDICT, content=small.ljust(60_000)).status_code == 200, "large bodies do not keep small ones out"
    wait_for(lambda: value(bounded, "penstock_pending_bytes ") == 0)
    assert bounded.post(PREDICT, content=padded(pictures)).status_code == 200


def test_answered_refused_and_broken_off_bodies_all_stop_counting(bounded_url: str, bounded: httpx.Client, pictures: np.ndarray) -> None:
    good = padded(pictures)
    for _ in range(5):  # each round is more than may be pending at once
        assert bounded.post(PREDICT, content=good).status_code == 200
        assert "instances" in error_of(bounded.post(PREDICT, content=b"{}".ljust(PART)))
        assert "JSON" in error_of(bounded.post(PREDICT, content=b"x" * PART))
        error_of(bounded.post(PREDICT, content=iter([b" " * PART] * 30)), (413, 503))
        begin(bounded_url).close()
        slow = begin(bounded_url)
        wait_for(lambda: value(bounded, "penstock_pending_bytes ") > 0)
        slow.close()
        wait_for(lambda: value(bounded, "penstock_pending_bytes ") == 0)
    assert bounded.post(PREDICT, content=good).status_code == 200


def test_a_client_that_reads_slowly_but_steadily_gets_everything(strict_url: str) -> None:
    with closing(connect(strict_url)) as connection:
        connection.sendall(
            b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50 + b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        received = bytearray()
        while chunk := connection.recv(65536):
            received += chunk
            time.sleep(0.005)
    assert received.count(b"HTTP/1.1 200 ") == 51


def test_the_pixels_of_all_pictures_of_a_request_are_limited(bounded: httpx.Client) -> None:
    whole, little_less = {"b64": b64(bomb(100))}, {"b64": b64(bomb(99))}
    assert bounded.post(PREDICT, json={"instances": [whole] * 4}).status_code == 200
    assert "more than 40000 pixels" in error_of(bounded.post(PREDICT, json={"instances": [whole] * 5}), 413)
    assert "instances[4]" in error_of(bounded.post(PREDICT, json={"instances": [little_less] * 5}))
    data = [b64(bomb(100))] * 5
    assert "element 4" in error_of(bounded.post(INFER, json={"inputs": [tensor([5], "BYTES", data=data)]}), 413)


class Watched:
    """The real classifier, slowed down, which records how many requests are in it at once."""

    def __init__(self, classifier: Classifier) -> None:
        self.most = self._now = 0
        self._classifier, self.config, self._lock = classifier, classifier.config, threading.Lock()

    def answer(self, images: np.ndarray, batch_size: int) -> Answers:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.1)
        with self._lock:
            self._now -= 1
        return self._classifier.answer(images, batch_size)


@contextmanager
def in_this_process(served_dir: Path, watched: Watched | None = None, inner: Any = None) -> Iterator[InferenceApp]:
    """The application with a real model, whose requests are all worked on by threads."""
    loaded = load(NAME, served_dir, 1)
    metrics, settings = Metrics(CollectorRegistry()), PredictorSettings(model_name=NAME)
    model = ServingModel(settings, Dispatcher(settings, 3), metrics)
    metrics.serving(loaded)
    model.loaded = replace(loaded, classifier=watched or loaded.classifier, quick=False)  # type: ignore[arg-type]
    yield InferenceApp(inner, model, metrics, [])
    model.dispatcher.close()


def test_large_bodies_are_worked_on_one_at_a_time_and_small_ones_together(served_dir: Path, pictures: np.ndarray) -> None:
    """Parsed JSON takes many times the memory of its bytes: two large bodies at once would add up."""
    small = json.dumps({"instances": [pictures[0].tolist()]}).encode()

    async def highest(body: bytes) -> int:
        watched = Watched(Classifier(served_dir, threads=1))
        with in_this_process(served_dir, watched) as app:
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", timeout=30) as client:
                answers = await asyncio.gather(*(client.post(PREDICT, content=body) for _ in range(4)))
        assert [answer.status_code for answer in answers] == [200] * 4
        return watched.most

    assert asyncio.run(highest(small)) == 3
    assert asyncio.run(highest(small.ljust(1_100_000))) == 1


def test_a_request_that_finds_the_queue_full_is_refused_before_its_body_is_read(served_dir: Path) -> None:
    read: list[str] = []

    async def scenario() -> list[int]:
        async def receive() -> dict[str, Any]:
            read.append("a part")
            return {"type": "http.request", "body": b"{}", "more_body": False}

        statuses: list[int] = []

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        scope = {"type": "http", "method": "POST", "path": PREDICT, "headers": [(b"content-length", b"2")]}
        with in_this_process(served_dir) as app:
            ends = threading.Event()
            held = [asyncio.ensure_future(app._dispatcher.run(lambda limits: ends.wait(60), 2)) for _ in range(3 + 128)]
            await asyncio.sleep(0)
            await app(dict(scope), receive, send)
            assert read == []
            ends.set()
            await asyncio.gather(*held)
            await app(dict(scope), receive, send)
        return statuses

    assert asyncio.run(scenario()) == [503, 400]
    assert read == ["a part"]


class Rounds:
    """Counts the rounds of the event loop, and what happened in each."""

    def __init__(self) -> None:
        self._now, self._happened = 0, Counter[int]()
        self._count()

    def _count(self) -> None:
        self._now += 1
        asyncio.get_running_loop().call_soon(self._count)

    def note(self) -> None:
        self._happened[self._now] += 1

    @property
    def most(self) -> int:
        """How often it happened in one round, at most."""
        return max(self._happened.values())


def test_parts_of_large_bodies_are_read_in_turn_so_that_no_round_of_the_event_loop_takes_long(served_dir: Path) -> None:
    async def scenario() -> int:
        rounds = Rounds()

        async def ask(app: InferenceApp) -> None:
            parts = [b" " * 100_000] * 20

            async def receive() -> dict[str, Any]:
                if len(parts) < 19:
                    rounds.note()
                return {"type": "http.request", "body": parts.pop(), "more_body": bool(parts)}

            async def send(message: Any) -> None:
                return

            await app({"type": "http", "method": "POST", "path": PREDICT, "headers": []}, receive, send)

        with in_this_process(served_dir) as app:
            await asyncio.gather(*(ask(app) for _ in range(5)))
        return rounds.most

    assert asyncio.run(scenario()) == 1


def test_requests_that_were_sent_before_their_turn_begin_one_per_round_of_the_event_loop(served_dir: Path) -> None:
    clients, number = 10, 10

    async def scenario() -> int:
        rounds = Rounds()

        async def respond(scope: Any, receive: Any, send: Any) -> None:
            if scope["path"] == "/next":
                rounds.note()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})

        with in_this_process(served_dir, inner=respond) as app:
            async with await serve(ServerState(), app) as server:
                message = b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n" + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n" * (number - 1)
                asking = [await connect_in_loop(server, message) for _ in range(clients)]
                for connection in asking:
                    received = b""
                    while received.count(b"HTTP/1.1 200 ") < number:
                        received += await asyncio.get_running_loop().sock_recv(connection, 65536)
                    connection.close()
        return rounds.most

    assert asyncio.run(scenario()) == 1
