"""Penstock's training beside a reference loop: accuracy against CPU seconds.

The reference is Adam at 0.001 with batches of 64 and a CNN of 32, 64 and 128 channels.

    python -m benchmarks.training.bench --mnist FOLDER                 # MNIST's four files; letters are rendered from installed fonts
    python -m benchmarks.training.bench --sets letters --seeds 1

One thread; test accuracy after each epoch, whose own cost is not counted. Prints mean and deviation over the seeds.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.training import sets
from components.bundle.dataset import Split
from components.classifier.images import ImageSpec
from components.classifier.network import build
from components.settings.training import TrainingSettings
from components.train.augmentation import resolve
from components.train.batches import Batches
from components.train.checkpoint import Checkpoints
from components.train.loop import Trainer
from components.train.pixel_statistics import Normalise, mean_and_std
from components.train.progress import TrainingProgress

CPU = torch.device("cpu")
Curve = list[tuple[float, float]]
"""After each epoch: CPU seconds so far, test accuracy."""


class _Watch(TrainingProgress):
    """Measures after each epoch, and takes its own time off."""

    def __init__(self, test: Split) -> None:
        super().__init__()
        self._test, self._aside = Batches(test, CPU), 0.0
        self._start = time.process_time()
        self.curve: Curve = []
        self.trainer: Trainer | None = None

    def line(self, text: str) -> None:
        if text.startswith("epoch "):
            assert self.trainer is not None
            now = time.process_time()
            logits, labels = self.trainer._predict(self.trainer._average.network, self._test)
            self.curve.append((now - self._start - self._aside, float((logits.argmax(axis=1) == labels).mean())))
            self._aside += time.process_time() - now


def ours(parts: sets.Parts, seed: int) -> Curve:
    """Train as Penstock does, with its defaults; the last entry is that of the weights that are kept."""
    training, validation, test = parts
    watch, options = _Watch(test), TrainingSettings(seed=seed)
    torch.manual_seed(seed)
    spec = ImageSpec(*training.images.shape[1:])
    network, (_, augment) = build("small_cnn", spec, int(training.labels.max()) + 1), resolve("auto", spec)
    normalise = Normalise(*mean_and_std(training), CPU)
    watch.trainer = Trainer(network, normalise, Batches(training, CPU), Batches(validation, CPU), augment, options, CPU)
    with tempfile.TemporaryDirectory() as folder:
        watch.trainer.fit(Checkpoints(folder, Path(folder) / "model", {"seed": seed}), watch)
    return watch.curve


def reference(parts: sets.Parts, seed: int, epochs: int) -> Iterator[tuple[float, float]]:
    """Train by the loop that a tutorial has: no schedule, no augmentation."""
    training, _, test = parts
    torch.manual_seed(seed)
    scale = 1 / 255
    images = torch.from_numpy(training.images).permute(0, 3, 1, 2).float() * scale
    labels, classes = torch.from_numpy(training.labels), int(training.labels.max()) + 1
    side = images.shape[2] // 8
    layers: list[nn.Module] = []
    for before, after in ((images.shape[1], 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * side * side, 128), nn.ReLU(), nn.Linear(128, classes))
    optimizer, spent = torch.optim.Adam(network.parameters(), lr=0.001), 0.0
    for _ in range(epochs):
        start = time.process_time()
        network.train()
        for index in torch.randperm(len(labels)).split(64):
            loss = F.cross_entropy(network(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        spent += time.process_time() - start
        network.eval()
        with torch.inference_mode():
            parts_of_test = torch.from_numpy(test.images).permute(0, 3, 1, 2).split(1000)
            right = [network(part.float() * scale).argmax(1) for part in parts_of_test]
        yield spent, float((torch.cat(right).numpy() == test.labels).mean())


def _table(name: str, curves: list[Curve]) -> None:
    for epoch, points in enumerate(zip(*curves, strict=False), start=1):
        seconds, accuracies = [point[0] for point in points], [point[1] for point in points]
        deviation = stdev(accuracies) if len(accuracies) > 1 else 0.0
        print(f"{name:<10} epoch {epoch:>2}  {mean(seconds):7.1f} CPU s  accuracy {mean(accuracies):.4f} ± {deviation:.4f}", flush=True)


def main() -> None:
    """Train both on each set and print accuracy against CPU seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="mnist,letters", help=f"of mnist, {', '.join(sets.NAMES)}")
    parser.add_argument("--mnist", type=Path, help="the folder of MNIST's four files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reference-epochs", type=int, default=10)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name in arguments.sets.split(","):
        parts = sets.load(name, arguments.mnist)
        print(f"\n{name}: {len(parts[0]):,} training pictures, {arguments.seeds} seeds, torch {torch.__version__}, one thread")
        _table("ours", [ours(parts, seed) for seed in range(arguments.seeds)])
        print(f"highest memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")
        if arguments.reference_epochs:
            _table("reference", [list(reference(parts, seed, arguments.reference_epochs)) for seed in range(arguments.seeds)])


if __name__ == "__main__":
    main()
