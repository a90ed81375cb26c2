"""Where work is done: requests that take long hold only their own kind, and work that nobody waits for is dropped."""

import asyncio
import gc
import io
import json
import os
import signal
import struct
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from components.classifier.decode import CostlyPicture, decode, header_cost
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, from_bytes
from components.predictor import speed
from components.predictor.decoding import DecoderProcess
from components.predictor.dispatch import SMALL_BYTES, Dispatcher, Worker
from components.predictor.errors import Disconnected, Unavailable
from components.predictor.protocol.request import RequestLimits
from components.predictor.settings import PredictorSettings
from components.validate_serving.predictor_process import predictor
from tests.predictor.test_attacks import many_chunks, many_markers
from tests.predictor.test_limits import bomb, connect
from tests.predictor.versions import NAME, PREDICT, b64

SPEC = ImageSpec(8, 8, 1)


def encoded(side: int, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((side, side)).save(buffer, kind, **options)
    return buffer.getvalue()


def never() -> bool:
    return False


def test_what_takes_long_to_decode_is_known_from_the_header(pictures: np.ndarray) -> None:
    plain = encoded(256, "PNG")
    assert decode(plain, max_cost=256 * 256).shape == (256, 256, 1)
    jpeg = encoded(256, "JPEG", progressive=True)
    end = jpeg.rfind(b"\xff\xd9")
    scans = jpeg[:end] + jpeg[jpeg.rfind(b"\xff\xda") : end] * 50 + jpeg[end:]
    costly = [encoded(256, "JPEG2000"), encoded(256, "WEBP"), scans, b"P2\n100 100\n255\n" + b"1 " * 10_000]
    for data in costly:
        with pytest.raises(CostlyPicture, match=r"too long|longer"):
            decode(data, max_cost=256 * 256)
        assert decode(data).size


def many_tags(number: int) -> bytes:
    """A TIFF of 8x8 pixels with so many tags more than it needs."""
    needed = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, 20 + 12 * (8 + number)), (277, 1), (279, 64)]
    tags = needed + [(1000 + each, 1) for each in range(number)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(10 + 64)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"P5\n" + b"#\n" * 50_000 + b"8 8\n255\n" + bytes(64), id="comments"),
        pytest.param(b"P5\n#" + b"x" * 100_000 + b"\n8 8\n255\n" + bytes(64), id="one long comment"),
        pytest.param(b"P5\n" + b" " * 100_000 + b"8 8\n255\n" + bytes(64), id="spaces"),
        pytest.param(many_markers(), id="markers"),
        pytest.param(many_chunks(), id="chunks"),
        pytest.param(many_tags(30_000), id="tags"),
        pytest.param(encoded(8, "GIF", comment=b"x" * 150_000), id="blocks"),
    ],
)
def test_a_header_that_takes_long_to_read_is_known_before_it_is_read(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    small = decode(data)
    assert small.shape[:2] == (8, 8), "it is a good picture"
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("it was read"))
    with pytest.raises(CostlyPicture):
        decode(data, max_cost=2_000_000)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "PPM", "TIFF", "BMP"])
def test_the_header_of_a_usual_picture_costs_little(kind: str) -> None:
    assert header_cost(encoded(28, kind)) < 40_000
    assert decode(encoded(28, kind), max_cost=65_536).shape[:2] == (28, 28)


def test_what_a_request_held_is_free_when_its_client_has_gone(pictures: np.ndarray) -> None:
    """Without the help of garbage collection, which comes rarely here: megabytes would wait for it."""

    class Body:
        pass

    dispatcher = Dispatcher(PredictorSettings(), 2)
    kept: list[weakref.ref[Body]] = []

    async def ask(gone: bool) -> None:
        body = Body()
        kept.append(weakref.ref(body))

        def work(limits: RequestLimits) -> bool:
            if body is None or not gone:
                raise RequestError("wrong")
            return True

        with pytest.raises(Disconnected if gone else RequestError):
            await dispatcher.run(work, 10, lambda: gone)

    async def ask_all() -> None:
        for number in range(8):
            await asyncio.create_task(ask(number % 2 == 0))

    gc.collect()
    gc.disable()
    try:
        asyncio.run(ask_all())
        until = time.monotonic() + 60
        while [it for it in kept if it() is not None] and time.monotonic() < until:
            time.sleep(0.01)  # a thread may not have reached its next job yet
        assert [it() for it in kept] == [None] * 8
    finally:
        gc.enable()
        dispatcher.close()


