"""What a user may set for training, checked before anything costs time."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from components.classifier.errors import UsageError

AUGMENTATIONS = ("auto", "none", "light", "affine", "photo")
DEVICES = ("auto", "cpu", "cuda", "mps", "gpu")

_BOUNDS: dict[str, tuple[float, float]] = {
    "epochs": (1, 10_000),
    "batch_size": (2, 65_536),
    "learning_rate": (1e-6, 1.0),
    "weight_decay": (0.0, 1.0),
    "label_smoothing": (0.0, 0.5),
    "patience": (1, 10_000),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True)
class TrainingSettings:
    """All settings of a training, with their bounds; raises UsageError naming the value and the bounds."""

    name: str = "model"
    """The model's name in the registry."""
    architecture: str = "small_cnn"
    pretrained: bool = False
    """Start from torchvision's ImageNet weights."""
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 0.003
    """The highest of the schedule."""
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    patience: int = 8
    """Epochs without a lower validation loss after which training stops."""
    augmentation: str = "auto"
    device: str = "auto"
    gpus: str = "0"
    """How many GPUs the step was given: 0 or 1. With 1, training on a CPU is refused."""
    seed: int = 0
    checkpoints: str = ""
    """A directory or store address that outlives this process; empty: beside the model."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, bool):
                raise UsageError(f"{field.name} must be true or false, not {value!r}")
            if field.type in (int, float):
                object.__setattr__(self, field.name, _number(field.name, value, field.type is int))
        _one_of("augmentation", self.augmentation, AUGMENTATIONS)
        _one_of("device", self.device.split(":")[0], DEVICES)
        if self.gpus not in {"", "0", "1"}:
            raise UsageError(f"gpus must be 0 or 1, not {self.gpus!r}: a training uses one device")
        if not self.name:
            raise UsageError("name is empty; give the model a name")

    def as_parameters(self) -> dict[str, Any]:
        """What shapes the result, for config.json and for the key of a checkpoint."""
        parameters = asdict(self)
        del parameters["checkpoints"]
        return parameters


def _number(name: str, value: Any, whole: bool) -> float:
    low, high = _BOUNDS[name]
    kind = "a whole number" if whole else "a number"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or (whole and value != int(value)):
        raise UsageError(f"{name} must be {kind} from {low:g} to {high:g}, not {value!r}")
    if not low <= value <= high:
        raise UsageError(f"{name} must be from {low:g} to {high:g}, not {value!r}")
    return int(value) if whole else float(value)


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"unknown {name} {value!r}; use {', '.join(allowed)}")
