"""How long a training lasts, and what is said when more would have helped: tables in which each side wins."""

import pytest

from components.bundle.training import Epoch
from components.settings.training import TrainingSettings
from components.train.auto_epochs import advice, next_cycle


def history(*accuracies: float | None) -> list[Epoch]:
    """Epochs with these validation accuracies."""
    return [Epoch(k + 1, 0.1, None if a is None else 1 - a, a, 1e-3, 1.0) for k, a in enumerate(accuracies)]


@pytest.mark.parametrize(
    ("accuracies", "best", "expected"),
    [
        ([], 0, 6),
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.98], 6, 12),
        ([0.5, 0.6, 0.7, 0.8, 0.9, 0.995], 6, 0),
        ([0.5, 0.6, 0.7, 0.8, 0.995, 0.98], 5, 0),  # the weights of the best epoch are kept, so that its error counts
        ([None] * 6, 6, 0),
        ([0.9] * 18, 18, 0),
        ([0.989] * 6, 6, 0),  # 11 of 1,000 may be chance
    ],
)
def test_auto_trains_six_epochs_and_twelve_more_where_surely_over_one_in_a_hundred_is_wrong(
    accuracies: list[float | None], best: int, expected: int
) -> None:
    assert next_cycle(history(*accuracies), best, 1000) == expected


@pytest.mark.parametrize(
    ("accuracies", "best", "stopped_early", "expected"),
    [
        ([0.1449] * 2, 2, False, "learned nothing: 14.5%"),
        ([0.16, 0.15], 1, False, ""),
        ([0.5, 0.7, 0.8], 3, False, "still falling after 3 epochs, with 20.0% misclassified: more are likely to help; set epochs=9"),
        ([0.5, 0.8, 0.7], 2, False, ""),
        ([0.5, 0.7, 0.8], 3, True, ""),
        ([0.5, 0.7, 0.995], 3, False, ""),
        ([0.1, 0.12, 0.1], 2, False, "learned nothing: 12.0% of the validation pictures are right, chance is 10.0%; lower learning_rate"),
        ([None, None], 2, False, ""),
    ],
)
def test_the_advice_names_what_would_help(accuracies: list[float | None], best: int, stopped_early: bool, expected: str) -> None:
    said = advice(history(*accuracies), best, 1000, 10, stopped_early)
    assert expected in said
    assert bool(expected) == bool(said)


@pytest.mark.parametrize(
    ("classes", "accuracy", "nothing"),
    [(2, 0.51, True), (2, 0.7, False), (3, 0.35, True), (3, 0.45, False), (100, 0.012, True), (100, 0.03, False), (1, 1.0, False)],
)
def test_what_learned_something_is_not_told_that_it_did_not(classes: int, accuracy: float, nothing: bool) -> None:
    assert ("learned nothing" in advice(history(accuracy, accuracy), 1, 1000, classes, False)) == nothing


def test_more_is_told_in_what_the_training_was_given_and_within_its_bounds() -> None:
    falling = [0.5, 0.7, 0.8]
    assert advice(history(*falling), 3, 1000, 10, False, "10m").endswith("set a time_budget of three times 10m")
    TrainingSettings(epochs=int(advice(history(*falling * 2000), 6000, 1000, 10, False).rpartition("=")[2]))