def test_a_process_decodes_like_this_one_and_names_the_same_reasons() -> None:
    decoder = DecoderProcess(10)
    data = encoded(3000, "WEBP")
    try:
        pixels, number, _ = decoder.decode(data, SPEC, 25_000_000, never)
        np.testing.assert_array_equal(pixels, from_bytes(data, SPEC))
        assert number == 9_000_000
        for wrong in (data[: len(data) // 2], b"nothing", b""):
            with pytest.raises(ImageError) as here:
                decode(wrong)
            with pytest.raises(ImageError) as there:
                decoder.decode(wrong, SPEC, 25_000_000, never)
            assert str(here.value) == str(there.value)
        with pytest.raises(ImageError, match="more than the limit of 100"):
            decoder.decode(data, SPEC, 100, never)
        os.kill(decoder._process.pid, signal.SIGKILL)  # type: ignore[union-attr]
        decoder.decode(data, SPEC, 25_000_000, never)
    finally:
        decoder.close()


SLOW = b"P2\n3000 3000\n255\n" + b"1 " * 9_000_000
"""Takes about 7 seconds."""


def test_a_decode_that_takes_too_long_or_whose_client_is_gone_is_ended() -> None:
    decoder = DecoderProcess(1.5)
    small = encoded(8, "PNG")
    try:
        with pytest.raises(RequestError, match=r"longer than 1\.5 seconds") as caught:
            decoder.decode(SLOW, SPEC, 25_000_000, never)
        assert caught.value.status == 413
        first = decoder._process
        assert first is None
        decoder._seconds = 60
        with pytest.raises(Disconnected):  # and not the picture, some seconds later
            decoder.decode(SLOW, SPEC, 25_000_000, lambda: True)
        assert decoder._process is None
        assert decoder.decode(small, SPEC, 25_000_000, never)[1] == 64
    finally:
        decoder.close()


def test_a_decoder_that_is_closed_in_the_middle_of_a_picture_begins_no_other_process() -> None:
    decoder = DecoderProcess(60)
    closing = threading.Timer(1.5, decoder.close)
    closing.start()
    try:
        with pytest.raises(Disconnected):
            decoder.decode(SLOW, SPEC, 25_000_000, never)
        assert decoder._process is None
    finally:
        closing.join()
        decoder.close()


def test_work_is_handed_over_until_somebody_can_do_it_and_dropped_when_it_is_too_late() -> None:
    async def scenario() -> None:
        dispatcher = Dispatcher(PredictorSettings(), 1)
        tried: list[RequestLimits] = []

        def heavy(limits: RequestLimits) -> str | None:
            tried.append(limits)
            return "done" if limits.slow else None

        assert await dispatcher.run(heavy, 100) == "done"
        assert [limits.slow is not None for limits in tried] == [False, False, True]
        tried.clear()
        assert await dispatcher.run(heavy, 2_000_000) == "done"  # large ones go there at once
        assert len(tried) == 1
        with pytest.raises(Disconnected):
            await dispatcher.run(lambda limits: pytest.fail("nobody waits"), 100, lambda: True)
        begun, release = threading.Event(), threading.Event()
        waits = asyncio.ensure_future(dispatcher.run(lambda limits: begun.set() or (release.wait(60) and "slow"), 100))
        await asyncio.to_thread(begun.wait, 60)
        dispatcher._patience = 0.2
        late = asyncio.ensure_future(dispatcher.run(lambda limits: "late", 100))
        await asyncio.sleep(0.3)
        release.set()
        with pytest.raises(Unavailable, match=r"more than 0\.2 seconds"):
            await late
        assert await waits == "slow"
        dispatcher.stop_after(-1)
        with pytest.raises(Unavailable, match="shutting down"):
            await dispatcher.run(lambda limits: "late", 100)
        dispatcher.close()

    asyncio.run(scenario())


def test_small_requests_do_not_wait_for_medium_ones() -> None:
    async def scenario() -> None:
        dispatcher, ends = Dispatcher(PredictorSettings(), 2), threading.Event()
        medium = [asyncio.ensure_future(dispatcher.run(lambda limits: ends.wait(60), SMALL_BYTES + 1)) for _ in range(4)]
        try:
            assert [await dispatcher.run(lambda limits: "done", SMALL_BYTES) for _ in range(3)] == ["done"] * 3
            assert not any(each.done() for each in medium)
        finally:
            ends.set()
        assert await asyncio.gather(*medium) == [True] * 4
        dispatcher.close()

    asyncio.run(scenario())


def test_the_event_loop_reads_small_requests_for_some_milliseconds_a_round() -> None:
    async def scenario() -> None:
        dispatcher = Dispatcher(PredictorSettings(), 1)
        for _ in range(2):
            assert not dispatcher.may_read_here(100_000), "it is not small"
            assert dispatcher.may_read_here(100)
            time.sleep(0.01)  # as a request of pictures would take
            assert not dispatcher.may_read_here(100), "the round has taken long enough"
            await asyncio.sleep(0)
        dispatcher.close()

    asyncio.run(scenario())


def test_the_event_loop_runs_the_model_for_what_is_alone_or_beside_larger_work() -> None:
    async def scenario() -> None:
        dispatcher, ends = Dispatcher(PredictorSettings(), 1), threading.Event()
        assert dispatcher.may_run_here(1)
        assert not dispatcher.may_run_here(2), "others are in hand, and all are small"
        small = asyncio.ensure_future(dispatcher.run(lambda limits: ends.wait(60), 100))
        await asyncio.sleep(0)
        assert not dispatcher.may_run_here(2)
        large = asyncio.ensure_future(dispatcher.run(lambda limits: ends.wait(60), 2_000_000))
        await asyncio.sleep(0)
        assert dispatcher.may_run_here(5)
        ends.set()
        await asyncio.gather(small, large)
        dispatcher.close()

    asyncio.run(scenario())


def test_memory_is_given_back_once_after_large_work_and_not_while_it_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    now, last_large, tried = 1000.0, 995.0, list[float]()
    rounds = iter([None] * 60)

    async def five_seconds(_: float) -> None:
        nonlocal now, last_large
        if next(rounds, "end") == "end":
            raise asyncio.CancelledError
        now += 5
        if now <= 1030:  # an attack of half a minute
            last_large = now - 1

    sizes = iter([100 * 2**20])
    monkeypatch.setattr(speed, "resident_bytes", lambda: next(sizes, 200 * 2**20))
    monkeypatch.setattr(speed.time, "monotonic", lambda: now)
    monkeypatch.setattr(speed.asyncio, "sleep", five_seconds)
    monkeypatch.setattr(speed.gc, "collect", lambda: tried.append(now))
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(speed.give_memory_back(lambda: last_large))
    assert tried[0] == 1035, "five seconds after the last large request"
    assert tried[1] - tried[0] == 65, "where it did not help, again after a minute"


def test_a_cancelled_job_is_not_begun() -> None:
    async def scenario() -> list[str]:
        worker, done, release = Worker(1, 10), [], threading.Event()
        first = asyncio.ensure_future(worker.run(lambda: release.wait(60)))
        second = asyncio.ensure_future(worker.run(lambda: done.append("second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        await first
        await worker.run(lambda: done.append("third"))
        worker.close()
        return done

    assert asyncio.run(scenario()) == ["third"]


def test_memory_that_is_waited_for_never_holds_the_event_loop() -> None:
    """Only a decode that needs more than SMALL_WORK may wait for memory; the event loop decodes no such picture."""
    from components.classifier import decode as module

    limits = Dispatcher(PredictorSettings(), 1).quick_limits
    for kind, mode in (("PNG", "RGBA"), ("TIFF", "RGBA"), ("WEBP", "RGB"), ("JPEG", "RGB"), ("JPEG2000", "RGB"), ("BMP", "RGB")):
        buffer = io.BytesIO()
        Image.new(mode, (256, 256)).save(buffer, kind)
        with Image.open(io.BytesIO(buffer.getvalue())) as image:
            assert image.width * image.height <= limits.cost_here
            assert module.work_bytes(image) <= module.SMALL_WORK


@pytest.mark.load
@pytest.mark.integration
def test_pictures_that_take_long_do_not_hold_small_requests(url: str, client: httpx.Client, pictures: np.ndarray) -> None:
    body = {"instances": [pictures[0].tolist()]}
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((4900, 4900)).convert("RGB").save(buffer, "JPEG", progressive=True)
    assert len(buffer.getvalue()) < 700_000  # a small body with much work
    slow = {"instances": [{"b64": b64(buffer.getvalue())}] * 2}
    done: list[float] = []

    def send() -> None:
        assert httpx.post(f"{url}{PREDICT}", json=slow, timeout=60).status_code == 200
        done.append(time.monotonic())

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    answered = 0
    while len(done) < len(threads):
        began = time.monotonic()
        assert client.post(PREDICT, json=body).status_code == 200
        assert time.monotonic() - began < 1
        answered += 1
        time.sleep(0.05)
    assert answered
    for thread in threads:
        thread.join()


def test_large_pictures_whose_clients_are_gone_are_not_decoded(url: str, client: httpx.Client, pictures: np.ndarray) -> None:
    heavy = json.dumps({"instances": [{"b64": b64(encoded(4900, "WEBP"))}] * 4}).encode()
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(heavy)}\r\n\r\n".encode()
    for _ in range(20):  # a minute of work and more
        with closing(connect(url)) as connection:
            connection.sendall(head + heavy)
            time.sleep(0.02)
    began = time.monotonic()
    one = {"instances": [{"b64": b64(bomb(1500))}]}
    assert client.post(PREDICT, json=one).status_code == 200
    assert time.monotonic() - began < 30


@pytest.mark.load
@pytest.mark.integration
def test_sigterm_ends_in_time_under_load_and_everybody_gets_an_answer(served_dir: Path) -> None:
    heavy = json.dumps({"instances": [{"b64": b64(encoded(4900, "WEBP"))}] * 4}).encode()
    options = ("--drain_seconds", "0", "--grace_seconds", "4")
    with predictor(NAME, served_dir, 60, *options) as (process, started):
        with ThreadPoolExecutor(12) as pool:
            asked = [pool.submit(httpx.post, started.url + PREDICT, content=heavy, timeout=60) for _ in range(12)]
            with httpx.Client(base_url=started.url, timeout=60) as client:
                while "penstock_queue_depth 12.0" not in client.get("/metrics").text:
                    time.sleep(0.02)
            process.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            assert process.process.wait(20) == 0
            assert time.monotonic() - began < 8
            statuses = {future.result().status_code for future in asked}
        assert 503 in statuses
        assert statuses <= {200, 503}
