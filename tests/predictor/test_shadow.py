"""A share of the requests is copied to a challenger; users never wait for it, and nothing piles up."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from components.bundle.model import Classifier
from components.predictor.loaded_model import load
from components.predictor.protocol.request import Predictions, PredictRequest
from components.predictor.settings import PredictorSettings
from components.predictor.shadow import Shadow, ShadowMetrics
from components.validate_serving.predictor_process import predictor
from tests import tiny
from tests.predictor.versions import NAME, PREDICT, model_dir
from tests.storage.servers import free_port


@pytest.fixture(scope="module")
def challenger_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_dir(tmp_path_factory.mktemp("challenger"), seed=3, samples=120)


@pytest.fixture(scope="module")
def challenger(challenger_dir: Path) -> Iterator[str]:
    """The challenger's service, which a rollout calls NAME-canary."""
    with predictor(f"{NAME}-canary", challenger_dir, 60) as (_, started):
        yield started.url


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def counted(text: str) -> dict[str, float]:
    """Copied pictures by outcome."""
    lines = [line for line in text.splitlines() if line.startswith("penstock_shadow_pictures_total{")]
    return {line.partition('outcome="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


def test_answers_of_both_versions_are_compared_off_the_request_path(served_dir: Path, challenger_dir: Path, challenger: str) -> None:
    pictures = tiny.digits()[0][:100]
    first, second = (Classifier(it, threads=1).probabilities(pictures).argmax(axis=1) for it in (served_dir, challenger_dir))
    alike = int((first == second).sum())
    assert 0 < alike < len(pictures), "the two must differ somewhere"
    with (
        predictor(NAME, served_dir, 60, "--shadow_share", "1", "--shadow_url", challenger) as (_, started),
        httpx.Client(base_url=started.url, timeout=30) as client,
    ):
        for start in range(0, 100, 10):
            response = client.post(PREDICT, json={"instances": pictures[start : start + 10].tolist()})
            assert response.json()["model_version"] != ""
        wait_until(lambda: sum(counted(client.get("/metrics").text).values()) == len(pictures))
        metrics = client.get("/metrics").text
    assert counted(metrics) == {"agreed": alike, "differed": len(pictures) - alike}
    assert "penstock_shadow_share 1.0" in metrics
    assert 'penstock_shadow_seconds_count{challenger="20' in metrics


def test_without_a_challenger_nothing_is_counted_and_requests_are_answered(served_dir: Path) -> None:
    with (
        predictor(NAME, served_dir, 60, "--shadow_share", "1", "--shadow_url", f"http://127.0.0.1:{free_port()}") as (_, started),
        httpx.Client(base_url=started.url, timeout=30) as client,
    ):
        for _ in range(20):
            assert client.post(PREDICT, json={"instances": tiny.digits()[0][:1].tolist()}).status_code == 200
        assert counted(client.get("/metrics").text) == {}


class Held:
    """A shadow whose challenger does not answer until it is let go."""

    def __init__(self, served_dir: Path, share: float = 1.0) -> None:
        self.registry, self.gate, self.asked = CollectorRegistry(), threading.Event(), 0
        self.shadow = Shadow(
            PredictorSettings(model_name=NAME, shadow_share=share, shadow_url="http://127.0.0.1:1"), ShadowMetrics(self.registry)
        )
        self.shadow._client.infer = self._infer  # type: ignore[method-assign,assignment]
        self.loaded = load(NAME, served_dir, 1)

    def _infer(self, images: np.ndarray, **_: object) -> object:
        self.asked += 1
        self.gate.wait(20)
        return type("Answer", (), {"version": "v2", "labels": ["0"] * len(images)})

    def offer(self, images: np.ndarray) -> None:
        n = len(images)
        predictions = Predictions(self.loaded, np.zeros((n, 10), np.float32), [0] * n, [1.0] * n, [False] * n, [], None)
        self.shadow.offer(PredictRequest(images, [None] * n), predictions)

    def outcome(self, name: str) -> float:
        found = [self.registry.get_sample_value("penstock_shadow_pictures_total", {"challenger": it, "outcome": name}) for it in ("", "v2")]
        return sum(it or 0 for it in found)


@pytest.fixture
def held(served_dir: Path) -> Iterator[Held]:
    made = Held(served_dir)
    yield made
    made.gate.set()
    made.shadow.close()


def test_a_challenger_that_hangs_costs_neither_time_nor_memory(held: Held) -> None:
    picture = np.zeros((1, 8, 8, 1), np.uint8)
    began = time.thread_time()
    for _ in range(1000):  # which would never end if it waited for the challenger
        held.offer(picture)
    assert time.thread_time() - began < 1
    wait_until(lambda: held.asked == 1)
    waiting = len(held.shadow._waiting)
    assert waiting <= 200
    assert held.outcome("dropped") == 1000 - waiting - held.asked
    held.gate.set()
    wait_until(lambda: held.outcome("agreed") == waiting + 1)


def test_large_pictures_are_bounded_by_their_bytes(held: Held) -> None:
    for _ in range(20):
        held.offer(np.zeros((1, 2000, 2000, 3), np.uint8))
    assert held.shadow._bytes <= 32 * 1024 * 1024
    assert held.outcome("dropped") >= 16


def test_a_share_is_a_share_of_the_requests(served_dir: Path) -> None:
    some = Held(served_dir, share=0.2)
    some.gate.set()
    for _ in range(2000):
        some.offer(np.zeros((1, 8, 8, 1), np.uint8))
    wait_until(lambda: not some.shadow._waiting)
    some.shadow.close()
    assert 280 <= some.outcome("agreed") + some.outcome("dropped") <= 520
