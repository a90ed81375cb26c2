"""The model that this server serves: whichever version is loaded, and what every protocol does with a request's pictures."""

import math

from components.bundle.model import Answers
from components.classifier.errors import RequestError
from components.predictor.batching import Batcher
from components.predictor.dispatch import Dispatcher
from components.predictor.errors import ModelFailure, Unavailable
from components.predictor.loaded_model import LoadedModel
from components.predictor.metrics import Metrics
from components.predictor.protocol.request import Predictions, PredictRequest
from components.predictor.reviewing import ReviewWriter
from components.predictor.settings import PredictorSettings
from components.predictor.shadow import Shadow

_BATCH_SIZE = 32
"""Pictures per run of the model: onnxruntime keeps the memory that a run needed."""


class ServingModel:
    """Predicts with whichever version `loaded` holds; assigning another switches at once, requests in flight keep theirs."""

    def __init__(
        self,
        settings: PredictorSettings,
        dispatcher: Dispatcher,
        metrics: Metrics,
        review: ReviewWriter | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self.name = settings.model_name
        self.settings = settings
        self.dispatcher = dispatcher
        self.pending_bytes = 0
        """Of the bodies of all requests that are being answered."""
        self._metrics = metrics
        self._review, self._shadow = review, shadow
        window = settings.batch_seconds
        self._batcher = Batcher(window, lambda: dispatcher.running, metrics.batch_pictures.observe) if window else None
        self.loaded: LoadedModel | None = None
        self.draining = False
        self.ledger = ""
        """Whether the ledger that is followed can be trusted; empty where none is."""
        self.behind = ""
        """The champion that does not serve, and why; empty where it does."""

    @property
    def ready(self) -> bool:
        """Whether requests are wanted: a verified version is loaded and the server is not shutting down."""
        return self.loaded is not None and not self.draining

    def check_name(self, name: str) -> None:
        """Raise RequestError (404) unless this is the model's name."""
        if name != self.name:
            raise RequestError(f"there is no model {name[:64]!r} here; there is {self.name!r}", 404)

    def hold(self, size: int, small: bool = False) -> None:
        """Count bytes of a request's body; raises Unavailable when those of all requests are too many. Subtract them in any case.

        An eighth more may be held, for small requests only: large ones do not keep them out.
        """
        self.pending_bytes += size
        limit = self.settings.max_pending_bytes
        if self.pending_bytes > (limit + limit // 8 if small else limit):
            raise Unavailable("too many bytes of requests are being worked on; try again in a moment")

    def current(self, version: str = "") -> LoadedModel:
        """Return the version that serves.

        Raises Unavailable while none is loaded, RequestError (404) when another `version` is asked for; empty accepts any.
        """
        if self.loaded is None:
            raise Unavailable(f"model {self.name} is still loading; try again in a moment", retry_after=2)
        check_version(self.loaded, version)
        return self.loaded

    def predict(self, loaded: LoadedModel, request: PredictRequest, request_id: str) -> Predictions:
        """Classify a request's pictures with a version; the rest as `conclude`."""
        if self._batcher is None:
            answers = loaded.classifier.answer(request.images, _BATCH_SIZE)
        else:
            answers = self._batcher.answer(loaded.classifier, request.images)
        return self.conclude(loaded, request, answers, request_id)

    def conclude(self, loaded: LoadedModel, request: PredictRequest, answers: Answers, request_id: str) -> Predictions:
        """Say what a version's answers mean, count the predictions, and queue the pictures that need review.

        Raises ModelFailure when the model gave a probability that is not finite.
        """
        probabilities, familiarity = answers
        confidence: list[float] = probabilities.max(axis=1).tolist()
        familiar: list[float] = [] if familiarity is None else familiarity.tolist()
        if not math.isfinite(sum(confidence) + sum(familiar)):
            raise ModelFailure(f"model version {loaded.version} gave a probability that is not finite")
        threshold = self.settings.review_threshold if request.threshold is None else request.threshold
        needs_review = [value < threshold for value in confidence]
        unfamiliar: list[bool] | None = None
        if (about := loaded.classifier.config.familiarity) is not None:
            unfamiliar = [value < about.threshold for value in familiar]
            needs_review = [doubtful or strange for doubtful, strange in zip(needs_review, unfamiliar, strict=True)]
        classes: list[int] = probabilities.argmax(axis=1).tolist()
        predictions = Predictions(loaded, probabilities, classes, confidence, needs_review, familiar, unfamiliar)
        self._metrics.count_predictions(predictions)
        self._metrics.watch_pictures(request.images, predictions)
        if self._review is not None:
            self._review.offer(request, predictions, request_id)
        if self._shadow is not None:
            self._shadow.offer(request, predictions)
        return predictions


def check_version(loaded: LoadedModel, version: str) -> None:
    """Raise RequestError (404) unless `version` is the one that is loaded, or empty."""
    if version and version != loaded.version:
        raise RequestError(f"version {version[:64]!r} does not serve here; version {loaded.version!r} does", 404)
