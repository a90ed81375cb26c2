"""Where a request's work is done, the same for HTTP and gRPC: on the event loop, on one of a few threads, or alone.

| a request | is worked on |
|---|---|
| small and the only one, for a quick model | on the event loop: a few milliseconds at most. Not where they are batched (batching.py) |
| small, beside larger ones, for a quick model | on the event loop, for 5 ms in each of its rounds |
| small, beside other small ones, for a small model | the same, but a thread runs the model on all that wait (`Runner`) |
| up to 64 KiB, pictures that cost at most 500,000 pixels each | by one of a few threads |
| up to 1 MiB, pictures that cost at most 2,000,000 pixels each | by one of as many threads that do nothing else |
| all others | one at a time, by a thread of its own, whose costly pictures a process decodes (decoding.py) |

So a request that takes long holds only requests of its own kind. Whoever finds a request too much for it raises HandOver, and
the next begins anew. Work whose client has gone, or that waited too long, is dropped before it begins.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeVar

from components.bundle.model import Answers, Classifier
from components.classifier.images import Pixels
from components.classifier.metadata import Unread
from components.predictor.batching import MAX_TOGETHER, run_together
from components.predictor.decoding import DecoderProcess
from components.predictor.errors import Disconnected, Unavailable
from components.predictor.protocol.request import RequestLimits
from components.predictor.settings import PredictorSettings

R = TypeVar("R")
Work = Callable[[RequestLimits], R | None]
"""Does a request's work within limits; None where it is too much for them."""
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_QUICK_BYTES = 16 * 1024
_QUICK_IMAGES, _QUICK_COST = 4, 65_536
SMALL_BYTES = 64 * 1024
_SMALL_COST = 500_000
_LARGE_BYTES = 1024 * 1024
_MEDIUM_COST = 2_000_000
_GATHER_SECONDS = 0.001
_ROUND_SECONDS = 0.005
"""How long the event loop may work on small requests before it looks at its connections again."""
_MAX_WAITING = 64
"""Requests that may wait for the thread beside the event loop."""


def never() -> bool:
    """Stands in where it cannot be seen that a client has left: always False."""
    return False


class Dispatcher:
    """Gives each request to the event loop or to the worker for its size."""

    def __init__(self, settings: PredictorSettings, threads: int, tell_unread: Callable[[Unread], object] = bool) -> None:
        """`threads` work on small requests; `tell_unread` is called with what of a picture's metadata cannot be read."""
        self.quick_limits = RequestLimits(settings.max_images, settings.max_pixels, _QUICK_IMAGES, _QUICK_COST, tell_unread=tell_unread)
        self._decoder = DecoderProcess(settings.decode_seconds)
        small = replace(self.quick_limits, images_here=settings.max_images, cost_here=_SMALL_COST)
        self._patience, self._batches = settings.queue_seconds, settings.batch_seconds > 0
        self.runner = Runner()
        self._small, self._medium, self._heavy = self._all = [Worker(number, settings.queue_size) for number in (threads, threads, 1)]
        limits = (small, replace(small, cost_here=_MEDIUM_COST), replace(small, slow=self._decoder.decode))
        line = list(zip(self._all, limits, strict=True))
        self._lines = [line[first:] for first in range(len(line))]
        """Who may work on a request, one after the other: on a small one, a medium one, a large one."""
        self._stop_at = math.inf
        self._round_end: float | None = None
        """Until when the event loop may work on small requests in its present round; None before the first of them."""

    @property
    def depth(self) -> int:
        """Requests that are worked on by a thread, or wait for one."""
        return sum(worker.depth for worker in self._all) + self.runner.depth

    @property
    def last_large(self) -> float:
        """When a request that is not small was last worked on (time.monotonic)."""
        waiting = self._medium.depth + self._heavy.depth
        return time.monotonic() if waiting else max(self._medium.last_end, self._heavy.last_end)

    @property
    def running(self) -> int:
        """Requests that a thread works on now."""
        return sum(worker.running for worker in self._all)

    def check(self, size: int) -> None:
        """Raise Unavailable when no more requests of `size` bytes are taken."""
        self._workers(size)[0][0].check()

    def may_read_here(self, size: int) -> bool:
        """Say whether the event loop may work on a request of `size` bytes: one that is small, while its round has time left."""
        if size > _QUICK_BYTES or self._batches:
            return False
        now = time.perf_counter()
        if self._round_end is None:
            self._round_end = now + _ROUND_SECONDS
            asyncio.get_running_loop().call_soon(self._begin_round)
        return now < self._round_end

    def _begin_round(self) -> None:
        self._round_end = None

    def may_run_here(self, requests_in_hand: int) -> bool:
        """Say whether the event loop may run the model too: for a request that is alone, or beside larger ones, as under an attack.

        Then the thread beside it would wait for Python's lock longer than the model runs.
        """
        return requests_in_hand <= 1 or bool(self._medium.depth or self._heavy.depth)

    async def run(self, work: Work[R], size: int, gone: Callable[[], bool] = never) -> R:
        """Do a request's work on a thread; `size` is its number of bytes, `gone` says whether its client has left.

        Raises what the work raises, Unavailable when too many wait or it waited too long, and Disconnected.
        """
        since = time.monotonic()
        for worker, limits in self._workers(size):
            if worker is self._heavy:
                limits = replace(limits, gone=lambda: gone() or time.monotonic() > self._stop_at)
            result = await worker.run(partial(self._begin, work, limits, since, gone))
            if result is not None:
                return result
        raise RuntimeError("a request was handed over by the last that could take it")

    def _workers(self, size: int) -> list[tuple["Worker", RequestLimits]]:
        """Who may work on a request of `size` bytes, one after the other."""
        return self._lines[(size > SMALL_BYTES) + (size > _LARGE_BYTES)]

    def _begin(self, work: Work[R], limits: RequestLimits, since: float, gone: Callable[[], bool]) -> R | None:
        now = time.monotonic()
        if gone():
            raise Disconnected
        if now > self._stop_at:
            raise Unavailable("the server is shutting down; ask another replica", retry_after=5)
        if now - since > self._patience:
            raise Unavailable(f"the request waited for more than {self._patience:g} seconds; try again later", retry_after=10)
        return work(limits)

    def stop_after(self, seconds: float) -> None:
        """Begin no work after `seconds`, and end what is still being decoded then."""
        self._stop_at = time.monotonic() + seconds

    def close(self) -> None:
        """Let the threads end when their work is done, and the decoding process at once."""
        for worker in self._all:
            worker.close()
        self.runner.close()
        self._decoder.close()


