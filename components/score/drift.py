"""Whether pictures still look like those that the version was evaluated on, and whether that costs accuracy.

Every feature is a histogram: of one run, or of live traffic, over the bins of the version's reference.json. All tests of one run
are adjusted together, so that pictures of the same kind raise an alarm in at most RATE of the runs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from components.bundle.reference import Reference
from components.classifier.intervals import difference_interval, holm, proportion_interval

Counts = npt.NDArray[np.float64]

PSI_LIMIT = 0.25
"""From here on the population stability index is called a major shift (Siddiqi, Credit Risk Scorecards, 2006)."""
MIN_EFFECT = 0.05
"""From here on a feature has moved: how far the chance that a picture's value is above one of the reference is from one half."""
RATE = 0.01
"""How often a run on pictures of the same kind raises the alarm, at most."""
MIN_EXPECTED = 5
"""Bins are joined with their neighbours until both sides together expect this many."""
MIN_HARM = 0.01
"""An estimated loss of accuracy from here on is called harmful, where chance does not explain it."""


@dataclass(frozen=True)
class Drift:
    """One compared feature. `drifted` needs a shift that matters (PSI_LIMIT or MIN_EFFECT), and that chance does not explain."""

    feature: str
    psi: float
    p_value: float
    """Of this feature alone."""
    drifted: bool
    adjusted: float | None = None
    """The p-value adjusted for all features of the run (Holm 1979), which decides."""
    moved: float | None = None
    """Of confidence and familiarity, P(value now > value at evaluation) less one half, from -0.5 to 0.5; ties count half."""


@dataclass(frozen=True)
class Feature:
    """Two histograms over the same bins, at evaluation and now.

    With `ordered`, for what the model itself says, values that moved up or down are looked for too, however little each bin changed.
    """

    name: str
    before: Sequence[int]
    now: Sequence[int]
    ordered: bool = False


@dataclass(frozen=True)
class ExpectedAccuracy:
    """The accuracy that is expected without labels, with its 95% interval, beside that of the evaluation.

    `change` is now less then, from `change_low` to `change_high`.
    """

    value: float
    low: float
    high: float
    evaluated: float
    change: float
    change_low: float
    change_high: float

    @property
    def harmful(self) -> bool:
        """Whether accuracy was lost: by more than chance explains, and at least MIN_HARM."""
        return self.change_high < 0 and self.change <= -MIN_HARM


def compare(features: Sequence[Feature]) -> list[Drift]:
    """Compare histograms and adjust the p-values together; features of which one side is empty are left out."""
    found = [drift for feature in features if (drift := _compare(feature))]
    adjusted = holm([drift.p_value for drift in found])
    return [
        Drift(
            feature=drift.feature,
            psi=drift.psi,
            p_value=drift.p_value,
            drifted=p < RATE and (drift.psi >= PSI_LIMIT or abs(drift.moved or 0.0) >= MIN_EFFECT),
            adjusted=p,
            moved=drift.moved,
        )
        for drift, p in zip(found, adjusted, strict=True)
    ]


def expected_accuracy(reference: Reference, sure: int, n: int) -> ExpectedAccuracy | None:
    """Estimate the accuracy on `n` unlabelled pictures, of which `sure` are sure; None where the reference or pictures are missing.

    Average thresholded confidence (S. Garg et al., Leveraging unlabeled data to predict out-of-distribution performance, ICLR 2022), by
    negative entropy: on the evaluation's pictures as many reach a threshold as are right; the share of those that reach it now is the
    estimate. The interval covers the chance in both sets of pictures (their errors put together as by Zou and Donner 2008), for the
    accuracy on these very pictures and on all of their kind. It does not cover that a shift may change what certainty is worth:
    docs/scoring.md has what was measured.
    """
    known = reference.sureness
    if known is None or n == 0:
        return None
    share, before, accuracy = sure / n, known.sure / reference.n, known.correct / reference.n
    ends, ends_before = proportion_interval(sure, n), proportion_interval(known.sure, reference.n)
    own = difference_interval(known.only_correct, known.only_sure, reference.n)  # what accuracy is above the share of sure pictures
    value, gap = share + accuracy - before, accuracy - before
    change, scale = share - before, math.sqrt(reference.n / n)
    return ExpectedAccuracy(
        value=min(1.0, max(0.0, value)),
        low=max(0.0, value - math.hypot(max(share - ends[0], scale * (gap - own[0])), gap - own[0])),
        high=min(1.0, value + math.hypot(max(ends[1] - share, scale * (own[1] - gap)), own[1] - gap)),
        evaluated=accuracy,
        change=change,
        change_low=change - math.hypot(share - ends[0], ends_before[1] - before),
        change_high=change + math.hypot(ends[1] - share, before - ends_before[0]),
    )


def drift_lines(drifts: Sequence[Drift], expected: ExpectedAccuracy | None) -> list[str]:
    """Return what has drifted and whether it is harmful, in one line; none where no feature has drifted."""
    features = [f"{d.feature} (PSI {d.psi:.2f})" for d in drifts if d.drifted]
    if not features:
        return []
    accuracy = "" if expected is None else f"; {accuracy_line(expected)}"
    return [f"drifted from what the version was evaluated on: {', '.join(features)}{accuracy}"]


def accuracy_line(expected: ExpectedAccuracy) -> str:
    """Return the estimated accuracy in one line, and whether the drift is harmful."""
    figures = f"{expected.value:.4f} (95%: {expected.low:.4f} to {expected.high:.4f}), {expected.evaluated:.4f} at evaluation"
    verdict = "HARMFUL" if expected.harmful else "no sign of harm"
    return f"{verdict}: accuracy without labels is estimated at {figures}"


def _compare(feature: Feature) -> Drift | None:
    before, now = np.asarray(feature.before, float), np.asarray(feature.now, float)
    if before.sum() == 0 or now.sum() == 0:
        return None
    from scipy import stats  # takes half a second, and most merges have no reference

    old, new = _joined(before, now)
    p_value = float(stats.chi2_contingency(np.stack([old, new])).pvalue) if len(old) > 1 else 1.0
    moved = None
    if feature.ordered:
        moved, deviations = _rank_sum(before, now)
        p_value = min(1.0, 2 * min(p_value, 2 * float(stats.norm.sf(abs(deviations)))))
    return Drift(feature.name, round(_psi(old, new), 4), p_value, drifted=False, moved=moved)


def _rank_sum(before: Counts, now: Counts) -> tuple[float, float]:
    """The Wilcoxon-Mann-Whitney test on histograms: (P(now > before) - 1/2, standard deviations); ties are corrected for.

    scipy's takes the single values, of which live traffic has too many.
    """
    m, n = before.sum(), now.sum()
    below = np.cumsum(before) - before
    moved = float((now * (below + before / 2)).sum() / (m * n)) - 0.5
    total, ties = m + n, before + now
    variance = (total + 1 - float((ties**3 - ties).sum()) / (total * max(total - 1, 1))) / (12 * m * n)
    return moved, moved / math.sqrt(variance) if variance > 0 else 0.0


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
