"""The parts on their own: numbers in lists, pixels, the worker and the golden check."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from components.classifier.errors import ImageError, IntegrityError, RequestError, ServingError
from components.classifier.images import ImageSpec, to_pictures, to_uint8
from components.predictor.dispatch import Dispatcher, Worker
from components.predictor.errors import HandOver, Unavailable
from components.predictor.loaded_model import check_golden, load
from components.predictor.protocol import v1, v2
from components.predictor.protocol.request import _SLICE, RequestLimits, decode_base64, max_images, to_array
from components.predictor.settings import PredictorSettings
from tests.predictor.versions import NAME, b64

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


def test_a_request_holds_fewer_pictures_where_the_model_takes_large_ones() -> None:
    for side, limit in ((28, 256), (224, 222), (1024, 10), (5000, 1)):
        assert max_images(ImageSpec(side, side, 3), 256) == limit


def test_base64_that_is_padded_before_its_end_is_refused_in_long_text_too() -> None:
    """Long text is decoded in slices; the first one ends with padding here, as if two pictures were joined."""
    text = b64(bytes(_SLICE // 4 * 3 - 1)) + b64(b"more")
    assert text[_SLICE - 1] == "="
    with pytest.raises(RequestError, match="not base64"):
        decode_base64(text, "here")
    whole = bytes(range(256)) * 300
    assert decode_base64(b64(whole), "here") == whole


def test_the_event_loop_leaves_requests_of_many_pictures_to_a_thread() -> None:
    dispatcher, spec = Dispatcher(PredictorSettings(), 1), ImageSpec(8, 8, 1)
    dispatcher.close()
    picture = np.zeros((8, 8, 1), np.uint8).tolist()
    assert len(v1.parse(orjson.dumps({"instances": [picture] * 4}), spec, dispatcher.quick_limits).images) == 4
    with pytest.raises(HandOver):
        v1.parse(orjson.dumps({"instances": [picture] * 5}), spec, dispatcher.quick_limits)


def test_elements_beyond_the_number_that_a_v2_shape_says_are_not_decoded() -> None:
    limits = RequestLimits(max_images=8, max_pixels=10_000, images_here=8, cost_here=10_000)
    data = [b64(b"a")] * 2 + ["this is not base64"]
    with pytest.raises(RequestError, match="1 elements, but more came"):
        v2.read_images(v2.Tensor("BYTES", [1], data=data), ImageSpec(8, 8, 1), limits)


def test_a_worker_that_is_closed_ends_its_threads_when_their_work_is_done() -> None:
    worker, done = Worker(2, 10), []

    async def scenario() -> None:
        running = [asyncio.ensure_future(worker.run(lambda: done.append(time.sleep(0.02)))) for _ in range(6)]
        await asyncio.sleep(0)
        worker.close()
        await asyncio.gather(*running)

    asyncio.run(scenario())
    assert len(done) == 6
    for thread in worker._threads:
        thread.join(60)
        assert not thread.is_alive()


def test_a_modelcar_that_comes_later_is_waited_for(served_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As KServe mounts it: a link that another container makes when it has started."""
    link = tmp_path / "models"
    with pytest.raises(IntegrityError, match="is not a folder"):
        load(NAME, link)
    monkeypatch.setenv("MODEL_INIT_MODE", "async")
    timer = threading.Timer(0.3, link.symlink_to, [served_dir])
    timer.start()
    assert load(NAME, link).name == NAME
    timer.join()
