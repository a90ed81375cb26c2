"""How the scored pictures look, counted in the same bins as the version's reference.json, and how many answers are sure."""

import json
from pathlib import Path

import numpy as np

from components.bundle.files import REFERENCE
from components.bundle.model import Probabilities
from components.bundle.reference import Reference
from components.classifier.errors import EvaluationError
from components.classifier.images import Pixels, brightness_and_contrast

FEATURES = ("brightness", "contrast")
SURE = "sure"
"""Key of two counts: sure answers, and all."""


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
