"""Intervals and tests over plain counts, the same in evaluation, gate and review; scipy does what scipy has.

One convention holds everywhere: two-sided 95% intervals, so 2.5% on each side. A challenger is called better or worse than the
champion only where a one-sided test says so at 2.5%, and a family of classes is judged together at 5%.
scipy is imported where it is used: reading a gate's policy, as the command line does, should not wait for it.
"""

import math
from collections.abc import Sequence
from functools import cache, lru_cache

CONFIDENCE = 0.95
"""Of every interval; two-sided, so 2.5% lie beyond either end."""
ONE_SIDED = 0.025
FAMILY = 0.05


@cache
def normal_quantile() -> float:
    """How many standard deviations a 95% interval reaches to either side: 1.96."""
    from scipy.stats import norm

    return float(norm.ppf((1 + CONFIDENCE) / 2))


def proportion_interval(correct: int, n: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927), by scipy."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def difference_interval(only_challenger: float, only_champion: float, n: float) -> tuple[float, float]:
    """95% score interval of challenger's minus champion's accuracy on the same `n` pictures, from who alone was right how often.

    Unlike the Wald interval it does not collapse to a point where the two never differ: 0 of n such pictures still leave room for a
    difference of about 4/n. Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17 (1998) 891-908. scipy has none for pairs.
    """
    from scipy.optimize import brentq

    quantile = normal_quantile()
    observed = (only_challenger - only_champion) / n

    def beyond(difference: float, target: float) -> float:
        return _tango(difference, only_challenger, only_champion, n) - target

    edge = 1 - 1e-12
    low = -1.0 if observed == -1 else float(brentq(beyond, -edge, min(observed, edge), args=(quantile,), xtol=1e-13))
    high = 1.0 if observed == 1 else float(brentq(beyond, max(observed, -edge), edge, args=(-quantile,), xtol=1e-13))
    return low, high


def _tango(difference: float, b: float, c: float, n: float) -> float:
    """Tango's statistic: standard normal when the true difference is `difference`; falls as that grows."""
    distance = b - c - n * difference
    if abs(distance) < 1e-12:
        return 0.0
    linear = (2 * n - b + c) * difference - b - c
    root = math.sqrt(max(linear**2 + 8 * n * c * difference * (1 - difference), 0.0))
    only_champion = (root - linear) / (4 * n)  # most likely share of pictures that the champion alone gets right
    variance = n * (2 * only_champion + difference * (1 - difference))
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that the chance of one false finding among all of them stays below the level (Holm 1979).

    Holds whatever the tests' dependence. scipy adjusts for false discovery rates only.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


@lru_cache(maxsize=10_000)  # of many classes most have the same counts
def p_below(correct: float, n: float, floor: float) -> float:
    """Exact binomial test: how likely so few correct of `n` (above 0) are when the true share is `floor`.

    By the incomplete beta function, which takes the fractions of effective pictures too.
    """
    from scipy.special import betainc

    return float(betainc(n - correct, correct + 1, 1 - floor)) if correct < n else 1.0


def mcnemar(only_challenger: float, only_champion: float, alternative: str = "two-sided") -> float:
    """Exact McNemar test (McNemar 1947): the p-value of who alone was right how often.

    The pictures on which exactly one of the two is right would be shared half and half by equal models. With `alternative` "less"
    it is small when the challenger is worse, with "greater" when it is better. Without such pictures it is 1. Counts that were scaled
    to effective pictures may be fractions (J. N. K. Rao and A. J. Scott, A simple method for the analysis of clustered binary data,
    Biometrics 48 (1992) 577-585).
    """
    if alternative == "two-sided":
        return min(1.0, 2 * min(mcnemar(only_challenger, only_champion, side) for side in ("less", "greater")))
    few, many = (only_challenger, only_champion) if alternative == "less" else (only_champion, only_challenger)
    return p_below(few, few + many, 0.5) if many else 1.0


def effective_interval(share: float, effective: float) -> tuple[float, float]:
    """95% score interval (Wilson 1927) of an estimated share with an effective sample size of `effective` pictures.

    Source: E. L. Korn and B. I. Graubard, Confidence intervals for proportions with small expected number of positive counts
    estimated from survey data, Survey Methodology 24 (1998) 193-201.
    """
    z2 = normal_quantile() ** 2
    centre = (share + z2 / (2 * effective)) / (1 + z2 / effective)
    half = math.sqrt(z2 * (share * (1 - share) / effective + z2 / (4 * effective**2))) / (1 + z2 / effective)
    return max(0.0, centre - half), min(1.0, centre + half)


