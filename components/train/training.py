"""Train one model version: `train(dataset, model, options)` writes model.onnx, model.safetensors, config.json and training.json."""

import json
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from components.classifier import bundle
from components.classifier.cpu import available_cpus
from components.classifier.dataset import Dataset, Split
from components.classifier.errors import DataError
from components.classifier.network import ServingGraph, build
from components.train import augmentation
from components.train.batches import Batches
from components.train.calibration import fit_temperature
from components.train.checkpoint import Checkpoints
from components.train.code_version import code_version
from components.train.device import choose_device, describe
from components.train.export import check_export, check_size, export_onnx
from components.train.loop import Fitted, Normalise, Trainer
from components.train.options import TrainingOptions
from components.train.progress import TrainingProgress
from components.train.statistics import mean_and_std

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingResult:
    """What came out, for the run's metrics."""

    device: str
    epochs: int
    best_epoch: int
    stop_reason: str
    validation_loss: float | None
    validation_accuracy: float | None
    temperature: float
    parameters: int
    seconds: float
    export_difference: float

    def as_metrics(self) -> dict[str, float | str]:
        """Name the figures that Kubeflow shows; those that there are not are left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


def train(dataset_path: str | Path, model_path: str | Path, options: TrainingOptions) -> TrainingResult:
    """Train, calibrate, export and check one model; `model_path` appears when all of it is there.

    A training that was killed is resumed when it is started again with the same inputs, see `checkpoint`.
    Raises UsageError for an unknown architecture or one that does not fit the pictures, DataError for a dataset that cannot be
    trained on, TrainingError for a device that is not there, a loss that diverged, or an export that differs from torch.
    """
    started = time.perf_counter()
    device = choose_device(options.device, options.gpus)
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cpus())
    dataset, model_path = Dataset.load(dataset_path), Path(model_path)
    training, validation = dataset.split("train"), dataset.split("validation")
    if len(training) < 2:
        raise DataError(f"the training split holds {len(training)} pictures; at least 2 are needed")
    with _terminable(), _finished_or_absent(model_path) as directory, TrainingProgress() as show:
        torch.manual_seed(options.seed)
        network = build(options.architecture, dataset.info.spec, len(dataset.info.classes), options.pretrained)
        parameters = sum(p.numel() for p in network.parameters())
        check_size(parameters)
        mean, std = _normalisation(options, training)
        augmenting, augment = augmentation.resolve(options.augmentation, dataset.info.spec)
        trainer = Trainer(
            network, Normalise(mean, std, device), Batches(training, device), Batches(validation, device), augment, options, device
        )
        show.line(
            f"training {options.architecture} ({parameters:,} parameters) on {describe(device)}: {len(training)} pictures, "
            f"{trainer.steps} steps an epoch, augmentation {augmenting}"
        )
        for note in _notes(dataset):
            show.line(f"note: {note}")
        checkpoints = Checkpoints(options.checkpoints, model_path, _identity(dataset, options, device))
        fitted = trainer.fit(checkpoints, show)
        temperature, calibration = _calibrate(trainer, Batches(validation, device))
        seconds = time.perf_counter() - started
        best = fitted.history[fitted.best_epoch - 1]
        graph = ServingGraph(network, mean, std, temperature)
        export_onnx(graph, dataset.info.spec, directory / bundle.ONNX)
        facts = {"device": device.type, "epochs_run": len(fitted.history), "parameters": parameters, "augmentation_used": augmenting}
        _config(dataset, options, mean, std, temperature, facts).save(directory)
        difference = check_export(graph, directory, validation.images if len(validation) else training.images)
        _save_weights(network, directory, options)
        _save_training(directory, fitted, device, seconds, {"temperature": temperature, "calibration": calibration})
        show.line(
            f"done on {describe(device)}: {fitted.stop_reason}, best epoch {fitted.best_epoch}, "
            f"temperature {temperature:.3f} ({calibration}), export within {difference:.1e}"
        )
    checkpoints.clear()
    return TrainingResult(
        device.type,
        len(fitted.history),
        fitted.best_epoch,
        fitted.stop_reason,
        best.validation_loss,
        best.validation_accuracy,
        temperature,
        parameters,
        seconds,
        difference,
    )


def _normalisation(options: TrainingOptions, training: Split) -> tuple[list[float], list[float]]:
    if not options.pretrained:
        return mean_and_std(training)
    from components.classifier.pretrained import normalisation

    return normalisation(options.architecture, training.images.shape[3])


def _notes(dataset: Dataset) -> Iterator[str]:
    counts = dataset.info.counts["train"]
    fewest, most = min(counts, key=lambda c: counts[c]), max(counts, key=lambda c: counts[c])
    if counts[most] >= 10 * max(1, counts[fewest]):
        yield f"classes are uneven: {most!r} has {counts[most]} training pictures, {fewest!r} {counts[fewest]}; look at each class' recall"
    if sum(dataset.info.counts["validation"].values()) == 0:
        yield "no validation pictures: the training loss chooses the weights, and probabilities are not calibrated"


def _calibrate(trainer: Trainer, validation: Batches) -> tuple[float, str]:
    if len(validation) == 0:
        return 1.0, "not fitted: no validation pictures"
    return fit_temperature(*trainer.predict(validation))


def _identity(dataset: Dataset, options: TrainingOptions, device: torch.device) -> dict[str, Any]:
    return {"dataset": dataset.info.digest, "options": options.as_parameters(), "device": device.type, "code": code_version()}


def _config(
    dataset: Dataset, options: TrainingOptions, mean: list[float], std: list[float], temperature: float, facts: dict[str, Any]
) -> bundle.BundleConfig:
    height, width, channels = dataset.info.shape
    return bundle.BundleConfig(
        name=options.name,
        architecture=options.architecture,
        classes=dataset.info.classes,
        input=bundle.InputConfig(height=height, width=width, channels=channels, mean=mean, std=std),
        temperature=temperature,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset_digest=dataset.info.digest,
        parameters={**options.as_parameters(), **facts},
        code_version=code_version(),
    )


def _save_weights(network: nn.Module, directory: Path, options: TrainingOptions) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, directory / bundle.WEIGHTS, metadata={"format": "pt", "architecture": options.architecture})


def _save_training(directory: Path, fitted: Fitted, device: torch.device, seconds: float, calibration: dict[str, Any]) -> None:
    record = {
        "history": [asdict(epoch) for epoch in fitted.history],
        "best_epoch": fitted.best_epoch,
        "stop_reason": fitted.stop_reason,
        "seconds": seconds,
        "device": describe(device),
        **calibration,
        "versions": {name: version(name) for name in ("penstock", "torch", "torchvision", "onnx", "onnxruntime", "numpy")},
    }
    (directory / bundle.TRAINING).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", "utf-8")


@contextmanager
def _finished_or_absent(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` that takes its place when the block ends well, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    working = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield working
        working.chmod(0o755)
        for file in working.iterdir():
            file.chmod(0o644)  # safetensors makes private files; the next step may run as another user
        if path.exists():
            shutil.rmtree(path)
        working.rename(path)
    finally:
        shutil.rmtree(working, ignore_errors=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """Turn SIGTERM, which a stopped pod gets, into an exit that cleans up; Python would die on the spot."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
