"""golden.npz: pictures, and the probabilities that a served version must give for them."""

import math
import zlib
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from components.bundle.files import GOLDEN
from components.classifier.errors import IntegrityError
from components.classifier.images import Pixels

GOLDEN_TOLERANCE = 1e-4
"""How far a served probability may be from the evaluated one (absolute)."""


def save_golden(directory: str | Path, images: Pixels, probabilities: npt.NDArray[np.float32]) -> None:
    """Write golden.npz: `images` uint8 (N, H, W, C) and the `probabilities` float32 (N, K) that they must give."""
    np.savez_compressed(Path(directory) / GOLDEN, images=images, probabilities=probabilities)


def load_golden(directory: str | Path) -> tuple[Pixels, npt.NDArray[np.float32]]:
    """Read golden.npz: (images, probabilities).

    Raises IntegrityError when it is missing or damaged.
    """
    path = Path(directory) / GOLDEN
    try:
        with np.load(path, allow_pickle=False) as archive:
            return archive["images"], archive["probabilities"]
    except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{path} cannot be read ({error}); publish the model version again") from error


def difference(found: npt.NDArray[Any], expected: npt.NDArray[np.float32]) -> float:
    """Return the largest distance between served and evaluated probabilities (N, K); it must be at most GOLDEN_TOLERANCE.

    Infinite where the shapes differ, nothing was compared, or a probability is not a number.
    """
    if found.shape != expected.shape or found.size == 0:
        return float("inf")
    largest = float(np.abs(found - expected).max())
    return float("inf") if math.isnan(largest) else largest
