"""The tests behind the rules, each over plain counts.

One convention holds everywhere: two-sided 95% intervals, so 2.5% on each side. A challenger is called better or worse than the
champion only where a one-sided test says so at 2.5%, and a family of classes is judged together at 5%.
"""

ONE_SIDED = 0.025
FAMILY = 0.05


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
