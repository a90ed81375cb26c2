"""How right a model version is on what it is really sent, from the labels of its audit sample.

Only the audit sample may be counted: it was drawn without looking at the model's answer. Pictures that are in the queue
for their low confidence are wrong far oftener than the rest; they are counted apart and estimate nothing but themselves.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from components.classifier.intervals import proportion_interval
from components.review.labels import UNUSABLE
from components.review.queue import QueuedPicture


@dataclass(frozen=True)
class Share:
    """`correct` of `labelled`; with no label at all there is no estimate. `low` and `high` bound it at 95%."""

    correct: int
    labelled: int
    estimate: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class LiveAccuracy:
    """A version's accuracy on different pictures that it was sent, and how many stand behind it."""

    version: str
    audit: Share
    """The estimate: audited pictures on whose label people agree."""
    audited: int
    """Pictures drawn for audit, labelled or not. Where many are unlabelled, ask which were skipped."""
    unlabelled: int
    contrary: int
    unusable: int
    possibly_trained_on: int
    """Labelled before this version was trained, so perhaps known to it: left out."""
    low_confidence: Share
    """Pictures below the threshold that were not drawn for audit: not an estimate of anything else."""


def live_accuracy(version: str, entries: Iterable[QueuedPicture]) -> LiveAccuracy:
    """Sum up the entries of one version (others are passed over)."""
    own = [entry for entry in entries if entry.version == version]
    audited = [entry for entry in own if "audit" in entry.reasons]
    usable = [entry for entry in audited if _is_settled(entry)]
    fresh = [entry for entry in usable if not _may_be_trained_on(entry)]
    uncertain = [entry for entry in own if "audit" not in entry.reasons and _is_settled(entry) and not _may_be_trained_on(entry)]
    states = [entry.verdict.state for entry in audited]
    return LiveAccuracy(
        version=version,
        audit=share(sum(_is_correct(entry) for entry in fresh), len(fresh)),
        audited=len(audited),
        unlabelled=states.count("unlabelled"),
        contrary=states.count("contrary"),
        unusable=sum(entry.verdict.label == UNUSABLE for entry in audited),
        possibly_trained_on=len(usable) - len(fresh),
        low_confidence=share(sum(_is_correct(entry) for entry in uncertain), len(uncertain)),
    )


def share(correct: int, labelled: int) -> Share:
    """A proportion with its Wilson score interval (Wilson 1927), which holds for few labels and near 0 and 1."""
    if labelled == 0:
        return Share(0, 0, None, None, None)
    return Share(correct, labelled, correct / labelled, *proportion_interval(correct, labelled))


def _is_settled(entry: QueuedPicture) -> bool:
    return entry.verdict.label not in {None, UNUSABLE}


def _is_correct(entry: QueuedPicture) -> bool:
    return entry.verdict.label == entry.prediction.label


def _may_be_trained_on(entry: QueuedPicture) -> bool:
    trained_at, first = _trained_at(entry.version), entry.verdict.first_labelled
    return trained_at is not None and first is not None and datetime.fromisoformat(first) <= trained_at


def _trained_at(version: str) -> datetime | None:
    try:
        return datetime.strptime(version[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None  # a name that is not of our making says nothing about its time