def effective_pictures(correct: Sequence[int], sizes: Sequence[int]) -> float:
    """Effective sample size of a share: how many independent pictures would give the same variance as these groups.

    `correct`: right answers in each group, `sizes`: its pictures.

    The share's variance is that between groups (ratio estimator, as a cluster bootstrap gives it in the limit), with two groups of average
    size added, one all right and one all wrong (as A. Agresti and B. A. Coull, The American Statistician 52 (1998) 119-126, add pictures):
    where no group has a mistake, as many as there are groups and not as many as there are pictures.
    """
    import numpy as np

    size = np.append(np.asarray(sizes, np.float64), [np.mean(sizes)] * 2)
    right = np.append(np.asarray(correct, np.float64), [0.0, float(np.mean(sizes))])
    share, groups = right.sum() / size.sum(), len(size)
    variance = groups / (groups - 1) * float(((right - share * size) ** 2).sum()) / size.sum() ** 2
    return float(min(share * (1 - share) / variance, np.sum(sizes)))


def effective_pairs(only_challenger: Sequence[int], only_champion: Sequence[int], sizes: Sequence[int]) -> float:
    """Effective sample size of the difference of two models: how many independent pictures would give the same variance as these groups.

    `only_challenger`, `only_champion`: pictures of each group that this model alone gets right, `sizes`: its pictures.

    The number of pictures over the design effect: the variance of the difference between groups (ratio estimator) over that of
    independent pictures (Rao and Scott 1992), at least 1. Few groups in which the models differ say little of it, so it is averaged
    with two more in which pictures are all alike, whose effect is the average size; where the models never differ, as many as groups.
    """
    import numpy as np

    size, b, c = (np.asarray(values, np.float64) for values in (sizes, only_challenger, only_champion))
    n, groups, differ = size.sum(), len(size), int(((b + c) > 0).sum())
    mean = (b - c).sum() / n
    independent = ((b + c).sum() / n - mean**2) / max(n - 1, 1)
    between = groups / max(groups - 1, 1) * float(((b - c - mean * size) ** 2).sum()) / n**2
    effect = max(1.0, between / independent) if independent > 0 and groups > 1 else float(size.mean())
    return float(n / ((differ * effect + 2 * size.mean()) / (differ + 2)))


def design_effect(size: float, correlation: float) -> float:
    """How many times more pictures it takes in groups of `size` with this correlation within (L. Kish, Survey Sampling, 1965)."""
    return 1 + (size - 1) * correlation


def macro_f1_interval(macro_f1: float, confusion_matrix: Sequence[Sequence[int]]) -> tuple[float, float]:
    """95% interval of the mean F1 of the classes that have pictures; rows of the matrix are labels, columns predictions.

    The variance is that of the delta method over multinomial counts (K. Takahashi et al., Confidence interval for micro-averaged F1
    and macro-averaged F1 scores, Applied Intelligence 52 (2022) 4961-4972), expressed as a number of independent pictures, at most
    as many as the supports of the classes allow: without a mistake the variance is 0, and the error is not.
    """
    import numpy as np

    counts = np.asarray(confusion_matrix, dtype=np.float64)
    n, supports = counts.sum(), counts.sum(axis=1)
    present = supports > 0
    p, both = counts / n, (supports + counts.sum(axis=0)) / n
    weight = np.where(present, 2 / np.maximum(both, 1 / n) / present.sum(), 0.0)
    lost = weight * np.diag(p) / np.maximum(both, 1 / n)
    slope = np.diag(weight) - lost[:, None] - lost[None, :]
    variance = float((p * slope**2).sum() - (p * slope).sum() ** 2) / n
    effective = float(present.sum() ** 2 / (1 / supports[present]).sum())
    if variance > 0:
        effective = min(effective, macro_f1 * (1 - macro_f1) / variance)
    return effective_interval(macro_f1, max(effective, 1.0))


def calibration_error(counts: Sequence[int], confidences: Sequence[float], accuracies: Sequence[float]) -> tuple[float, float]:
    """Expected calibration error without what chance adds to it, and its standard error; one value per bin that has pictures.

    The gap between accuracy and confidence of few pictures is never 0, so the plain figure is too large: of 50 perfectly calibrated
    pictures some 0.04. In each bin the variance that chance gives the gap is taken off its square, as in the debiased estimator of
    A. Kumar, P. Liang and T. Ma, Verified uncertainty calibration, NeurIPS 2019, which is for squared gaps.
    """
    total = sum(counts)
    error = variance = 0.0
    for n, confidence, accuracy in zip(counts, confidences, accuracies, strict=True):
        error += n / total * math.sqrt(max(0.0, (accuracy - confidence) ** 2 - confidence * (1 - confidence) / n))
        variance += (n / total) ** 2 * max(confidence * (1 - confidence), accuracy * (1 - accuracy)) / n
    return error, math.sqrt(variance)
