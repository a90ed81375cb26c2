"""training.json: how a model was trained, epoch by epoch, and what stopped it."""

from dataclasses import dataclass
from typing import ClassVar

from pydantic import ConfigDict

from components.bundle.files import TRAINING
from components.bundle.formats import JsonFile
from components.classifier.errors import IntegrityError, PenstockError


@dataclass(frozen=True)
class Epoch:
    """One line of the history; losses are mean cross-entropy, validation is None where that split is empty."""

    epoch: int
    train_loss: float
    validation_loss: float | None
    validation_accuracy: float | None
    learning_rate: float
    seconds: float

    def __str__(self) -> str:
        validation = (
            "no validation"
            if self.validation_loss is None
            else f"val loss {self.validation_loss:.4f}, val accuracy {self.validation_accuracy:.4f}"
        )
        return f"epoch {self.epoch}: train loss {self.train_loss:.4f}, {validation}, lr {self.learning_rate:.2e}, {self.seconds:.1f} s"


class TrainingRecord(JsonFile):
    """What training.json holds; further fields tell what the settings came to (device, augmentation, parameters and so on)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    FILE: ClassVar[str] = TRAINING
    ERROR: ClassVar[type[PenstockError]] = IntegrityError
    history: list[Epoch]
    best_epoch: int
    """Counted from 1, as the epochs are."""
    stop_reason: str
    versions: dict[str, str]
    """Of the libraries that trained and exported."""
