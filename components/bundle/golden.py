"""golden.npz: pictures, and the probabilities (and familiarity, where the version has it) that a served version must give for them."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from components.bundle.dataset import Labels
from components.bundle.files import GOLDEN
from components.bundle.formats import read_arrays, unreadable
from components.classifier.errors import IntegrityError
from components.classifier.images import Pixels

Floats = npt.NDArray[np.float32]
GOLDEN_TOLERANCE = 1e-4
"""How far a served probability may be from the evaluated one (absolute)."""
MIN_GOLDEN = 16
MAX_GOLDEN_BYTES = 1 << 30
"""What golden.npz may unpack to; predictors hold it in memory while they start."""


def save_golden(directory: str | Path, images: Pixels, probabilities: Floats, familiarity: Floats | None = None) -> None:
    """Write golden.npz: `images` uint8 (N, H, W, C), and the `probabilities` float32 (N, K) and `familiarity` (N,) that they must give.

    Where all would unpack to more than MAX_GOLDEN_BYTES, evenly spaced ones are written that fit.
    """
    each = (images.nbytes + probabilities.nbytes) // max(1, len(images))
    if len(images) * each > MAX_GOLDEN_BYTES - (1 << 16):  # the rest is for the headers
        rows = np.linspace(0, len(images) - 1, max(1, (MAX_GOLDEN_BYTES - (1 << 16)) // each), dtype=np.int64)
        images, probabilities, familiarity = images[rows], probabilities[rows], None if familiarity is None else familiarity[rows]
    more = {} if familiarity is None else {"familiarity": familiarity}
    np.savez_compressed(Path(directory) / GOLDEN, allow_pickle=False, images=images, probabilities=probabilities, **more)


def load_golden(directory: str | Path) -> tuple[Pixels, Floats]:
    """Read golden.npz: (images, probabilities).

    Raises IntegrityError when it is missing, damaged, or would unpack to more than MAX_GOLDEN_BYTES.
    """
    path = Path(directory) / GOLDEN
    arrays = read_arrays(path, IntegrityError, MAX_GOLDEN_BYTES)
    try:
        return arrays["images"], arrays["probabilities"]
    except KeyError as error:
        raise unreadable(path, f"it has no {error}", IntegrityError) from error


def load_golden_familiarity(directory: str | Path) -> Floats | None:
    """Read how familiar the golden pictures are, (N,); None for a version without it. Raises as `load_golden` does."""
    return read_arrays(Path(directory) / GOLDEN, IntegrityError, MAX_GOLDEN_BYTES).get("familiarity")


def choose_golden(labels: Labels) -> npt.NDArray[np.int64]:
    """Choose pictures that cover every class of `labels`: one each, and further rounds up to 16 in all.

    Returns rows in ascending order, the same for the same labels.
    """
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.concatenate([np.arange(count) for count in counts])
    by_turn = order[np.argsort(turn, kind="stable")]
    return np.sort(by_turn[: max(len(starts), min(MIN_GOLDEN, len(labels)))])


def difference(found: npt.NDArray[Any], expected: Floats) -> float:
    """Return the largest distance between served and evaluated probabilities (N, K), or familiarity (N,).

    It must be at most GOLDEN_TOLERANCE. Infinite where the shapes differ, nothing was compared, or a probability is not a number.
    """
    if found.shape != expected.shape or found.size == 0:
        return float("inf")
    largest = float(np.abs(found - expected).max())
    return float("inf") if math.isnan(largest) else largest
