"""What is counted of an output's rows while they pass by: answers, dead letters, reasons, how pictures look, how many answers are sure.

Counts are in the bins of the version's reference.json. Those of several parts are added (`Tally.merge`).
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.bundle.files import REFERENCE
from components.bundle.model import Probabilities
from components.bundle.reference import Reference
from components.classifier.errors import EvaluationError
from components.classifier.images import Pixels, brightness_and_contrast
from components.classifier.metadata import UNREAD

MAX_EXAMPLES = 20
FEATURES = ("brightness", "contrast")
SURE = "sure"
"""Key of two counts: sure answers, and all."""

_COUNTS = ("rows", "errors", "needs_review", "unfamiliar", "confidence_sum", "labels", "examples", "passed_over", "reasons")


def read_reference(folder: Path) -> Reference | None:
    """Read reference.json of a bundle; None when there is none, or one of another release."""
    try:
        return Reference.load(folder) if (folder / REFERENCE).exists() else None
    except EvaluationError:
        return None


class Appearance:
    """Counts brightness and contrast of prepared pictures, and sure answers; without a reference it counts nothing."""

    def __init__(self, reference: Reference | None) -> None:
        self._edges = {name: np.array(getattr(reference, name).edges) for name in FEATURES} if reference else {}
        self.counts = {name: np.zeros(len(edges) - 1, np.int64) for name, edges in self._edges.items()}
        self._sureness = reference.sureness if reference else None
        if self._sureness:
            self.counts[SURE] = np.zeros(2, np.int64)

    def add(self, pixels: Pixels, probabilities: Probabilities) -> None:
        """Count pictures, uint8 (n, H, W, C), with their answers, (n, K)."""
        if not self.counts or not len(pixels):
            return
        for name, values in zip(FEATURES, brightness_and_contrast(pixels), strict=True):
            self.counts[name] += np.histogram(values, self._edges[name])[0]
        if self._sureness:
            self.counts[SURE] += [self._sureness.count(probabilities), len(probabilities)]

    def to_json(self) -> str:
        """The counts as JSON, for `merge`."""
        return json.dumps({name: counts.tolist() for name, counts in self.counts.items()})

    def merge(self, text: str) -> None:
        """Add counts that another process wrote."""
        for name, counts in json.loads(text).items():
            if name in self.counts:
                self.counts[name] += np.array(counts)


@dataclass
class Tally:
    """Counts rows as they pass by."""

    classes: list[str]
    reference: Reference | None
    rows: int = 0
    errors: int = 0
    needs_review: int = 0
    unfamiliar: int | None = None
    confidence_sum: float = 0.0
    labels: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    passed_over: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.appearance = Appearance(self.reference)
        edges = self.reference.confidence.edges if self.reference else [0.0, 1.0]
        self._edges = np.array(edges)
        self.confidence = np.zeros(len(edges) - 1, np.int64)
        known = self.reference.familiarity if self.reference else None
        self._familiarity_edges = np.array(known.edges if known else [0.0, 1.0])
        self.familiarity = np.zeros(len(self._familiarity_edges) - 1, np.int64)

    def add(self, rows: pa.Table) -> None:
        """Count rows of the output."""
        self.rows += len(rows)
        self.needs_review += pc.sum(rows["needs_review"]).as_py() or 0
        confidence = rows["confidence"].drop_null().to_numpy()
        self.confidence_sum += float(confidence.sum(dtype=np.float64))
        self.confidence += np.histogram(np.clip(confidence, 0, 1), self._edges)[0]
        if "familiarity" in rows.column_names:
            familiarity = rows["familiarity"].drop_null().to_numpy()
            self.familiarity += np.histogram(np.clip(familiarity, 0, 1), self._familiarity_edges)[0]
            self.unfamiliar = (self.unfamiliar or 0) + (pc.sum(rows["unfamiliar"]).as_py() or 0)
        for entry in pc.value_counts(rows["label"].drop_null()).to_pylist():
            self.labels[entry["values"]] += entry["counts"]
        bad = rows.filter(pc.is_valid(rows["error"]))
        self.errors += len(bad)
        if len(bad) and len(self.examples) < MAX_EXAMPLES:
            self.examples += bad.select(["input", "index", "error"]).slice(0, MAX_EXAMPLES - len(self.examples)).to_pylist()

    def add_passed_over(self, rows: pa.Table) -> None:
        """Count what was passed over, and by `reasons` alone the metadata of pictures, which have rows of their own."""
        for entry in pc.value_counts(rows["reason"]).to_pylist():
            self.reasons[entry["values"]] += entry["counts"]
            self.passed_over += entry["counts"] if entry["values"] not in UNREAD.values() else 0

    def to_json(self) -> str:
        """The counts as JSON, for `merge`."""
        histograms = {"confidence_bins": self.confidence.tolist(), "familiarity_bins": self.familiarity.tolist()}
        counted = {name: getattr(self, name) for name in _COUNTS}
        return json.dumps({**counted, **histograms, "looks": self.appearance.to_json()}, ensure_ascii=False)

    def merge(self, text: str) -> None:
        """Add the counts of rows that come after these."""
        other = json.loads(text)
        for name in ("rows", "errors", "needs_review", "confidence_sum", "passed_over"):
            setattr(self, name, getattr(self, name) + other[name])
        if other["unfamiliar"] is not None:
            self.unfamiliar = (self.unfamiliar or 0) + other["unfamiliar"]
        self.labels.update(other["labels"])
        self.reasons.update(other["reasons"])
        self.examples += other["examples"][: MAX_EXAMPLES - len(self.examples)]
        self.confidence += np.array(other["confidence_bins"])
        self.familiarity += np.array(other["familiarity_bins"])
        self.appearance.merge(other["looks"])
