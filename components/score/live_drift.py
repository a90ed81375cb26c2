"""Drift of live traffic: what predictors count of a version in their metrics, merged over replicas, against its reference.json."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from components.bundle.reference import Histogram, Reference
from components.score.drift import Drift, ExpectedAccuracy, Feature, compare, expected_accuracy

Counts = Counter[tuple[str, str]]
"""By the name of a sample, and the bucket's edge or the class that it counts."""

_LABELS = {
    "penstock_confidence_bucket": "le",
    "penstock_familiarity_bucket": "le",
    "penstock_brightness_bucket": "le",
    "penstock_contrast_bucket": "le",
    "penstock_predictions_total": "label",
    "penstock_watched_total": "",
    "penstock_sure_total": "",
}


@dataclass(frozen=True)
class LiveDrift:
    """What a version's live pictures look like beside those that it was evaluated on."""

    version: str
    pictures: int
    """That the predictors counted."""
    watched: int
    """Of them, those of which looks and certainty were measured."""
    drift: list[Drift]
    expected_accuracy: ExpectedAccuracy | None


def read_counts(text: str, version: str) -> Counts:
    """Take what a predictor's /metrics counts of one version; counts of replicas can be added, and earlier ones subtracted.

    Raises ValueError for text that is not metrics.
    """
    counts: Counts = Counter()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in _LABELS and sample.labels.get("version") == version:
                counts[sample.name, sample.labels.get(_LABELS[sample.name], "")] += int(sample.value)
    return counts


def live_drift(version: str, reference: Reference, counts: Counts) -> LiveDrift:
    """Compare what was counted with the reference of the same version."""
    predicted = [counts["penstock_predictions_total", name] for name in reference.classes]
    features = [
        Feature("predicted class", reference.predicted, predicted),
        _feature("confidence", reference.confidence, counts, ordered=True),
        *([_feature("familiarity", reference.familiarity, counts, ordered=True)] if reference.familiarity else []),
        _feature("brightness", reference.brightness, counts),
        _feature("contrast", reference.contrast, counts),
    ]
    watched = counts["penstock_watched_total", ""]
    expected = expected_accuracy(reference, counts["penstock_sure_total", ""], watched)
    return LiveDrift(version, sum(predicted), watched, compare(features), expected)


def _feature(name: str, reference: Histogram, counts: Counts, *, ordered: bool = False) -> Feature:
    """Two histograms over the edges that the predictor's buckets and the reference share."""
    upto = {_edge(float(le)): n for (sample, le), n in counts.items() if sample == f"penstock_{name}_bucket"}
    below, before = 0, dict[float, int]()
    for edge, count in zip(reference.edges[1:], reference.counts, strict=True):
        below += count
        before[_edge(edge)] = below
    shared = sorted(before.keys() & upto.keys())
    return Feature(name, _steps([before[edge] for edge in shared]), _steps([upto[edge] for edge in shared]), ordered)


def _edge(value: float) -> float:
    return round(value, 6)


def _steps(cumulative: Sequence[int]) -> list[int]:
    return [b - a for a, b in zip([0, *cumulative], cumulative, strict=False)]
