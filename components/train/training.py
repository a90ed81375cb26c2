"""Train one model version: `train(dataset, model, options)` writes model.onnx, model.safetensors, config.json and training.json."""

import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from components.bundle import files
from components.bundle.config import BundleConfig, FamiliarityConfig, InputConfig, code_version, facts_of
from components.bundle.dataset import Dataset, DatasetInfo
from components.bundle.training import LearningCurves, TrainingRecord
from components.classifier.cpu import available_cpus
from components.classifier.device import choose_device, describe
from components.classifier.errors import DataError, DiskError, StoreError
from components.classifier.network import ServingGraph, check_size
from components.classifier.progress import TrainingProgress
from components.classifier.stopping import stoppable
from components.integrations import steps
from components.integrations.observe import observed, run_id
from components.report.html import render_training
from components.settings.resources import Resources
from components.settings.training import TrainingSettings
from components.storage import open_store
from components.storage.files import atomic_directory, write_file
from components.train import augmentation, nodes
from components.train.batches import Batches, Normalise, balanced_weights
from components.train.checkpoint import Checkpoints, checkpoint_address
from components.train.distributed import Group, launch
from components.train.export import check_export, export_onnx
from components.train.familiarity import FamiliarityFit
from components.train.loop import Fitted, Trainer
from components.train.start import Start
from components.train.temperature import fit_temperature

_VERSIONS_OF = ("penstock", "torch", "torchvision", "onnx", "numpy")


@dataclass(frozen=True)
class Preprocessing:
    """What the serving graph applies around the network; mean and standard deviation are per channel, of pixels / 255."""

    mean: list[float]
    std: list[float]
    temperature: float = 1.0
    calibration: str = ""
    familiarity: FamiliarityConfig | None = None


def config(info: DatasetInfo, options: TrainingSettings, inside: Preprocessing, facts: dict[str, Any]) -> BundleConfig:
    """Return the content of config.json; `facts` are added to the options: what `auto` stood for, the device, the epochs run."""
    return BundleConfig(
        name=options.name,
        architecture=options.architecture,
        classes=info.classes,
        input=InputConfig(**asdict(info.spec), mean=inside.mean, std=inside.std),
        temperature=inside.temperature,
        calibration=inside.calibration,
        familiarity=inside.familiarity,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset_digest=info.digest,
        parameters={**options.as_parameters(), **facts},
        code_version=code_version(),
    )


def save_training(directory: Path, fitted: Fitted, facts: dict[str, Any]) -> None:
    """Write training.json: every epoch, the best one, why training stopped, `facts`, and the versions of the libraries."""
    TrainingRecord(
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        stop_reason=fitted.stop_reason,
        advice=fitted.advice,
        versions={name: version(name) for name in _VERSIONS_OF}
        | {"onnxruntime": onnxruntime.__version__},  # its distribution is onnxruntime-gpu in the pipeline's image
        **facts,
    ).save(directory)


def write_curves(name: str, model: str | Path, page: str | Path) -> None:
    """Write the learning curves in a model's training.json as a page."""
    curves = LearningCurves.of(Path(model))
    assert curves is not None
    write_file(Path(page), [render_training(name, curves).encode()])


