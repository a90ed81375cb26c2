"""Where requests are worked on: a few threads beside the event loop, behind a queue that has an end."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from components.predictor.errors import Unavailable

P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """Runs blocking work; `depth` requests are waiting or being worked on, at most `queue_size` and one a thread."""

    def __init__(self, threads: int, queue_size: int) -> None:
        self.threads = threads
        self.limit = threads + queue_size
        self.depth = 0
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="penstock-work")

    def check(self) -> None:
        """Raise Unavailable when the queue is full."""
        if self.depth >= self.limit:
            raise Unavailable(f"{self.depth} requests are being worked on or waiting, which is the limit; try again in a moment")

    async def run(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run a function on a thread and wait for what it returns; raises Unavailable when the queue is full."""
        self.check()
        self.depth += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))
        finally:
            self.depth -= 1

    def close(self) -> None:
        """Let the threads end after the work they have."""
        self._pool.shutdown(wait=False, cancel_futures=True)
