"""training.json: how a model was trained, epoch by epoch, and what stopped it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

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


class LearningCurves(BaseModel):
    """What a report shows of a training; in evaluation.json, so that the report can be drawn from it alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    history: Annotated[list[Epoch], Field(min_length=1)]
    best_epoch: Annotated[int, Field(ge=1)]
    stop_reason: str
    advice: str = ""

    @classmethod
    def of(cls, model: Path) -> Self | None:
        """Read them from the training.json of a model's directory; None where it has no epochs, as a model from elsewhere.

        Raises IntegrityError for a damaged file.
        """
        if not (model / TRAINING).is_file() or b'"history"' not in (model / TRAINING).read_bytes():
            return None
        record = TrainingRecord.load(model)
        return cls(history=record.history, best_epoch=record.best_epoch, stop_reason=record.stop_reason, advice=record.advice)


class TrainingRecord(JsonFile):
    """What training.json holds; further fields tell what the settings came to (device, augmentation, parameters and so on)."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False)
    FILE: ClassVar[str] = TRAINING
    ERROR: ClassVar[type[PenstockError]] = IntegrityError
    history: list[Epoch]
    best_epoch: int
    """Counted from 1, as the epochs are."""
    stop_reason: str
    advice: str = ""
    """What would help next time, such as more epochs; "" where nothing asks for it."""
    versions: dict[str, str]
    """Of the libraries that trained and exported."""
