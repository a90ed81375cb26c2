"""Limits on connections, headers, pipelining and slow clients.

uvicorn waits for ever for a request to arrive, and its parser stores whatever comes. Its protocol is extended here by a few
times, which a periodic check compares with the limits, and by a count of what is stored, so that a request on time that comes
in one piece costs next to nothing.
"""

import asyncio
import re
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

_MAX_HEADER_BYTES = 64 * 1024
_MAX_HEADERS = 100
_MAX_STORED_BYTES = 32 * 1024 * 1024
"""Bytes of headers, trailers and pipelined requests of all connections together."""
_UNCOUNTED_BYTES = 4096
"""A connection that stores less does not count: the number of connections bounds these."""
_MAX_PIPELINED = 256
_MAX_UNREAD_BYTES = 32 * 1024 * 1024
"""Bytes of responses that clients do not read, of all connections together."""
_PIECE_BYTES = 16 * 1024
"""What the parser is given at a time: limits are looked at between pieces."""
_RESERVE = 64
"""Connections beyond the limit, for probes only; and those of the port for probes."""
_PROBES = re.compile(rb"/|/v2/health/(live|ready)|/v1/models/[^/:]+|/v2/models/[^/]+/ready")
_SILENT_SECONDS = 1.0
_FULL_SECONDS = 0.05
_CHECK_SECONDS = 0.5


