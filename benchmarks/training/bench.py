"""Penstock's training beside a reference loop and timm: accuracy against CPU seconds.

The reference is Adam at 0.001 with batches of 64 and a CNN of 32, 64 and 128 channels. timm's side is its resnet18, optimizer and schedule
with the defaults of its training script; its crops and mirror images are left out, since they are for photographs.

    python -m benchmarks.training.bench --mnist FOLDER                 # MNIST's four files; letters are rendered from installed fonts
    python -m benchmarks.training.bench --sets letters --seeds 1 --sides ours,reference,timm
    python -m benchmarks.training.bench --mnist FOLDER --sides ours --set architecture=compact_cnn --set epochs=1 --set learning_rate=0.01

One thread, or --threads. The sides take turns, seed by seed, so that a machine that becomes busy slows all of them. Test accuracy after
each epoch, whose own cost is not counted. Prints mean and deviation over the seeds, and when each seed first reached the accuracy that
--target names.
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

import numpy as np
import numpy.typing as npt
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
from components.classifier.progress import TrainingProgress
from components.settings.training import TrainingSettings
from components.train.augmentation import resolve
from components.train.batches import Batches, Normalise, mean_and_std
from components.train.checkpoint import Checkpoints
from components.train.loop import Trainer

CPU = torch.device("cpu")
Point = tuple[float, float, float]
"""After an epoch: CPU seconds so far, seconds of the clock so far, test accuracy."""
Curve = list[Point]


class _Clock:
    """CPU seconds of this process and seconds of the clock, except those that passed while it was stopped."""

    def __init__(self) -> None:
        self._spent, self._started = np.zeros(2), _now()

    def stop(self) -> tuple[float, float]:
        """Return CPU seconds and seconds of the clock until now."""
        self._spent += _now() - self._started
        cpu, wall = self._spent.tolist()
        return cpu, wall

    def go_on(self) -> None:
        """Count again."""
        self._started = _now()


def _now() -> npt.NDArray[np.float64]:
    return np.array([time.process_time(), time.perf_counter()])


class _Watch(TrainingProgress):
    """Measures after each epoch, and takes its own time off."""

    def __init__(self, test: Split) -> None:
        super().__init__()
        self._test, self._clock = Batches(test, CPU), _Clock()
        self.curve: Curve = []
        self.trainer: Trainer | None = None

    def line(self, text: str) -> None:
        if text.startswith("epoch "):
            assert self.trainer is not None
            spent = self._clock.stop()
            logits, labels = self.trainer._predict(self.trainer._average.network, self._test)
            self.curve.append((*spent, float((logits.argmax(axis=1) == labels).mean())))
            self._clock.go_on()


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


def reference(parts: sets.Parts, seed: int, epochs: int) -> Iterator[Point]:
    """Train by the loop that a tutorial has: no schedule, no augmentation."""
    torch.manual_seed(seed)
    training = parts[0]
    side = training.images.shape[1] // 8
    layers: list[nn.Module] = []
    for before, after in ((training.images.shape[3], 32), (32, 64), (64, 128)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128 * side * side, 128), nn.ReLU(), nn.Linear(128, _classes(training)))
    return _plain_loop(network, torch.optim.Adam(network.parameters(), lr=0.001), None, parts, 64, epochs)


def timm_defaults(parts: sets.Parts, seed: int, epochs: int) -> Iterator[Point]:
    """Train timm's resnet18: SGD at 0.1 per 256 pictures, cosine after one epoch of warm-up (its five are meant for 300 epochs)."""
    torch.manual_seed(seed)
    training = parts[0]
    network = timm.create_model("resnet18", in_chans=training.images.shape[3], num_classes=_classes(training))
    optimizer = timm.optim.create_optimizer_v2(network, opt="sgd", lr=0.1 * 128 / 256, weight_decay=2e-5, momentum=0.9)
    schedule, _ = timm.scheduler.create_scheduler_v2(optimizer, num_epochs=epochs, warmup_epochs=1)
    return _plain_loop(network, optimizer, schedule, parts, 128, epochs)


def _plain_loop(
    network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, parts: sets.Parts, batch_size: int, epochs: int
) -> Iterator[Point]:
    training, _, test = parts
    scale, clock = 1 / 255, _Clock()
    images, labels = torch.from_numpy(training.images).permute(0, 3, 1, 2).float() * scale, torch.from_numpy(training.labels)
    for epoch in range(epochs):
        clock.go_on()
        network.train()
        for index in torch.randperm(len(labels)).split(batch_size):
            loss = F.cross_entropy(network(images[index]), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if schedule is not None:
            schedule.step(epoch + 1)
        spent = clock.stop()
        network.eval()
        with torch.inference_mode():
            parts_of_test = torch.from_numpy(test.images).permute(0, 3, 1, 2).split(1000)
            right = [network(part.float() * scale).argmax(1) for part in parts_of_test]
        yield *spent, float((torch.cat(right).numpy() == test.labels).mean())


def _classes(split: Split) -> int:
    return int(split.labels.max()) + 1


def first_reached(curve: Sequence[Point], target: float) -> float | None:
    """Return the CPU seconds after which a curve first has an accuracy, None where it never has."""
    return next((cpu for cpu, _, accuracy in curve if accuracy >= target), None)


def _table(name: str, curves: list[Curve], target: float) -> None:
    for epoch, points in enumerate(zip(*curves, strict=False), start=1):
        cpu, wall, accuracies = zip(*points, strict=True)
        deviation = stdev(accuracies) if len(accuracies) > 1 else 0.0
        spent = f"{mean(cpu):7.1f} CPU s {mean(wall):7.1f} s"
        print(f"{name:<10} epoch {epoch:>2}  {spent}  accuracy {mean(accuracies):.4f} ± {deviation:.4f}", flush=True)
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
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    trainings: dict[str, Callable[[sets.Parts, int], Curve]] = {
        "ours": lambda parts, seed: ours(parts, seed, dict(arguments.set)),
        "reference": lambda parts, seed: list(reference(parts, seed, arguments.reference_epochs)),
        "timm": lambda parts, seed: list(timm_defaults(parts, seed, arguments.timm_epochs)),
    }
    for name in arguments.sets.split(","):
        parts = sets.load(name, arguments.mnist)
        of = f"{arguments.seeds} seeds, torch {torch.__version__}, threads: {arguments.threads}"
        print(f"\n{name}: {len(parts[0]):,} training pictures, {of}", flush=True)
        curves: dict[str, list[Curve]] = {side: [] for side in arguments.sides.split(",")}
        for seed in range(arguments.seeds):
            for side, found in curves.items():
                found.append(trainings[side](parts, seed))
        for side, found in curves.items():
            _table(side, found, arguments.target)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"load {os.getloadavg()[0]:.1f}, highest memory {memory:.0f} MB")


if __name__ == "__main__":
    main()
