"""Whether what was scored still looks like what the version was evaluated on: PSI, and a chi-squared test beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.float64]

PSI_LIMIT = 0.25
"""From here on the population stability index is called a major shift (Siddiqi, Credit Risk Scorecards, 2006)."""
SIGNIFICANCE = 0.01
MIN_EXPECTED = 5
"""Bins are joined with their neighbours until both sides together expect so many."""


@dataclass(frozen=True)
class Drift:
    """One compared distribution: `drifted` needs a large PSI that chance does not explain (few pictures make any PSI large)."""

    feature: str
    psi: float
    p_value: float
    drifted: bool


def compare(feature: str, reference: Sequence[int], now: Sequence[int]) -> Drift | None:
    """Compare two histograms over the same bins; None when either is empty."""
    before, after = _joined(np.asarray(reference, float), np.asarray(now, float))
    if before.sum() == 0 or after.sum() == 0:
        return None
    from scipy import stats  # takes half a second, and most merges have no reference

    psi = _psi(before, after)
    p_value = float(stats.chi2_contingency(np.stack([before, after])).pvalue) if len(before) > 1 else 1.0
    return Drift(feature, round(psi, 4), p_value, psi >= PSI_LIMIT and p_value < SIGNIFICANCE)


def _psi(before: Counts, after: Counts) -> float:
    """Population stability index; half a count in every bin keeps empty ones finite."""
    p, q = before + 0.5, after + 0.5
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def _joined(before: Counts, after: Counts) -> tuple[Counts, Counts]:
    share = float(min(before.sum(), after.sum()) / max(before.sum() + after.sum(), 1))
    bins: list[list[float]] = []
    for b, a in zip(before.tolist(), after.tolist(), strict=True):
        if bins and (bins[-1][0] + bins[-1][1]) * share < MIN_EXPECTED:
            bins[-1][0] += b
            bins[-1][1] += a
        else:
            bins.append([b, a])
    if len(bins) > 1 and sum(bins[-1]) * share < MIN_EXPECTED:
        b, a = bins.pop()
        bins[-1][0] += b
        bins[-1][1] += a
    return np.array([b for b, _ in bins]), np.array([a for _, a in bins])