@dataclass(frozen=True)
class TrainingResult:
    """The result of a training, for the run's metrics; validation figures are None where that split is empty."""

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
        """Return the figures that Kubeflow shows, without those that are None."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@observed(steps.train)
def train(dataset_path: str | Path, model_path: str | Path, options: TrainingSettings, store: str = "") -> TrainingResult:
    """Train, calibrate, export and check one model; the directory `model_path` appears when it is complete.

    A training that was interrupted continues when it is started again with the same inputs, see `checkpoint`; `store` is the model
    store, which takes the checkpoints where no other place is named.
    Raises UsageError for an unknown architecture or one that cannot take the pictures, DataError for a dataset that cannot be
    trained on, TrainingError for a missing device, a loss that diverged, or an export that differs from torch, and StoreError where
    the disk or the store fails.
    """
    if options.processes == 1:
        result = train_together(dataset_path, model_path, options, store)
    else:
        choose_device(options.device, options.gpus)  # so that missing GPUs are said before processes start
        result = launch(options.processes, train_together, dataset_path, model_path, options, store)
    assert result is not None  # the first process has it
    return result


@observed(steps.train)
def train_on_nodes(
    dataset_path: str | Path, model_path: str | Path, options: TrainingSettings, store: str, asked: Resources
) -> TrainingResult:
    """Do what `train` does on several nodes, by a TrainJob of Kubeflow Trainer; the model comes back through the store.

    Raises UsageError for a dataset that the store does not keep, and batches too small for the nodes, TrainingError where the job
    cannot be submitted or fails, and StoreError.
    """
    from components.train.train_job import run_job  # its libraries are an extra

    place = open_store(store)
    work = nodes.work_of(Dataset.load(dataset_path).info, options, place, run_id())
    request = nodes.job_request(work, asked, os.environ.get(nodes.IMAGE_VARIABLE, ""))
    if not nodes.has_result(place, work.result):  # else this step was lost after its job had ended
        with stoppable():
            run_job(request)
    return TypeAdapter(TrainingResult).validate_json(nodes.take_result(place, work.result, Path(model_path)))


def train_together(dataset_path: str | Path, model_path: str | Path, options: TrainingSettings, store: str = "") -> TrainingResult | None:
    """Do in one process of a group, or alone, what `train` does; None in all processes but the first, which alone prints and writes."""
    group, device = Group.join(choose_device(options.device, options.gpus))
    use_all_cpus()
    dataset, model_path = Dataset.load(dataset_path), Path(model_path)
    start = Start(options, store)
    first = group.rank == 0
    checkpoints = checkpoints_of(dataset, model_path, options, store, device, group, start)
    try:
        with stoppable() as stop, atomic_directory(model_path, replace=True) if first else nullcontext() as directory:
            show = TrainingProgress(silent=not first)
            run = TrainingRun(dataset, options, device, show, group, start)
            fitted = run.trainer.fit(checkpoints, show, stop)
            try:
                result = None if directory is None else run.write(fitted, directory)
            finally:
                if stop.requested:  # torch's exporter takes the end of the process for a failure of its own
                    stop.leave()
    except StoreError as error:
        if not checkpoints.saved:
            raise
        again = f"then start the same training again, it goes on after {checkpoints.saved} (checkpoint in {checkpoints.place})"
        raise type(error)(f"{error}; {again}") from error
    checkpoints.clear()
    return result


def use_all_cpus() -> None:
    """Let torch use as many threads as this process may have CPUs, where OMP_NUM_THREADS does not say otherwise."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cpus())


def checkpoints_of(
    dataset: Dataset, model_path: Path, options: TrainingSettings, store: str, device: torch.device, group: Group, start: Start
) -> Checkpoints:
    """Return the checkpoints of a training, which all that have the same inputs share."""
    identity = {"dataset": dataset.info.digest, "options": options.as_parameters(), "device": device.type, "code": code_version()}
    identity |= start.identity()
    if group.size > 1:
        identity["processes"] = str(group.size)
    return Checkpoints(checkpoint_address(options, store), model_path, identity, options.checkpoint_minutes, writes=group.rank == 0)


