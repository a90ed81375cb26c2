"""A trainer over arrays, without the export that a whole training ends with."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from components.bundle.dataset import Split
from components.classifier.images import ImageSpec
from components.classifier.network import build
from components.settings.training import TrainingSettings
from components.train.augmentation import resolve
from components.train.batches import Batches, Normalise, mean_and_std
from components.train.checkpoint import Checkpoints
from components.train.loop import Trainer
from tests import tiny

CPU = torch.device("cpu")


def split(start: int, stop: int) -> Split:
    """Some of scikit-learn's digits."""
    images, labels = tiny.digits()
    return Split(images[start:stop], labels[start:stop].copy())


def trainer(options: TrainingSettings, training: Split, validation: Split, classes: int = 10) -> Trainer:
    """A trainer as `train` makes it."""
    torch.manual_seed(options.seed)
    spec = ImageSpec(*training.images.shape[1:])
    network = build(options.architecture, spec, classes, width=options.width, dropout=options.dropout)
    normalise = Normalise(*mean_and_std(training), CPU)
    _, augment = resolve(options.augmentation, spec)
    return Trainer(network, normalise, Batches(training, CPU), Batches(validation, CPU), augment, options, CPU)


def checkpoints(folder: Path, minutes: float = 0.0) -> Checkpoints:
    """A place for checkpoints of one test."""
    return Checkpoints(str(folder), folder / "model", {"test": 1}, minutes)


def weights(trained: Trainer) -> dict[str, np.ndarray]:
    """All weights of a trainer's network."""
    return {name: tensor.numpy().copy() for name, tensor in trained.network.state_dict().items()}


class _Exploding(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = nn.Linear(64, classes)

    def forward(self, pictures: Tensor) -> Tensor:
        return torch.exp(100 * self.head(pictures.flatten(1)))


def exploding(spec: ImageSpec, classes: int) -> nn.Module:
    """A network for 8x8 pictures whose loss diverges."""
    return _Exploding(classes)
