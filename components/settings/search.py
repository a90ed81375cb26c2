"""What a user may set for a search over training settings, checked before anything costs time, and which trials these settings mean.

The rungs are those of successive halving (Jamieson and Talwalkar, AISTATS 2016): all trials train a little, the better ones
go on, and the best of those to the end.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from components.bundle.search import Trial
from components.classifier.errors import UsageError, near
from components.settings.base import Settings
from components.settings.training import TrainingSettings

MAX_TRIALS = 64
AUTO_EPOCHS = 12
"""Epochs of the last rung where `epochs` is auto: rungs need a number."""
RUNGS = 3
"""How many rungs there are; Kubeflow's graph of steps is fixed when it is compiled."""
_DRAWS_PER_TRIAL = 1000
"""Draws after which a space of whole numbers is taken to have no more combinations."""
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


def plan_trials(search: SearchSettings, training: Mapping[str, Any], own: Mapping[str, Any]) -> list[Trial]:
    """Return the trials of the first rung, numbered from 1, each with settings as its training reads them.

    `training` and `own` are as `settings_of_trial` takes them. Every value of the space is read once, beside the first ones of the other
    settings, so that a bad one is refused though no trial may have drawn it. Raises UsageError.
    """
    values = {name: [given.min, given.max] if isinstance(given, Range) else given for name, given in search.space.items()}
    for name in values:
        for value in values[name]:
            settings_of_trial(training, own, {**{other: listed[0] for other, listed in values.items()}, name: value})
    epochs = int(settings_of_trial(training, own, {}).epochs)
    rungs = rung_epochs(epochs, search.reduction)
    trials: list[Trial] = []
    for chosen in combinations(search.space, search.trials, search.trials_seed, _whole(search.space)):
        read = settings_of_trial(training, own, chosen)
        settings = {name: getattr(read, name) for name in chosen}
        if all(settings != trial.settings for trial in trials):  # 1 and 1.0 are one value
            trials.append(Trial(trial=len(trials) + 1, settings=settings, rung=1, until=rungs[0]))
    return trials


def rung_epochs(epochs: int, reduction: int) -> list[int]:
    """Return after how many epochs each rung compares its trials: the last one after `epochs`, each before it after 1/`reduction`."""
    return [math.ceil(epochs / reduction**later) for later in reversed(range(RUNGS))]


def combinations(space: Mapping[str, Values], most: int, seed: int, whole: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """Yield at most `most` different combinations: the whole grid where it has no more, otherwise random ones.

    Values of a list are equally likely, numbers of a range by its scale. `whole` names settings that are whole numbers. The same
    arguments give the same combinations.
    """
    lists = [values for values in space.values() if isinstance(values, list)]
    if len(lists) == len(space) and math.prod(len(values) for values in lists) <= most:
        yield from _different(dict(zip(space, values, strict=True)) for values in itertools.product(*lists))
        return
    draw = random.Random(seed)
    drawn = ({name: _draw(values, draw, name in whole) for name, values in space.items()} for _ in range(_DRAWS_PER_TRIAL * most))
    yield from itertools.islice(_different(drawn), most)


def _different(found: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen: set[str] = set()
    for one in found:
        if repr(one) not in seen:
            seen.add(repr(one))
            yield one


def _draw(values: Values, draw: random.Random, whole: bool) -> Any:
    if not isinstance(values, Range):
        return draw.choice(values)
    if values.scale == "log":
        number = math.exp(draw.uniform(math.log(values.min), math.log(values.max)))
    else:
        number = draw.uniform(values.min, values.max)
    if whole:
        return min(max(round(number), math.ceil(values.min)), math.floor(values.max))
    return min(max(float(f"{number:.3g}"), values.min), values.max)


def _whole(space: Mapping[str, Values]) -> frozenset[str]:
    return frozenset(name for name in space if TrainingSettings.model_fields[name].annotation is int)
