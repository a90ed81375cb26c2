"""Pictures that need review go to the queue without costing a request time, and without memory that grows."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from prometheus_client import CollectorRegistry

from components.classifier.errors import StoreUnavailable
from components.predictor.dispatch import Dispatcher
from components.predictor.loaded_model import load
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.protocol.request import PredictRequest
from components.predictor.reviewing import HourlyLimit, ReviewWriter
from components.predictor.settings import PredictorSettings
from components.review import ReviewQueue, drawn_for_audit
from components.storage.memory import MemoryStore
from tests.predictor.versions import NAME


def bmp(seed: int) -> bytes:
    """A picture of noise that takes 3 MB as a file."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (1000, 1000, 3), dtype=np.uint8)).save(buffer, "BMP")
    return buffer.getvalue()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class GatedStore(MemoryStore):
    """A store that answers when its gate is open, or fails."""

    def __init__(self) -> None:
        super().__init__("gated")
        self.gate = threading.Event()
        self.fails = False

    def exists(self, key: str) -> bool:
        self.gate.wait(20)
        if self.fails:
            raise StoreUnavailable("the disk is full; make room")
        return super().exists(key)


class Reviewed:
    """A model whose doubtful pictures go to a gated store."""

    def __init__(self, served_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("components.predictor.reviewing._PAUSES", (0.0, 0.0))
        monkeypatch.setattr("components.predictor.reviewing.open_store", lambda url: self.store)
        self.store = GatedStore()
        self.registry = CollectorRegistry()
        settings = PredictorSettings(model_name=NAME, review_store="gated", review_threshold=1.0, audit_rate=0, review_per_hour=10_000)
        metrics, self.loaded = Metrics(self.registry), load(NAME, served_dir)
        metrics.serving(self.loaded)
        self.writer = ReviewWriter(settings, metrics)
        self.model = ServingModel(settings, Dispatcher(settings, 1), metrics, self.writer)

    def send(self, originals: list[bytes | None], seed: int = 0) -> None:
        """Send so many pictures in one request, all of them doubtful; `originals` are the bytes in which they came."""
        images = np.random.default_rng(seed).integers(0, 256, (len(originals), 8, 8, 1), dtype=np.uint8)
        self.model.predict(self.loaded, PredictRequest(images, originals), "r")

    def dropped(self, why: str) -> float:
        return self.registry.get_sample_value("penstock_review_dropped_total", {"why": why}) or 0

    def queued(self) -> float:
        return self.registry.get_sample_value("penstock_review_queued_total", {"reason": "low_confidence"}) or 0


@pytest.fixture
def reviewed(served_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reviewed]:
    reviewed = Reviewed(served_dir, monkeypatch)
    yield reviewed
    reviewed.store.gate.set()
    reviewed.writer.close(10)


def test_a_review_store_that_fails_costs_pictures_and_never_time(reviewed: Reviewed) -> None:
    reviewed.store.fails = True
    reviewed.store.gate.set()
    began = time.monotonic()
    reviewed.send([None] * 1500)
    assert time.monotonic() - began < 30  # waiting for the store would take seconds for each picture
    reviewed.writer.close(10)
    assert reviewed.dropped("full") + reviewed.dropped("store") == 1500
    assert reviewed.dropped("store") > 0


def test_a_review_store_that_does_not_answer_holds_a_thousand_pictures_at_most(reviewed: Reviewed) -> None:
    reviewed.send([None] * 1200)
    assert reviewed.dropped("full") == 200
    reviewed.writer.close(0.05)
    assert reviewed.dropped("shutdown") == 1000


def test_pictures_that_wait_for_review_take_32_mebibytes_at_most_and_room_comes_back(reviewed: Reviewed) -> None:
    large = [bmp(seed) for seed in range(23)]
    assert 32 * 2**20 // len(large[0]) == 11
    reviewed.send(large[:15])
    assert reviewed.dropped("full") == 4
    reviewed.store.gate.set()
    wait_for(lambda: reviewed.queued() == 11)
    reviewed.send(large[15:], seed=1)
    wait_for(lambda: reviewed.queued() == 19)
    assert reviewed.dropped("full") == 4


def test_the_memory_of_what_was_queued_recently_has_a_bound(reviewed: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.predictor.reviewing._MAX_RECENT", 3)
    reviewed.store.gate.set()
    for seed in range(10):
        reviewed.send([None], seed)
    assert len(reviewed.writer._recent) == 3


def test_a_picture_that_could_not_be_written_is_tried_again_when_it_is_sent_again(reviewed: Reviewed) -> None:
    reviewed.store.fails = True
    reviewed.store.gate.set()
    reviewed.send([None])
    wait_for(lambda: reviewed.dropped("store") == 1)
    reviewed.store.fails = False
    reviewed.send([None])
    reviewed.send([None])
    reviewed.writer.close(10)
    assert reviewed.queued() == 1


def test_an_entry_tells_by_which_levels_the_version_reads_files_of_16_bits(reviewed: Reviewed) -> None:
    reviewed.loaded = replace(reviewed.loaded, spec=replace(reviewed.loaded.spec, levels=12))
    reviewed.store.gate.set()
    reviewed.send([None])
    wait_for(lambda: reviewed.queued() == 1)
    assert [entry.prediction.levels for entry in ReviewQueue(reviewed.store, NAME).entries()] == [12]


def test_an_hourly_limit_fills_steadily_for_each_kind_of_its_own() -> None:
    limit = HourlyLimit(60)
    assert sum(limit.take("v", "cat", now=0.0) for _ in range(100)) == 60
    assert limit.take("v", "dog", now=0.0)
    assert not limit.take("v", "cat", now=59.0)
    assert limit.take("v", "cat", now=60.0)
    assert not limit.take("v", "cat", now=60.0)
    assert sum(limit.take("v", "cat", now=10_000.0) for _ in range(100)) == 60  # no more than an hour's in store


def test_more_pictures_of_a_class_than_fit_in_an_hour_are_dropped_and_counted(reviewed: Reviewed) -> None:
    reviewed.writer._hourly = HourlyLimit(1)
    reviewed.store.gate.set()
    reviewed.send([None] * 40)
    classes = len(reviewed.loaded.classes)
    assert reviewed.dropped("rate") >= 40 - classes
    wait_for(lambda: reviewed.queued() == 40 - reviewed.dropped("rate"))


def writer(monkeypatch: pytest.MonkeyPatch, **settings: object) -> ReviewWriter:
    """A writer that is closed at once; it still says what it would queue."""
    monkeypatch.setattr("components.predictor.reviewing.open_store", lambda url: GatedStore())
    made = ReviewWriter(PredictorSettings(model_name=NAME, review_store="gated", **settings), Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    made.close(10)
    return made


def test_replicas_share_the_hourly_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = writer(monkeypatch, review_per_hour=30, replicas=3)._hourly
    assert sum(limit.take("v", "cat", now=0.0) for _ in range(100)) == 10


def test_the_audit_draw_is_the_same_with_the_same_key_only_and_nobody_knows_the_one_of_a_process_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), dtype=np.uint8)

    def drawn(**settings: object) -> list[bool]:
        key = writer(monkeypatch, **settings)._key
        return [drawn_for_audit(picture, 0.5, key) for picture in pictures]

    assert drawn(audit_key="one") == drawn(audit_key="one")
    different = [drawn(audit_key="one"), drawn(audit_key="another"), drawn(), drawn()]
    assert all(a != b for at, a in enumerate(different) for b in different[:at])
