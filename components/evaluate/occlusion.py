"""What the model looked at: how far its answer falls when a part of a picture is hidden."""

import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from components.bundle.model import Classifier
from components.classifier.images import Pixels

CELLS = 8
"""Parts per side; of a smaller picture, one per pixel."""
TIME_LIMIT_S = 10.0
"""Later pictures are left out where a network is too slow for all of them; there is always one."""

Hidden = npt.NDArray[np.float32]


def occlude(classifier: Classifier, images: Pixels, predicted: Sequence[int], batch_size: int) -> Hidden:
    """Return the probability of each picture's answer while one part of the picture after the other is hidden.

    `images` uint8 (M, H, W, C), `predicted` the M answers' classes; float32 (L, rows, columns) of the first L pictures that the time
    allows. A part is hidden by the picture's mean colour, over twice its side, so that neighbours overlap. Source: M. D. Zeiler and
    R. Fergus, Visualizing and understanding convolutional networks, ECCV 2014, section 4.2.
    """
    _, height, width, _ = images.shape
    parts = [(rows, columns) for rows in _parts(height) for columns in _parts(width)]
    maps: list[Hidden] = []
    begun = time.perf_counter()
    for image, answer in zip(images, predicted, strict=True):
        found = [_answers(classifier, image, parts[start : start + batch_size], answer) for start in range(0, len(parts), batch_size)]
        maps.append(np.concatenate(found).reshape(len(_parts(height)), len(_parts(width))))
        if time.perf_counter() - begun > TIME_LIMIT_S:
            break
    return np.stack(maps) if maps else np.zeros((0, len(_parts(height)), len(_parts(width))), np.float32)


def _parts(side: int) -> list[slice]:
    """The pixels that are hidden at each of up to CELLS places along a side."""
    cells = min(CELLS, side)
    edges = np.arange(cells) * side / cells
    low, high = np.floor(edges - side / cells / 2), np.ceil(edges + 1.5 * side / cells)
    return [slice(int(max(0, first)), int(min(side, last))) for first, last in zip(low, high, strict=True)]


def _answers(classifier: Classifier, image: Pixels, parts: Sequence[tuple[slice, slice]], answer: int) -> Hidden:
    hidden = np.repeat(np.asarray(image)[None], len(parts), axis=0)
    colour = np.asarray(image).mean(axis=(0, 1)).round().astype(np.uint8)
    for copy, (rows, columns) in zip(hidden, parts, strict=True):
        copy[rows, columns] = colour
    return classifier.probabilities(hidden, len(parts))[:, answer]
