"""What is recorded about a training: config.json, training.json and the version of the code."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from components.bundle.config import BundleConfig, FamiliarityConfig, InputConfig, code_version
from components.bundle.dataset import DatasetInfo
from components.bundle.training import LearningCurves, TrainingRecord
from components.report.html import render_training
from components.settings.training import TrainingSettings
from components.storage.files import write_file
from components.train.loop import Fitted

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