class Worker:
    """Runs blocking work on a few threads; at most `queue_size` jobs wait beside those that run."""

    def __init__(self, threads: int, queue_size: int) -> None:
        self.limit = threads + queue_size
        self.depth = 0
        """Jobs that run or wait."""
        self.running = 0
        """Jobs that run."""
        self.last_end = -math.inf
        """When the last ones ended (time.monotonic)."""
        self._lock = threading.Lock()
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
                function, future = job
                with self._lock:
                    self.running += 1
                outcomes.append((future, *((None, None) if future.cancelled() else _call(function))))  # cancelled: nobody waits for it
                with self._lock:
                    self.running -= 1
                job = _next(self._jobs) if time.monotonic() < until else None
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._deliver, outcomes)
            del outcomes, function, future  # while this thread waits, it holds nothing of the last request

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        self.depth -= len(outcomes)
        self.last_end = time.monotonic()
        _settle(outcomes)


class _Asked(NamedTuple):
    classifier: Classifier
    images: Pixels
    future: "asyncio.Future[Answers]"


class Runner:
    """A thread that runs the model for the event loop: each run takes what was asked since the last one began.

    So the two pass Python's lock to each other once per run, and not several times per request.
    """

    def __init__(self) -> None:
        self.depth = 0
        """Requests that wait or run."""
        self._asked: SimpleQueue[_Asked | None] = SimpleQueue()
        threading.Thread(target=self._work, name="penstock-run", daemon=True).start()

    @property
    def has_room(self) -> bool:
        """Whether it takes one more request; others are for several threads."""
        return self.depth < _MAX_WAITING

    async def answer(self, classifier: Classifier, images: Pixels) -> Answers:
        """Answer a few pictures as `classifier.answer` does, in one run with those of other requests; raises what the run raises."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self.depth += 1
        self._asked.put(_Asked(classifier, images, future))
        try:
            return await future
        finally:
            del future  # breaks a cycle, as in Worker.run

    def close(self) -> None:
        """Let the thread end when its work is done."""
        self._asked.put(None)

    def _work(self) -> None:
        while (first := self._asked.get()) is not None:
            for classifier, asked in groupby(self._with_others(first), attrgetter("classifier")):
                self._run(classifier, list(asked))
            del first, classifier, asked  # while this thread waits, it holds nothing of the last requests

    def _with_others(self, first: _Asked) -> list[_Asked]:
        """Take what else is waiting, as far as one run has room."""
        asked, number = [first], len(first.images)
        while number <= MAX_TOGETHER - _QUICK_IMAGES and (one := _next(self._asked)) is not None:
            asked.append(one)
            number += len(one.images)
        return asked

    def _run(self, classifier: Classifier, asked: list[_Asked]) -> None:
        found, error = _call(partial(run_together, classifier, [each.images for each in asked]))
        loop = asked[0].future.get_loop()
        if not loop.is_closed():
            outcomes: list[_Outcome] = [(each.future, found and found[index], error) for index, each in enumerate(asked)]
            loop.call_soon_threadsafe(self._deliver, outcomes)

    def _deliver(self, outcomes: list[_Outcome]) -> None:
        self.depth -= len(outcomes)
        _settle(outcomes)


def _next(queue: SimpleQueue[R | None]) -> R | None:
    """Take what is in a queue; None where nothing is."""
    try:
        job = queue.get_nowait()
    except Empty:
        return None
    if job is None:
        queue.put(None)  # who waits for the next must see that it is the end
    return job


def _settle(outcomes: list[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():  # the client's task was cancelled
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


def _call(function: Callable[[], R]) -> tuple[R | None, BaseException | None]:
    """Return what a function returns or raises.

    A traceback keeps this frame and those that called it. If one of them kept the future, which keeps the exception, that would be a cycle:
    a request's body would stay until garbage is collected.
    """
    try:
        return function(), None
    except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
        return None, error
