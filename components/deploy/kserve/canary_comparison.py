"""Whether a challenger may go on: its live requests against the champion's, counted at the same time. Pure functions over counts.

A rollout looks at its data at most `looks` times, decided beforehand, and asks at most four questions at each. Every question is a
one-sided exact test at alpha / (looks * questions), so the probability that a challenger which equals the champion is undone is at
most alpha over the whole rollout (Bonferroni), whatever depends on what. Exact are Fisher's test of two shares, conditional on what
both have together, and the binomial test. Requests are taken as independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

FIRST_LOOK = 25
"""Requests of the challenger at the first look at the earliest."""
MARGIN = 0.05
"""A slower or less confident tail must be larger by this share of the requests, else it is not worth undoing a rollout."""
TAIL = 0.1
"""The least share of all requests that is called slow, or unsure: beyond the histogram's outermost edge that leaves it."""
_QUESTIONS = 4

Outcome = Literal["waiting", "passed", "worse"]


@dataclass(frozen=True)
class Counts:
    """What one version did: requests, those answered with 5xx, and histograms of seconds and confidence with edges that both share.

    A histogram is empty where nothing was counted.
    """

    requests: int = 0
    errors: int = 0
    seconds: tuple[int, ...] = ()
    confidence: tuple[int, ...] = ()


@dataclass(frozen=True)
class Pairs:
    """Pictures that both versions were shown, and those to which they gave the same class."""

    pictures: int = 0
    agreed: int = 0


@dataclass(frozen=True)
class Bounds:
    """What a comparison must reach: the least requests of each version at a step, the number of looks in the rollout, and the stated error.

    `agreement`: the share of pictures to which both must give the same class, of as many pictures; 0 asks nothing.
    """

    least: int
    looks: int
    alpha: float = 0.05
    agreement: float = 0.0


def sizes_of_looks(least: int) -> list[int]:
    """Return at how many requests of the challenger a step is looked at: the least number, its half, its quarter and so on."""
    sizes = [least]
    while sizes[0] >= 2 * FIRST_LOOK:
        sizes.insert(0, sizes[0] // 2)
    return sizes


def compare_counts(champion: Counts, challenger: Counts, pairs: Pairs, bounds: Bounds) -> tuple[Outcome, str]:
    """Compare what both did in one step; returns the outcome and the reason in words.

    "worse" as soon as one question says so, "passed" when both have answered the least number of requests, else "waiting".
    """
    alpha = bounds.alpha / (bounds.looks * _QUESTIONS)
    reasons = [
        _more_errors(champion, challenger, alpha),
        _tail("slow", champion.seconds, challenger.seconds, alpha),
        _tail("unsure", champion.confidence[::-1], challenger.confidence[::-1], alpha),
        _disagreement(pairs, bounds.agreement, alpha),
    ]
    if found := [reason for reason in reasons if reason]:
        return "worse", "; ".join(found)
    seen = min(champion.requests, challenger.requests, *([pairs.pictures] if bounds.agreement else []))
    share = f", {pairs.agreed / pairs.pictures:.1%} of {pairs.pictures} pictures alike" if pairs.pictures else ""
    told = f"{challenger.requests} live requests, {challenger.errors} failed (champion: {champion.requests}, {champion.errors}){share}"
    return ("passed" if seen >= bounds.least else "waiting"), told


def _more_errors(champion: Counts, challenger: Counts, alpha: float) -> str:
    bad, n, others, m = challenger.errors, challenger.requests, champion.errors, champion.requests
    if not _larger(bad, n, others, m, alpha, 0.0):
        return ""
    return f"{bad} of {n} live requests failed, {others} of {m} of the champion's"


def _tail(what: str, champion: Sequence[int], challenger: Sequence[int], alpha: float) -> str:
    """Compare the ends of two histograms, beyond the outermost edge that cuts off at least TAIL of both together.

    An edge further out would miss a version that is slow as a whole, but not that slow. The edge depends only on what both have together,
    on which the test is conditional, so choosing it costs nothing.
    """
    if not champion or not challenger:
        return ""
    together = [a + b for a, b in zip(champion, challenger, strict=True)]
    total = sum(together)
    ends = [sum(together[cut:]) for cut in range(1, len(together))]
    cuts = [cut for cut, end in enumerate(ends, 1) if TAIL * total <= end < total]
    if not cuts:
        return ""
    cut = max(cuts)
    bad, n, others, m = sum(challenger[cut:]), sum(challenger), sum(champion[cut:]), sum(champion)
    if not _larger(bad, n, others, m, alpha, MARGIN):
        return ""
    return f"{bad / n:.1%} of {n} answers are {what}, {others / m:.1%} of the champion's {m}"


def _larger(bad: int, n: int, others: int, m: int, alpha: float, margin: float) -> bool:
    """Say whether bad / n is larger than others / m by more than the margin, and by Fisher's exact test at `alpha`."""
    if not n or not m or bad / n - others / m <= margin:
        return False
    from scipy.stats import hypergeom

    return float(hypergeom.sf(bad - 1, n + m, bad + others, n)) <= alpha


def _disagreement(pairs: Pairs, agreement: float, alpha: float) -> str:
    if not pairs.pictures or pairs.agreed / pairs.pictures >= agreement:
        return ""
    from scipy.stats import binom

    if float(binom.cdf(pairs.agreed, pairs.pictures, agreement)) > alpha:
        return ""
    return (
        f"champion and challenger agree on {pairs.agreed / pairs.pictures:.1%} of {pairs.pictures} pictures, {agreement:.1%} are asked for"
    )
