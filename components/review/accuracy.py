"""Accuracy of a model version on live pictures, from what people labelled.

The pictures that a version was sent lie in two strata. Those that need review (less confident than the threshold, or unfamiliar) are all
queued: once they are labelled, that stratum is counted and not estimated. Of the others the audit sample is drawn, with a known
probability and independently of the prediction. Where the first stratum is not labelled, the audit sample alone gives the estimate.
A label that people disagree about, or call unusable, is counted once as wrong and once as right: the interval holds whichever it is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from components.bundle.config import FAMILIARITY_THRESHOLD
from components.classifier.intervals import ONE_SIDED, effective_interval, normal_quantile, proportion_interval
from components.review.labels import UNUSABLE
from components.review.queue import QueuedPicture

MIN_CENSUS = 0.9
"""Share of the pictures that need review from which on they are counted; the unlabelled rest is counted both ways."""

Method = Literal["stratified", "audit", "none"]


@dataclass(frozen=True)
class Proportion:
    """`correct` of `labelled`, and `doubtful` more that may be either; without agreed labels there is no estimate.

    `low` and `high` bound the share at 95%: `low` with every doubtful picture wrong, `high` with every one right.
    """

    correct: int
    labelled: int
    estimate: float | None
    low: float | None
    high: float | None
    doubtful: int = 0


@dataclass(frozen=True)
class Range:
    """A share that is estimated: `low_estimate` with every doubtful picture wrong, `high_estimate` with every one right.

    `low` and `high` bound it at 95%, whichever of them are right.
    """

    low_estimate: float
    high_estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Counted:
    """The stratum of the pictures that need review; `doubtful` are conflicting, unusable and unlabelled."""

    correct: int
    doubtful: int
    n: int


@dataclass(frozen=True)
class Sampled:
    """The stratum of the others: for each labelled audited picture 1 (right), 0 (wrong) or None (doubtful), and how it was drawn.

    `rates` are the drawing probabilities of these pictures, in their order; `drawn` those of all that were drawn, labelled or not.
    """

    right: Sequence[bool | None]
    rates: Sequence[float]
    drawn: Sequence[float]

    @property
    def size(self) -> float:
        """The stratum's estimated number of pictures (Horvitz and Thompson 1952)."""
        return sum(1 / rate for rate in self.drawn)


@dataclass(frozen=True)
class LiveAccuracy:
    """A version's accuracy on the different pictures that it was sent, and the numbers behind it."""

    version: str
    audit: Proportion
    """Audited pictures alone."""
    audited: int
    """Pictures drawn for audit, labelled or not. If many are unlabelled, find out which were skipped."""
    unlabelled: int
    conflicting: int
    unusable: int
    possibly_trained_on: int
    """Labelled before this version was trained, so perhaps in its training data: left out."""
    low_confidence: Proportion
    """Pictures that need review and were not drawn for audit: not an estimate of anything else."""
    method: Method
    why: str
    """Why the audit sample alone was used; "" for a stratified estimate."""
    accuracy: Range | None
    """The estimate of live accuracy; None without labels."""
    needing_review: Counted
    others: float
    """Estimated number of pictures that need no review."""
    labelled: int
    """Pictures whose labels the estimate rests on, doubtful ones included."""


def live_accuracy(version: str, entries: Iterable[QueuedPicture]) -> LiveAccuracy:
    """Sum up the entries of one version; entries of others are ignored."""
    own = [entry for entry in entries if entry.version == version]
    fresh = [entry for entry in own if not _may_be_trained_on(entry)]
    audited = [entry for entry in own if _is_audited(entry)]
    audit = _proportion([entry for entry in fresh if _is_audited(entry)])
    known = all(entry.prediction.review_threshold is not None and entry.prediction.audit_rate for entry in audited)
    reviewed = [entry for entry in fresh if _needs_review(entry)]
    counted = Counted(
        correct=sum(_right(entry) is True for entry in reviewed),
        doubtful=sum(_right(entry) is None for entry in reviewed),
        n=len(reviewed),
    )
    sampled = _sampled([entry for entry in fresh if _is_audited(entry) and not _needs_review(entry)])
    why = _not_stratified(reviewed, sampled, known=known)
    states = [entry.labels.state for entry in audited]
    return LiveAccuracy(
        version=version,
        audit=audit,
        audited=len(audited),
        unlabelled=states.count("unlabelled"),
        conflicting=states.count("conflicting"),
        unusable=sum(entry.labels.label == UNUSABLE for entry in audited),
        possibly_trained_on=sum(_may_be_trained_on(entry) for entry in audited),
        low_confidence=_proportion([entry for entry in fresh if not _is_audited(entry)]),
        method=("audit" if audit.labelled + audit.doubtful else "none") if why else "stratified",
        why=why,
        accuracy=_of_audit(audit) if why else stratified(counted, sampled),
        needing_review=counted,
        others=sampled.size,
        labelled=audit.labelled + audit.doubtful if why else sum(entry.labels.state != "unlabelled" for entry in fresh),
    )


