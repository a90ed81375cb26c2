"""Run a model over the test split, and time it."""

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.bundle.evaluation import Latency
from components.bundle.model import Classifier, Probabilities
from components.classifier.cpu import available_cpus
from components.classifier.errors import EvaluationError
from components.classifier.images import Pixels

MAX_BATCH = 256
BATCH_PIXELS = MAX_BATCH * 64 * 64
"""Larger pictures go in smaller batches: 256 of 224x224 would take gigabytes in a network's first layers."""
WARM_UP = 5
TIMED = 200
TIME_LIMIT_S = 2.0
"""Slow models are timed on fewer single pictures, but on ten at least."""


@dataclass(frozen=True)
class Scores:
    """`probabilities` float32 (N, K), `familiarity` (N,) or None, the seconds that they took, and the size of the batches."""

    probabilities: Probabilities
    familiarity: npt.NDArray[np.float32] | None
    seconds: float
    batch_size: int


def score(classifier: Classifier, images: Pixels) -> Scores:
    """Classify all pictures in batches.

    Raises EvaluationError where a row is not a distribution: NaN and Infinity would pass every comparison or none.
    """
    batch_size = max(1, min(MAX_BATCH, BATCH_PIXELS // (classifier.spec.height * classifier.spec.width), len(images)))
    classifier.probabilities(images[:batch_size])  # the first run allocates; it is not timed
    start = time.perf_counter()
    probabilities, familiarity = classifier.answer(images, batch_size)
    seconds = time.perf_counter() - start
    finite = np.isfinite(probabilities).all(axis=1) & (True if familiarity is None else np.isfinite(familiarity))
    if not finite.all():
        raise EvaluationError(
            f"the model gives NaN or infinite scores for {int((~finite).sum())} of {len(images)} test pictures "
            f"(first: number {int(np.flatnonzero(~finite)[0])}); train it again with a lower learning rate"
        )
    wrong = (np.abs(probabilities.sum(axis=1) - 1) > 1e-3) | (probabilities < 0).any(axis=1)
    if wrong.any():
        raise EvaluationError(
            f"the model's scores are not probabilities for {int(wrong.sum())} of {len(images)} test pictures "
            f"(they must be 0 or more and sum to 1); export it again with its softmax"
        )
    return Scores(probabilities, familiarity, seconds, batch_size)


def measure_latency(classifier: Classifier, images: Pixels, scores: Scores) -> Latency:
    """Time single pictures, as the predictor meets them; throughput is that of the scoring pass."""
    times: list[float] = []
    begun = time.perf_counter()
    for k in range(WARM_UP + TIMED):
        row = k % len(images)
        start = time.perf_counter()
        classifier.probabilities(images[row : row + 1])
        times.append((time.perf_counter() - start) * 1000)
        if len(times) >= WARM_UP + 10 and time.perf_counter() - begun > TIME_LIMIT_S:
            break
    timed = times[WARM_UP:]
    return Latency(
        p50_ms=float(np.percentile(timed, 50)),
        p95_ms=float(np.percentile(timed, 95)),
        n=len(timed),
        batch_images_per_second=len(images) / max(scores.seconds, 1e-9),
        batch_size=scores.batch_size,
        threads=available_cpus(),
        device=classifier.device,
    )
