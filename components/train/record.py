"""What is written down about a training: config.json and training.json."""

from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from components.bundle.config import BundleConfig, InputConfig
from components.bundle.dataset import DatasetInfo
from components.bundle.training import TrainingRecord
from components.settings.training import TrainingSettings
from components.train.code_version import code_version
from components.train.loop import Fitted

_VERSIONS_OF = ("penstock", "torch", "torchvision", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Preprocessing:
    """What the graph does beside the network; mean and standard deviation are per channel, of pixels / 255."""

    mean: list[float]
    std: list[float]
    temperature: float = 1.0


def config(info: DatasetInfo, options: TrainingSettings, inside: Preprocessing, facts: dict[str, Any]) -> BundleConfig:
    """Describe the model; `facts` are what options like `auto` came to, beside the options themselves."""
    height, width, channels = info.shape
    return BundleConfig(
        name=options.name,
        architecture=options.architecture,
        classes=info.classes,
        input=InputConfig(height=height, width=width, channels=channels, mean=inside.mean, std=inside.std),
        temperature=inside.temperature,
        trained_at=datetime.now(UTC).isoformat(timespec="seconds"),
        dataset_digest=info.digest,
        parameters={**options.as_parameters(), **facts},
        code_version=code_version(),
    )


def save_training(directory: Path, fitted: Fitted, facts: dict[str, Any]) -> None:
    """Write training.json: every epoch, the best one, why it stopped, `facts`, and the versions of the libraries."""
    TrainingRecord(
        history=fitted.history,
        best_epoch=fitted.best_epoch,
        stop_reason=fitted.stop_reason,
        versions={name: version(name) for name in _VERSIONS_OF},
        **facts,
    ).save(directory)