def stratified(counted: Counted, sampled: Sampled) -> Range:
    """Accuracy over both strata; `sampled` holds at least one labelled picture.

    The share of the sampled stratum has a score interval (weighted where the rates differ), its size a log-normal one. Their errors are
    independent and are put together by the method of variance estimates recovery (G. Y. Zou and A. Donner, Construction of confidence
    limits about effect measures, Statistics in Medicine 27 (2008) 1693-1702).
    """
    pessimistic = _combined(counted.correct, counted.n, sampled, doubtful=False)
    optimistic = _combined(counted.correct + counted.doubtful, counted.n, sampled, doubtful=True)
    return Range(pessimistic[0], optimistic[0], pessimistic[1], optimistic[2])


def proportion(correct: int, labelled: int, doubtful: int = 0) -> Proportion:
    """A proportion with its Wilson score interval (Wilson 1927), which holds for few labels and near 0 and 1."""
    n = labelled + doubtful
    if n == 0:
        return Proportion(0, 0, None, None, None)
    low, high = proportion_interval(correct, n)[0], proportion_interval(correct + doubtful, n)[1]
    return Proportion(correct, labelled, correct / labelled if labelled else None, low, high, doubtful)


def _combined(correct: int, n: int, sampled: Sampled, *, doubtful: bool) -> tuple[float, float, float]:
    """(estimate, low, high) with the doubtful sampled pictures all right or all wrong."""
    weights = [1 / rate for rate in sampled.rates]
    total = sum(weights)
    share = sum(w for w, right in zip(weights, sampled.right, strict=True) if (doubtful if right is None else right)) / total
    ends = effective_interval(share, total**2 / sum(w * w for w in weights))

    def overall(share: float, size: float) -> float:
        return (correct + share * size) / (n + size)

    size, estimate = sampled.size, overall(share, sampled.size)
    spread = math.exp(normal_quantile() * math.sqrt(sum((1 - r) / r**2 for r in sampled.drawn)) / size)
    by_size = sorted((overall(share, size / spread), overall(share, size * spread)))
    low = estimate - math.hypot(estimate - overall(ends[0], size), estimate - by_size[0])
    high = estimate + math.hypot(overall(ends[1], size) - estimate, by_size[1] - estimate)
    return estimate, max(0.0, low), min(1.0, high)


def _sampled(entries: Sequence[QueuedPicture]) -> Sampled:
    labelled = [entry for entry in entries if entry.labels.state != "unlabelled"]
    return Sampled([_right(e) for e in labelled], [_rate(e) for e in labelled], [_rate(e) for e in entries])


def _not_stratified(reviewed: Sequence[QueuedPicture], sampled: Sampled, *, known: bool) -> str:
    """Why the strata cannot be put together; "" where they can."""
    if not known:
        return "the predictor of an older release did not write its threshold and its audit rate"
    if not sampled.right:
        return "no audited picture above the threshold is labelled"
    unlabelled = sum(entry.labels.state == "unlabelled" for entry in reviewed)
    if len(reviewed) - unlabelled < MIN_CENSUS * len(reviewed):
        return f"{unlabelled} of {len(reviewed)} pictures that need review are not labelled; label them for a narrower interval"
    if _were_dropped(reviewed):
        return "the queue lacks pictures that need review (penstock_review_dropped_total counts them)"
    return ""


def _were_dropped(reviewed: Sequence[QueuedPicture]) -> bool:
    """Say whether more of these pictures were drawn for audit than a complete stratum allows (exact binomial test)."""
    from scipy.stats import binomtest

    rates = [entry.prediction.audit_rate for entry in reviewed if entry.prediction.audit_rate]
    if not rates:
        return False
    drawn = sum(_is_audited(entry) for entry in reviewed)
    return bool(binomtest(drawn, len(reviewed), sum(rates) / len(rates), alternative="greater").pvalue < ONE_SIDED)


def _of_audit(audit: Proportion) -> Range | None:
    if audit.low is None or audit.high is None:
        return None
    n = audit.labelled + audit.doubtful
    return Range(audit.correct / n, (audit.correct + audit.doubtful) / n, audit.low, audit.high)


def _proportion(entries: Iterable[QueuedPicture]) -> Proportion:
    found = [_right(entry) for entry in entries if entry.labels.state != "unlabelled"]
    doubtful = found.count(None)
    return proportion(found.count(True), len(found) - doubtful, doubtful)


def _right(entry: QueuedPicture) -> bool | None:
    """Whether the prediction was right; None where the labels do not say."""
    return None if entry.labels.label in {None, UNUSABLE} else entry.labels.label == entry.prediction.label


def _is_audited(entry: QueuedPicture) -> bool:
    return "audit" in entry.reasons


def _needs_review(entry: QueuedPicture) -> bool:
    prediction = entry.prediction
    unsure = prediction.confidence < (prediction.review_threshold or 0)
    strange = prediction.familiarity is not None and prediction.familiarity < FAMILIARITY_THRESHOLD
    return unsure or strange or bool(entry.reasons - {"audit"})


def _rate(entry: QueuedPicture) -> float:
    return entry.prediction.audit_rate or 1.0


def _may_be_trained_on(entry: QueuedPicture) -> bool:
    trained_at, first = _trained_at(entry.version), entry.labels.first_labelled
    return trained_at is not None and first is not None and datetime.fromisoformat(first) <= trained_at


def _trained_at(version: str) -> datetime | None:
    try:
        return datetime.strptime(version[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None  # a version that was not named by publish has no time in its name
