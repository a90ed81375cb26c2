"""Which trials go on, and which one wins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import TrainingError
from components.search.steps import ranked, survivors
from tests.search.results import result

RUNGS = [3, 6, 12]


@pytest.mark.parametrize(
    ("trials", "order"),
    [
        ([(1, 0.90, 0.4), (2, 0.95, 0.9), (3, 0.92, 0.1)], [2, 3, 1]),
        ([(1, 0.95, 0.4), (2, 0.95, 0.3)], [2, 1]),
        ([(2, 0.95, 0.3), (1, 0.95, 0.3)], [1, 2]),
        ([(1, 0.0, 9.0), (2, 0.1, 9.0)], [2, 1]),
    ],
)
def test_accuracy_counts_first_then_the_lower_loss_then_the_number(trials: list[tuple[int, float, float]], order: list[int]) -> None:
    assert [it.trial for it in ranked([result(*it) for it in trials])] == order


@pytest.mark.parametrize(("trials", "reduction", "kept"), [(8, 2, 4), (5, 2, 3), (9, 3, 3), (1, 2, 1), (2, 8, 1)])
def test_one_of_so_many_goes_on(trials: int, reduction: int, kept: int) -> None:
    found = survivors([result(k, k / 10) for k in range(1, trials + 1)], RUNGS, reduction)
    assert [trial.trial for trial in found] == list(range(trials, trials - kept, -1))
    assert {(trial.rung, trial.until) for trial in found} == {(2, 6)}


def test_where_all_are_trained_to_the_end_only_the_best_goes_on() -> None:
    found = survivors([result(k, k / 10, until=12) for k in (1, 2, 3, 4)], [12, 12, 12], 1)
    assert [trial.trial for trial in found] == [4]


def test_a_trial_that_failed_does_not_go_on() -> None:
    found = survivors([result(1, None, error="diverged"), result(2, 0.1), result(3, None, error="diverged")], RUNGS, 2)
    assert [trial.trial for trial in found] == [2]


def test_where_all_failed_the_first_cause_is_told() -> None:
    with pytest.raises(TrainingError, match=r"no trial could be trained; trial 1 \(learning_rate 0.01\): diverged"):
        survivors([result(1, None, error="diverged"), result(2, None, error="no memory")], RUNGS, 2)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 10), st.booleans()), min_size=1, max_size=30), st.integers(1, 8))
def test_nobody_who_goes_on_is_worse_than_one_who_does_not(found: list[tuple[float, float, bool]], reduction: int) -> None:
    results = [result(k, a, loss, error="x" if failed else "") for k, (a, loss, failed) in enumerate(found, 1)]
    trained = [it for it in results if not it.error]
    if not trained:
        return
    kept = {trial.trial for trial in survivors(results, RUNGS, reduction)}
    others = [it.validation_accuracy or 0 for it in trained if it.trial not in kept]
    assert 1 <= len(kept) <= max(1, -(-len(results) // reduction))
    assert min(it.validation_accuracy or 0 for it in trained if it.trial in kept) >= max(others, default=0)
