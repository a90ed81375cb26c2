"""How long a training lasts: the rule of `epochs: auto`, and what is said when more would have helped. Pure functions.

`auto` trains 6 epochs in one cycle of the learning rate, and then 12 more in a second cycle if surely more than 1% of pictures are still
misclassified: the lower end of the 95% interval of the validation error is above it, so that two mistakes of 180 do not count. So it
keeps the weights of 6 epochs unless others are better on validation, and takes at most three times as long; docs/training.md has what
was measured.
"""

from collections.abc import Sequence

from components.bundle.training import Epoch
from components.classifier.intervals import proportion_interval
from components.settings.training import MAX_EPOCHS

FIRST_EPOCHS = 6
MORE_EPOCHS = 12
GOOD_ERROR = 0.01
"""Validation error below which three times as many epochs gained at most 0.5 points on the sets that were measured, above it 3 or more."""
NEAR_CHANCE = 0.05
"""Less than this part of the way from chance to no mistake counts as nothing learned: 52.5% of two classes."""


def next_cycle(history: Sequence[Epoch], best_epoch: int, pictures: int) -> int:
    """Return how many epochs `auto` trains next: 6, then 12 where the best epoch's error asks for them, then 0.

    `pictures` is the number of validation pictures. Without any, nothing can ask for more, so that it is 6.
    """
    if not history:
        return FIRST_EPOCHS
    return MORE_EPOCHS if len(history) == FIRST_EPOCHS and _many_wrong(history, best_epoch, pictures) else 0


def advice(history: Sequence[Epoch], best_epoch: int, pictures: int, classes: int, stopped_early: bool, time_budget: str = "") -> str:
    """Return what would help next time, "" where nothing asks for it.

    A training that learned nothing (its best accuracy is near chance) wants another rate; one whose validation loss was still falling
    at its end, with surely more than 1% misclassified, wants more epochs, or more time. `classes` are those of the validation pictures.
    """
    accuracy = history[best_epoch - 1].validation_accuracy
    if accuracy is None:
        return ""
    chance = 1 / classes
    if classes > 1 and accuracy < chance + min(chance / 2, NEAR_CHANCE * (1 - chance)):
        return (
            f"the network learned nothing: {accuracy:.1%} of the validation pictures are right, chance is {chance:.1%}; lower "
            "learning_rate, set augmentation=light, or check the labels"
        )
    losses = [epoch.validation_loss for epoch in history if epoch.validation_loss is not None]
    falling = best_epoch == len(history) and losses[-1] == min(losses)
    if not stopped_early and falling and _many_wrong(history, best_epoch, pictures):
        longer = f"a time_budget of three times {time_budget}" if time_budget else f"epochs={min(3 * len(history), MAX_EPOCHS)}"
        return (
            f"the validation loss was still falling after {len(history)} epochs, with {1 - accuracy:.1%} misclassified: more are likely "
            f"to help; set {longer}"
        )
    return ""


def _many_wrong(history: Sequence[Epoch], best_epoch: int, pictures: int) -> bool:
    accuracy = history[best_epoch - 1].validation_accuracy
    if accuracy is None:
        return False
    _, highest = proportion_interval(round(accuracy * pictures), pictures)
    return 1 - highest > GOOD_ERROR
