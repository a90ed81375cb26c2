"""Limits on connections, headers and slow clients.

uvicorn waits for ever for a request to arrive. Its protocol is extended here by a few times, which a periodic check compares
with the limits, so that a request on time costs next to nothing.
"""

import asyncio
import time
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MAX_HEADER_BYTES = 64 * 1024
_CHECK_SECONDS = 0.5


class GuardedProtocol(HttpToolsProtocol):
    """One connection, which records since when the client has been late."""

    max_connections = 2048

    waiting_since: float | None = None
    """Since when a request is expected or arriving; None while it is being answered or the connection is idle."""
    headers_complete = False
    blocked_since: float | None = None
    """Since when the client has not read any more of a response."""
    _header_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or refuse it at once when there are too many."""
        super().connection_made(transport)
        self.waiting_since = time.monotonic()
        if len(self.connections) > self.max_connections:
            self.refuse(503, "too many connections; try again in a moment", (b"retry-after: 1\r\n",))

    def data_received(self, data: bytes) -> None:
        """Accept bytes of a request; refuse headers that are too long."""
        if self.waiting_since is None and (self.cycle is None or self.cycle.response_complete):
            self.waiting_since, self.headers_complete = time.monotonic(), False
        if not self.headers_complete:
            self._header_bytes += len(data)
            if self._header_bytes > _MAX_HEADER_BYTES and not self._has_header_end(data):
                self.refuse(431, f"the request's headers are larger than {_MAX_HEADER_BYTES} bytes")
                return
        super().data_received(data)

    def _has_header_end(self, data: bytes) -> bool:
        return b"\r\n\r\n" in data or b"\n\n" in data

    def on_message_begin(self) -> None:
        """Record when a request began."""
        super().on_message_begin()
        self.headers_complete = False
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def on_headers_complete(self) -> None:
        """Start the time limit of the body."""
        self.headers_complete, self._header_bytes = True, 0
        self.waiting_since = time.monotonic()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Stop the time limit: the request is complete."""
        self.waiting_since = None
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Record since when the client has not read."""
        self.blocked_since = time.monotonic()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.blocked_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse bytes that are not HTTP, in JSON like all errors."""
        self.refuse(400, "this is not a valid HTTP request")

    def refuse(self, status: int, message: str, headers: tuple[bytes, ...] = ()) -> None:
        """Respond without asking the application, unless it has responded already, and close the connection."""
        if self.transport.is_closing():
            return
        if not self.headers_complete or not self.cycle.response_started:  # otherwise a second response would follow the first
            body = orjson.dumps({"error": message})
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n%s"
                % (status, _PHRASES[status], len(body), b"".join(headers), body)
            )
        self.transport.close()


_PHRASES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large", 503: b"Service Unavailable"}


async def enforce_timeouts(connections: set[Any], header_timeout: float, body_timeout: float) -> None:
    """Close connections of clients that are too slow; runs until cancelled."""
    while True:
        await asyncio.sleep(_CHECK_SECONDS)
        now = time.monotonic()
        for connection in list(connections):
            if isinstance(connection, GuardedProtocol):
                _enforce(connection, now, header_timeout, body_timeout)


def _enforce(connection: GuardedProtocol, now: float, header_timeout: float, body_timeout: float) -> None:
    if connection.blocked_since is not None and now - connection.blocked_since > body_timeout:
        connection.transport.abort()
    elif connection.waiting_since is not None:
        limit = body_timeout if connection.headers_complete else header_timeout
        if now - connection.waiting_since > limit:
            part = "body" if connection.headers_complete else "headers"
            connection.refuse(408, f"the request's {part} did not arrive within {limit:g} seconds")
