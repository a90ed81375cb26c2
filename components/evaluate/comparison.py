"""Challenger against champion on the same pictures, paired."""

import math

import numpy as np
from scipy import optimize, stats

from components.classifier.dataset import Labels
from components.classifier.inference import Probabilities
from components.evaluate import calibration, metrics
from components.evaluate.results import Paired, PairedClass


def compare(labels: Labels, challenger: Probabilities, champion: Probabilities, classes: list[str]) -> Paired:
    """Count who was right where, with the champion's own figures beside; all arrays have one row a picture."""
    mine = metrics.predicted_classes(challenger) == labels
    theirs = metrics.predicted_classes(champion) == labels
    figures = metrics.measure(labels, champion, classes)
    only_challenger, only_champion = int((mine & ~theirs).sum()), int((~mine & theirs).sum())
    low, high = difference_interval(only_challenger, only_champion, len(labels))
    return Paired(
        n=len(labels),
        both_correct=int((mine & theirs).sum()),
        only_challenger=only_challenger,
        only_champion=only_champion,
        neither=int((~mine & ~theirs).sum()),
        accuracy=figures.accuracy,
        balanced_accuracy=figures.balanced_accuracy,
        macro_f1=figures.macro_f1,
        log_loss=figures.log_loss,
        brier=figures.brier,
        ece=calibration.expected_error(calibration.reliability(labels, champion)),
        mcnemar_p=mcnemar(only_challenger, only_champion),
        difference=(only_challenger - only_champion) / len(labels),
        difference_low=low,
        difference_high=high,
        per_class=[
            PairedClass(
                name=result.name,
                support=result.support,
                recall=result.recall,
                only_challenger=int((mine & ~theirs)[labels == k].sum()),
                only_champion=int((~mine & theirs)[labels == k].sum()),
            )
            for k, result in enumerate(figures.per_class)
        ],
    )


def mcnemar(only_challenger: int, only_champion: int) -> float:
    """Two-sided exact McNemar test; 1 when the two never differ."""
    discordant = only_challenger + only_champion
    return float(min(1.0, stats.binomtest(only_challenger, discordant, 0.5).pvalue)) if discordant else 1.0


def difference_interval(only_challenger: int, only_champion: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Score interval for the difference of two paired proportions (Tango 1998, Statistics in Medicine 17:891).

    Returns (low, high) of challenger minus champion, from -1 to 1.
    """
    limit = float(stats.norm.ppf((1 + level) / 2))
    estimate = (only_challenger - only_champion) / n

    def score(difference: float) -> float:
        return _tango(only_challenger, only_champion, n, difference)

    edge = 1 - 1e-9
    low = -1.0 if estimate <= -edge or score(-edge) < limit else optimize.brentq(lambda d: score(d) - limit, -edge, estimate)
    high = 1.0 if estimate >= edge or score(edge) > -limit else optimize.brentq(lambda d: score(d) + limit, estimate, edge)
    return float(np.clip(low, -1, estimate)), float(np.clip(high, estimate, 1))


def _tango(b: int, c: int, n: int, difference: float) -> float:
    """Score statistic of the hypothesis that the true difference is `difference`; falls from positive to negative."""
    gap = b - c - n * difference
    if abs(gap) < 1e-12:
        return 0.0
    linear = -b - c + (2 * n - b + c) * difference
    root = math.sqrt(max(0.0, linear**2 + 8 * n * c * difference * (1 - difference)))
    likely = (root - linear) / (4 * n)
    variance = n * (2 * likely + difference * (1 - difference))
    return gap / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, gap)
