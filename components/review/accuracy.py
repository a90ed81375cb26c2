"""Accuracy of a model version on live pictures, from the labels of its audit sample.

Only the audit sample may be counted: it was drawn independently of the prediction. Pictures that are queued for
their low confidence are wrong far more often than the rest; they are counted separately and estimate only themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from components.classifier.intervals import proportion_interval
from components.review.labels import UNUSABLE
from components.review.queue import QueuedPicture


@dataclass(frozen=True)
class Proportion:
    """`correct` of `labelled`; without labels there is no estimate. `low` and `high` bound it at 95%."""

    correct: int
    labelled: int
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LiveAccuracy:
    """A version's accuracy on the different pictures that it was sent, and the numbers behind it."""

    version: str
    audit: Proportion
    """The estimate: audited pictures on whose label people agree."""
    audited: int
    """Pictures drawn for audit, labelled or not. If many are unlabelled, find out which were skipped."""
    unlabelled: int
    conflicting: int
    unusable: int
    possibly_trained_on: int
    """Labelled before this version was trained, so perhaps in its training data: left out."""
    low_confidence: Proportion
    """Pictures below the threshold that were not drawn for audit: not an estimate of anything else."""


def live_accuracy(version: str, entries: Iterable[QueuedPicture]) -> LiveAccuracy:
    """Sum up the entries of one version; entries of others are ignored."""
    own = [entry for entry in entries if entry.version == version]
    audited = [entry for entry in own if "audit" in entry.reasons]
    usable = [entry for entry in audited if _is_labelled(entry)]
    fresh = [entry for entry in usable if not _may_be_trained_on(entry)]
    uncertain = [entry for entry in own if "audit" not in entry.reasons and _is_labelled(entry) and not _may_be_trained_on(entry)]
    states = [entry.labels.state for entry in audited]
    return LiveAccuracy(
        version=version,
        audit=proportion(sum(_is_correct(entry) for entry in fresh), len(fresh)),
        audited=len(audited),
        unlabelled=states.count("unlabelled"),
        conflicting=states.count("conflicting"),
        unusable=sum(entry.labels.label == UNUSABLE for entry in audited),
        possibly_trained_on=len(usable) - len(fresh),
        low_confidence=proportion(sum(_is_correct(entry) for entry in uncertain), len(uncertain)),
    )


def proportion(correct: int, labelled: int) -> Proportion:
    """A proportion with its Wilson score interval (Wilson 1927), which holds for few labels and near 0 and 1."""
    if labelled == 0:
        return Proportion(0, 0, None, None, None)
    return Proportion(correct, labelled, correct / labelled, *proportion_interval(correct, labelled))


def _is_labelled(entry: QueuedPicture) -> bool:
    return entry.labels.label not in {None, UNUSABLE}


def _is_correct(entry: QueuedPicture) -> bool:
    return entry.labels.label == entry.prediction.label


def _may_be_trained_on(entry: QueuedPicture) -> bool:
    trained_at, first = _trained_at(entry.version), entry.labels.first_labelled
    return trained_at is not None and first is not None and datetime.fromisoformat(first) <= trained_at


def _trained_at(version: str) -> datetime | None:
    try:
        return datetime.strptime(version[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None  # a version that was not named by publish has no time in its name
