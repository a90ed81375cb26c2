"""A proxy before the API server that breaks some requests, as servers and networks do."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import requests

from tests.cluster.api import Api

Fault = Literal["429", "500", "503", "hang", "reset", "lost"]
"""`lost`: the server has done it, only the answer never comes. `hang`: nothing is done, and no answer comes."""

Plan = Callable[[int, str, str], Fault | None]
"""Says what the n-th request (from 1), with its method and path, meets."""


@dataclass
class ApiProxy:
    """A running proxy; `plan` may be changed while it runs."""

    endpoint: str
    plan: Plan = lambda *_: None
    requests: list[tuple[str, str, Fault | None]] = field(default_factory=list)

    @property
    def broken(self) -> int:
        """How many requests met a fault."""
        return sum(fault is not None for _, _, fault in self.requests)


@contextmanager
def proxy(api: Api) -> Iterator[ApiProxy]:
    """Start a proxy; it passes on the client's own token."""
    session = requests.Session()
    session.trust_env, session.verify = False, api.verify
    stopped = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            fault = made.plan(len(made.requests) + 1, self.command, self.path)
            made.requests.append((self.command, self.path, fault))
            if fault == "hang":
                stopped.wait(60)
            if fault in {"hang", "reset"}:
                return self._break()
            if fault in {"429", "500", "503"}:
                headers = {"retry-after": "1"} if fault == "429" else {}
                return self._answer(int(fault), b'{"kind": "Status", "message": "the server has received too many requests"}', headers)
            headers = {k: v for k, v in self.headers.items() if k.lower() in {"authorization", "content-type", "accept"}}
            answer = session.request(self.command, api.server + self.path, data=body, headers=headers, timeout=30)
            if fault == "lost":
                return self._break()
            return self._answer(answer.status_code, answer.content, {"content-type": answer.headers.get("content-type", "")})

        do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _any

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _break(self) -> None:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()

        def handle(self) -> None:
            try:
                super().handle()
            except (OSError, ValueError):
                return

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = ApiProxy(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    try:
        yield made
    finally:
        stopped.set()
        server.shutdown()
        server.server_close()
        time.sleep(0.1)
