"""Where requests are worked on: a few threads beside the event loop, behind a queue that has an end."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from components.predictor.errors import Unavailable

R = TypeVar("R")
_Job = tuple[Callable[[], Any], "asyncio.Future[Any]"]
_Outcome = tuple["asyncio.Future[Any]", Any, BaseException | None]

_GATHER_SECONDS = 0.001
"""So long outcomes are gathered before the event loop is woken: at 16 connections waking cost a quarter of a request."""


class Worker:
    """Runs blocking work; `depth` jobs are waiting or being worked on, at most `queue_size` and one a thread.

    concurrent.futures would do the same at three times the cost a job, which counts when the model takes 0.1 ms.
    """

    def __init__(self, threads: int, queue_size: int) -> None:
        self.limit = threads + queue_size
        self.depth = 0
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
            del future  # an exception's traceback would hold it, and it the exception

    def close(self) -> None:
        """Let the threads end after the work they have."""
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
            self._jobs.put(None)  # the sign to end is for the outer loop
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
    except BaseException as error:  # noqa: BLE001 - handed on to whoever waits
        return future, None, error
