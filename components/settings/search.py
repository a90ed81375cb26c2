"""What a user may set for a search over training settings, checked before anything costs time."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from components.classifier.errors import UsageError, near
from components.settings.base import Settings
from components.settings.training import TrainingSettings

MAX_TRIALS = 64
AUTO_EPOCHS = 12
"""Epochs of the last rung where `epochs` is auto: rungs need a number."""
_FIXED = {
    "name": "all trials are of one model",
    "epochs": "the rungs decide how long a trial trains; set training.epochs, what the last rung has",
    "time_budget": "trials are compared after equal numbers of epochs; set training.epochs",
    "device": "all trials train on one kind of device",
    "gpus": "all trials have as many GPUs",
    "seed": "the better seed by validation is only luck; set training.seed for all trials",
    "checkpoints": "it does not change the result",
    "checkpoint_minutes": "it does not change the result",
}
"""Settings of training that a search cannot try, and why."""


class Range(Settings):
    """Numbers from which a trial draws one, between two bounds that are included."""

    group: ClassVar[str] = "range"
    min: float
    max: float
    scale: Literal["linear", "log"] = "linear"
    """log: each power of ten is as likely as any other."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min >= self.max:
            raise ValueError(f"min {self.min:g} is not below max {self.max:g}")
        if self.scale == "log" and self.min <= 0:
            raise ValueError(f"min {self.min:g} is not above 0, which scale log needs")
        return self


Values = list[Any] | Range
"""What a trial may take for one setting: one of a list, or a number of a range."""


class SearchSettings(Settings):
    """Which trainings a search tries, and how many of them go on; raises UsageError naming the value and the bounds."""

    group: ClassVar[str] = "search"
    space: dict[str, Values] = Field({"learning_rate": [0.001, 0.003, 0.01, 0.03]})
    """Values of each setting of training that is tried: a list, or {"min": 0.001, "max": 0.1, "scale": "log"}. May stand beside trials."""
    trials: int = Field(8, ge=1, le=MAX_TRIALS)
    """Most combinations to try: all where the space has no more (a grid), otherwise this many drawn at random."""
    reduction: int = Field(2, ge=1, le=8)
    """A rung passes 1/reduction of its trials on to the next, with reduction times as many epochs; 1: all train to the end at once."""
    trials_seed: int = Field(0, ge=0, le=2**31 - 1)
    """Decides which combinations are drawn."""

    @classmethod
    def read(cls, values: Mapping[str, Any], **own: Any) -> Self:
        """Read the mapping of a run, in which settings of training may stand beside the search's own.

        Raises UsageError for unknown names, saying which is near, and for values out of bounds.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"search takes a mapping of settings, not {values!r}")
        given = {name: value for name, value in values.items() if name in cls.model_fields}
        beside = {name: value for name, value in values.items() if name not in given}
        if beside and "space" in given:
            raise UsageError(f"search has {next(iter(beside))} in space and beside it; write all names in one of the two places")
        return super().read({**given, **({"space": beside} if beside else {})}, **own)

    @field_validator("space", mode="before")
    @classmethod
    def _read_space(cls, space: Any) -> dict[str, Values]:
        if not isinstance(space, Mapping) or not space:
            raise ValueError('space must name settings of training to try, such as {"learning_rate": [0.001, 0.01]}')
        return {name: _values(name, given) for name, given in space.items()}


def _values(name: str, given: Any) -> Values:
    if name not in TrainingSettings.model_fields:
        known = [known for known in TrainingSettings.model_fields if known not in _FIXED]
        raise ValueError(f"search cannot try {name!r}{near(name, known)}, which is not a setting of training; it tries {', '.join(known)}")
    if name in _FIXED:
        raise ValueError(f"search cannot try {name}: {_FIXED[name]}")
    if isinstance(given, Range):
        return given
    if isinstance(given, Mapping):
        try:
            return Range.read({key: float(value) if isinstance(value, int) else value for key, value in given.items()})
        except (UsageError, ValidationError) as error:
            raise ValueError(f"{name}: {error}") from error
    if not isinstance(given, list) or not given:
        raise ValueError(f'{name} must be a list of values such as [0.001, 0.01], or {{"min": 0.001, "max": 0.1}}, not {given!r}')
    return given


def settings_of_trial(training: Mapping[str, Any], own: Mapping[str, Any], chosen: Mapping[str, Any]) -> TrainingSettings:
    """Return what a trial trains with: the run's settings, with those that it tries in their place, and a number of epochs.

    `training` is the mapping of a run, `own` the settings of training that are run parameters of their own. Raises UsageError as
    TrainingSettings does, and for a time budget.
    """
    fields = {name: value for name, value in own.items() if name in TrainingSettings.model_fields}
    given = TrainingSettings.read(training, **fields)
    if given.time_budget:
        raise UsageError(f"time_budget={given.time_budget} cannot be searched with: {_FIXED['time_budget']}")
    epochs = AUTO_EPOCHS if given.epochs == "auto" else given.epochs
    return TrainingSettings(**{**given.model_dump(), "epochs": epochs, **chosen})
