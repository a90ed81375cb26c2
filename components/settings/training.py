"""What a user may set for training, checked before anything costs time."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from components.settings.base import Settings

DEVICES = ("auto", "cpu", "cuda", "mps", "gpu")


class TrainingSettings(Settings):
    """How a network is trained; raises UsageError naming the value and the bounds."""

    group: ClassVar[str] = "training"
    name: str = "model"
    """The model's name: small letters, digits and hyphens."""
    architecture: str = "small_cnn"
    """small_cnn, or a torchvision classifier such as resnet18."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights, which must be in TORCH_HOME."""
    epochs: int = Field(6, ge=1, le=10_000)
    """The most passes over the training split; early stopping may end sooner."""
    batch_size: int = Field(128, ge=2, le=65_536)
    """Pictures per training step."""
    learning_rate: float = Field(0.003, ge=1e-6, le=1)
    """The highest learning rate of the one-cycle schedule."""
    weight_decay: float = Field(0.01, ge=0, le=1)
    """How strongly weights are drawn to zero (AdamW)."""
    label_smoothing: float = Field(0.0, ge=0, le=0.5)
    """Part of each label's probability that is spread over all classes."""
    patience: int = Field(8, ge=1, le=10_000)
    """Epochs without a lower validation loss after which training stops."""
    augmentation: Literal["auto", "none", "light", "affine", "photo"] = "auto"
    """auto, none, light, affine or photo."""
    device: str = "auto"
    """auto, cpu, cuda, mps, or gpu for whichever accelerator is there; a missing device is an error."""
    gpus: str = "0"
    """GPUs that a step is given, as text; 0 for none. A training takes one at most, and is refused on a CPU then."""
    seed: int = Field(0, ge=0, le=2**31 - 1)
    """Decides initial weights, the order of pictures and augmentation."""
    checkpoints: str = ""
    """Where checkpoints lie: a directory or store address. Empty: PENSTOCK_CHECKPOINTS, or checkpoints in the model store."""
    checkpoint_minutes: float = Field(5, ge=0, le=1440)
    """Minutes between checkpoints, also within an epoch; 0: only after epochs. On a disk each epoch gets one."""

    @model_validator(mode="after")
    def _known(self) -> "TrainingSettings":
        if self.device.split(":")[0] not in DEVICES:
            raise ValueError(f"unknown device {self.device!r}; use {', '.join(DEVICES)}")
        if self.gpus not in {"", "0", "1"}:
            raise ValueError(f"gpus must be 0 or 1, not {self.gpus!r}: a training uses one device")
        if not self.name:
            raise ValueError("name is empty; give the model a name")
        return self

    def as_parameters(self) -> dict[str, Any]:
        """Return what shapes the result, for config.json and for the key of a checkpoint."""
        return self.model_dump(exclude={"checkpoints", "checkpoint_minutes"})
