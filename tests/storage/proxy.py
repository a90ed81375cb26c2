"""A proxy between the store and a server that breaks some requests, as networks and servers do."""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["500", "500 after", "503", "stall", "stall after", "truncate", "reset", "lost", "drip"]
FAULTS: tuple[Fault, ...] = ("500", "500 after", "503", "stall", "stall after", "truncate", "reset", "lost", "drip")
"""`after`, `lost`: the server has done the work, only the answer is wrong or never comes."""

Plan = Callable[[int, str, str], Fault | None]
"""Says which fault the n-th request (from 1), with its method and path, meets."""


@dataclass
class FaultProxy:
    """A running proxy; `plan` may be changed while it runs."""

    upstream: str
    plan: Plan = lambda *_: None
    endpoint: str = ""
    requests: list[tuple[str, str, Fault | None]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            while await self._one(reader, writer):
                pass
        writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        fault = self.plan(len(self.requests) + 1, method, path)
        self.requests.append((method, path, fault))
        if fault == "reset":
            _reset(writer)
            return False
        if fault == "stall":
            await asyncio.sleep(3600)
        headers = _headers(head)
        if headers.get("expect"):
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(b"expect:"))
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if fault in {"500", "503"}:
            writer.write(_error(fault))
            return True
        answer = await self._forward(method, head + body)
        if fault == "stall after":
            await asyncio.sleep(3600)
        if fault == "lost":
            return False
        if fault == "500 after":
            writer.write(_error("500"))
        elif fault == "truncate":
            writer.write(answer[: len(answer) * 2 // 3])
            await writer.drain()
            return False
        elif fault == "drip":
            for start in range(0, len(answer), max(1, len(answer) // 10)):
                writer.write(answer[start : start + max(1, len(answer) // 10)])
                await writer.drain()
                await asyncio.sleep(0.02)
        else:
            writer.write(answer)
        await writer.drain()
        return True

    async def _forward(self, method: str, request: bytes) -> bytes:
        target = urlsplit(self.upstream)
        reader, writer = await asyncio.open_connection(target.hostname, target.port)
        try:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            headers = _headers(head)
            status = int(head.split(b" ", 2)[1])
            if method == "HEAD" or status in {204, 304}:
                return head
            if "content-length" in headers:
                return head + await reader.readexactly(int(headers["content-length"]))
            return head + await _chunked(reader)
        finally:
            writer.close()


@contextmanager
def faults(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before a server, in a thread of its own."""
    proxy = FaultProxy(upstream)
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20))
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(_stop, loop)
        thread.join(10)
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop) -> None:
    tasks = list(asyncio.all_tasks(loop))
    for task in tasks:
        task.cancel()
    asyncio.gather(*tasks, return_exceptions=True).add_done_callback(lambda _: loop.stop()) if tasks else loop.stop()


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    whole = b""
    while True:
        line = await reader.readline()
        piece = await reader.readexactly(int(line.split(b";")[0], 16) + 2)
        whole += line + piece
        if piece == b"\r\n":
            return whole


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}


def _error(status: str) -> bytes:
    code = {"500": "InternalError", "503": "SlowDown"}[status]
    body = f"<Error><Code>{code}</Code><Message>the proxy says so</Message></Error>".encode()
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\nContent-Type: application/xml\r\n\r\n".encode() + body


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
