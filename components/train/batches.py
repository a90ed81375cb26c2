"""Batches from memory-mapped files or from the GPU's memory, without loader processes: a pod needs no large /dev/shm."""

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from components.bundle.dataset import Split

MAX_MEMORY_FRACTION = 0.4
"""The fraction of a GPU's free memory that a split may take; the rest is for the network."""


class Batches:
    """A split as batches of uint8 pictures (n, C, H, W), channels last in memory, and int64 labels (n,), on the device."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self._images = split.images
        self._device = device
        self.labels = torch.from_numpy(np.array(split.labels, dtype=np.int64))
        self._resident = self._to_device() if self._fits() else None

    def __len__(self) -> int:
        return len(self.labels)

    def shuffled(self, batch_size: int, seed: tuple[int, ...], steps: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches from number `start` up to `steps`, in an order that follows from the seed.

        They go through the pictures as often as needed.
        """
        generator = np.random.default_rng(seed)
        made = 0
        while made < steps:
            for index in np.array_split(generator.permutation(len(self)), batches_per_pass(len(self), batch_size)):
                if start <= made < steps:
                    yield self._take(index)
                made += 1

    def in_order(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every picture once, in the order of the split."""
        for start in range(0, len(self), batch_size):
            yield self._take(np.arange(start, min(start + batch_size, len(self))))

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


def batches_per_pass(pictures: int, batch_size: int) -> int:
    """Return the number of batches of one pass: of nearly equal size, with every picture, and never of a single picture.

    A single picture would break batch normalisation; where needed, batches hold one picture more than `batch_size`.
    """
    return max(1, min(math.ceil(pictures / batch_size), pictures // 2))


def balanced_weights(labels: npt.NDArray[np.int64], classes: int) -> Tensor:
    """Return each class' weight in the loss, float32 (classes,): all classes together count equally, and the mean over pictures is 1.

    A class without pictures has weight 0. The same as scikit-learn's `class_weight="balanced"`.
    """
    counts = np.bincount(labels, minlength=classes)
    present = counts > 0
    weights = np.divide(len(labels) / present.sum(), counts, out=np.zeros(classes), where=present)
    return torch.tensor(weights, dtype=torch.float32)
