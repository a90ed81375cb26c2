"""The way in for gRPC: KServe's server hands requests to `KServeModel`, which answers them by the same code as HTTP."""

from collections.abc import Mapping
from typing import Any

from grpc_interceptor import exceptions

from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import RequestError
from components.predictor.errors import Unavailable
from components.predictor.logs import log
from components.predictor.model import ServingModel
from components.predictor.protocol import v2
from components.predictor.protocol.request import Predictions, PredictRequest, parse_options
from components.predictor.sdk import (
    InferOutput,
    InferRequest,
    InferResponse,
    InvalidInput,
    Model,
    ModelRepositoryExtension,
    to_http_parameters,
)
from components.predictor.speed import new_id


class KServeModel(Model):  # type: ignore[misc]  # kserve has no types
    """What KServe sees of the model: readiness, metadata, and predictions by gRPC."""

    def __init__(self, model: ServingModel) -> None:
        super().__init__(model.name)
        self._model = model

    async def healthy(self) -> bool:
        """Say whether requests are wanted: a verified version is loaded and the server is not shutting down."""
        return self._model.loaded is not None and not self._model.draining

    def load(self) -> bool:
        """Do nothing: KServe calls this for models that are not ready, but the server itself loads the model."""
        return self._model.loaded is not None

    def start(self) -> None:
        """Do nothing, for the same reason."""

    def stop(self) -> None:
        """Keep the model, so that requests in flight are answered while the server shuts down."""

    def get_input_types(self) -> list[dict[str, Any]]:
        """Return the input's V2 metadata."""
        return v2.input_metadata(self._model.loaded)

    def get_output_types(self) -> list[dict[str, Any]]:
        """Return the outputs' V2 metadata."""
        return v2.output_metadata(self._model.loaded)

    async def predict(
        self, payload: InferRequest, headers: Mapping[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> InferResponse:
        """Answer a gRPC request; HTTP requests come in through http/app.py.

        Raises KServe's InvalidInput for a client's mistake, and the interceptor's Unavailable and Internal.
        """
        try:
            self._model.current()
            return await self._model.worker.run(lambda: self._predict(payload))
        except RequestError as error:
            raise InvalidInput(str(error)) from error
        except Unavailable as error:
            raise exceptions.Unavailable(str(error)) from error
        except Exception as error:
            log().exception("request failed", protocol="grpc")
            raise exceptions.Internal("the server failed; its log has more") from error

    def _predict(self, request: InferRequest) -> InferResponse:
        loaded = self._model.current()
        probabilities, threshold = parse_options(_parameters(request), "parameters")
        names = [{"name": output.name} for output in request.request_outputs or []]
        outputs = v2.parse_outputs(names, {}, probabilities)
        if len(request.inputs) != 1:
            raise RequestError(f"the request must have one input, {INPUT_NAME!r}")
        entry = request.inputs[0]
        tensor = v2.Tensor(entry.datatype, list(entry.shape), data=entry.data, raw=entry._raw_data)
        images, originals = v2.read_images(tensor, loaded.spec, self._model.settings)
        identity = request.id or new_id()
        predictions = self._model.predict(loaded, PredictRequest(images, originals, OUTPUT_NAME in outputs, threshold), identity)
        return InferResponse(
            response_id=identity,
            model_name=loaded.name,
            model_version=loaded.version,
            infer_outputs=[_output(predictions, name, request.use_binary_outputs) for name in outputs],
            use_binary_outputs=request.use_binary_outputs,
        )


class ClosedRepository(ModelRepositoryExtension):  # type: ignore[misc]  # kserve has no types
    """Refuses to load and unload models, which KServe's gRPC server lets any client do."""

    async def load(self, model_name: str) -> None:
        """Raise PermissionDenied."""
        raise exceptions.PermissionDenied("clients cannot load models; deploy another version instead")

    async def unload(self, model_name: str) -> None:
        """Raise PermissionDenied."""
        raise exceptions.PermissionDenied("clients cannot unload models; deploy another version instead")


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
