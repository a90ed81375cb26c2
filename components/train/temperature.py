"""Temperature scaling: one number that makes probabilities mean what they say (Guo et al., ICML 2017), with a prior.

What a validation split tells about the temperature lies in its mistakes: of a good network there are a handful, and the temperature that
fits them best may be far off. So it is the most probable one under a log-normal prior around 1, which yields to many mistakes.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

BOUNDS = (0.5, 10.0)
PRIOR_SD = 0.25
"""Standard deviation of the temperature's natural logarithm before any picture is seen."""
CROSS_FITTED = 200
"""With fewer validation pictures a temperature must lower the loss of pictures that it was not fitted on."""
FOLDS = 5
MAX_FITTED = 1_000_000
"""Logits that the comparison of epochs fits a temperature on."""

Logits = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int64]


def fit_temperature(logits: Logits, labels: Labels) -> tuple[float, str]:
    """Find the most probable temperature given the validation split and the prior.

    `logits` (N, K), `labels` (N,). Returns the temperature, within BOUNDS, and what was done. It is 1, which changes nothing, where
    none of the pictures is misclassified, or where cross-fitting of a small split shows no gain.
    """
    mistakes = int((logits.argmax(axis=1) != labels).sum())
    if mistakes == 0:
        return 1.0, "not fitted: no mistake on the validation split"
    found, before = _most_probable(logits, labels), _losses(logits, labels, 0.0)
    counts = f"{mistakes} of {len(labels)} validation pictures are mistakes"
    if len(labels) < CROSS_FITTED:
        held_out = _cross_fitted(logits, labels).mean()
        if held_out >= before.mean():
            return 1.0, f"not fitted: in {FOLDS}-fold cross-fitting no temperature lowers the loss of held-out pictures; {counts}"
        counts += f", cross-fitted loss {held_out:.4f}"
    after = _losses(logits, labels, found).mean()
    return math.exp(found), f"fitted with a prior: validation loss {before.mean():.4f} became {after:.4f}; {counts}"


def refit_temperature(probabilities: npt.NDArray[np.float32], labels: Labels) -> tuple[float, str]:
    """Find the temperature of probabilities (N, K) that were calibrated before, and are those of another model now.

    It stays 1 unless the fitted one lowers the validation loss by more than chance: the standard error of the mean difference.
    """
    logits = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    temperature, how = fit_temperature(logits, labels)
    if temperature == 1:
        return 1.0, how
    before, after = _losses(logits, labels, 0.0), _losses(logits, labels, math.log(temperature))
    if not clearly_worse(before, after):
        return 1.0, f"not fitted again: the validation loss {before.mean():.4f} would become {after.mean():.4f}, no more than chance"
    return temperature, how


def calibrated_losses(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """Return the loss of each picture (N,) at the most probable temperature.

    It is fitted on at most MAX_FITTED numbers, from pictures spread evenly over the split.
    """
    step = -(-logits.size // MAX_FITTED)
    return _losses(logits, labels, _most_probable(logits[::step], labels[::step]))


def clearly_worse(losses: npt.NDArray[np.float64], lowest: npt.NDArray[np.float64]) -> bool:
    """Say whether the first losses are larger by more than the standard error of their mean difference, picture by picture."""
    if len(losses) < 2:
        return bool(losses.sum() > lowest.sum())
    difference = losses - lowest
    return bool(difference.mean() > difference.std(ddof=1) / math.sqrt(len(difference)))


def _most_probable(logits: Logits, labels: Labels) -> float:
    """The natural logarithm of the temperature."""

    def cost(log_temperature: float) -> float:
        return float(_losses(logits, labels, log_temperature).sum()) + (log_temperature / PRIOR_SD) ** 2 / 2

    return float(minimize_scalar(cost, bounds=(math.log(BOUNDS[0]), math.log(BOUNDS[1])), method="bounded").x)


def _cross_fitted(logits: Logits, labels: Labels) -> npt.NDArray[np.float64]:
    """The loss of each picture at the temperature that the other folds give."""
    fold = np.arange(len(labels)) % FOLDS
    losses = np.empty(len(labels))
    for k in range(min(FOLDS, len(labels))):
        losses[fold == k] = _losses(logits[fold == k], labels[fold == k], _most_probable(logits[fold != k], labels[fold != k]))
    return losses


def _losses(logits: Logits, labels: Labels, log_temperature: float) -> npt.NDArray[np.float64]:
    scaled = log_softmax(logits.astype(np.float64) / math.exp(log_temperature), axis=1)
    return np.asarray(-scaled[np.arange(len(labels)), labels])
