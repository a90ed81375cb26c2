"""Penstock's training beside a reference loop and timm: accuracy against CPU seconds.

The reference is Adam at 0.001 with batches of 64 and a CNN of 32, 64 and 128 channels. timm's side is its resnet18, optimizer and schedule
with the defaults of its training script; its crops and mirror images are left out, since they are for photographs.

    python -m benchmarks.training.bench --mnist FOLDER                 # MNIST's four files; letters are rendered from installed fonts
    python -m benchmarks.training.bench --sets letters --seeds 1 --sides ours,reference,timm
    python -m benchmarks.training.bench --mnist FOLDER --sides ours --set architecture=compact_cnn --set epochs=1 --set learning_rate=0.01

One thread; test accuracy after each epoch, whose own cost is not counted. Prints mean and deviation over the seeds, and when each seed
first reached the accuracy that --target names.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import timm.optim
import timm.scheduler
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


def ours(parts: sets.Parts, seed: int, given: Mapping[str, object]) -> Curve:
    """Train as Penstock does, with its defaults but for the settings that are `given`; an entry is that of the averaged weights."""
    training, validation, test = parts
    watch, options = _Watch(test), TrainingSettings.read(given, seed=seed)
    torch.manual_seed(seed)
    spec = ImageSpec(*training.images.shape[1:])
    network = build(options.architecture, spec, _classes(training), width=options.width, dropout=options.dropout)
    _, augment = resolve(options.augmentation, spec)
    normalise = Normalise(*mean_and_std(training), CPU)
    watch.trainer = Trainer(network, normalise, Batches(training, CPU), Batches(validation, CPU), augment, options, CPU)
    with tempfile.TemporaryDirectory() as folder:
        watch.trainer.fit(Checkpoints(folder, Path(folder) / "model", {"seed": seed}), watch)
    return watch.curve


def reference(parts: sets.Parts, seed: int, epochs: int) -> Iterator[tuple[float, float]]:
    """Train by the loop that a tutorial has: no schedule, no augmentation."""
    torch.manual_seed(seed)
    training = parts[0]
    side = training.images.shape[1] // 8
    layers: list[nn.Module] = []
    for before, after in ((training.images.shape[3], 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * side * side, 128), nn.ReLU(), nn.Linear(128, _classes(training)))
    return _plain_loop(network, torch.optim.Adam(network.parameters(), lr=0.001), None, parts, 64, epochs)


def timm_defaults(parts: sets.Parts, seed: int, epochs: int) -> Iterator[tuple[float, float]]:
    """Train timm's resnet18: SGD at 0.1 per 256 pictures, cosine after one epoch of warm-up (its five are meant for 300 epochs)."""
    torch.manual_seed(seed)
    training = parts[0]
    network = timm.create_model("resnet18", in_chans=training.images.shape[3], num_classes=_classes(training))
    optimizer = timm.optim.create_optimizer_v2(network, opt="sgd", lr=0.1 * 128 / 256, weight_decay=2e-5, momentum=0.9)
    schedule, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=epochs, warmup_epochs=1)
    return _plain_loop(network, optimizer, schedule, parts, 128, epochs)


def _plain_loop(
    network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, parts: sets.Parts, batch_size: int, epochs: int
) -> Iterator[tuple[float, float]]:
    training, _, test = parts
    scale, spent = 1 / 255, 0.0
    images, labels = torch.from_numpy(training.images).permute(0, 3, 1, 2).float() * scale, torch.from_numpy(training.labels)
    for epoch in range(epochs):
        start = time.process_time()
        network.train()
        for index in torch.randperm(len(labels)).split(batch_size):
            loss = F.cross_entropy(network(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if schedule is not None:
            schedule.step(epoch + 1)
        spent += time.process_time() - start
        network.eval()
        with torch.inference_mode():
            parts_of_test = torch.from_numpy(test.images).permute(0, 3, 1, 2).split(1000)
            right = [network(part.float() * scale).argmax(1) for part in parts_of_test]
        yield spent, float((torch.cat(right).numpy() == test.labels).mean())


def _classes(split: Split) -> int:
    return int(split.labels.max()) + 1


def first_reached(curve: Sequence[tuple[float, float]], target: float) -> float | None:
    """Return the CPU seconds after which a curve first has an accuracy, None where it never has."""
    return next((seconds for seconds, accuracy in curve if accuracy >= target), None)


def _table(name: str, curves: list[Curve], target: float) -> None:
    for epoch, points in enumerate(zip(*curves, strict=False), start=1):
        seconds, accuracies = [point[0] for point in points], [point[1] for point in points]
        deviation = stdev(accuracies) if len(accuracies) > 1 else 0.0
        print(f"{name:<10} epoch {epoch:>2}  {mean(seconds):7.1f} CPU s  accuracy {mean(accuracies):.4f} ± {deviation:.4f}", flush=True)
    reached = [first_reached(curve, target) for curve in curves]
    told = ", ".join("never" if seconds is None else f"{seconds:.1f}" for seconds in reached)
    print(f"{name:<10} first at {target:.4f} after CPU s: {told}", flush=True)


def setting(text: str) -> tuple[str, object]:
    """Return the name and the value of NAME=VALUE; a value is JSON, or text where it is not."""
    name, value = text.split("=", 1)
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def main() -> None:
    """Train all sides on each set and print accuracy against CPU seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", default="mnist,letters", help=f"of mnist, {', '.join(sets.NAMES)}")
    parser.add_argument("--mnist", type=Path, help="the folder of MNIST's four files")
    parser.add_argument("--sides", default="ours,reference", help="of ours, reference, timm (minutes per epoch of MNIST)")
    parser.add_argument("--set", type=setting, action="append", default=[], metavar="NAME=VALUE", help="a setting of training for our side")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--target", type=float, default=0.99, help="the test accuracy whose time is printed")
    parser.add_argument("--reference-epochs", type=int, default=10)
    parser.add_argument("--timm-epochs", type=int, default=6)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    trainings: dict[str, Callable[[sets.Parts, int], Curve]] = {
        "ours": lambda parts, seed: ours(parts, seed, dict(arguments.set)),
        "reference": lambda parts, seed: list(reference(parts, seed, arguments.reference_epochs)),
        "timm": lambda parts, seed: list(timm_defaults(parts, seed, arguments.timm_epochs)),
    }
    for name in arguments.sets.split(","):
        parts = sets.load(name, arguments.mnist)
        print(f"\n{name}: {len(parts[0]):,} training pictures, {arguments.seeds} seeds, torch {torch.__version__}, one thread")
        for side in arguments.sides.split(","):
            _table(side, [trainings[side](parts, seed) for seed in range(arguments.seeds)], arguments.target)
            print(
                f"load {os.getloadavg()[0]:.1f}, highest memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB"
            )


if __name__ == "__main__":
    main()
