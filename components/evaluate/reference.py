"""What later steps measure against: score statistics for drift, and golden pictures for serving."""

from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from components.classifier.bundle import REFERENCE
from components.classifier.dataset import Labels
from components.classifier.inference import Probabilities
from components.evaluate.metrics import predicted_classes
from components.evaluate.results import SCHEMA_VERSION, Amount, Count, Strict, load
from components.evaluate.slices import Looks

GOLDEN_AT_LEAST = 16

CONFIDENCE_EDGES = np.linspace(0, 1, 21)
BRIGHTNESS_EDGES = np.linspace(0, 256, 33)
CONTRAST_EDGES = np.linspace(0, 128, 33)


class Histogram(Strict):
    """Counts between `edges` (one more than counts), with the mean and the standard deviation of the values themselves."""

    edges: list[float]
    counts: list[Count]
    mean: float
    std: Amount


class Reference(Strict):
    """What reference.json holds: how inputs and scores looked at training time, against which drift is measured."""

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

    def save(self, directory: str | Path) -> None:
        """Write reference.json into a directory."""
        (Path(directory) / REFERENCE).write_text(self.model_dump_json(indent=1) + "\n", "utf-8")

    @classmethod
    def load(cls, directory: str | Path) -> "Reference":
        """Read reference.json of a directory; raises EvaluationError naming the field that is not what it must be."""
        return load(cls, Path(directory) / REFERENCE)


def reference(classes: list[str], probabilities: Probabilities, seen: Looks) -> Reference:
    """Summarise predictions and looks of the test pictures; histograms have fixed edges, so that two of them compare."""
    return Reference(
        n=len(probabilities),
        classes=classes,
        predicted=np.bincount(predicted_classes(probabilities), minlength=len(classes)).tolist(),
        confidence=_histogram(np.clip(probabilities.max(axis=1), 0, 1), CONFIDENCE_EDGES),
        brightness=_histogram(seen.brightness, BRIGHTNESS_EDGES),
        contrast=_histogram(seen.contrast, CONTRAST_EDGES),
    )


def golden_rows(labels: Labels) -> npt.NDArray[np.int64]:
    """Choose test pictures that cover every class that has any: one each, and further rounds up to 16 in all.

    Returns rows in ascending order, the same for the same labels.
    """
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.concatenate([np.arange(count) for count in counts])
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.sort(by_turn[: max(len(starts), min(GOLDEN_AT_LEAST, len(labels)))])


def _histogram(values: npt.NDArray[np.floating], edges: npt.NDArray[np.float64]) -> Histogram:
    counts, _ = np.histogram(values, edges)
    return Histogram(edges=edges.tolist(), counts=counts.tolist(), mean=float(np.mean(values)), std=float(np.std(values)))
