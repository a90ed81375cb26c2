"""Small networks by their import path, with and without batch normalisation."""

import math

from torch import nn

from components.classifier.images import ImageSpec


def two_layers(spec: ImageSpec, classes: int) -> nn.Module:
    """One hidden layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), 32), nn.ReLU(), nn.Linear(32, classes))


def normalised(spec: ImageSpec, classes: int) -> nn.Module:
    """One hidden layer with batch normalisation."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(math.prod(spec.shape), 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, classes)
    )
