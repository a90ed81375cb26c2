"""What later steps measure against: score statistics for drift, and golden pictures for serving."""

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import Labels
from components.bundle.model import Probabilities
from components.bundle.reference import Histogram, Reference
from components.evaluate.metrics import predicted_classes
from components.evaluate.slices import Looks

GOLDEN_AT_LEAST = 16

CONFIDENCE_EDGES = np.linspace(0, 1, 21)
BRIGHTNESS_EDGES = np.linspace(0, 256, 33)
CONTRAST_EDGES = np.linspace(0, 128, 33)


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
