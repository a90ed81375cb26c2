"""What a list of versions and the model card show of an evaluation.json, whatever release wrote it."""

import json
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from components.classifier.errors import DataError


def _none_if_unreadable(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    try:
        return validate(value)
    except ValidationError:
        return None


T = TypeVar("T")
Readable = Annotated[T | None, WrapValidator(_none_if_unreadable)]
"""A field that is null where it is absent or of another form."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, allow_inf_nan=False)


class HeadlineAccuracy(_Part):
    """The accuracy, with its 95% interval where there is one."""

    value: Readable[float] = None
    low: Readable[float] = None
    high: Readable[float] = None


class HeadlineCalibration(_Part):
    """The calibration error of the shipped probabilities."""

    ece_after: Readable[float] = None


class HeadlineClass(_Part):
    """One class; its figures are null where they are not defined."""

    name: str
    support: Readable[int] = None
    precision: Readable[float] = None
    recall: Readable[float] = None
    f1: Readable[float] = None


class HeadlineConfusion(_Part):
    """A share of the pictures of `label` was taken for `predicted`."""

    label: str
    predicted: str
    share: float


class Headline(_Part):
    """What a list of versions and the model card show of an evaluation.json of any release; what cannot be read is null."""

    n: Readable[int] = None
    source: Readable[str] = None
    accuracy: Readable[HeadlineAccuracy] = None
    balanced_accuracy: Readable[float] = None
    macro_f1: Readable[float] = None
    log_loss: Readable[float] = None
    calibration: Readable[HeadlineCalibration] = None
    per_class: Readable[list[Readable[HeadlineClass]]] = None
    largest_confusions: Readable[list[Readable[HeadlineConfusion]]] = None
    warnings: Readable[list[str]] = None

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """Read an evaluation.json; without one everything is null. Raises DataError for a file that is not JSON."""
        if path is None:
            return cls()
        try:
            values = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"{path} is not JSON ({error}); evaluate the model again") from error
        return cls.model_validate(values if isinstance(values, dict) else {})

    @property
    def figures(self) -> dict[str, float]:
        """The figures that are known: accuracy, balanced accuracy, macro F1, log loss, ECE."""
        known = {
            "accuracy": self.accuracy.value if self.accuracy else None,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "log_loss": self.log_loss,
            "ece": self.calibration.ece_after if self.calibration else None,
        }
        return {name: float(value) for name, value in known.items() if value is not None}
