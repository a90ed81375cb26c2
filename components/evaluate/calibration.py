"""Calibration error and reliability bins; coverage and accuracy per review threshold."""

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from components.bundle.dataset import Labels
from components.bundle.evaluation import Calibration, CoveragePoint, ReliabilityBin
from components.bundle.model import Probabilities
from components.evaluate.metrics import predicted_classes

BINS = 15
THRESHOLDS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999)

Floats = npt.NDArray[np.float64]


def calibrate(labels: Labels, probabilities: Probabilities, temperature: float, how: str = "") -> Calibration:
    """Compare the shipped probabilities with those before temperature scaling, which are recovered from them."""
    before, after = reliability(labels, uncalibrated(probabilities, temperature)), reliability(labels, probabilities)
    return Calibration(
        temperature=temperature,
        how=how,
        ece_before=expected_error(before),
        ece_after=expected_error(after),
        bins=after,
        bins_before=before,
    )


def uncalibrated(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Undo temperature scaling: softmax(z) = softmax(T log p) where p = softmax(z / T)."""
    logits = temperature * np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    return np.asarray(special.softmax(logits, axis=1), dtype=np.float32)


def reliability(labels: Labels, probabilities: Probabilities) -> list[ReliabilityBin]:
    """Mean confidence and accuracy in 15 bins of equal width; a confidence of 1 belongs to the last."""
    confidence = np.clip(probabilities.max(axis=1).astype(np.float64), 0, 1)
    correct = (predicted_classes(probabilities) == labels).astype(np.float64)
    means, edges, _ = stats.binned_statistic(confidence, [confidence, correct], "mean", bins=BINS, range=(0, 1))
    counts, _ = np.histogram(confidence, bins=edges)
    return [
        ReliabilityBin(
            low=float(edges[k]),
            high=float(edges[k + 1]),
            n=int(counts[k]),
            confidence=float(means[0, k]) if counts[k] else None,
            accuracy=float(means[1, k]) if counts[k] else None,
        )
        for k in range(BINS)
    ]


def expected_error(bins: list[ReliabilityBin]) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, weighted by the bins' counts."""
    total = sum(b.n for b in bins)
    return sum(b.n * abs(b.confidence - b.accuracy) for b in bins if b.confidence is not None and b.accuracy is not None) / total


def coverage(labels: Labels, probabilities: Probabilities) -> list[CoveragePoint]:
    """The share that is answered without a person, and its accuracy, for each confidence below which pictures go to review."""
    confidence = probabilities.max(axis=1)
    correct = predicted_classes(probabilities) == labels
    points = []
    for threshold in THRESHOLDS:
        kept = confidence >= np.float32(threshold)
        n = int(kept.sum())
        points.append(
            CoveragePoint(threshold=threshold, n=n, coverage=n / len(labels), accuracy=float(correct[kept].mean()) if n else None)
        )
    return points
