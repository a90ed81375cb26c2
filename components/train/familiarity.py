"""How familiar a picture looks, beside what class it is: a second output of model.onnx, 0 to 1, unfamiliar below one half.

A network answers noise and photographs of other things as surely as its own pictures. Two distances tell them apart, both to the
nearest class' training pictures, by a covariance that all classes share (Mahalanobis distance; Lee et al., NeurIPS 2018), shrunk as
Ledoit and Wolf do: one of the features that the network's last layer reads, one of the picture's looks (mean, spread, and steps between
neighbours, for each channel). The looks are fitted on pictures with changed brightness and contrast too, so that another exposure
stays familiar. The larger distance counts, each divided by the one that 1% of the validation pictures exceed.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from components.bundle.config import FAMILIARITY_THRESHOLD, FamiliarityConfig
from components.bundle.dataset import Split
from components.classifier.images import Pixels
from components.classifier.layers import last_that_runs

QUANTILE = 0.01
"""Share of the validation pictures that are called unfamiliar."""
MAX_PICTURES = 10_000
"""Training pictures that the distances are fitted on, drawn at random."""
MAX_FEATURES = 4096
"""A wider last layer would make model.onnx too large: then the logits are the features."""
MIN_LIMIT = 0.01
"""Of the largest squared distance of a class from the centre of all. Where the pictures of a class are almost alike, validation sets a
smaller limit, at which the rounding of 32-bit numbers decides, and each runtime rounds in its own way."""
GAIN, SHIFT = 0.25, 0.1
"""Changes of contrast and brightness (as a fraction of white) that stay familiar."""

Floats = npt.NDArray[np.float64]


class ClassDistance(nn.Module):
    """Squared Mahalanobis distance of points (N, D) to the nearest of K means."""

    centre: Tensor
    whiten: Tensor
    means: Tensor
    norms: Tensor

    def __init__(self, points: Floats, labels: npt.NDArray[np.int64]) -> None:
        """Fit `points` (N, D) with their classes (N,)."""
        super().__init__()
        classes, rows = np.unique(labels, return_inverse=True)
        centre = points.mean(axis=0)
        means = np.stack([points[rows == k].mean(axis=0) for k in range(len(classes))])
        covariance = shrunk_covariance(points - means[rows])
        covariance += np.eye(len(covariance)) * max(1e-9, 1e-6 * float(np.trace(covariance)) / len(covariance))
        whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T  # unlike eigenvectors, it has no free signs
        whitened = (means - centre) @ whiten
        for name, values in {"centre": centre, "whiten": whiten, "means": whitened.T, "norms": (whitened**2).sum(axis=1)}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32))

    @property
    def smallest(self) -> float:
        """The smallest distance that 32-bit numbers tell from none."""
        return MIN_LIMIT * float(self.norms.max())

    def forward(self, points: Tensor) -> Tensor:
        """Return the distances (N,)."""
        at = (points - self.centre) @ self.whiten
        return torch.relu((at * at).sum(dim=1) + (self.norms - 2 * (at @ self.means)).amin(dim=1))


class Familiarity(nn.Module):
    """Runs a network on normalised pictures (N, C, H, W): logits (N, K), and how familiar each picture is (N,), between 0 and 1."""

    def __init__(self, layer: str, features: ClassDistance, looks: ClassDistance) -> None:
        super().__init__()
        self.layer, self.features, self.looks = layer, features, looks
        self.limits = (1.0, 1.0)
        """The squared distances, of features and of looks, at which a picture stops being familiar."""

    def forward(self, network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Classify, and say how familiar the pictures are."""
        logits, features = run_with_features(network, self.layer, pictures)
        apart = torch.maximum(self.features(features) / self.limits[0], self.looks(looks(pictures)) / self.limits[1])
        return logits, 1 / (1 + apart)


def shrunk_covariance(points: Floats) -> Floats:
    """Return the covariance (D, D) of points (N, D) of mean 0, shrunk to a multiple of the identity as Ledoit and Wolf (2004) do.

    The same as scikit-learn's LedoitWolf, without the 110 MB that its import takes.
    """
    count, width = points.shape
    covariance = points.T @ points / count
    variance = float(np.trace(covariance)) / width
    square = float((covariance**2).sum())
    spread = square / width - variance**2
    noise = (float((points**2).sum(axis=1) @ (points**2).sum(axis=1)) / count - square) / (width * count)
    share = min(noise / spread, 1.0) if spread > 0 and noise > 0 else 0.0
    shrunk: Floats = (1 - share) * covariance + share * variance * np.eye(width)
    return shrunk


def looks(pictures: Tensor) -> Tensor:
    """Describe pictures (N, C, H, W): mean, standard deviation, mean steps across and down, for each channel; (N, 4 C)."""
    mean = pictures.mean(dim=(2, 3), keepdim=True)
    spread = torch.sqrt((pictures - mean).square().mean(dim=(2, 3)) + 1e-12)
    parts = [mean[:, :, 0, 0], spread]
    for axis in (2, 3):
        size = pictures.shape[axis]
        if size > 1:
            steps = pictures.narrow(axis, 1, size - 1) - pictures.narrow(axis, 0, size - 1)
            parts.append(steps.abs().mean(dim=(2, 3)))
    return torch.cat(parts, dim=1)


