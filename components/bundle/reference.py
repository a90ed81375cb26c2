"""reference.json: how inputs and scores looked at training time, against which drift is measured."""

from pathlib import Path
from typing import Annotated, ClassVar, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.bundle.dataset import Labels
from components.bundle.files import REFERENCE
from components.bundle.formats import Amount, Count, JsonFile, Strict
from components.bundle.model import Probabilities
from components.classifier.errors import EvaluationError

SCHEMA_VERSION = 1
CONFIDENCE_EDGES = np.array([*np.linspace(0, 0.95, 20), 0.975, 0.99, 0.995, 0.999, 0.9999, 1])
"""Finer at the upper end, where nearly all pictures lie."""
FAMILIARITY_EDGES = np.linspace(0, 1, 21)
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


class Sureness(Strict):
    """Pictures whose certainty reaches a threshold are sure: as many as are right (up to ties).

    From their share in other pictures the accuracy on those can be estimated without labels.
    """

    threshold: float
    sure: Count
    correct: Count
    only_sure: Count
    """Sure, and wrong."""
    only_correct: Count
    """Right, and not sure."""

    @classmethod
    def of(cls, probabilities: Probabilities, labels: Labels) -> Self:
        """Choose the threshold; `probabilities` (N, K), `labels` (N,)."""
        correct, certain = probabilities.argmax(axis=1) == labels, certainty(probabilities)
        wanted = int(correct.sum())
        threshold = float(np.sort(certain)[-wanted]) if wanted else 1.0
        sure = certain >= threshold
        return cls(
            threshold=threshold,
            sure=int(sure.sum()),
            correct=wanted,
            only_sure=int((sure & ~correct).sum()),
            only_correct=int((correct & ~sure).sum()),
        )

    def count(self, probabilities: Probabilities) -> int:
        """How many of other pictures, (N, K), are sure."""
        return int((certainty(probabilities) >= self.threshold).sum())


def certainty(probabilities: Probabilities) -> npt.NDArray[np.float64]:
    """Negative entropy in nats (N,), 0 where one class has all; unlike the highest probability, it sees the second best too."""
    p = np.asarray(probabilities, np.float64)
    return np.asarray((p * np.log(np.maximum(p, np.finfo(np.float32).tiny))).sum(axis=1))


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
    sureness: Sureness | None = None
    """Null for a version of an older release."""

    @classmethod
    def of(
        cls,
        classes: list[str],
        probabilities: Probabilities,
        brightness: Floats,
        contrast: Floats,
        familiarity: Floats | None = None,
        labels: Labels | None = None,
    ) -> Self:
        """Summarise pictures: `probabilities` (N, K), `brightness`, `contrast`, `familiarity` and `labels` (N,)."""
        return cls(
            n=len(probabilities),
            classes=classes,
            predicted=np.bincount(probabilities.argmax(axis=1), minlength=len(classes)).tolist(),
            confidence=Histogram.of(np.clip(probabilities.max(axis=1), 0, 1), CONFIDENCE_EDGES),
            brightness=Histogram.of(brightness, BRIGHTNESS_EDGES),
            contrast=Histogram.of(contrast, CONTRAST_EDGES),
            familiarity=None if familiarity is None else Histogram.of(familiarity, FAMILIARITY_EDGES),
            sureness=None if labels is None else Sureness.of(probabilities, labels),
        )

    @classmethod
    def find(cls, directory: str | Path) -> Self | None:
        """Read reference.json of a model version; None when there is none, or one of another release."""
        try:
            return cls.load(directory)
        except EvaluationError:
            return None
