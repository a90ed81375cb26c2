"""The parts on their own: numbers in lists, pixels, the worker, the golden check, and review under a store that fails."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from prometheus_client import CollectorRegistry

from components.classifier.arrays import to_pictures, to_uint8
from components.classifier.errors import ImageError, ServingError, StoreUnavailable
from components.classifier.images import ImageSpec
from components.predictor.errors import Unavailable
from components.predictor.loaded_model import check_golden, load
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.protocol.request import PredictRequest, to_array
from components.predictor.reviewing import ReviewWriter
from components.predictor.settings import PredictorSettings
from components.predictor.speed import Worker
from tests.predictor.versions import NAME

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
SHAPES = st.lists(st.integers(1, 4), min_size=1, max_size=4)


@given(arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, max_side=5)))
def test_nested_bytes_come_through_unchanged(values: np.ndarray) -> None:
    found = to_array(values.tolist(), values.shape)
    assert found is not None
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, values)


@given(JSON, SHAPES)
def test_other_json_is_either_numbers_of_the_shape_or_nothing(value: object, shape: list[int]) -> None:
    found = to_array(value, shape)
    if found is not None:
        assert list(found.shape) == shape
        np.testing.assert_array_equal(np.array(value, np.float64), found.astype(np.float64))


@given(arrays.arrays(st.sampled_from([np.float32, np.float64, np.int64, np.int8, np.uint16]), arrays.array_shapes(max_dims=3)))
def test_pixels_are_whole_numbers_from_0_to_255_or_refused(values: np.ndarray) -> None:
    try:
        found = to_uint8(values)
    except ImageError:
        return
    np.testing.assert_array_equal(found.astype(np.float64), values.astype(np.float64))
    assert values.dtype.kind != "f" or values.max() > 1 or not values.any()


def test_pictures_may_leave_out_the_channel_only_where_there_is_one() -> None:
    grey, colour = ImageSpec(4, 5, 1), ImageSpec(4, 5, 3)
    assert to_pictures(np.zeros((2, 4, 5), np.uint8), grey).shape == (2, 4, 5, 1)
    for shape, spec in (((2, 4, 5), colour), ((2, 1, 4, 5), grey), ((4, 5, 1), colour), ((2, 5, 4, 1), grey)):
        with pytest.raises(ImageError, match="expected"):
            to_pictures(np.zeros(shape, np.uint8), spec)


def test_the_worker_bounds_what_waits_and_hands_on_failures() -> None:
    worker, release = Worker(1, 2), threading.Event()

    async def scenario() -> list[object]:
        running = [asyncio.ensure_future(worker.run(release.wait)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Unavailable, match="3 requests"):
            await worker.run(lambda: None)
        release.set()
        done = await asyncio.gather(*running)
        with pytest.raises(ZeroDivisionError):
            await worker.run(lambda: 1 // 0)
        cancelled = asyncio.ensure_future(worker.run(lambda: time.sleep(0.05)))
        await asyncio.sleep(0)
        cancelled.cancel()
        done.append(await worker.run(lambda: "after"))
        return done

    assert asyncio.run(scenario()) == [True] * 3 + ["after"]
    assert worker.depth == 0
    worker.close()


def test_golden_pictures_must_give_their_probabilities(served_dir: Path) -> None:
    served = load(NAME, served_dir)
    images = np.zeros((2, 8, 8, 1), np.uint8)
    right = served.classifier.probabilities(images)
    check_golden(served.classifier, images, right)
    for wrong in (right[:, ::-1], right + 2e-4, np.full_like(right, np.nan)):
        with pytest.raises(ServingError, match="away"):
            check_golden(served.classifier, images, wrong)
    for pictures, expected in ((images[:0], right[:0]), (images, right[:, :9]), (images[:1], right)):
        with pytest.raises(ServingError, match="holds"):
            check_golden(served.classifier, pictures, expected)
    with pytest.raises(ServingError, match="does not fit"):
        check_golden(served.classifier, np.zeros((2, 9, 9, 1), np.uint8), right)


class FullStore:
    """A store that is full from the start."""

    def exists(self, key: str) -> bool:
        raise StoreUnavailable("the disk is full; make room")


def test_a_review_store_that_fails_costs_pictures_and_never_time(served_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.predictor.reviewing._PAUSES", (0.0, 0.0))
    monkeypatch.setattr("components.predictor.reviewing.open_store", lambda url: FullStore())
    settings = PredictorSettings(model_name=NAME, review_store=str(tmp_path), review_threshold=1.0, audit_rate=0)
    metrics, served = Metrics(registry := CollectorRegistry()), load(NAME, served_dir)
    writer = ReviewWriter(settings, metrics)
    images = np.random.default_rng(0).integers(0, 256, (1500, 8, 8, 1), dtype=np.uint8)
    metrics.serving(served)
    began = time.monotonic()
    ServingModel(settings, Worker(1, 1), metrics, writer).predict(served, PredictRequest(images, [None] * len(images)), "r")
    assert time.monotonic() - began < 2
    writer.close(10)
    dropped = {why: registry.get_sample_value("penstock_review_dropped_total", {"why": why}) or 0 for why in ("full", "store")}
    assert sum(dropped.values()) == 1500
    assert dropped["store"] > 0
