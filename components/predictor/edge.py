"""The outermost layer, in plain ASGI: what every request meets before KServe's own application does.

Inference requests are answered here, without KServe's middleware in between; so are the limits on bodies and on waiting, and
what is closed. Everything else goes on to KServe's application. A client's mistake is a 4xx with `{"error": one line}`.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

import orjson

from components.classifier.errors import RequestError
from components.predictor import v1, v2
from components.predictor.errors import Unavailable
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.model import ImageClassifier
from components.predictor.question import answer, new_id
from components.predictor.served import ServedModel

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON: Headers = [(b"content-type", b"application/json")]
_BINARY: Headers = [(b"content-type", b"application/octet-stream")]
_MAX_ID = 128


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: Headers


class Gone(Exception):
    """The client hung up."""


class Edge:
    """ASGI application around `inner`, KServe's."""

    def __init__(self, inner: Application, model: ImageClassifier, metrics: Metrics) -> None:
        self._inner = inner
        self._model = model
        self._settings = model.settings
        self._metrics = metrics
        self._v1 = f"/v1/models/{model.name}:predict"
        self._v2 = f"/v2/models/{model.name}/infer"
        self._pending_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or hand it on."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path: str = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            path = scope["path"] = path.rstrip("/") or "/"
        protocol, version = self._inference(path)
        if not protocol:
            await self._other(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        self._metrics.in_flight.inc()
        try:
            reply = await self._guarded(scope, headers, receive, protocol, version, request_id)
        except Gone:
            return
        finally:
            self._metrics.in_flight.dec()
        self._metrics.request(protocol, reply.status, time.perf_counter() - began)
        if self._settings.access_log:
            log().info(
                "request", protocol=protocol, status=reply.status, request_id=request_id, seconds=round(time.perf_counter() - began, 6)
            )
        await self._send(send, reply, request_id)

    def _inference(self, path: str) -> tuple[str, str]:
        """Which protocol a path belongs to ("" for none), and the version it asks for."""
        if path == self._v1:
            return "v1", ""
        if path == self._v2:
            return "v2", ""
        parts = path.split("/")
        if len(parts) == 7 and parts[:4] == ["", "v2", "models", self._model.name] and parts[4] == "versions" and parts[6] == "infer":
            return "v2", parts[5]
        return "", ""

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, request_id = scope["path"], _request_id(dict(scope["headers"]))
        if path.startswith("/v2/repository"):
            await self._send(send, _error(403, "models are not loaded or unloaded over HTTP; deploy another version instead"), request_id)
        elif path.startswith("/v1/models/") and path.endswith((":predict", ":explain")):
            name = path.removeprefix("/v1/models/").rpartition(":")[0]
            await self._send(
                send, self._no_such_model(name) if name != self._model.name else _error(404, "this model explains nothing"), request_id
            )
        elif path.startswith("/v2/models/") and path.endswith("/infer"):
            await self._send(send, self._no_such_model(path.split("/")[3]), request_id)
        else:
            await self._inner(scope, receive, send)

    def _no_such_model(self, name: str) -> Reply:
        return _error(404, f"there is no model {name[:64]!r} here; there is {self._model.name!r}")

    async def _guarded(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, protocol: str, version: str, request_id: str
    ) -> Reply:
        try:
            if scope["method"] != "POST":
                return _error(405, "inference requests are sent by POST", [(b"allow", b"POST")])
            served = self._model.current()
            if version and version != served.version:
                raise RequestError(f"version {version[:64]!r} does not serve here; version {served.version!r} does", 404)
            self._model.worker.check()
            _check_headers(headers)
            body = await self._read(headers, receive)
            try:
                return await self._model.worker.run(self._work, served, protocol, headers, body, request_id)
            finally:
                self._pending_bytes -= len(body)
        except RequestError as error:
            return _error(error.status, str(error))
        except Unavailable as error:
            return _error(503, str(error), [(b"retry-after", str(error.retry_after).encode())])
        except Gone:
            raise
        except Exception:  # the last guard: whatever this is, the client must not read it
            log().exception("request failed", request_id=request_id)
            return _error(500, f"the server failed; its log has more under request id {request_id}")

    def _work(self, served: ServedModel, protocol: str, headers: dict[bytes, bytes], body: bytes, request_id: str) -> Reply:
        """All that takes time, on a worker's thread: parse, classify, write."""
        settings = self._settings
        if protocol == "v1":
            question = v1.parse(body, served.spec, settings)
            found = answer(served, question, settings)
            reply = Reply(200, v1.render(found, question.return_probabilities), _JSON)
        else:
            question, wishes = v2.parse(body, _header_length(headers), served.spec, settings)
            found = answer(served, question, settings)
            data, json_length = v2.render(found, wishes, request_id)
            more = [] if json_length is None else [(b"inference-header-content-length", str(json_length).encode())]
            reply = Reply(200, data, (_JSON if json_length is None else _BINARY) + more)
        self._metrics.answered(found)
        return reply

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read a body within the limits; its length is counted as pending until the caller takes it off."""
        limit = self._settings.max_body_bytes
        declared = headers.get(b"content-length", b"")
        if declared and int(declared) > limit:
            raise _too_large(limit)
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Gone
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                self._pending_bytes += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                if self._pending_bytes > self._settings.max_pending_bytes:
                    raise Unavailable("too many bytes of requests are being worked on; try again in a moment")
                if not message.get("more_body"):
                    return chunk if not chunks else b"".join((*chunks, chunk))
                chunks.append(chunk)
        except BaseException:
            self._pending_bytes -= size
            raise

    async def _send(self, send: Send, reply: Reply, request_id: str) -> None:
        headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode()), (b"x-request-id", request_id.encode())]
        if self._model.draining:
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def _error(status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Reply:
    return Reply(status, orjson.dumps({"error": " ".join(message.split())}), [*_JSON, *headers])


def _too_large(limit: int) -> RequestError:
    return RequestError(f"the body is larger than the limit of {limit} bytes; send fewer or smaller pictures", 413)


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own id where it is short and printable, else a new one."""
    given = headers.get(b"x-request-id", b"")
    if 0 < len(given) <= _MAX_ID and all(33 <= byte <= 126 for byte in given):
        return given.decode("ascii")
    return new_id()


def _check_headers(headers: dict[bytes, bytes]) -> None:
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding not in (b"identity", b""):
        raise RequestError("compressed bodies are not taken; leave out Content-Encoding", 415)
    if headers.get(b"content-type", b"").startswith(b"application/octet-stream") and b"inference-header-content-length" not in headers:
        raise RequestError(
            "binary data needs the header Inference-Header-Content-Length, the size of the JSON part; JSON needs application/json"
        )


def _header_length(headers: dict[bytes, bytes]) -> int | None:
    text = headers.get(b"inference-header-content-length")
    if text is None:
        return None
    if not (text.isdigit() and len(text) < 20):
        raise RequestError("Inference-Header-Content-Length must be a whole number of bytes")
    return int(text)
