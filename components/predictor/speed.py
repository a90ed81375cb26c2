"""What makes small requests fast, with what each measure gains: quick requests, the worker's threads, the interpreter's settings.

Measured on two CPUs, where the model takes 100 µs for a 28x28 picture.

| measure | gain |
|---|---|
| `is_quick`: a request that is alone and small is answered on the event loop | a thread and back: 10 µs at best, 33 µs in the median |
| `Worker` instead of concurrent.futures | 10 µs per job instead of 24 |
| `Worker` gathers results before it wakes the event loop | at 16 connections a wake-up cost a quarter of a request |
| `tune_interpreter`: threads give up Python's lock after 0.5 ms instead of 5 | health waits for the lock several times per response |
| `freeze_garbage`: what is loaded is never collected, the rest 28 times less often | no pause of 50 ms now and then |
| `new_id`: a counter instead of a UUID | 0.4 µs instead of 7 |

Other measures stand with their subject: onnxruntime's threads do not spin while idle (bundle/model.py), more than one of them is
used only where it helps (loaded_model.py), and KServe's heavy imports are put off (sdk.py).
"""

import asyncio
import gc
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from components.predictor.errors import Unavailable

R = TypeVar("R")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

QUICK_LIMITS = {"max_images": 4, "max_pixels": 65_536}
"""Limits of a request that is answered on the event loop: a few milliseconds of work at most."""
QUICK_SECONDS = 0.003
"""A model that takes longer for one picture never runs on the event loop."""
_QUICK_BYTES = 16 * 1024
_GATHER_SECONDS = 0.001
_SWITCH_SECONDS = 0.0005
_GC_THRESHOLDS = (20_000, 20, 20)
"""One picture as nested JSON lists is about a thousand objects: with Python's 700 each request would trigger a collection."""
_ID_PREFIX, _ID_NUMBERS = os.urandom(6).hex(), itertools.count(1)


def tune_interpreter() -> None:
    """Let threads take turns at Python's lock more often."""
    sys.setswitchinterval(_SWITCH_SECONDS)


def freeze_garbage() -> None:
    """Exempt all present objects from garbage collection, and collect later ones less often; call it after loading a model."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)


def is_quick(body_bytes: int, requests_in_hand: int) -> bool:
    """Say whether a request is small and alone, so that the event loop may answer it."""
    return requests_in_hand <= 1 and body_bytes <= _QUICK_BYTES


def new_id() -> str:
    """Make an id for a request that came without one."""
    return f"{_ID_PREFIX}-{next(_ID_NUMBERS):x}"


class Worker:
    """Runs blocking work on a few threads; at most `queue_size` jobs wait beside those that run."""

    def __init__(self, threads: int, queue_size: int) -> None:
        self.limit = threads + queue_size
        self.depth = 0
        """Jobs that run or wait."""
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._work, name=f"penstock-work-{k}", daemon=True) for k in range(threads)]
        for thread in self._threads:
            thread.start()

    def check(self) -> None:
        """Raise Unavailable when the queue is full."""
        if self.depth >= self.limit:
            raise Unavailable(f"{self.depth} requests are being worked on or waiting, which is the limit; try again in a moment")

    async def run(self, function: Callable[[], R]) -> R:
        """Run a function on a thread and wait for what it returns or raises; raises Unavailable when the queue is full."""
        self.check()
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self.depth += 1
        self._jobs.put((function, future))
        try:
            return await future
        finally:
            del future  # breaks a cycle: an exception's traceback holds the future, and the future the exception

    def close(self) -> None:
        """Let the threads end when their work is done."""
        for _ in self._threads:
            self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            outcomes: list[_Outcome] = []
            until = time.monotonic() + _GATHER_SECONDS
            while job is not None:
                outcomes.append(_run(job))
                job = self._next() if time.monotonic() < until else None
            loop = outcomes[0][0].get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._deliver, outcomes)

    def _next(self) -> _Job | None:
        try:
            job = self._jobs.get_nowait()
        except Empty:
            return None
        if job is None:
            self._jobs.put(None)  # the outer loop must see it
        return job

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        self.depth -= len(outcomes)
        for future, result, error in outcomes:
            if future.done():  # the client's task was cancelled
                continue
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)


def _run(job: _Job) -> _Outcome:
    function, future = job
    try:
        return future, function(), None
    except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
        return future, None, error
