"""Temperature scaling: one number that makes probabilities mean what they say (Guo et al., ICML 2017)."""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BOUNDS = (0.2, 10.0)
MIN_PICTURES = 20
"""Validation pictures below which a temperature would be noise."""


def fit_temperature(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> tuple[float, str]:
    """Find the temperature with the lowest negative log likelihood on the validation split.

    `logits` (N, K), `labels` (N,). Returns the temperature, within BOUNDS, and why it is that one. It is 1, which changes nothing,
    where nothing can be fitted: too few pictures, or no mistake among them (then any smaller temperature looks better).
    """
    if len(labels) < MIN_PICTURES:
        return 1.0, f"not fitted: {len(labels)} validation pictures, at least {MIN_PICTURES} are needed"
    if (logits.argmax(axis=1) == labels).all():
        return 1.0, "not fitted: no mistake on the validation split"

    def loss(log_temperature: float) -> float:
        scaled = log_softmax(logits.astype(np.float64) / math.exp(log_temperature), axis=1)
        return float(-scaled[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=(math.log(BOUNDS[0]), math.log(BOUNDS[1])), method="bounded")
    if not found.fun < loss(0.0):
        return 1.0, "not fitted: no temperature is better than 1"
    return math.exp(float(found.x)), f"fitted: validation loss {loss(0.0):.4f} became {found.fun:.4f}"
