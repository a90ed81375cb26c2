"""scikit-learn's handwritten digits: 1,797 grey pictures of 8x8 that need no network."""

import numpy as np

from components.ingest.collection import NOT_GIVEN, Collection, from_arrays


def load() -> Collection:
    """Read the digits that scikit-learn bundles; their 17 levels of grey are spread over 0 to 255."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = (data.images * (255 / 16)).round().astype(np.uint8)[..., None]
    names = [f"digits#{k}" for k in range(len(images))]
    return from_arrays(images, data.target, [str(digit) for digit in range(10)], np.full(len(images), NOT_GIVEN, np.int8), names)
