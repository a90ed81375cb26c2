"""What a search may try is read by the models of training, and its trials are the grid or a sample of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import UsageError
from components.settings.search import RUNGS, Range, SearchSettings, combinations, plan_trials, rung_epochs, settings_of_trial

OWN: dict[str, Any] = {"name": "digits", "architecture": "small_cnn", "pretrained": False, "device": "auto", "gpus": "0", "store": "s3://x"}


def plan(search: dict[str, Any], training: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    return [trial.settings for trial in plan_trials(SearchSettings.read(search), training or {}, OWN)]


def test_a_small_space_is_tried_as_a_whole() -> None:
    assert plan({"learning_rate": [0.1, 0.3], "width": [1, 2]}) == [
        {"learning_rate": 0.1, "width": 1},
        {"learning_rate": 0.1, "width": 2},
        {"learning_rate": 0.3, "width": 1},
        {"learning_rate": 0.3, "width": 2},
    ]


def test_settings_that_need_each_other_are_tried_together() -> None:
    assert len(plan({"weights": ["a", "b"], "body_rate": [0.05, 0.2], "frozen": [0.3]})) == 4
    with pytest.raises(UsageError, match="frozen and body_rate are for pretrained weights"):
        plan({"body_rate": [0.05, 0.2]})


def test_one_value_in_two_forms_is_one_trial() -> None:
    assert plan({"batch_size": [128, 128.0, 64]}) == [{"batch_size": 128}, {"batch_size": 64}]


def test_names_of_training_stand_beside_the_searchs_own_or_in_space() -> None:
    beside = SearchSettings.read({"width": [1, 2], "trials": 3})
    assert beside == SearchSettings.read({"space": {"width": [1, 2]}, "trials": 3.0})
    with pytest.raises(UsageError, match="width in space and beside it"):
        SearchSettings.read({"space": {"learning_rate": [0.1]}, "width": [1]})


def test_without_a_space_learning_rates_are_tried() -> None:
    assert [list(trial) for trial in plan({})] == [["learning_rate"]] * 4


def test_values_are_those_that_training_reads() -> None:
    """Kubeflow makes 64 a 64.0 inside a mapping."""
    (first, second) = plan({"batch_size": [64.0, 128], "trials": 2})
    assert [type(it["batch_size"]) for it in (first, second)] == [int, int]


def test_the_same_combination_is_tried_once() -> None:
    assert plan({"width": [1, 1, 2]}) == [{"width": 1}, {"width": 2}]


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"learning_rate": [0.1, 5]}, "learning_rate must be from 1e-06 to 1, not 5"),
        ({"width": {"min": 1, "max": 16}}, "width must be from 0.25 to 4, not 16"),
        ({"optimizer": ["adam", "adamm"]}, "unknown optimizer 'adamm'"),
        ({"lerning_rate": [0.1]}, "cannot try 'lerning_rate'.*did you mean 'learning_rate'"),
        ({"learning_rate": 0.1}, "learning_rate must be a list of values"),
        ({"learning_rate": []}, "learning_rate must be a list of values"),
        ({"learning_rate": {"min": 0.1, "max": 0.01}}, "min 0.1 is not below max 0.01"),
        ({"weight_decay": {"min": 0, "max": 0.1, "scale": "log"}}, "above 0, which scale log needs"),
        ({"learning_rate": {"low": 0.1, "max": 0.2}}, "range has no setting 'low'"),
        ({"epochs": [1, 2]}, "cannot try epochs: the rungs decide"),
        ({"seed": [1, 2]}, "cannot try seed: .* only luck"),
        ({"trials": 0}, "trials must be from 1 to 64, not 0"),
        ({"space": {}}, "space must name settings of training"),
    ],
)
def test_what_no_training_takes_is_refused(search: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plan(search)


def test_a_value_that_no_trial_drew_is_refused_too() -> None:
    with pytest.raises(UsageError, match="learning_rate must be"):
        plan({"learning_rate": [0.1, 0.2, 0.3, 7], "trials": 1})


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="time_budget=10m cannot be searched with"):
        plan({"width": [1]}, {"time_budget": "10m"})


@pytest.mark.parametrize(("training", "epochs"), [({}, 12), ({"epochs": 5}, 5), ({"epochs": "auto"}, 12), ({"epochs": "7"}, 7)])
def test_a_trial_has_the_runs_own_settings_otherwise_and_a_number_of_epochs(training: dict[str, Any], epochs: int) -> None:
    options = settings_of_trial({"dropout": 0.3, **training}, OWN, {"width": 2, "architecture": "resnet18"})
    assert (options.dropout, options.width, options.architecture, options.epochs) == (0.3, 2, "resnet18", epochs)


@pytest.mark.parametrize(
    ("epochs", "reduction", "rungs"), [(12, 2, [3, 6, 12]), (9, 3, [1, 3, 9]), (10, 3, [2, 4, 10]), (1, 2, [1, 1, 1]), (5, 1, [5, 5, 5])]
)
def test_each_rung_has_so_many_times_the_epochs(epochs: int, reduction: int, rungs: list[int]) -> None:
    assert rung_epochs(epochs, reduction) == rungs
    assert len(rungs) == RUNGS


def test_a_large_space_is_sampled_and_the_same_seed_gives_the_same_sample() -> None:
    space = {"learning_rate": Range(min=0.0001, max=0.1, scale="log"), "width": [0.5, 1, 2], "batch_size": Range(min=16.0, max=99.5)}
    drawn = list(combinations(space, 20, 7, frozenset({"batch_size"})))
    assert drawn == list(combinations(space, 20, 7, frozenset({"batch_size"})))
    assert drawn != list(combinations(space, 20, 8, frozenset({"batch_size"})))
    assert len({repr(one) for one in drawn}) == len(drawn) == 20
    assert all(0.0001 <= one["learning_rate"] <= 0.1 and isinstance(one["batch_size"], int) for one in drawn)
    assert sum(one["learning_rate"] < 0.00316 for one in drawn) in range(4, 17), "half of the draws lie below the middle power of ten"


def test_a_range_with_fewer_whole_numbers_than_trials_gives_them_all() -> None:
    assert {one["batch_size"] for one in combinations({"batch_size": Range(min=2.0, max=4.0)}, 9, 0, frozenset({"batch_size"}))} == {
        2,
        3,
        4,
    }


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    most=st.integers(1, 20),
    seed=st.integers(0, 2**31 - 1),
)
def test_there_are_never_more_trials_than_asked_for_and_as_many_as_there_are(sizes: list[int], most: int, seed: int) -> None:
    space: dict[str, Any] = {f"setting{k}": list(range(size)) for k, size in enumerate(sizes)}
    total = 1
    for size in sizes:
        total *= size
    found = list(combinations(space, most, seed))
    assert len(found) == min(most, total)
    assert len({tuple(one.values()) for one in found}) == len(found)
    assert all(one[name] in values for one in found for name, values in space.items())
