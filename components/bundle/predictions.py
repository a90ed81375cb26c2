"""predictions.npz: both models' probabilities for each test picture; the gate, the report and comparisons can be run again from it."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import Labels
from components.bundle.files import PREDICTIONS
from components.bundle.formats import read_arrays, unreadable
from components.bundle.model import Probabilities
from components.classifier.errors import EvaluationError
from components.classifier.images import Pixels

REQUIRED = ("labels", "probabilities", "mistake_images")
"""The arrays that every version has, in their order within the file."""


@dataclass(frozen=True)
class Predictions:
    """`labels` int64 (N,), `probabilities` float32 (N, K) and, where there was a comparison, the champion's.

    `mistake_images` uint8 (M, H, W, C) are the pictures of Evaluation.mistakes, in their order. The rest is missing in versions of
    release 0.1: `familiarity` float32 (N,), where the model says it; `files`, where each wrong picture came from, by its row;
    `thumbnails` uint8 (T, h, w, C) of the wrong pictures `thumbnail_rows` int64 (T,), most confident first; `label_quality` float32
    (N,), 0 to 1, where low means that the label may be wrong; `occluded` float32 (L, rows, columns), of the first L mistakes the
    probability of their answer while each part of the picture is hidden; `groups` int64 (N,), which group each picture is of, where
    the dataset has groups.
    """

    labels: Labels
    probabilities: Probabilities
    champion_probabilities: Probabilities | None
    mistake_images: Pixels
    familiarity: npt.NDArray[np.float32] | None = None
    files: dict[int, str] | None = None
    thumbnails: Pixels | None = None
    thumbnail_rows: Labels | None = None
    label_quality: npt.NDArray[np.float32] | None = None
    occluded: npt.NDArray[np.float32] | None = None
    groups: Labels | None = None

    @property
    def wrong(self) -> Labels:
        """Rows that were given another class than their label, int64, most confident first."""
        rows = np.flatnonzero(self.labels != self.probabilities.argmax(axis=1))
        return rows[np.argsort(-self.probabilities[rows].max(axis=1), kind="stable")]

    def save(self, directory: str | Path) -> None:
        """Write predictions.npz into a directory."""
        arrays = {name: array for name, array in vars(self).items() if array is not None}
        if self.files is not None:
            arrays["files"] = np.frombuffer(json.dumps(self.files).encode(), np.uint8)
        np.savez_compressed(Path(directory) / PREDICTIONS, allow_pickle=False, **{name: arrays[name] for name in (*REQUIRED, *arrays)})

    @classmethod
    def load(cls, directory: str | Path) -> "Predictions":
        """Read predictions.npz of a directory; raises EvaluationError when it is missing or damaged."""
        path = Path(directory) / PREDICTIONS
        arrays = read_arrays(path, EvaluationError)
        try:
            names = {int(row): str(name) for row, name in json.loads(arrays["files"].tobytes()).items()} if "files" in arrays else None
        except (ValueError, AttributeError) as error:
            raise unreadable(path, f"its file names are damaged: {error}", EvaluationError) from error
        try:
            required: dict[str, Any] = {name: arrays[name] for name in REQUIRED}
        except KeyError as error:
            raise unreadable(path, f"it has no {error}", EvaluationError) from error
        optional: dict[str, Any] = {field.name: arrays.get(field.name) for field in fields(cls) if field.name not in REQUIRED}
        return cls(**required, **{**optional, "files": names})
