"""Where a request's work is done, the same for HTTP and gRPC: on the event loop, on one of a few threads, or alone.

| a request | is worked on |
|---|---|
| small and the only one, for a quick model | on the event loop: a few milliseconds at most. Not where they are batched (batching.py) |
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
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from components.classifier.metadata import Unread
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


def never() -> bool:
    """Whether a client has gone of whom that is not known."""
    return False


class Dispatcher:
    """Gives each request to the event loop or to the worker for its size."""

    def __init__(self, settings: PredictorSettings, threads: int, tell_unread: Callable[[Unread], object] = bool) -> None:
        """`threads` work on small requests; `tell_unread` is called with what of a picture's metadata cannot be read."""
        self.quick_limits = RequestLimits(settings.max_images, settings.max_pixels, _QUICK_IMAGES, _QUICK_COST, tell_unread=tell_unread)
        self._decoder = DecoderProcess(settings.decode_seconds)
        small = replace(self.quick_limits, images_here=settings.max_images, cost_here=_SMALL_COST)
        self._patience, self._batches = settings.queue_seconds, settings.batch_seconds > 0
        self._small, self._medium, self._heavy = self._all = [Worker(number, settings.queue_size) for number in (threads, threads, 1)]
        limits = (small, replace(small, cost_here=_MEDIUM_COST), replace(small, slow=self._decoder.decode))
        line = list(zip(self._all, limits, strict=True))
        self._lines = [line[first:] for first in range(len(line))]
        """Who may work on a request, one after the other: on a small one, a medium one, a large one."""
        self._stop_at = math.inf
        self._answered = False
        """Whether the event loop has answered a request beside larger ones in its present round."""

    @property
    def depth(self) -> int:
        """Requests that are worked on by a thread, or wait for one."""
        return sum(worker.depth for worker in self._all)

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
        """Raise Unavailable when no more requests of so many bytes are taken."""
        self._workers(size)[0][0].check()

    def may_answer_here(self, size: int, requests_in_hand: int) -> bool:
        """Say whether the event loop may answer a request of so many bytes: one that is small and alone.

        Beside larger ones, as under an attack, it need not be alone: then one is answered in each round of the loop.
        """
        if size > _QUICK_BYTES or self._batches:
            return False
        if requests_in_hand <= 1:
            return True
        if self._answered or self._small.depth or not (self._medium.depth or self._heavy.depth):
            return False
        self._answered = True
        asyncio.get_running_loop().call_soon(self._begin_round)
        return True

    def _begin_round(self) -> None:
        self._answered = False

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
        """Who may work on a request of so many bytes, one after the other."""
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
                job = self._next() if time.monotonic() < until else None
            loop = future.get_loop()
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._deliver, outcomes)
            del outcomes, function, future  # while this thread waits, it holds nothing of the last request

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
        self.last_end = time.monotonic()
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
