"""The outermost layer, in plain ASGI: what every request meets before KServe's own application does.

Inference requests are answered here, without KServe's middleware in between; so are the limits on bodies and on waiting, and
what is closed. Everything else goes on to KServe's application. A client's mistake is a 4xx with `{"error": one line}`.
"""

import threading
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sized
from dataclasses import dataclass
from typing import Any

import orjson

from components.classifier.errors import RequestError
from components.predictor import v1, v2
from components.predictor.errors import Unavailable
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.model import ImageClassifier
from components.predictor.question import new_id
from components.predictor.served import ServedModel
from components.predictor.settings import Settings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

_JSON: Headers = [(b"content-type", b"application/json")]
_BINARY: Headers = [(b"content-type", b"application/octet-stream")]
_CLOSE = (b"connection", b"close")
_HEADER_LENGTH = b"inference-header-content-length"
_MAX_ID = 128
_MAX_DIGITS = 18

_LARGE_BYTES = 1024 * 1024
_QUICK_BYTES = 16 * 1024
_QUICK_LIMITS = {"max_images": 4, "max_pixels": 65_536}
"""What may be answered on the event loop itself: some milliseconds of work at most."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class Request:
    """An inference request that has come in whole."""

    served: ServedModel
    protocol: str
    body: bytes
    header_length: int | None
    id: str


class Gone(Exception):
    """The client hung up."""


class Edge:
    """ASGI application around `inner`, KServe's; `tasks` are the requests that the server has in hand."""

    def __init__(self, inner: Application, model: ImageClassifier, metrics: Metrics, tasks: Sized) -> None:
        self._inner = inner
        self._model = model
        self._settings = model.settings
        limits = {name: min(limit, getattr(model.settings, name)) for name, limit in _QUICK_LIMITS.items()}
        self._quick = model.settings.model_copy(update=limits)
        self._one_large = threading.Lock()
        self._metrics = metrics
        self._tasks = tasks
        self._v1 = f"/v1/models/{model.name}:predict"
        self._v2 = f"/v2/models/{model.name}/infer"
        self._pending_bytes = self._in_flight = 0
        metrics.watch(lambda: model.worker.depth, lambda: self._in_flight, lambda: self._pending_bytes)

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
        self._in_flight += 1
        try:
            reply = await self._infer(scope, receive, protocol, version, headers, request_id)
        except Gone:
            return
        finally:
            self._in_flight -= 1
        self._metrics.request(protocol, reply.status, time.perf_counter() - began)
        if self._settings.access_log:
            log().info(
                "request", protocol=protocol, status=reply.status, request_id=request_id, seconds=round(time.perf_counter() - began, 6)
            )
        if reply.status != 200 and b"expect" in headers:  # nobody knows whether the body that was announced still comes
            reply.headers.append(_CLOSE)
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
            await self._send(
                send, error_reply(403, "models are not loaded or unloaded over HTTP; deploy another version instead"), request_id
            )
        elif path.startswith("/v1/models/") and path.endswith((":predict", ":explain")):
            name = path.removeprefix("/v1/models/").rpartition(":")[0]
            await self._send(
                send, self._no_such_model(name) if name != self._model.name else error_reply(404, "this model explains nothing"), request_id
            )
        elif path.startswith("/v2/models/") and path.endswith("/infer"):
            await self._send(send, self._no_such_model(path.split("/")[3]), request_id)
        else:
            await self._inner(scope, receive, send)

    def _no_such_model(self, name: str) -> Reply:
        return error_reply(404, f"there is no model {name[:64]!r} here; there is {self._model.name!r}")

    async def _infer(
        self, scope: Scope, receive: Receive, protocol: str, version: str, headers: dict[bytes, bytes], request_id: str
    ) -> Reply:
        """Answer an inference request, whatever is wrong with it."""
        try:
            if scope["method"] != "POST":
                return error_reply(405, "inference requests are sent by POST", [(b"allow", b"POST")])
            served = self._model.current()
            _check_version(served, version)
            self._model.worker.check()
            header_length = _check_headers(headers, protocol)
            body = await self._read(headers, receive)
            try:
                return await self._work(Request(served, protocol, body, header_length, request_id))
            finally:
                self._pending_bytes -= len(body)
        except RequestError as error:
            return error_reply(error.status, str(error))
        except Unavailable as error:
            return error_reply(503, str(error), [(b"retry-after", str(error.retry_after).encode())])
        except Gone:
            raise
        except Exception:  # noqa: BLE001 - the last guard: whatever this is, the client must not read it
            log().exception("request failed", request_id=request_id)
            return error_reply(500, f"the server failed; its log has more under request id {request_id}")

    async def _work(self, request: "Request") -> Reply:
        """Do at once what is quick and alone, and the rest on a worker's thread, so that the server goes on answering."""
        if len(self._tasks) <= 1 and request.served.quick and len(request.body) <= _QUICK_BYTES:
            reply = self._answer(request, self._quick)
            if reply.status == 200:
                return reply  # else a limit of the quick way, or a mistake: the long way tells
        return await self._model.worker.run(lambda: self._answer(request, self._settings))

    def _answer(self, request: "Request", settings: Settings) -> Reply:
        """All that takes time; a mistake is answered here, so that nothing holds on to what was parsed until then."""
        try:
            if len(request.body) <= _LARGE_BYTES:
                return self._answer_well(request, settings)
            with self._one_large:  # parsing holds Python's lock anyway, and several at once would add up in memory
                return self._answer_well(request, settings)
        except RequestError as error:
            return error_reply(error.status, str(error))

    def _answer_well(self, request: "Request", settings: Settings) -> Reply:
        """Parse, classify, write; raises RequestError."""
        served = request.served
        if request.protocol == "v1":
            question = v1.parse(request.body, served.spec, settings)
            found = self._model.answer(served, question, request.id)
            return Reply(200, v1.render(found, question.return_probabilities), _JSON)
        question, wishes = v2.parse(request.body, request.header_length, served.spec, settings)
        found = self._model.answer(served, question, request.id)
        data, json_length = v2.render(found, wishes, request.id)
        return Reply(200, data, _JSON) if json_length is None else Reply(200, data, [*_BINARY, (_HEADER_LENGTH, b"%d" % json_length)])

    async def _read(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        """Read a body within the limits; its length is counted as pending until the caller takes it off."""
        _check_size(int(headers.get(b"content-length", b"0")), self._settings.max_body_bytes)
        chunks: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                _check_connected(message)
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                self._pending_bytes += len(chunk)
                _check_size(size, self._settings.max_body_bytes)
                self._check_pending()
                if not message.get("more_body"):
                    return b"".join((*chunks, chunk)) if chunks else chunk
                chunks.append(chunk)
        except BaseException:
            self._pending_bytes -= size
            raise

    def _check_pending(self) -> None:
        if self._pending_bytes > self._settings.max_pending_bytes:
            raise Unavailable("too many bytes of requests are being worked on; try again in a moment")

    async def _send(self, send: Send, reply: Reply, request_id: str) -> None:
        headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode()), (b"x-request-id", request_id.encode())]
        if self._model.draining:
            headers.append(_CLOSE)
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})


