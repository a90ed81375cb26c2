"""The audit sample: pictures that are reviewed whatever the model predicts."""

import hashlib

from components.classifier.images import Pixels

_SCALE = 2.0**64


def drawn_for_audit(pixels: Pixels, rate: float) -> bool:
    """Say whether a picture belongs to the audit sample of `rate` (0 to 1).

    The picture's own hash draws, not a random number: every different picture is in with probability `rate`, however
    often and to whichever replica it is sent, and independently of the prediction. `pixels` are those that the
    model takes. About 1 µs for a 28x28 picture, 150 µs for 224x224x3.
    """
    if rate <= 0:
        return False
    drawn = int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8).digest(), "little")
    return drawn / _SCALE < rate
