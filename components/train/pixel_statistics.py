"""Mean and standard deviation of the training pictures, by which the model normalises its input."""

import numpy as np
import torch
from torch import Tensor, nn

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


class Normalise(nn.Module):
    """Turns uint8 pictures (N, C, H, W) into floats of mean 0 and standard deviation 1, given those of pixels / 255."""

    def __init__(self, mean: list[float], std: list[float], device: torch.device) -> None:
        super().__init__()
        self._scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(1, -1, 1, 1)
        self._shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device).view(1, -1, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Scale and shift."""
        return torch.addcmul(self._shift, images.float(), self._scale)
