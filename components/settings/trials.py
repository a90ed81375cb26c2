"""Which trials the settings of a search mean, and how long each rung trains. Pure functions.

The rungs are those of successive halving (Jamieson and Talwalkar, AISTATS 2016): all trials train a little, the better ones
go on, and the best of those to the end.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from components.bundle.trial import Trial
from components.settings.search import Range, SearchSettings, Values, settings_of_trial
from components.settings.training import TrainingSettings

RUNGS = 3
"""How many rungs there are; Kubeflow's graph of steps is fixed when it is compiled."""
_DRAWS_PER_TRIAL = 1000
"""Draws after which a space of whole numbers is taken to have no more combinations."""


def plan_trials(search: SearchSettings, training: Mapping[str, Any], own: Mapping[str, Any]) -> list[Trial]:
    """Return the trials of the first rung, numbered from 1, each with settings as its training reads them.

    `training` and `own` are as `settings_of_trial` takes them. Every value of the space is read once by itself, so that a bad one is
    refused though no trial may have drawn it. Raises UsageError.
    """
    for name, values in search.space.items():
        for value in (values.min, values.max) if isinstance(values, Range) else values:
            settings_of_trial(training, own, {name: value})
    epochs = int(settings_of_trial(training, own, {}).epochs)
    rungs = rung_epochs(epochs, search.reduction)
    trials: list[Trial] = []
    for chosen in combinations(search.space, search.trials, search.trials_seed, _whole(search.space)):
        read = settings_of_trial(training, own, chosen)
        trials.append(Trial(trial=len(trials) + 1, settings={name: getattr(read, name) for name in chosen}, rung=1, until=rungs[0]))
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
