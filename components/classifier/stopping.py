"""A clean exit, or an error, on SIGTERM, Ctrl-C and other signals."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """SIGTERM, which Kubernetes sends to a stopped pod, and Ctrl-C: at once an end of the process that runs `finally` blocks.

    Within `deferred` the first one only counts as a request, so that the work in it can be left at a good moment by `leave`.
    """

    def __init__(self) -> None:
        self._deferred = False
        self._number = 0

    @property
    def requested(self) -> bool:
        """Whether the process was told to stop."""
        return self._number != 0

    @property
    def number(self) -> int:
        """Return the signal's number, 0 when there was none."""
        return self._number

    def follow(self, number: int) -> None:
        """Count another process' signal as received here."""
        self._number = self._number or number

    def leave(self) -> None:
        """End the process as it was told to. Raises KeyboardInterrupt for Ctrl-C, and SystemExit for SIGTERM."""
        if self._number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + self._number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the work in this block answer the first request itself; the second one ends it at once."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.requested:  # too late for the work to see it
            self.leave()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        waits = self._deferred and not self.requested
        self._number = number
        if not waits:
            self.leave()


@contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Answer SIGTERM and Ctrl-C by a StopRequest, in the main thread and where nobody else does."""
    request = StopRequest()
    defaults: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    here = threading.current_thread() is threading.main_thread()
    taken = [number for number, default in defaults.items() if here and signal.getsignal(number) is default]
    for number in taken:
        signal.signal(number, request._receive)
    try:
        yield request
    finally:
        for number in taken:
            signal.signal(number, defaults[number])


@contextmanager
def raised_at(numbers: tuple[signal.Signals, ...], error: Callable[[], BaseException]) -> Iterator[None]:
    """Raise an error at these signals, so that what was begun is undone; in another thread than the main one signals stay as they are."""

    def stop(*_: object) -> None:
        raise error()

    here = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, stop) for number in numbers if here}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
