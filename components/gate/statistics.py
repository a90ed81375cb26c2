"""The tests behind the rules, each over plain counts; scipy does what scipy has.

One convention holds everywhere: two-sided 95% intervals, so 2.5% on each side. A challenger is called better or worse than the
champion only where a one-sided test says so at 2.5%, and a family of classes is judged together at 5%.

scipy is imported where it is used: reading a policy, as the command line does, should not wait for it.
"""

import math
from collections.abc import Sequence

CONFIDENCE = 0.95
ONE_SIDED = (1 - CONFIDENCE) / 2
FAMILY = 1 - CONFIDENCE


def proportion_interval(correct: int, n: int) -> tuple[float, float]:
    """95% score interval of a proportion (Wilson 1927), by scipy."""
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def p_below(correct: int, n: int, floor: float) -> float:
    """Exact binomial test: how likely so few correct of `n` (at least 1) are when the true share is `floor`."""
    from scipy.stats import binomtest

    return float(binomtest(correct, n, floor, alternative="less").pvalue)


def p_worse(only_challenger: int, only_champion: int) -> float:
    """One-sided exact McNemar test (McNemar 1947): small when the challenger is worse than the champion.

    The pictures on which exactly one of the two is right would be shared half and half by equal models. Without such
    pictures the answer is 1.
    """
    from scipy.stats import binomtest

    discordant = only_challenger + only_champion
    return float(binomtest(only_challenger, discordant, 0.5, alternative="less").pvalue) if discordant else 1.0


def p_better(only_challenger: int, only_champion: int) -> float:
    """One-sided exact McNemar test: small when the challenger is better than the champion."""
    return p_worse(only_champion, only_challenger)


def difference_interval(only_challenger: int, only_champion: int, n: int) -> tuple[float, float]:
    """95% score interval of challenger's minus champion's accuracy on the same `n` pictures (Tango 1998).

    Unlike the Wald interval it does not collapse to a point where the two never differ: 0 of n discordant pictures still leave
    room for a difference of about 4/n. Source: T. Tango, Statistics in Medicine 17 (1998) 891-908, equations 6 and 8.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    quantile = float(norm.ppf(1 - ONE_SIDED))
    observed = (only_challenger - only_champion) / n

    def beyond(difference: float, target: float) -> float:
        return _score(difference, only_challenger, only_champion, n) - target

    edge = 1 - 1e-12
    low = -1.0 if observed == -1 else float(brentq(beyond, -edge, min(observed, edge), args=(quantile,), xtol=1e-13))
    high = 1.0 if observed == 1 else float(brentq(beyond, max(observed, -edge), edge, args=(-quantile,), xtol=1e-13))
    return low, high


def _score(difference: float, b: int, c: int, n: int) -> float:
    """Tango's statistic: normal with variance 1 when the true difference is `difference`; falls as it grows."""
    distance = b - c - n * difference
    if distance == 0:
        return 0.0
    linear = (2 * n - b + c) * difference - b - c
    constant = -c * difference * (1 - difference)
    only_champion = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * only_champion + difference * (1 - difference))
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that over all of them the chance of one false finding stays below the level (Holm 1979).

    scipy adjusts for false discovery rates only.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
