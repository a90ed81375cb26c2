"""A network without batch normalisation, by its import path: its statistics would be those of each process' own pictures."""

import math

from torch import nn

from components.classifier.images import ImageSpec


def two_layers(spec: ImageSpec, classes: int) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), 32), nn.ReLU(), nn.Linear(32, classes))
