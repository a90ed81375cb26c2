"""The way in for gRPC: the Open Inference Protocol's methods, by the same rules, limits and code as HTTP."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent import futures
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError
from grpc import aio
from grpc_interceptor import exceptions

from components.bundle.files import OUTPUT_NAME
from components.classifier.errors import RequestError
from components.predictor.dispatch import SMALL_BYTES
from components.predictor.errors import Disconnected, HandOver, Unavailable
from components.predictor.grpc_turns import Turns
from components.predictor.loaded_model import LoadedModel
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.model import ServingModel, check_version
from components.predictor.protocol import v2
from components.predictor.protocol.request import Predictions, PredictRequest, RequestLimits, max_images, new_id, parse_options
from components.predictor.sdk import (
    GRPCInferenceServiceServicer,
    InferOutput,
    InferRequest,
    InferResponse,
    add_GRPCInferenceServiceServicer_to_server,
    messages,
    to_http_parameters,
)
from components.predictor.settings import PredictorSettings

_THREADS, _SLACK_BYTES = 2, 64 * 1024
_MAX_CALLS = 512
"""Calls that may be open; grpc_turns.py lets fewer wait, and dispatch.py fewer be worked on."""
_MAX_STREAMS = 64
"""Calls of one connection; the client lets further ones wait."""
_PATIENCE_SECONDS = 2.0
"""How long a message may arrive while others wait for their turn."""
_MAX_OTHER_BYTES = 64 * 1024
"""Of messages that are not inference requests."""
_NO_COMPRESSION = 1
"""A bit per algorithm; the first says that there is none. A few kilobytes could become gigabytes, before their size is known."""
_UNCHECKED_BYTES = 64 * 1024
"""A message up to this size is parsed without counting its fields first."""
_SPARE_FIELDS = 1000
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""How protobuf writes a field."""
_MAX_SHIFT = 63
_SERVICE = messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].full_name
_STATUS: dict[int, Callable[[str], exceptions.GrpcException]] = {
    404: exceptions.NotFound,
    413: exceptions.ResourceExhausted,
    500: exceptions.Internal,
    503: exceptions.Unavailable,
}
"""What gRPC calls the statuses of HTTP; all others are INVALID_ARGUMENT."""


@dataclass(frozen=True, slots=True)
class _Failure:
    status: int
    message: str


def grpc_server(model: ServingModel, metrics: Metrics, address: str) -> Any:
    """Make a gRPC server, not yet started, that listens on `address`; raises RuntimeError when it cannot."""
    settings = model.settings
    limit = settings.max_body_bytes + _SLACK_BYTES
    server = aio.server(
        futures.ThreadPoolExecutor(_THREADS),
        interceptors=(Receiver(settings),),
        options=[
            ("grpc.max_send_message_length", limit),
            ("grpc.max_receive_message_length", limit),
            ("grpc.compression_enabled_algorithms_bitset", _NO_COMPRESSION),
            ("grpc.http2.bdp_probe", 0),  # on a fast network it would let megabytes in before anybody reads
            ("grpc.max_concurrent_streams", _MAX_STREAMS),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_connection_idle_ms", 1000 * settings.keep_alive),
            ("grpc.server_handshake_timeout_ms", int(1000 * settings.header_timeout)),
        ],
        maximum_concurrent_rpcs=_MAX_CALLS,
    )
    servicer = Servicer(model, metrics)
    infer = grpc.unary_unary_rpc_method_handler(servicer.ModelInfer, response_serializer=messages.ModelInferResponse.SerializeToString)
    add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_registered_method_handlers(_SERVICE, {"ModelInfer": infer})  # instead of the one that parses before anything is asked
    server.add_insecure_port(address)
    return server


