"""The KServe model: which version is served, and the way in for gRPC."""

from collections.abc import Mapping
from typing import Any

from grpc_interceptor import exceptions

from components.bundle.files import INPUT_NAME, OUTPUT_NAME
from components.classifier.errors import RequestError
from components.predictor import v2
from components.predictor.errors import Unavailable
from components.predictor.logs import log
from components.predictor.metrics import Metrics
from components.predictor.question import Answer, Question, answer, new_id, parse_wishes
from components.predictor.reviewing import ReviewWriter
from components.predictor.sdk import InferOutput, InferRequest, InferResponse, InvalidInput, Model, to_http_parameters
from components.predictor.served import ServedModel
from components.predictor.settings import Settings
from components.predictor.tensors import Tensor, pictures
from components.predictor.worker import Worker


class ImageClassifier(Model):  # type: ignore[misc]  # kserve has no types
    """Answers with whichever version `served` holds; assigning another switches at once, requests in flight keep theirs."""

    def __init__(self, settings: Settings, worker: Worker, metrics: Metrics, review: ReviewWriter | None = None) -> None:
        super().__init__(settings.model_name)
        self.settings = settings
        self.worker = worker
        self._metrics = metrics
        self._review = review
        self.served: ServedModel | None = None
        self.draining = False

    def current(self) -> ServedModel:
        """The version that serves; raises Unavailable while none is loaded."""
        if self.served is None:
            raise Unavailable(f"model {self.name} is still loading; try again in a moment", retry_after=2)
        return self.served

    async def healthy(self) -> bool:
        """Say whether requests are wanted: a verified version is loaded and the server is not going away."""
        return self.served is not None and not self.draining

    def load(self) -> bool:
        """Do nothing: KServe calls this for models that are not ready, but loading is the server's own start."""
        return self.served is not None

    def start(self) -> None:
        """Leave readiness alone, for the same reason."""

    def stop(self) -> None:
        """Leave the model in place, so that requests in flight are answered while the server goes away."""

    def answer(self, served: ServedModel, question: Question, request_id: str) -> Answer:
        """Run a request's pictures through a version, count what came out, and hand on what needs a look."""
        found = answer(served, question, self.settings)
        self._metrics.answered(found)
        if self._review is not None:
            self._review.offer(question, found, request_id)
        return found

    def get_input_types(self) -> list[dict[str, Any]]:
        """The input as V2 metadata tells it; FP32 and BYTES are taken too."""
        shape = list(self.served.spec.shape) if self.served else []
        return [{"name": INPUT_NAME, "datatype": "UINT8", "shape": [-1, *shape]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        """The outputs as V2 metadata tells them."""
        return [
            {"name": v2.LABEL, "datatype": "BYTES", "shape": [-1]},
            {"name": v2.CONFIDENCE, "datatype": "FP32", "shape": [-1]},
            {"name": v2.NEEDS_REVIEW, "datatype": "BOOL", "shape": [-1]},
            {"name": OUTPUT_NAME, "datatype": "FP32", "shape": [-1, len(self.served.classes) if self.served else -1]},
        ]

    async def predict(
        self, payload: InferRequest, headers: Mapping[str, str] | None = None, response_headers: dict[str, str] | None = None
    ) -> InferResponse:
        """Answer a gRPC request; HTTP goes another way in, to the same code (edge.py)."""
        try:
            self.current()
            return await self.worker.run(lambda: self._predict(payload))
        except RequestError as error:
            raise InvalidInput(str(error)) from error
        except Unavailable as error:
            raise exceptions.Unavailable(str(error)) from error
        except Exception as error:
            log().exception("request failed", protocol="grpc")
            raise exceptions.Internal("the server failed; its log has more") from error

    def _predict(self, request: InferRequest) -> InferResponse:
        served = self.current()
        wanted, threshold = parse_wishes(_parameters(request), "parameters")
        names = [{"name": output.name} for output in request.request_outputs or []]
        outputs = v2.parse_outputs(names, {}, wanted)
        if len(request.inputs) != 1:
            raise RequestError(f"the request must have one input, {INPUT_NAME!r}")
        entry = request.inputs[0]
        tensor = Tensor(entry.datatype, list(entry.shape), data=entry.data, raw=entry._raw_data)
        images, originals = pictures(tensor, served.spec, self.settings)
        question = Question(images, originals, OUTPUT_NAME in outputs, threshold)
        identity = request.id or new_id()
        found = self.answer(served, question, identity)
        return InferResponse(
            response_id=identity,
            model_name=served.name,
            model_version=served.version,
            infer_outputs=[_output(found, name, request.use_binary_outputs) for name in outputs],
            use_binary_outputs=request.use_binary_outputs,
        )


def _parameters(request: InferRequest) -> dict[str, Any]:
    """The parameters, of which gRPC has no floating point numbers: a threshold comes as text."""
    parameters: dict[str, Any] = to_http_parameters(request.parameters or {})
    if isinstance(threshold := parameters.get("threshold"), str):
        try:
            parameters["threshold"] = float(threshold)
        except ValueError as error:
            raise RequestError("threshold must be a number from 0 to 1, as text") from error
    return parameters


def _output(found: Answer, name: str, as_bytes: bool) -> InferOutput:
    datatype, shape, values = v2.output(found, name)
    if not as_bytes:
        return InferOutput(name, shape, datatype, values)
    tensor = InferOutput(name, shape, datatype)
    tensor._raw_data = v2.binary(datatype, values)
    return tensor
