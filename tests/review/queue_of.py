"""Builds review queues with pictures of scikit-learn's digits."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from components.classifier.images import Pixels
from components.review import Reason, ReviewEntry, ReviewQueue
from components.storage import open_store
from tests import tiny

FIRST, SECOND = "20260102-030405-aaaaaaaaaaaa", "20260301-000000-bbbbbbbbbbbb"


def at(path: Path) -> ReviewQueue:
    """The queue of `digits` in a directory store."""
    return ReviewQueue(open_store(str(path)), "digits")


def digit(number: int) -> Pixels:
    """The n-th digit's pixels, uint8 (8, 8, 1)."""
    return tiny.digits()[0][number]


def png(pixels: Pixels, compress_level: int = 6) -> bytes:
    """The same pixels as a PNG; the bytes differ by compression."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0]).save(buffer, "PNG", compress_level=compress_level)
    return buffer.getvalue()


def deep_png(pixels: Pixels, bits: int) -> bytes:
    """Grey pixels as a PNG of 16 bits, whose brightest value is that of so many `bits`."""
    buffer = io.BytesIO()
    Image.fromarray(np.rint(pixels[:, :, 0] / 255 * (2**bits - 1)).astype(np.uint16)).save(buffer, "PNG")
    return buffer.getvalue()


def entry(
    picture: bytes | Pixels | int,
    label: str = "3",
    confidence: float = 0.5,
    *,
    version: str = FIRST,
    reason: Reason = "low_confidence",
    threshold: float | None = None,
    rate: float | None = None,
) -> ReviewEntry:
    """A prediction for a picture, or for the n-th digit; `threshold` and `rate` are the predictor's settings, None as older releases."""
    rest = (1 - confidence) / 9
    probabilities = {name: confidence if name == label else rest for name in tiny.CLASSES}
    pixels = digit(picture) if isinstance(picture, int) else picture
    return ReviewEntry(pixels, label, confidence, probabilities, version, "request-1", reason, review_threshold=threshold, audit_rate=rate)


def noise(seed: int) -> Pixels:
    """A picture that is in no other test's queue."""
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 1), dtype=np.uint8)
