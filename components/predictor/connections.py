"""Connections that cost something: slow senders, endless headers, too many at once.

uvicorn waits without end for a request to arrive. Its protocol is extended here by what a sweep needs to find the slow ones,
so that a request in good time costs next to nothing.
"""

import asyncio
import time
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEADER_BYTES = 64 * 1024
_SWEEP_SECONDS = 0.5


class GuardedProtocol(HttpToolsProtocol):
    """One connection, which knows since when it owes us something."""

    max_connections = 2048

    waiting_since: float | None = None
    """Since when a request is expected or coming in; None while it is being answered or the connection is idle."""
    headers_came = False
    blocked_since: float | None = None
    """Since when the client takes no more of an answer."""
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Take the connection, or say at once that there are too many."""
        super().connection_made(transport)
        self.waiting_since = time.monotonic()
        if len(self.connections) > self.max_connections:
            self.refuse(503, "too many connections; try again in a moment", (b"retry-after: 1\r\n",))

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request; headers may not go on for ever."""
        if self.waiting_since is None and (self.cycle is None or self.cycle.response_complete):
            self.waiting_since, self.headers_came = time.monotonic(), False
        if not self.headers_came:
            self._header_bytes += len(data)
            if self._header_bytes > _MAX_HEADER_BYTES and not self._body_began(data):
                self.refuse(431, f"the request's headers are larger than {_MAX_HEADER_BYTES} bytes")
                return
        super().data_received(data)

    def _body_began(self, data: bytes) -> bool:
        return b"\r\n\r\n" in data or b"\n\n" in data

    def on_message_begin(self) -> None:
        """Note when a request began."""
        super().on_message_begin()
        self.headers_came = False
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def on_headers_complete(self) -> None:
        """From here on the body has its own time."""
        self.headers_came, self._header_bytes = True, 0
        self.waiting_since = time.monotonic()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The client owes nothing any more."""
        self.waiting_since = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Note since when the client takes no more."""
        self.blocked_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Forget it."""
        self.blocked_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Tell in JSON, like all errors, that this is not HTTP."""
        self.refuse(400, "this is not a valid HTTP request")

    def refuse(self, status: int, message: str, headers: tuple[bytes, ...] = ()) -> None:
        """Answer without asking the application, unless it answered already, and hang up."""
        if self.transport.is_closing():
            return
        if not self.headers_came or not self.cycle.response_started:  # else the answer to this request is on its way, or was given
            body = orjson.dumps({"error": message})
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
                % (status, _PHRASES[status], len(body), b"".join(headers), body)
            )
        self.transport.close()


_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


async def sweep(connections: set[Any], header_timeout: float, body_timeout: float) -> None:
    """Close connections that are too slow; runs until cancelled."""
    while True:
        await asyncio.sleep(_SWEEP_SECONDS)
        now = time.monotonic()
        for connection in list(connections):
            if isinstance(connection, GuardedProtocol):
                _check(connection, now, header_timeout, body_timeout)


def _check(connection: GuardedProtocol, now: float, header_timeout: float, body_timeout: float) -> None:
    if connection.blocked_since is not None and now - connection.blocked_since > body_timeout:
        connection.transport.abort()
    elif connection.waiting_since is not None:
        limit = body_timeout if connection.headers_came else header_timeout
        if now - connection.waiting_since > limit:
            part = "body" if connection.headers_came else "headers"
            connection.refuse(408, f"the request's {part} did not come within {limit:g} seconds")
