"""Mean and standard deviation of the training pictures, by which the model normalises its input."""

import numpy as np

from components.bundle.dataset import Split

MIN_STD = 1e-6
"""Below this, all pixels of a channel count as equal."""


def mean_and_std(split: Split) -> tuple[list[float], list[float]]:
    """Return the exact mean and standard deviation of pixels / 255 per channel; a standard deviation of zero becomes 1."""
    counts = np.zeros((split.images.shape[3], 256), np.int64)
    for start in range(0, len(split), 1024):
        part = np.asarray(split.images[start : start + 1024])
        for channel in range(len(counts)):
            counts[channel] += np.bincount(part[..., channel].ravel(), minlength=256)
    values = np.arange(256) / 255
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean = weights @ values
    std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean.tolist(), np.where(std > MIN_STD, std, 1.0).tolist()