def error_reply(status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Reply:
    """Make the answer that every failure has: one line of JSON."""
    return Reply(status, orjson.dumps({"error": " ".join(message.split())}), [*_JSON, *headers])


def _request_id(headers: dict[bytes, bytes]) -> str:
    """The client's own id where it is short and printable, else a new one."""
    given = headers.get(b"x-request-id", b"")
    if 0 < len(given) <= _MAX_ID and all(33 <= byte <= 126 for byte in given):
        return given.decode("ascii")
    return new_id()


def _check_version(served: ServedModel, version: str) -> None:
    if version and version != served.version:
        raise RequestError(f"version {version[:64]!r} does not serve here; version {served.version!r} does", 404)


def _check_connected(message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise Gone


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestError(f"the body is larger than the limit of {limit} bytes; send fewer or smaller pictures", 413)


def _check_headers(headers: dict[bytes, bytes], protocol: str) -> int | None:
    """Return the length of a V2 body's JSON part, None where no binary data follows."""
    if headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
        raise RequestError("compressed bodies are not taken; leave out Content-Encoding", 415)
    if protocol == "v1":
        return None
    text = headers.get(_HEADER_LENGTH)
    if text is None:
        if headers.get(b"content-type", b"").startswith(b"application/octet-stream"):
            raise RequestError(
                "binary data needs the header Inference-Header-Content-Length, the size of the JSON part; JSON alone needs application/json"
            )
        return None
    if not text.isdigit() or len(text) > _MAX_DIGITS:
        raise RequestError("Inference-Header-Content-Length must be a whole number of bytes")
    return int(text)
