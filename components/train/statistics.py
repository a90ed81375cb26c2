"""The numbers of the training split that go into the model's graph."""

import numpy as np

from components.bundle.dataset import Split

SMALLEST_STD = 1e-6
"""A spread below this is none: all pixels of that channel are equal."""


def mean_and_std(split: Split) -> tuple[list[float], list[float]]:
    """Compute mean and standard deviation of pixels / 255 per channel, exactly; a spread of zero becomes 1."""
    counts = np.zeros((split.images.shape[3], 256), np.int64)
    for start in range(0, len(split), 1024):
        part = np.asarray(split.images[start : start + 1024])
        for channel in range(len(counts)):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ values
    std = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean.tolist(), np.where(std > SMALLEST_STD, std, 1.0).tolist()
