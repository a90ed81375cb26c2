"""Takes rows from a Ray cluster, and notices when the cluster has lost its head.

Ray's own functions wait for a head that is lost, and after a minute Ray ends the process, without an error that could be caught. So
they wait in another thread.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from queue import Empty, Queue
from typing import TypeVar

from components.classifier.errors import EvaluationError

Row = TypeVar("Row")

ANSWER_SECONDS = 10.0
LOOK_SECONDS = 2.0
LOST_SECONDS = 45.0
"""A head at which nobody has listened for so long is lost; after 60 Ray ends the process."""
CLOSE_SECONDS = 30.0


def refusal(address: str) -> OSError | None:
    """Return why nobody can be reached at HOST:PORT, None where somebody listens; of an address of another form nothing is known."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            return error
    return None


def taken(rows: Callable[[], Iterable[Row]], head: str) -> Iterator[Row]:
    """Yield the rows; raises what they raise, and EvaluationError once nobody has listened at the address `head` for LOST_SECONDS."""
    found: Queue[tuple[Row] | BaseException | None] = Queue(1)
    ended = threading.Event()

    def take() -> None:
        try:
            for row in rows():
                found.put((row,))
                if ended.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - raised in the thread that takes it
            found.put(error)
        else:
            found.put(None)

    def watch() -> None:
        answered = time.monotonic()
        while not ended.wait(LOOK_SECONDS):
            if refusal(head) is None:
                answered = time.monotonic()
            elif time.monotonic() - answered > LOST_SECONDS:
                remedy = "start a cluster, and run again: what is complete is kept"
                found.put(EvaluationError(f"the head of the Ray cluster, {head}, does not answer any more; {remedy}"))
                return

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    threading.Thread(target=watch, daemon=True).start()
    try:
        while (row := found.get()) is not None:
            if isinstance(row, BaseException):
                raise row
            yield row[0]
    finally:
        ended.set()
        with suppress(Empty):
            found.get_nowait()
        if refusal(head) is None:
            taker.join(CLOSE_SECONDS)
