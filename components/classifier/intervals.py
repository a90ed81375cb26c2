"""Intervals and tests over plain counts, the same in evaluation, gate and review; scipy does what scipy has.

One convention holds everywhere: two-sided 95% intervals, so 2.5% on each side. A challenger is called better or worse than the
champion only where a one-sided test says so at 2.5%, and a family of classes is judged together at 5%.
scipy is imported where it is used: reading a gate's policy, as the command line does, should not wait for it.
"""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95
"""Of every interval; two-sided, so 2.5% lie beyond either end."""
ONE_SIDED = 0.025
FAMILY = 0.05


def proportion_interval(correct: int, n: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927), by scipy."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def difference_interval(only_challenger: int, only_champion: int, n: int) -> tuple[float, float]:
    """95% score interval of challenger's minus champion's accuracy on the same `n` pictures, from who alone was right how often.

    Unlike the Wald interval it does not collapse to a point where the two never differ: 0 of n such pictures still leave room for a
    difference of about 4/n. Source: T. Tango, Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design, Statistics in Medicine 17 (1998) 891-908. scipy has none for pairs.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    quantile = float(norm.ppf((1 + CONFIDENCE) / 2))
    observed = (only_challenger - only_champion) / n

    def beyond(difference: float, target: float) -> float:
        return _tango(difference, only_challenger, only_champion, n) - target

    edge = 1 - 1e-12
    low = -1.0 if observed == -1 else float(brentq(beyond, -edge, min(observed, edge), args=(quantile,), xtol=1e-13))
    high = 1.0 if observed == 1 else float(brentq(beyond, max(observed, -edge), edge, args=(-quantile,), xtol=1e-13))
    return low, high


def _tango(difference: float, b: int, c: int, n: int) -> float:
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


def p_below(correct: int, n: int, floor: float) -> float:
    """Exact binomial test: how likely so few correct of `n` (at least 1) are when the true share is `floor`."""
    from scipy.stats import binomtest

    return float(binomtest(correct, n, floor, alternative="less").pvalue)


def mcnemar(only_challenger: int, only_champion: int, alternative: str = "two-sided") -> float:
    """Exact McNemar test (McNemar 1947): the p-value of who alone was right how often.

    The pictures on which exactly one of the two is right would be shared half and half by equal models. With `alternative` "less"
    it is small when the challenger is worse, with "greater" when it is better. Without such pictures it is 1.
    """
    from scipy.stats import binomtest

    discordant = only_challenger + only_champion
    return min(1.0, float(binomtest(only_challenger, discordant, 0.5, alternative=alternative).pvalue)) if discordant else 1.0
