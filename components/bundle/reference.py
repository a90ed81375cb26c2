"""reference.json: how inputs and scores looked at training time, against which drift is measured."""

from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.bundle.evaluation import Amount, Count
from components.bundle.files import REFERENCE
from components.bundle.formats import JsonFile, Strict
from components.bundle.model import Probabilities
from components.classifier.errors import EvaluationError

SCHEMA_VERSION = 1
CONFIDENCE_EDGES = np.linspace(0, 1, 21)
BRIGHTNESS_EDGES = np.linspace(0, 256, 33)
CONTRAST_EDGES = np.linspace(0, 128, 33)

Floats = npt.NDArray[np.floating]


class Histogram(Strict):
    """Counts between `edges` (one more than counts), with the mean and the standard deviation of the values themselves."""

    edges: list[float]
    counts: list[Count]
    mean: float
    std: Amount

    @classmethod
    def of(cls, values: Floats, edges: npt.NDArray[np.float64]) -> Self:
        """Count `values` (N,); the edges are fixed, so that two histograms can be compared."""
        counts, _ = np.histogram(values, edges)
        return cls(edges=edges.tolist(), counts=counts.tolist(), mean=float(np.mean(values)), std=float(np.std(values)))


class Reference(Strict, JsonFile):
    """What reference.json holds: how inputs and scores looked at training time, against which drift is measured."""

    FILE: ClassVar[str] = REFERENCE
    schema_version: int = SCHEMA_VERSION
    n: Annotated[int, Field(ge=1)]
    classes: list[str]
    predicted: list[Count]
    """How often each class was predicted, in the order of `classes`."""
    confidence: Histogram
    brightness: Histogram
    """Mean pixel of a picture, 0 to 255."""
    contrast: Histogram
    """Standard deviation of a picture's pixels, 0 to 127.5."""
    familiarity: Histogram | None = None
    """0 to 1; null for a version that cannot say it."""

    @classmethod
    def of(
        cls, classes: list[str], probabilities: Probabilities, brightness: Floats, contrast: Floats, familiarity: Floats | None = None
    ) -> Self:
        """Summarise pictures: `probabilities` (N, K), `brightness`, `contrast` and `familiarity` (N,)."""
        return cls(
            n=len(probabilities),
            classes=classes,
            predicted=np.bincount(probabilities.argmax(axis=1), minlength=len(classes)).tolist(),
            confidence=Histogram.of(np.clip(probabilities.max(axis=1), 0, 1), CONFIDENCE_EDGES),
            brightness=Histogram.of(brightness, BRIGHTNESS_EDGES),
            contrast=Histogram.of(contrast, CONTRAST_EDGES),
            familiarity=None if familiarity is None else Histogram.of(familiarity, CONFIDENCE_EDGES),
        )

    @classmethod
    def find(cls, directory: str | Path) -> Self | None:
        """Read reference.json of a model version; None when there is none, or one of another release."""
        try:
            return cls.load(directory)
        except EvaluationError:
            return None