def run_with_features(network: nn.Module, layer: str, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, K), and what the named layer read (N, D), averaged over places; an empty name takes the logits."""
    if not layer:
        logits = network(pictures)
        return logits, logits
    seen: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = network(pictures)
    finally:
        hook.remove()
    features = seen[-1]
    return logits, features.mean(dim=(2, 3)) if features.dim() == 4 else features


def last_layer(network: nn.Module, picture: Tensor) -> tuple[str, int]:
    """Find the linear layer (or convolution, as in squeezenet) that runs last: its name, and the number of features that it reads.

    The name is empty where there is none, where it reads no vector (or map) for each picture, or one of more than MAX_FEATURES: then the
    number is 0. `picture` is normalised, (1, C, H, W).
    """
    with torch.inference_mode():
        name, shape, _ = last_that_runs(network, picture.expand(2, -1, -1, -1))
    usable = len(shape) in (2, 4) and shape[0] == 2 and shape[1] <= MAX_FEATURES
    return (name, int(shape[1])) if usable else ("", 0)


@dataclass(frozen=True)
class _Measured:
    features: Floats
    looks: Floats


class FamiliarityFit:
    """Fits the familiarity of one network; `scale` and `shift` (1, C, 1, 1) normalise pictures, uint8 to what the network takes."""

    def __init__(self, network: nn.Module, normalise: nn.Module, device: torch.device, batch_size: int = 256) -> None:
        self._network, self._normalise, self._device, self._batch = network.eval(), normalise, device, batch_size

    def fit(self, training: Split, validation: Split, seed: int) -> tuple[Familiarity | None, FamiliarityConfig | None]:
        """Fit on training pictures, and set the limits by the validation pictures, which the network was not fitted to.

        Returns nothing where there are no validation pictures.
        """
        if len(validation) == 0:
            return None, None
        generator = np.random.default_rng((seed, 1))
        rows = np.sort(generator.permutation(len(training))[:MAX_PICTURES])
        labels = np.array(training.labels, dtype=np.int64)[rows]
        layer, width = last_layer(self._network, self._normalised(training.images[:1]))
        seen = self._measure(layer, training.images, rows, None)
        changed = self._measure(layer, training.images, rows, generator).looks
        features = ClassDistance(seen.features, labels)
        appearance = ClassDistance(np.concatenate([seen.looks, changed]), np.concatenate([labels, labels]))
        familiarity = Familiarity(layer, features, appearance)
        held_out = self._measure(layer, validation.images, np.arange(len(validation)), None)
        distances = [_distances(features, held_out.features), _distances(appearance, held_out.looks)]
        limits = [limit(values) for values in distances]
        together = limit(np.maximum(*(values / own for values, own in zip(distances, limits, strict=True))))
        familiarity.limits = (max(limits[0] * together, features.smallest), max(limits[1] * together, appearance.smallest))
        config = FamiliarityConfig(
            threshold=FAMILIARITY_THRESHOLD,
            quantile=QUANTILE,
            pictures=len(validation),
            layer=layer,
            features=width or seen.features.shape[1],
        )
        return familiarity, config

    def _normalised(self, images: Pixels) -> Tensor:
        pictures: Tensor = self._normalise(torch.from_numpy(np.array(images)).to(self._device).permute(0, 3, 1, 2))
        return pictures

    def _measure(self, layer: str, images: Pixels, rows: npt.NDArray[np.int64], generator: np.random.Generator | None) -> _Measured:
        """Features and looks of some pictures; with a generator only the looks, of pictures with changed brightness and contrast."""
        features, appearance = [], []
        with torch.inference_mode():
            for start in range(0, len(rows), self._batch):
                chosen = np.asarray(images[rows[start : start + self._batch]])
                pictures = self._normalised(chosen if generator is None else _changed(chosen, generator))
                appearance.append(looks(pictures).double().cpu().numpy())
                if generator is None:
                    features.append(run_with_features(self._network, layer, pictures)[1].double().cpu().numpy())
        return _Measured(np.concatenate(features) if features else np.empty((0, 0)), np.concatenate(appearance))


def _changed(images: Pixels, generator: np.random.Generator) -> Pixels:
    shape = (len(images), 1, 1, 1)
    gain, shift = generator.uniform(1 - GAIN, 1 + GAIN, shape), generator.uniform(-255 * SHIFT, 255 * SHIFT, shape)
    return np.asarray(np.clip(images * gain + shift, 0, 255), dtype=np.uint8)


def _distances(distance: ClassDistance, points: Floats) -> Floats:
    with torch.inference_mode():
        return np.asarray(distance(torch.tensor(points, dtype=torch.float32)).double().numpy())


def limit(distances: Floats) -> float:
    """The distance that a new picture of the same kind exceeds with a chance of QUANTILE.

    With enough pictures it is the one that as many exceed (split conformal prediction). With fewer, none does, and their
    largest would be exceeded more often: then it is at least the prediction bound of a normal distribution of the logarithms.
    """
    count = len(distances)
    allowed = math.floor(QUANTILE * (count + 1))
    if allowed >= 1:
        return float(np.sort(distances)[-allowed]) * (1 + 1e-6) + 1e-12
    logs = np.log(distances + 1e-12)
    spread = float(logs.std(ddof=1)) if count > 1 else 1.0
    bound = float(logs.mean()) + float(stdtrit(max(1, count - 1), 1 - QUANTILE)) * spread * math.sqrt(1 + 1 / count)
    return max(float(distances.max()), math.exp(min(bound, 50.0)))
