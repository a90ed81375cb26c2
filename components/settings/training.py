"""What a user may set for training, checked before anything costs time."""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from components.settings.base import Settings

DEVICES = ("auto", "cpu", "cuda", "mps", "gpu")
MAX_EPOCHS, MAX_GPUS = 10_000, 16
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class TrainingSettings(Settings):
    """How a network is trained; raises UsageError naming the value and the bounds."""

    group: ClassVar[str] = "training"
    name: str = "model"
    """The model's name: small letters, digits and hyphens."""
    architecture: str = "small_cnn"
    """small_cnn, compact_cnn, a classifier of torchvision such as resnet18, timm/NAME, or your own as package.module:name."""
    pretrained: bool = False
    """Start from the weights that torchvision or timm has for the architecture, from their cache or by download."""
    weights: str = ""
    """Start from these weights of the store: their name or the start of their SHA-256, as `penstock weights list` says."""
    body_rate: float = Field(0.1, ge=1e-6, le=1)
    """Learning rate of all layers but the last, relative to that of the last, where training starts from pretrained weights."""
    frozen: float = Field(0.0, ge=0, le=1)
    """Share of the first cycle in which only the last layer learns; 1: all the time. It needs pretrained weights."""
    normalisation: Literal["auto", "dataset", "model"] = "auto"
    """By whose mean and deviation: the dataset's, or the model's (its weights', or architecture's). auto: model with pretrained weights."""
    epochs: int | Literal["auto"] = "auto"
    """auto (6, and 12 more where the set needs them), or the most passes over the training split, from 1 to 10000."""
    time_budget: str = ""
    """How long the training may take in place of epochs, such as 90s, 10m or 2h."""
    batch_size: int = Field(128, ge=2, le=65_536)
    """Pictures per training step."""
    learning_rate: float = Field(0.003, ge=1e-6, le=1)
    """The highest learning rate of the one-cycle schedule."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """adamw, adam or sgd (with Nesterov momentum; it wants a learning rate about ten times higher)."""
    momentum: float = Field(0.9, ge=0, lt=1)
    """How much of the steps before goes into the next: momentum of sgd, the first beta of adamw and adam."""
    scheduler: Literal["one_cycle", "cosine", "step", "constant"] = "one_cycle"
    """How the learning rate changes: one_cycle (up, then down), cosine (down), step (a tenth at half and three quarters) or constant."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    """How strongly weights are drawn to zero."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Fraction that every dropout layer of the network drops. Empty: the network's own, 0.1 before the last layer of ours."""
    width: float = Field(1.0, ge=0.25, le=4)
    """Channels of small_cnn or compact_cnn relative to its own: 2 is twice as many, four times the work."""
    label_smoothing: float = Field(0.0, ge=0, le=0.5)
    """Part of each label's probability that is spread over all classes."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: in the loss each class counts equally, however few pictures it has; none: each picture does."""
    patience: int = Field(8, ge=1, le=10_000)
    """Epochs with a clearly higher validation loss than the best one after which training stops."""
    augmentation: Literal["auto", "none", "light", "affine", "photo"] = "auto"
    """auto, none, light, affine or photo."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 for one of several, mps, or gpu for whichever accelerator is there; a missing device is an error."""
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """How a step computes; weights stay float32. auto: 16 bits on GPUs; bfloat16: on CPUs with Intel's AMX too; float32: nowhere."""
    sync_batch_norm: Literal["auto", "on", "off"] = "auto"
    """Whether several processes share the statistics of batch normalisation; auto: where each has fewer than 32 pictures of a batch."""
    gpus: str = "0"
    """GPUs that a step is given, as text; 0 for none. Training has one process per GPU, and is refused where there are fewer."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Decides initial weights, the order of pictures and augmentation."""
    checkpoints: str = ""
    """Where checkpoints lie: a directory or store address. Empty: PENSTOCK_CHECKPOINTS, or checkpoints in the model store."""
    checkpoint_minutes: float = Field(5, ge=0, le=1440)
    """Minutes between checkpoints, also within an epoch; 0: only after epochs. On a disk each epoch gets one."""

    @field_validator("epochs", mode="before")
    @classmethod
    def _read_epochs(cls, value: Any) -> Any:
        """Read the text of a form."""
        if value == "auto":
            return value
        number = float(value) if isinstance(value, str) and value.isdigit() else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not 1 <= number <= MAX_EPOCHS or number != int(number):
            raise ValueError(f"epochs must be auto or a whole number from 1 to {MAX_EPOCHS}, not {value!r}")
        return int(number)

    @property
    def processes(self) -> int:
        """How many processes train together: one per GPU, and one on a CPU."""
        return max(1, int(self.gpus or 0))

    @classmethod
    def of_run(cls, given: Mapping[str, Any]) -> Self:
        """Read those of a training run from its parameters: the fields of the form, and the mapping `training`; raises as `read` does."""
        return cls.read(given["training"], **{name: given[name] for name in cls.model_fields if name in given})

    @property
    def fine_tunes(self) -> bool:
        """Whether training starts from pretrained weights."""
        return self.pretrained or bool(self.weights)

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds, None where there is none."""
        found = _DURATION.fullmatch(self.time_budget)
        return float(found[1]) * _SECONDS[found[2]] if found else None

    @model_validator(mode="after")
    def _known(self) -> "TrainingSettings":
        if self.device not in DEVICES and not re.fullmatch(r"cuda:\d+", self.device):
            raise ValueError(f"unknown device {self.device!r}; use {', '.join(DEVICES)}, or one GPU of several as cuda:0")
        if self.gpus and not (self.gpus.isdecimal() and int(self.gpus) <= MAX_GPUS):
            raise ValueError(
                f"gpus must be a whole number from 0 to {MAX_GPUS}, not {self.gpus!r}: those of one node; for more set nodes in resources"
            )
        if self.batch_size < 2 * self.processes:
            raise ValueError(f"batch_size={self.batch_size} is too small for gpus={self.gpus}: each GPU needs two pictures of every batch")
        if self.processes > 1 and ":" in self.device:
            raise ValueError(f"device={self.device} is one device; with gpus={self.gpus} use device=cuda or auto")
        if self.time_budget and not self.budget_seconds:
            raise ValueError(f"time_budget {self.time_budget!r} is not a duration; use one such as 90s, 10m or 2h")
        if self.time_budget and self.epochs != "auto":
            raise ValueError(f"epochs={self.epochs} and time_budget={self.time_budget} are two ways to say how long; set one of them")
        if self.pretrained and self.weights:
            raise ValueError(f"pretrained=true and weights={self.weights} are two starting points; set one of them")
        if (self.frozen or self.body_rate != 0.1) and not self.fine_tunes:
            raise ValueError("frozen and body_rate are for pretrained weights; set weights or pretrained=true, or leave them")
        if not self.name:
            raise ValueError("name is empty; give the model a name")
        return self

    def as_parameters(self) -> dict[str, Any]:
        """Return what shapes the result, for config.json and for the key of a checkpoint."""
        return self.model_dump(exclude={"checkpoints", "checkpoint_minutes"})
