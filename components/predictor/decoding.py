"""A process of its own for pictures that take long to decode.

Some decoders hold Python's lock for seconds, and none can be stopped. In a process beside the server they hold nothing, a
decode that takes too long or whose client is gone is ended with the process, and what it took of memory is given back. The
process starts with the first such picture (0.3 s) and ends when none came for 20 seconds.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from components.classifier.decode import decode_picture
from components.classifier.errors import ImageError, RequestError
from components.classifier.images import ImageSpec, Pixels, prepare
from components.classifier.metadata import Unread
from components.predictor.errors import Disconnected

IDLE_SECONDS = 20.0
_POLL_SECONDS = 0.1
_GONE_SECONDS = 1.0
"""How long a decode goes on whose client is gone: ending the process costs more."""
_NICE = 5
"""Small requests come first."""


class Decoded(NamedTuple):
    """A picture as the model takes it, with its own number of pixels and what of its metadata cannot be read."""

    pixels: Pixels
    number: int
    unread: tuple[Unread, ...]


class DecoderProcess:
    """Decodes one picture at a time in a process beside this one, within `seconds`."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._closed = False

    def decode(self, data: bytes, spec: ImageSpec, max_pixels: int, gone: Callable[[], bool]) -> Decoded:
        """Decode a picture to what the model takes.

        Raises ImageError as decode does, RequestError (413) when it takes too long, Disconnected when `gone` says that nobody waits.
        """
        with self._lock:
            try:
                return self._ask(data, spec, max_pixels, gone)
            except (EOFError, OSError):  # it ended for want of work, or was killed for what it took of memory
                self._end()
            if self._closed:
                raise Disconnected
            try:
                return self._ask(data, spec, max_pixels, gone)
            except (EOFError, OSError) as error:
                self._end()
                raise ImageError("the picture takes more memory or time than there is; make it smaller") from error

    def close(self) -> None:
        """End the process, in the middle of a picture too, for which nobody waits any more."""
        self._closed = True
        if (process := self._process) is not None:
            process.kill()

    def _ask(self, data: bytes, spec: ImageSpec, max_pixels: int, gone: Callable[[], bool]) -> Decoded:
        connection = self._started()
        connection.send((spec, max_pixels))
        connection.send_bytes(data)
        began = time.monotonic()
        while not connection.poll(_POLL_SECONDS):
            passed = time.monotonic() - began
            if passed > self._seconds:
                self._end()
                raise RequestError(f"the picture took longer than {self._seconds:g} seconds to decode; send a smaller or simpler one", 413)
            if passed > _GONE_SECONDS and gone():
                self._end()
                raise Disconnected
        if reason := connection.recv_bytes().decode():
            raise ImageError(reason)
        number, unread = connection.recv()
        return Decoded(np.frombuffer(connection.recv_bytes(), np.uint8).reshape(spec.shape), number, unread)

    def _started(self) -> Connection:
        if self._process is None or self._process.poll() is not None or self._connection is None:
            self._end()
            ours, theirs = socket.socketpair()
            with theirs:
                self._process = subprocess.Popen([sys.executable, "-m", __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
            self._connection = Connection(ours.detach())
        return self._connection

    def _end(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None


def work(connection: Connection) -> None:
    """Decode what comes, until the other side ends or nothing came for a while."""
    while connection.poll(IDLE_SECONDS):
        spec, max_pixels = connection.recv()
        data = connection.recv_bytes()
        try:
            picture = decode_picture(data, max_pixels, levels=spec.levels)
            prepared = prepare(picture.pixels, spec)
        except ImageError as error:
            connection.send_bytes(str(error).encode())
            continue
        number, unread = picture.pixels.shape[0] * picture.pixels.shape[1], picture.unread
        del data, picture
        connection.send_bytes(b"")
        connection.send((number, unread))
        connection.send_bytes(prepared.tobytes())


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM):  # the server says when to end
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    with suppress(EOFError, OSError):  # the server ended
        work(Connection(int(sys.argv[1])))