class _RefusedError(Exception):
    """Stops the parser; the connection gets this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class GuardedProtocol(HttpToolsProtocol):
    """One connection, which records since when the client has been late, and counts what is stored for it."""

    max_connections = 2048
    probe_port: ClassVar[int | None] = None
    """The port for probes only, whose connections are accepted without waiting behind all others."""
    stored_bytes: ClassVar[int] = 0
    """Of all connections of this process."""

    waiting_since: float | None = None
    """Since when a request is expected or arriving; None while it is being answered or the connection is idle."""
    headers_complete = False
    blocked_since: float | None = None
    """Since when the client has not read any more of a response."""
    unread: ClassVar[dict[Any, int]] = {}
    """The connections of this process whose clients do not read, longest first, and the bytes that are kept for each."""
    _arriving = 0
    """Bytes of headers or trailers that are not complete."""
    _kept = 0
    """Bytes of complete headers and pipelined requests."""
    _counted = 0
    """Part of `stored_bytes`."""
    _upgrade = False
    _running: RequestResponseCycle | None = None
    """The request that is being answered; others may have come after it."""
    _reserve: set[Any] | None = None
    """Where the connection is kept, if it is for probes only."""
    _beyond: ClassVar[set[Any]] = set()
    """Connections that were accepted beyond the limit."""
    _probing: ClassVar[set[Any]] = set()
    """Connections of the port for probes."""
    _room: ClassVar[int] = 0
    """Connections that were closed for others, and not yet used."""
    _full_until: ClassVar[float] = 0.0
    """When idle connections are looked for again."""

    def connection_made(self, transport: Any) -> None:
        """Accept the connection. When there are too many, an idle one makes room, or only probes are answered, or none."""
        super().connection_made(transport)
        self.waiting_since = now = time.monotonic()
        if self.server is not None and self.server[1] == self.probe_port:
            self._keep_for_probes(self._probing, now)
        elif len(self.connections) <= self.max_connections:
            GuardedProtocol._room = 0
        elif not self._make_room(now):
            self._keep_for_probes(self._beyond, now)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop counting what was stored, and break the cycles, so that all is free at once and not when garbage is collected."""
        self._count(0)
        if self._reserve is not None:
            self._reserve.discard(self)
        self.unread.pop(self, None)
        super().connection_lost(exc)
        if self._running is not None:  # uvicorn tells only the request that came last, and writing for another one would fail
            self._running.disconnected = True
            self._running.message_event.set()
        self._running = self.cycle = self.scope = None  # type: ignore[assignment]  # as before the first request
        self.pipeline.clear()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def respond(self, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bool:
        """Write the whole 200 of the request that is being answered; says whether it did.

        uvicorn's way does the same in two steps, and searches every header for characters that ours never have. What is rarer is left
        to it: a client that has gone, does not read, or wants the connection closed.
        """
        cycle = self._running
        if cycle is None or cycle.disconnected or cycle.response_started or not cycle.keep_alive or self.flow.write_paused:
            return False
        head = [b"%s: %s\r\n" % header for header in (*cycle.default_headers, *headers)]
        cycle.waiting_for_100_continue, cycle.response_started, cycle.response_complete = False, True, True
        self.transport.write(b"HTTP/1.1 200 OK\r\n%s\r\n%s" % (b"".join(head), body))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def _keep_for_probes(self, reserve: set[Any], now: float) -> None:
        """Answer only probes on this connection; refuse it when there are too many of its kind and none is idle."""
        if len(reserve) >= _RESERVE and not _close_idle(reserve, 1, now, 0):
            self.refuse(503, "too many connections; try again in a moment", (b"retry-after: 1\r\n",))
        self._reserve = reserve
        reserve.add(self)

    def _make_room(self, now: float) -> bool:
        """Close connections that have been idle longest, several at a time; says whether there is room for this one."""
        if self._room == 0 and now > self._full_until:
            GuardedProtocol._room = _close_idle(self.connections, max(1, self.max_connections // 64), now, _SILENT_SECONDS)
            GuardedProtocol._full_until = now if self._room else now + _FULL_SECONDS
        GuardedProtocol._room = max(0, self._room - 1)
        return now >= self._full_until

    def idle_since(self, now: float, silent_seconds: float) -> float | None:
        """When the last response ended, or the connection was opened and has sent nothing since; None where it may not be closed."""
        if self.transport.is_closing():
            return None
        if self.timeout_keep_alive_task is not None:
            return float(self.timeout_keep_alive_task.when()) - self.timeout_keep_alive
        opened = self.waiting_since
        silent = self.cycle is None and not self._arriving and opened is not None and now - opened > silent_seconds
        return opened if silent else None

    def data_received(self, data: bytes) -> None:
        """Parse bytes of a request; refuse headers and trailers that are too long, and what HTTP forbids."""
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        if self.waiting_since is None and (self.cycle is None or self.cycle.response_complete):
            self.waiting_since, self.headers_complete = time.monotonic(), False
        try:
            if len(data) <= _PIECE_BYTES:
                self._feed(data)
                return
            view = memoryview(data)
            for start in range(0, len(data), _PIECE_BYTES):
                self._feed(view[start : start + _PIECE_BYTES])
        except httptools.HttpParserError as error:
            self._refuse_for(error.__context__)  # a variable for it would make a cycle: its traceback holds this frame
        except _RefusedError as refused:
            self._refuse_for(refused)

    def _refuse_for(self, error: BaseException | None) -> None:
        if isinstance(error, _RefusedError):
            self.refuse(error.status, str(error), (b"retry-after: 1\r\n",) if error.status == 503 else ())
        else:
            self.send_400_response("")

    def _feed(self, data: bytes | memoryview) -> None:
        self._arriving += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as error:
            rest = data[error.args[0] :]
            self._read_without_upgrade()
            if rest:
                self._feed(rest)
            return
        if self._arriving > _MAX_HEADER_BYTES or (self.headers is not None and len(self.headers) > _MAX_HEADERS):
            raise _too_large()
        stored = self._kept + self._arriving
        if stored > _UNCOUNTED_BYTES or self._counted:
            self._count(stored)
            if GuardedProtocol.stored_bytes > _MAX_STORED_BYTES:
                raise _RefusedError(503, "the headers of all connections take too much memory; try again in a moment")

    def _count(self, stored: int) -> None:
        if stored <= _UNCOUNTED_BYTES:
            stored = 0
        GuardedProtocol.stored_bytes += stored - self._counted
        self._counted = stored

    def _read_without_upgrade(self) -> None:
        """Parse the request's head again without its upgrade, which the client allows to ignore; its body follows (RFC 9110, 7.8)."""
        self._upgrade = False
        method, url, version = self.parser.get_method(), self.url, self.parser.get_http_version().encode()
        dropped = (b"upgrade", b"connection", b"http2-settings")
        lines = [b"%s: %s\r\n" % header for header in self.headers if header[0] not in dropped]
        if not self.parser.should_keep_alive():
            lines.append(b"connection: close\r\n")
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"%s %s HTTP/%s\r\n%s\r\n" % (method, url, version, b"".join(lines)))

    def on_message_begin(self) -> None:
        """Record when a request began."""
        if self.pipeline:
            if len(self.pipeline) >= _MAX_PIPELINED:
                raise _RefusedError(400, f"more than {_MAX_PIPELINED} requests were sent before their responses were read")
        elif self.cycle is None or self.cycle.response_complete:
            self._kept = 0
        super().on_message_begin()
        self.headers_complete = self._upgrade = False
        if self.waiting_since is None:
            self.waiting_since = time.monotonic()

    def on_headers_complete(self) -> None:
        """Check what the headers must say, and start the time limit of the body."""
        names = [name for name, _ in self.headers]
        if len(names) > _MAX_HEADERS or (self._arriving > _MAX_HEADER_BYTES and self._head_size() > _MAX_HEADER_BYTES):
            raise _too_large()
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise _RefusedError(400, "CONNECT is for proxies, which this server is not")
            self._upgrade = True
            return
        if names.count(b"host") != 1 or self.parser.get_http_version() != "1.1":
            self._check_version(names)
        if self._reserve is not None and not _PROBES.fullmatch(self.url):
            if self._reserve is self._probing:
                raise _RefusedError(404, "this port answers health checks only; send requests to the server's other port")
            raise _RefusedError(503, "too many connections; try again in a moment")
        self._kept += self._arriving
        self.headers_complete, self._arriving = True, 0
        self.waiting_since = time.monotonic()
        super().on_headers_complete()
        state = self.scope["state"]
        state["gone"] = self.transport.is_closing  # so that work for nobody is dropped
        state["respond"] = self.respond
        if self.pipeline:
            state["pipelined"] = True
        self.headers = _Trailers()  # which would otherwise pass for headers

    def _head_size(self) -> int:
        """The bytes that have arrived may hold a part of the body too."""
        return len(self.url) + sum(len(name) + len(value) for name, value in self.headers)

    def _check_version(self, names: list[bytes]) -> None:
        old = self.parser.get_http_version() == "1.0"
        hosts = names.count(b"host")
        if hosts > 1 or (hosts == 0 and not old):
            raise _RefusedError(400, "a request by HTTP/1.1 must have one Host header")
        if old and b"transfer-encoding" in names:
            raise _RefusedError(400, "HTTP/1.0 has no chunked bodies; send Content-Length, or use HTTP/1.1")

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; only what follows it can belong to trailers."""
        if self.pipeline:
            self._kept += self._arriving
        self._arriving = 0
        if self.cycle.response_complete:  # the rest of a refused body: one part per round of the event loop
            self.flow.pause_reading()
            self.loop.call_soon(self.flow.resume_reading)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Stop the time limit: the request is complete."""
        if self._upgrade:
            return
        self.waiting_since, self._arriving = None, 0
        super().on_message_complete()
        if self.flow.read_paused and not self.pipeline:
            self.flow.resume_reading()  # so that it is noticed when the client leaves

    def on_response_complete(self) -> None:
        """Stop counting what was stored for the last request."""
        super().on_response_complete()
        if self._counted and not self.pipeline and self.waiting_since is None:
            self._kept = 0
            self._count(0)

    def pause_writing(self) -> None:
        """Record since when the client has not read; when too much is kept for such clients, the slowest are dropped."""
        self.blocked_since = time.monotonic()
        self.unread[self] = self.transport.get_write_buffer_size()
        while sum(self.unread.values()) > _MAX_UNREAD_BYTES and len(self.unread) > 1:
            slowest = next(iter(self.unread))
            del self.unread[slowest]
            slowest.transport.abort()
        super().pause_writing()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.blocked_since = None
        self.unread.pop(self, None)
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
                % (status, HTTPStatus(status).phrase.encode(), len(body), b"".join(headers), body)
            )
        self.transport.close()


class _Trailers(list[tuple[bytes, bytes]]):
    """Trailers of one request, whose number is looked at before they are complete: there is room for thousands in a piece."""

    def append(self, item: tuple[bytes, bytes]) -> None:
        """Add one; raises _RefusedError when there are too many."""
        if len(self) >= _MAX_HEADERS:
            raise _too_large()
        super().append(item)


def _close_idle(connections: set[Any], number: int, now: float, silent_seconds: float) -> int:
    """Close the connections that have been idle longest, at most `number`; returns how many."""
    guarded = (each for each in connections if isinstance(each, GuardedProtocol))
    idle = [(since, each) for each in guarded if (since := each.idle_since(now, silent_seconds)) is not None]
    idle.sort(key=lambda entry: entry[0])
    for _, connection in idle[:number]:
        connection.transport.close()
    return len(idle[:number])


def _too_large() -> _RefusedError:
    return _RefusedError(
        431, f"the request's headers or trailers are larger than {_MAX_HEADER_BYTES} bytes, or more than {_MAX_HEADERS} in number"
    )


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
