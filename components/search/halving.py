"""Which trials go on to the next rung, and which one wins: by the validation split alone. Pure functions."""

import math
from collections.abc import Sequence

from components.bundle.trial import Trial, TrialResult
from components.classifier.errors import TrainingError


def ranked(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Return the trials that could be trained, best first: by validation accuracy, then by the lower loss, then by their numbers.

    Raises TrainingError, with the first trial's cause, where none of them could.
    """
    trained = [result for result in results if not result.error]
    if not trained:
        raise TrainingError(f"no trial could be trained; {results[0].label}: {results[0].error}")
    return sorted(trained, key=lambda it: (-(it.validation_accuracy or 0.0), it.validation_loss or 0.0, it.trial))


def survivors(results: Sequence[TrialResult], rungs: Sequence[int], reduction: int) -> list[Trial]:
    """Return the trials of the next rung, best first: one of `reduction`, rounded up, and only the best where all are trained to the end.

    `results` are those of one rung, `rungs` the epochs of all. Raises TrainingError where no trial could be trained.
    """
    rung = results[0].rung
    best = ranked(results)
    kept = 1 if results[0].until >= rungs[-1] else math.ceil(len(results) / reduction)
    return [Trial(trial=it.trial, settings=it.settings, rung=rung + 1, until=rungs[rung]) for it in best[:kept]]
