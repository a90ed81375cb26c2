"""The ASGI application: answers inference requests itself, closes what must stay closed, and hands the rest to KServe's.

Limits on bodies and on waiting are kept here. A client's mistake is a 4xx with `{"error": one line}`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sized
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from components.classifier.errors import RequestError
from components.predictor.dispatch import SMALL_BYTES, never
from components.predictor.errors import Disconnected, HandOver, Unavailable
from components.predictor.loaded_model import LoadedModel
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel
from components.predictor.protocol import v1, v2
from components.predictor.protocol.request import Predictions, PredictRequest, RequestLimits, new_id

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


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response."""

    status: int
    body: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """An inference request whose body has been read."""

    loaded: LoadedModel
    protocol: str
    body: bytes
    header_length: int | None
    id: str


class InferenceApp:
    """ASGI application around `inner`, KServe's; `tasks` are the requests that the server has in hand."""

    def __init__(self, inner: Application, model: ServingModel, metrics: Metrics, tasks: Sized) -> None:
        self._inner = inner
        self._model = model
        self._settings = model.settings
        self._dispatcher = model.dispatcher
        self._metrics = metrics
        self._tasks = tasks
        self._v1 = f"/v1/models/{model.name}:predict"
        self._v2 = f"/v2/models/{model.name}/infer"
        self._in_flight = 0
        self._turns = asyncio.Lock()
        metrics.watch(lambda: model.dispatcher.depth, lambda: self._in_flight, lambda: model.pending_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or hand it on."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path: str = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            path = scope["path"] = path.rstrip("/") or "/"
        protocol, version = self._parse_path(path)
        if not protocol:
            await self._handle_other(scope, receive, send)
            return
        began = time.perf_counter()
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        self._in_flight += 1
        try:
            response = await self._infer(scope, receive, protocol, version, headers, request_id)
        except Disconnected:
            return
        finally:
            self._in_flight -= 1
        self._metrics.count_request(protocol, response.status, time.perf_counter() - began)
        if self._settings.access_log:
            log().info(
                "request", protocol=protocol, status=response.status, request_id=request_id, seconds=round(time.perf_counter() - began, 6)
            )
        if response.status != 200 and b"expect" in headers:  # the announced body may or may not still come
            response.headers.append(_CLOSE)
        await self._send(send, response, request_id, scope)

    def _parse_path(self, path: str) -> tuple[str, str]:
        """Return which protocol a path belongs to ("" for none), and the version it asks for."""
        if path == self._v1:
            return "v1", ""
        if path == self._v2:
            return "v2", ""
        parts = path.split("/")
        if len(parts) == 7 and parts[:4] == ["", "v2", "models", self._model.name] and parts[4] == "versions" and parts[6] == "infer":
            return "v2", parts[5]
        return "", ""

    async def _handle_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check_open(scope["path"])
        except RequestError as error:
            await self._send(send, error_response(error.status, str(error)), _request_id(dict(scope["headers"])), scope)
        else:
            if _is_pipelined(scope):
                await self._take_turn()
            await self._inner(scope, receive, send)

    def _check_open(self, path: str) -> None:
        """Raise RequestError for a path that KServe's application must not see."""
        if path.startswith("/v2/repository"):
            raise RequestError("clients cannot load or unload models; deploy another version instead", 403)
        if path.startswith("/v1/models/") and path.endswith((":predict", ":explain")):
            self._model.check_name(path.removeprefix("/v1/models/").rpartition(":")[0])
            raise RequestError("this model has no explainer", 404)
        if path.startswith("/v2/models/") and path.endswith("/infer"):
            self._model.check_name(path.split("/")[3])

    async def _infer(
        self, scope: Scope, receive: Receive, protocol: str, version: str, headers: dict[bytes, bytes], request_id: str
    ) -> Response:
        """Return the response to an inference request, whatever is wrong with it."""
        try:
            if scope["method"] != "POST":
                return error_response(405, "inference requests are sent by POST", [(b"allow", b"POST")])
            loaded = self._model.current(version)
            self._dispatcher.check(int(headers.get(b"content-length", b"0")))
            header_length = _check_headers(headers, protocol)
            body = await self._read(headers, receive, _is_pipelined(scope))
            try:
                return await self._work(InferenceRequest(loaded, protocol, body, header_length, request_id), scope)
            finally:
                self._model.pending_bytes -= len(body)
        except RequestError as error:
            return error_response(error.status, str(error))
        except Unavailable as error:
            return error_response(503, str(error), [(b"retry-after", str(error.retry_after).encode())])
        except Disconnected:
            if _gone(scope)():
                raise
            return error_response(503, "the server is shutting down; ask another replica", [(b"retry-after", b"5")])
        except Exception:  # noqa: BLE001 - the last guard: the client must not see what was raised
            log().exception("request failed", request_id=request_id)
            return error_response(500, f"the server failed; its log has more under request id {request_id}")

    async def _work(self, request: InferenceRequest, scope: Scope) -> Response:
        """Answer a quick request here, and others on a thread, so that the server stays responsive."""
        loaded, dispatcher = request.loaded, self._dispatcher
        runs_here = dispatcher.may_run_here(len(self._tasks))
        if loaded.quick and (runs_here or (loaded.together and dispatcher.runner.has_room)) and dispatcher.may_read_here(len(request.body)):
            with suppress(HandOver):
                asked, options = _parse(request, dispatcher.quick_limits)
                if runs_here:
                    predictions = self._model.predict(loaded, asked, request.id)
                else:
                    answers = await dispatcher.runner.answer(loaded.classifier, asked.images)
                    predictions = self._model.conclude(loaded, asked, answers, request.id)
                return _render(request, asked, options, predictions)
        return await dispatcher.run(lambda limits: self._answer(request, limits), len(request.body), _gone(scope))

    def _answer(self, request: InferenceRequest, limits: RequestLimits) -> Response | None:
        """Do all the work of a request, or return None; mistakes are caught here, for a traceback would keep the parsed body alive."""
        try:
            asked, options = _parse(request, limits)
            return _render(request, asked, options, self._model.predict(request.loaded, asked, request.id))
        except HandOver:
            return None
        except RequestError as error:
            return error_response(error.status, str(error))

    async def _read(self, headers: dict[bytes, bytes], receive: Receive, pipelined: bool) -> bytes:
        """Read a body within the limits; its bytes count as pending until the caller subtracts them."""
        _check_size(int(headers.get(b"content-length", b"0")), self._settings.max_body_bytes)
        chunks: list[bytes] = []
        size = 0
        if pipelined:
            await self._take_turn()
        try:
            while True:
                if size > SMALL_BYTES:
                    await self._take_turn()
                message = await receive()
                _check_connected(message)
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                self._model.hold(len(chunk), size <= SMALL_BYTES)
                _check_size(size, self._settings.max_body_bytes)
                if not message.get("more_body"):
                    return b"".join((*chunks, chunk)) if chunks else chunk
                chunks.append(chunk)
        except BaseException:
            self._model.pending_bytes -= size
            raise

    async def _take_turn(self) -> None:
        """Wait for all others that want it: one goes on per round of the event loop, so that no round takes long."""
        async with self._turns:
            await asyncio.sleep(0)

    async def _send(self, send: Send, response: Response, request_id: str, scope: Scope) -> None:
        headers = [*response.headers, (b"content-length", str(len(response.body)).encode()), (b"x-request-id", request_id.encode())]
        if self._model.draining:
            headers.append(_CLOSE)
        elif response.status == 200 and "respond" in (state := scope.get("state", ())) and state["respond"](headers, response.body):
            return
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})


