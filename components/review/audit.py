"""The audit sample: pictures that are reviewed whatever the model predicts."""

import hashlib

from components.classifier.images import Pixels

_SCALE = 2.0**64


def drawn_for_audit(pixels: Pixels, rate: float, key: bytes) -> bool:
    """Say whether a picture belongs to the audit sample of `rate` (0 to 1).

    The picture's own hash draws, not a random number: every different picture is in with probability `rate`, however
    often and to whichever replica of the same `key` it is sent, and independently of the prediction. Who does not know the key
    (16 to 64 bytes) cannot tell which pictures are drawn. `pixels` are those that the model takes. About 1 µs for a 28x28 picture,
    150 µs for 224x224x3.
    """
    if rate <= 0:
        return False
    drawn = int.from_bytes(hashlib.blake2b(pixels.tobytes(), digest_size=8, key=key).digest(), "little")
    return drawn / _SCALE < rate