class Receiver(aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Lets the messages of a few calls in at a time, since the size of one is known only when it has arrived as a whole.

    Every method is served as one that takes a stream, whose first message is read when it is the call's turn. Until then the
    client is held back. What the methods raise of grpc_interceptor's exceptions becomes the call's status.
    """

    def __init__(self, settings: PredictorSettings) -> None:
        self._turns = Turns(max(1, settings.max_pending_bytes // settings.max_body_bytes), settings.queue_seconds)
        self._arrive_seconds = settings.body_timeout

    async def intercept_service(self, continuation: Callable[[Any], Any], handler_call_details: Any) -> Any:
        """Return the method that reads its request here."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        parse, answer = handler.request_deserializer, handler.unary_unary

        async def receive(_: Any, context: Any) -> Any:
            try:
                data = await self.read(context.read, context.peer())  # the iterator would keep it until garbage is collected
                return await answer(data if parse is None else _parsed_small(parse, data), context)
            except exceptions.GrpcException as error:  # aborting the call would keep it too
                context.set_code(error.status_code)
                context.set_details(error.details)
            return None

        return grpc.stream_unary_rpc_method_handler(receive, None, handler.response_serializer)

    async def read(self, receive: Callable[[], Coroutine[Any, Any, Any]], connection: str = "") -> bytes:
        """Read a call's message in its turn; raises grpc_interceptor's exceptions."""
        async with self._turns.turn(connection):
            data = await self._arrived(receive)
        if data is aio.EOF:
            raise exceptions.InvalidArgument("the call ended without a message")
        return bytes(data)

    async def _arrived(self, receive: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Wait for a message, for a short time where others wait too."""
        reading = asyncio.create_task(receive())
        reading.add_done_callback(lambda done: done.cancelled() or done.exception())  # so that nobody misses it when the call has ended
        began = time.monotonic()
        while not reading.done():
            await asyncio.wait([reading], timeout=min(_PATIENCE_SECONDS, self._arrive_seconds))
            if not reading.done() and (self._turns.wanted or time.monotonic() - began > self._arrive_seconds):
                raise exceptions.DeadlineExceeded("the message did not arrive in time; send it at once")  # never cancelled: it would leak
        return reading.result()


class Servicer(GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated without types
    """The protocol's methods; each raises grpc_interceptor's exceptions, which become its status."""

    def __init__(self, model: ServingModel, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Describe the server."""
        return messages.ServerMetadataResponse(**v2.server_metadata())

    async def ServerLive(self, request: Any, context: Any) -> Any:
        """Say that the process lives."""
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Say whether requests are wanted."""
        return messages.ServerReadyResponse(ready=self._model.ready)

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Say whether a model, and a version of it where one is named, serves."""
        self._current(request.name, request.version)
        return messages.ModelReadyResponse(ready=self._model.ready)

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Describe the model that serves."""
        return messages.ModelMetadataResponse(**v2.model_metadata(self._current(request.name, request.version)))

    async def RepositoryModelLoad(self, request: Any, context: Any) -> Any:
        """Refuse."""
        raise exceptions.PermissionDenied("clients cannot load models; deploy another version instead")

    async def RepositoryModelUnload(self, request: Any, context: Any) -> Any:
        """Refuse."""
        raise exceptions.PermissionDenied("clients cannot unload models; deploy another version instead")

    async def ModelInfer(self, request: bytes, context: Any) -> Any:
        """Answer an inference request, which comes as bytes: parsing it may take long, and many times their memory."""
        began, ended = time.perf_counter(), threading.Event()
        try:
            answer = await self._infer(request, ended.is_set)
        finally:  # cancelled, when the client has gone
            ended.set()
        self._metrics.count_request("grpc", answer.status if isinstance(answer, _Failure) else 200, time.perf_counter() - began)
        if isinstance(answer, _Failure):
            raise _STATUS.get(answer.status, exceptions.InvalidArgument)(answer.message)
        return answer

    async def _infer(self, request: bytes, gone: Callable[[], bool]) -> Any:
        """Return the response to an inference request, or its failure."""
        size, dispatcher = len(request), self._model.dispatcher
        try:
            loaded = self._model.current()
            dispatcher.check(size)
            try:
                self._model.hold(size, size <= SMALL_BYTES)
                return await dispatcher.run(lambda limits: self._answer(request, loaded, limits), size, gone)
            finally:
                self._model.pending_bytes -= size
        except RequestError as error:
            return _Failure(error.status, str(error))
        except Unavailable as error:
            return _Failure(503, str(error))
        except Disconnected:
            return _Failure(503, "the server is shutting down; ask another replica")
        except Exception:  # noqa: BLE001 - the last guard: the client must not see what was raised
            log().exception("request failed", protocol="grpc")
            return _Failure(500, "the server failed; its log has more")

    def _current(self, name: str, version: str) -> LoadedModel:
        try:
            self._model.check_name(name)
            return self._model.current(version)
        except RequestError as error:
            raise _STATUS.get(error.status, exceptions.InvalidArgument)(str(error)) from error
        except Unavailable as error:
            raise exceptions.Unavailable(str(error)) from error

    def _answer(self, message: bytes, loaded: LoadedModel, limits: RequestLimits) -> Any:
        """Do all the work of a request, or return None where it is too much; mistakes are returned, as in http/app.py."""
        try:
            return self._predict(message, loaded, limits)
        except HandOver:
            return None
        except RequestError as error:
            return _Failure(error.status, str(error))

    def _predict(self, data: bytes, loaded: LoadedModel, limits: RequestLimits) -> Any:
        """Parse, classify and write; raises RequestError and HandOver."""
        message = _parsed(data, limits.max_images)
        self._model.check_name(message.model_name)
        check_version(loaded, message.model_version)
        if len(message.inputs) != 1:
            raise RequestError("the request must have one input")
        if len(message.raw_input_contents) > 1 or (message.raw_input_contents and message.inputs[0].HasField("contents")):
            raise RequestError("the input must have either contents or one entry of raw_input_contents")
        most = max_images(loaded.spec, limits.max_images) * math.prod(loaded.spec.shape)
        if any(len(values) > most for _, values in message.inputs[0].contents.ListFields()):
            raise RequestError("the input holds more numbers than pictures may have in one request; send several requests", 413)
        request = InferRequest.from_grpc(message)
        probabilities, threshold = parse_options(_parameters(request), "parameters")
        outputs = v2.parse_outputs([{"name": output.name} for output in request.request_outputs or []], {}, probabilities)
        entry = request.inputs[0]
        tensor = v2.Tensor(entry.datatype, list(entry.shape), data=entry.data, raw=entry._raw_data)
        images, originals = v2.read_images(tensor, loaded.spec, limits)
        identity = request.id or new_id()
        predictions = self._model.predict(loaded, PredictRequest(images, originals, OUTPUT_NAME in outputs, threshold), identity)
        return InferResponse(
            response_id=identity,
            model_name=loaded.name,
            model_version=loaded.version,
            infer_outputs=[_output(predictions, name, request.use_binary_outputs) for name in outputs],
            use_binary_outputs=request.use_binary_outputs,
        ).to_grpc()


def _parsed_small(parse: Callable[[bytes], Any], data: bytes) -> Any:
    """Parse a message that is not an inference request; raises grpc_interceptor's ResourceExhausted and InvalidArgument."""
    if len(data) > _MAX_OTHER_BYTES:
        raise exceptions.ResourceExhausted(f"the message is larger than the limit of {_MAX_OTHER_BYTES} bytes")
    try:
        return parse(data)
    except DecodeError as error:
        raise exceptions.InvalidArgument(
            "the message is not what the method takes; use the protocol's own grpc_predict_v2.proto"
        ) from error


def _parsed(data: bytes, max_images: int) -> Any:
    """Parse a ModelInferRequest; raises RequestError for bytes that are none, or that have more fields than a request needs."""
    try:
        if len(data) > _UNCHECKED_BYTES:
            _count_fields(memoryview(data), messages.ModelInferRequest.DESCRIPTOR, _SPARE_FIELDS + 2 * max_images)
        return messages.ModelInferRequest.FromString(data)
    except (DecodeError, IndexError) as error:
        raise RequestError("the message is not a ModelInferRequest; use the protocol's own grpc_predict_v2.proto") from error


def _count_fields(data: memoryview, kind: Descriptor, left: int) -> int:
    """Return how many fields are left when those of a message, and of all messages in it, are subtracted: each may take 100 bytes.

    Raises RequestError (413) when there are more; DecodeError or IndexError may be raised for bytes that are not a message.
    """
    at = 0
    while at < len(data):
        left -= 1
        if left < 0:
            raise RequestError("the message has more fields than pictures need; send several requests, numbers in packed form", 413)
        tag, at = _varint(data, at)
        size = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, 0)
        if tag & 7 == _VARINT:
            _, at = _varint(data, at)
        elif tag & 7 == _BYTES:
            size, at = _varint(data, at)
            inner = kind.fields_by_number.get(tag >> 3)
            if inner is not None and inner.message_type is not None:
                left = _count_fields(data[at : at + size], inner.message_type, left)
        elif not size:
            raise DecodeError("groups are not used")
        at += size
    return left


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """Read a number and where it ends; raises IndexError where it does not."""
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            return value, at
        if shift > _MAX_SHIFT:
            raise DecodeError("a number is too long")


def _parameters(request: InferRequest) -> dict[str, Any]:
    """Return the parameters; gRPC's have no floating point numbers, so a threshold comes as text."""
    parameters: dict[str, Any] = to_http_parameters(request.parameters or {})
    if isinstance(threshold := parameters.get("threshold"), str):
        try:
            parameters["threshold"] = float(threshold)
        except ValueError as error:
            raise RequestError("threshold must be a number from 0 to 1, as text") from error
    return parameters


def _output(predictions: Predictions, name: str, as_bytes: bool) -> InferOutput:
    datatype, shape, values = v2.output(predictions, name)
    if not as_bytes:
        return InferOutput(name, shape, datatype, values)
    tensor = InferOutput(name, shape, datatype)
    tensor._raw_data = v2.to_bytes(datatype, values)
    return tensor