def _parse(request: InferenceRequest, limits: RequestLimits) -> tuple[PredictRequest, v2.OutputOptions | None]:
    """Read a request's body; raises RequestError and HandOver."""
    if request.protocol == "v1":
        return v1.parse(request.body, request.loaded.spec, limits), None
    return v2.parse(request.body, request.header_length, request.loaded.spec, limits)


def _render(request: InferenceRequest, asked: PredictRequest, options: v2.OutputOptions | None, predictions: Predictions) -> Response:
    """Write the response to a request; `options` are those of V2."""
    if options is None:
        return Response(200, v1.render(predictions, asked.return_probabilities), _JSON)
    data, json_length = v2.render(predictions, options, request.id)
    return Response(200, data, _JSON) if json_length is None else Response(200, data, [*_BINARY, (_HEADER_LENGTH, b"%d" % json_length)])


def error_response(status: int, message: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> Response:
    """Make the response of every failure: one line of JSON."""
    return Response(status, orjson.dumps({"error": " ".join(message.split())}), [*_JSON, *headers])


def _request_id(headers: dict[bytes, bytes]) -> str:
    """Return the client's own id if it is short and printable, else a new one."""
    given = headers.get(b"x-request-id", b"")
    if 0 < len(given) <= _MAX_ID and all(33 <= byte <= 126 for byte in given):
        return given.decode("ascii")
    return new_id()


def _is_pipelined(scope: Scope) -> bool:
    """Say whether a request came before the one ahead of it was answered (http/connections.py)."""
    return "pipelined" in scope.get("state", ())


def _gone(scope: Scope) -> Callable[[], bool]:
    """Return what says whether the client has closed the connection (http/connections.py)."""
    gone: Callable[[], bool] = scope.get("state", {}).get("gone", never)
    return gone


def _check_connected(message: MutableMapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise Disconnected


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RequestError(f"the body is larger than the limit of {limit} bytes; send fewer or smaller pictures", 413)


def _check_headers(headers: dict[bytes, bytes], protocol: str) -> int | None:
    """Return the length of a V2 body's JSON part, None where no binary data follows."""
    if headers.get(b"content-encoding", b"identity") not in (b"identity", b""):
        raise RequestError("compressed bodies are not accepted; leave out Content-Encoding", 415)
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