class TrainingRun:
    """One network, the dataset that it is fitted to, and the trainer that does it; `write` makes a model of what was fitted."""

    def __init__(
        self, dataset: Dataset, options: TrainingSettings, device: torch.device, show: TrainingProgress, group: Group, start: Start
    ) -> None:
        self._started = time.perf_counter()
        self._info, self._options, self._device, self._show = dataset.info, options, device, show
        self._training, self._validation = dataset.split("train"), dataset.split("validation")
        if len(self._training) < 2 * group.size:
            raise DataError(
                f"the training split holds {len(self._training)} pictures, at least {2 * group.size} are needed; give ingest more data"
            )
        torch.manual_seed(options.seed)
        classes = len(self._info.classes)
        self._network, told = start.network(self._info.spec, classes)
        self._parameters = sum(p.numel() for p in self._network.parameters())
        check_size(options.architecture, self._parameters)
        self._mean, self._std = start.normalisation(self._training)
        self._origin = start.origin()
        self._augmentation, augment = augmentation.resolve(options.augmentation, self._info.spec)
        self._batches = Batches(self._validation, device)
        self._normalise = Normalise(self._mean, self._std, device)
        balanced = options.class_weights == "balanced"
        weights = balanced_weights(np.array(self._training.labels, dtype=np.int64), classes) if balanced else None
        training = Batches(self._training, device, self._training.weights(self._info.weight), group)
        self.trainer = Trainer(self._network, self._normalise, training, self._batches, augment, options, device, weights, group)
        self._hardware = f"{group.size} x {describe(device)}" if group.size > 1 else describe(device)
        show.line(
            f"training {options.architecture} ({self._parameters:,} parameters) on {self._hardware}: {len(self._training)} pictures, "
            f"{self.trainer.steps} steps per epoch, augmentation {self._augmentation}"
        )
        for note in (*told, *_notes(self._info, options)):
            show.line(f"note: {note}")

    def write(self, fitted: Fitted, directory: Path) -> TrainingResult:
        """Calibrate, export and check the fitted network, and record how it was made."""
        familiarity, about = FamiliarityFit(self._network, self._normalise, self._device).fit(
            self._training, self._validation, self._options.seed
        )
        inside = replace(self._calibrate(), familiarity=about)
        graph = ServingGraph(self._network, inside.mean, inside.std, inside.temperature, familiarity)
        facts = {
            "device_used": self._hardware,
            "augmentation_used": self._augmentation,
            "epochs_run": len(fitted.history),
            "parameter_count": self._parameters,
            **({"weight_column": self._info.weight} if self._info.weight else {}),
            **self._origin,
        }
        described = config(self._info, self._options, inside, facts)
        described.save(directory)
        export_onnx(graph, self._info.spec, directory / files.ONNX, facts_of(described))
        difference = check_export(graph, directory, (self._validation if len(self._validation) else self._training).images)
        save_weights(self._network, directory, self._options.architecture)
        seconds = time.perf_counter() - self._started
        more = {"temperature": inside.temperature, "calibration": inside.calibration, "export_difference": difference, "seconds": seconds}
        save_training(directory, fitted, {**facts, **more})
        self._show.line(
            f"done on {self._hardware}: {fitted.stop_reason}, best epoch {fitted.best_epoch}, "
            f"temperature {inside.temperature:.3f} ({inside.calibration}), model.onnx within {difference:.1e} of torch, {seconds:.1f} s"
        )
        if fitted.advice:
            self._show.line(f"note: {fitted.advice}")
        best = fitted.history[fitted.best_epoch - 1]
        return TrainingResult(
            device=self._device.type,
            epochs=len(fitted.history),
            best_epoch=fitted.best_epoch,
            stop_reason=fitted.stop_reason,
            validation_loss=best.validation_loss,
            validation_accuracy=best.validation_accuracy,
            temperature=inside.temperature,
            parameters=self._parameters,
            seconds=seconds,
            export_difference=difference,
        )

    def _calibrate(self) -> Preprocessing:
        if len(self._validation) == 0:
            return Preprocessing(self._mean, self._std, calibration="not fitted: no validation pictures")
        return Preprocessing(self._mean, self._std, *fit_temperature(*self.trainer.predict(self._batches)))


def _notes(info: DatasetInfo, options: TrainingSettings) -> Iterator[str]:
    counts = info.counts["train"]
    fewest, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if counts[most] >= 10 * counts[fewest]:
        remedy = "look at the recall of each" if options.class_weights == "balanced" else "class_weights=balanced lets them count equally"
        yield f"classes are uneven: {most!r} has {counts[most]} training pictures, {fewest!r} {counts[fewest]}; {remedy}"
    if sum(info.counts["validation"].values()) == 0:
        yield "no validation pictures: the training loss chooses the weights, nothing is calibrated, and no picture is called unfamiliar"


def save_weights(network: nn.Module, directory: Path, architecture: str) -> None:
    """Write model.safetensors into a directory. Raises DiskError."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # One entry: safetensors writes several in an order that changes from run to run, and equal weights should be equal files.
    try:
        save_file(weights, directory / files.WEIGHTS, metadata={"architecture": architecture})
    except SafetensorError as error:  # for the system's errors too, of which only the text is left
        raise DiskError(f"cannot write {files.WEIGHTS} to {directory.parent}: {error}; free space or choose another place") from error
