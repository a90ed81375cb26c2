"""predictions.npz: both models' probabilities for each test picture; the gate and the report can be run again from it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.bundle.dataset import Labels
from components.bundle.files import PREDICTIONS
from components.bundle.formats import read_arrays, unreadable
from components.bundle.model import Probabilities
from components.classifier.errors import EvaluationError
from components.classifier.images import Pixels


@dataclass(frozen=True)
class Predictions:
    """`labels` int64 (N,), `probabilities` float32 (N, K) and, where there was a comparison, the champion's.

    `mistake_images` uint8 (M, H, W, C) are the pictures of Evaluation.mistakes, in their order.
    """

    labels: Labels
    probabilities: Probabilities
    champion_probabilities: Probabilities | None
    mistake_images: Pixels

    def save(self, directory: str | Path) -> None:
        """Write predictions.npz into a directory."""
        champion = {} if self.champion_probabilities is None else {"champion_probabilities": self.champion_probabilities}
        np.savez_compressed(
            Path(directory) / PREDICTIONS,
            allow_pickle=False,
            labels=self.labels,
            probabilities=self.probabilities,
            mistake_images=self.mistake_images,
            **champion,
        )

    @classmethod
    def load(cls, directory: str | Path) -> "Predictions":
        """Read predictions.npz of a directory; raises EvaluationError when it is missing or damaged."""
        path = Path(directory) / PREDICTIONS
        arrays = read_arrays(path, EvaluationError)
        try:
            return cls(arrays["labels"], arrays["probabilities"], arrays.get("champion_probabilities"), arrays["mistake_images"])
        except KeyError as error:
            raise unreadable(path, f"it has no {error}", EvaluationError) from error
