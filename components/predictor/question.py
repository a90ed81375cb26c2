"""What a request asks, whichever protocol it came by, and the answer to it."""

import itertools
import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from components.classifier.errors import RequestError
from components.classifier.images import ImageSpec, Pixels
from components.predictor.served import ServedModel
from components.predictor.settings import Settings

_PREFIX, _NUMBERS = os.urandom(6).hex(), itertools.count(1)  # quicker than a new UUID each time
_BATCH_BYTES = 32 * 1024 * 1024
_LARGE, _FEW = 64 * 1024, 1000
_BATCH = 32
"""Pictures that go through the model at once: what it needs for them stays allocated."""

Original = bytes | None
"""A picture's bytes as they came; None where an array came."""


@dataclass(frozen=True, slots=True)
class Question:
    """Pictures, uint8 (N, H, W, C) as the model takes them, and what is wanted of them."""

    images: Pixels
    originals: list[Original]
    return_probabilities: bool = False
    threshold: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """One entry a picture: the likeliest class' index, its probability, and the doubt; probabilities are float32 (N, K)."""

    model: ServedModel
    probabilities: npt.NDArray[np.float32]
    classes: list[int]
    confidence: list[float]
    needs_review: list[bool]

    @property
    def labels(self) -> list[str]:
        """The likeliest class' name, one a picture."""
        names = self.model.classes
        return [names[index] for index in self.classes]


class ModelFailure(Exception):
    """The model gave something that is no probability: the server's fault, status 500."""


def answer(model: ServedModel, question: Question, settings: Settings) -> Answer:
    """Run all pictures of a request through the model at once."""
    probabilities = model.classifier.probabilities(question.images, _BATCH)
    confidence: list[float] = probabilities.max(axis=1).tolist()
    if not math.isfinite(sum(confidence)):
        raise ModelFailure(f"model version {model.version} gave a probability that is not finite")
    threshold = settings.review_threshold if question.threshold is None else question.threshold
    classes = probabilities.argmax(axis=1).tolist()
    return Answer(model, probabilities, classes, confidence, [value < threshold for value in confidence])


def new_id() -> str:
    """Make an id for a request that came without one."""
    return f"{_PREFIX}-{next(_NUMBERS):x}"


def load_json(body: bytes, spec: ImageSpec, settings: Settings) -> dict[str, Any]:
    """Parse a JSON object.

    Raises RequestError, with the place of the mistake, for anything else.
    """
    if not body:
        raise RequestError("the body is empty; send a JSON object")
    if len(body) > _LARGE:
        _check_structure(body, spec, settings)
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not valid JSON (line {error.lineno}, column {error.colno})") from error
    if type(document) is not dict:
        raise RequestError("the body must be a JSON object")
    return document


def _check_structure(body: bytes, spec: ImageSpec, settings: Settings) -> None:
    """Refuse JSON that would take far more memory than its bytes: each `{}` or `[]` becomes 80 bytes.

    Pictures as nested lists have at most a list a pixel, of at least one digit and a comma a value.
    """
    most = most_images(spec, settings)
    lists = min(most * (1 + spec.height * (1 + spec.width)), len(body) // (2 * spec.channels + 2)) + _FEW
    if body.count(b"[") > lists or body.count(b"{") > 2 * most + _FEW:
        raise RequestError(f"the body holds more lists or objects than pictures need, whose limit is {most}; send several requests", 413)


def parse_wishes(parameters: Any, where: str) -> tuple[bool, float | None]:
    """Read `return_probabilities` and `threshold` of a JSON object; other names are left alone."""
    if parameters is None:
        return False, None
    if type(parameters) is not dict:
        raise RequestError(f"{where} must be an object")
    wanted = parameters.get("return_probabilities", False)
    if type(wanted) is not bool:
        raise RequestError("return_probabilities must be true or false")
    threshold = parameters.get("threshold")
    if threshold is None:
        return wanted, None
    if type(threshold) not in (int, float) or not 0 <= threshold <= 1:
        raise RequestError("threshold must be a number from 0 to 1")
    return wanted, float(threshold)


def most_images(spec: ImageSpec, settings: Settings) -> int:
    """How many pictures one request may hold: as set, or fewer where the model takes large ones."""
    return max(1, min(settings.max_images, _BATCH_BYTES // (spec.height * spec.width * spec.channels)))


def check_count(number: int, spec: ImageSpec, settings: Settings) -> None:
    """Raise RequestError for no pictures, or for more than one request may hold."""
    if number == 0:
        raise RequestError("no pictures in the request; send at least one")
    if number > (most := most_images(spec, settings)):
        raise RequestError(f"{number} pictures in one request, the limit is {most}; send several requests", 413)
