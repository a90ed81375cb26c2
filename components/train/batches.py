"""Batches from memory-mapped files or from the GPU's memory, without loader processes: a pod needs no large /dev/shm.

And what the pixels of a split are normalised by.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.bundle.dataset import Split
from components.train.distributed import ALONE, Group

MAX_MEMORY_FRACTION = 0.4
"""The fraction of a GPU's free memory that a split may take; the rest is for the network."""
MIN_STD = 1e-6
"""Below this, all pixels of a channel count as equal."""


class Batch(NamedTuple):
    """What one process trains on in one step: pictures, labels, the weights of the pictures if they have some."""

    images: Tensor
    labels: Tensor
    weights: Tensor | None
    whole: int
    """Pictures in the batch of all processes."""


class Batches:
    """A split as batches of uint8 pictures (n, C, H, W), channels last in memory, and int64 labels (n,), on the device.

    Of several processes that train together, each gets its own part of every batch.
    """

    def __init__(self, split: Split, device: torch.device, weights: npt.NDArray[np.float32] | None = None, group: Group = ALONE) -> None:
        self._images = split.images
        self._group = group
        self._device = device
        self.labels = torch.from_numpy(np.array(split.labels, dtype=np.int64))
        self._weights = None if weights is None else torch.from_numpy(weights)
        self._resident = self._to_device() if self._fits() else None

    def __len__(self) -> int:
        return len(self.labels)

    def shuffled(self, batch_size: int, seed: tuple[int, ...], steps: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches from number `start` up to `steps`, in an order that follows from the seed.

        They go through the pictures as often as needed.
        """
        generator = np.random.default_rng(seed)
        made = 0
        while made < steps:
            for index in np.array_split(generator.permutation(len(self)), self.per_pass(batch_size)):
                if start <= made < steps:
                    part = self._group.part(index)
                    weights = None if self._weights is None else self._weights[torch.from_numpy(part)].to(self._device)
                    yield Batch(*self._take(part), weights, len(index))
                made += 1

    def per_pass(self, batch_size: int) -> int:
        """Return the number of batches of one pass."""
        return batches_per_pass(len(self), batch_size, self._group.size)

    def in_order(self, batch_size: int, group: Group = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every picture once, in the order of the split; with a group, those of this process' part."""
        index = group.part(np.arange(len(self)))
        for start in range(0, len(index), batch_size):
            yield self._take(index[start : start + batch_size])

    def _take(self, index: npt.NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        if self._resident is not None:
            chosen = torch.from_numpy(index).to(self._device)
            return self._resident[chosen].permute(0, 3, 1, 2), self._resident_labels[chosen]
        images = torch.from_numpy(self._images[index])
        labels = self.labels[torch.from_numpy(index)]
        if self._device.type == "cuda":
            images, labels = images.pin_memory(), labels.pin_memory()
        return images.to(self._device, non_blocking=True).permute(0, 3, 1, 2), labels.to(self._device, non_blocking=True)

    def _fits(self) -> bool:
        if self._device.type != "cuda":
            return False  # on a CPU the page cache holds the file
        free, _ = torch.cuda.mem_get_info(self._device)
        return self._images.nbytes <= MAX_MEMORY_FRACTION * free

    def _to_device(self) -> Tensor:
        self._resident_labels = self.labels.to(self._device)
        return torch.from_numpy(np.ascontiguousarray(self._images)).to(self._device)


def batches_per_pass(pictures: int, batch_size: int, processes: int = 1) -> int:
    """Return the number of batches of one pass: of nearly equal size, with every picture, and never a single picture for a process.

    A single picture would break batch normalisation; where needed, batches hold one picture more than `batch_size`.
    """
    return max(1, min(math.ceil(pictures / batch_size), pictures // (2 * processes)))


def weighted_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    group: Group = ALONE,
) -> Tensor:
    """Return the cross entropy of a batch: the mean over its pictures, each of which counts by its weight and that of its class.

    `logits` (n, K), `labels` and `weights` (n,), `class_weights` (K,). A picture of weight 2 counts as if it were there twice; a batch
    in which no picture counts has the loss 0. Of a group's parts, the mean is the loss of the whole batch.
    """
    if weights is None and group.size == 1:
        return F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing)
    losses = F.cross_entropy(logits, labels, weight=class_weights, label_smoothing=label_smoothing, reduction="none")
    weights = torch.ones_like(losses) if weights is None else weights
    counts = weights if class_weights is None else weights * class_weights[labels]
    return (losses * weights).sum() / group.mean(counts.sum()).clamp_min(torch.finfo(torch.float32).tiny)


def balanced_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """Return each class' weight in the loss, float32 (classes,): all classes together count equally, and the mean over pictures is 1.

    A class without pictures has weight 0. The same as scikit-learn's `class_weight="balanced"`.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.divide(len(labels) / present.sum(), counts, out=np.zeros(classes), where=present)
    return torch.tensor(weights, dtype=torch.float32)


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
