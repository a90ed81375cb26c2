"""Floors of slices: named by column or by value, judged together with a stated rate."""

from typing import Any

import numpy as np
import pytest

from components.bundle.evaluation import Evaluation
from components.bundle.policy import Policy
from components.gate.class_rules import slice_floors
from components.gate.decide import decide
from tests.gate import cases


def share(correct: int, n: int) -> dict[str, Any]:
    """A slice's accuracy; its interval, which the rule does not use, is as wide as can be."""
    return {"value": correct / n, "correct": correct, "n": n, "low": 0.0, "high": 1.0}


def evaluation(**counts: tuple[int, int]) -> Evaluation:
    """An evaluation with slices of the column `site`: correct of pictures, by value."""
    slices = [{"column": "site", "value": value, "accuracy": share(*pair), "p_worse": None} for value, pair in counts.items()]
    return cases.evaluation(np.diag([500, 500]), slices=slices)


def judge(judged: Evaluation, **floors: float) -> Any:
    """The rule's result."""
    policy = Policy.read({"slice_floors": {key.replace("__", "="): floor for key, floor in floors.items()}})
    (result,) = [rule for rule in decide(policy, judged).rules if rule.rule == "slice_floors"]
    return result


def test_a_slice_that_is_clearly_below_its_columns_floor_fails_with_its_figures_and_a_remedy() -> None:
    result = judge(evaluation(north=(198, 200), south=(150, 200)), site=0.9)
    assert result.outcome == "fail"
    assert "accuracy significantly below its floor: 'site=south' 0.7500 (150 of 200, floor 0.9)" in result.reason
    assert result.remedy == "30 more of the 200 pictures of 'site=south' right"


def test_a_value_has_a_floor_of_its_own_before_that_of_its_column() -> None:
    both = evaluation(north=(198, 200), south=(150, 200))
    assert judge(both, site=0.9, site__south=0.7).outcome == "pass"
    assert judge(both, site__north=0.9).outcome == "pass"
    assert "every slice meets its floor, the nearest: 'site=south'" in judge(both, site=0.7).reason


def test_what_chance_explains_passes_and_what_nobody_can_tell_is_insufficient() -> None:
    assert judge(evaluation(north=(88, 100)), site=0.9).outcome == "pass"
    few = judge(evaluation(north=(0, 1)), site=0.9)
    assert few.outcome == "insufficient"
    assert few.remedy == "1 more of the 1 pictures of 'site=north' right, or 2 pictures to tell"


@pytest.mark.parametrize(("floors", "named"), [({"sight": 0.9}, "'site'"), ({"site__east": 0.9}, "'site=north'")])
def test_a_slice_that_is_not_there_fails_and_the_known_ones_are_named(floors: dict[str, float], named: str) -> None:
    result = judge(evaluation(north=(100, 100)), **floors)
    assert result.outcome == "fail"
    assert named in result.reason


def test_without_floors_slices_are_not_judged() -> None:
    decision = decide(Policy.read({"minimum_accuracy": 0.9}), evaluation(north=(0, 100)))
    assert "slice_floors" not in {rule.rule for rule in decision.rules}
    assert decision.verdict == "promote"


@pytest.mark.parametrize(
    ("theirs", "mine", "looser"),
    [
        ({"site": 0.9}, {"site": 0.9, "brightness": 0.5}, True),  # more slices are judged together, so each may miss by more
        ({}, {"brightness": 0.5}, False),
        ({"site": 0.9}, {"site": 0.8}, True),
        ({"site": 0.9}, {}, True),
        ({"site": 0.9}, {"site": 0.9, "site=north": 0.8}, True),
        ({"site": 0.9}, {"site": 0.9, "site=north": 0.95}, False),
    ],
)
def test_a_policy_is_looser_where_a_slice_has_a_lower_floor(theirs: dict[str, float], mine: dict[str, float], looser: bool) -> None:
    found = Policy.read({"slice_floors": mine}).looser_than(Policy.read({"slice_floors": theirs}))
    assert found == (["slice_floors"] if looser else [])


def test_floors_that_nothing_misses_cannot_let_through_what_the_environment_holds() -> None:
    site, north = Policy.read({"slice_floors": {"site": 0.9}}), evaluation(north=(80, 100), south=(300, 300))
    assert decide(site, north).verdict == "hold"
    padded = site.override({"slice_floors": {"site": 0.9, "class": 0, "hospital": 0}})
    assert padded.looser_than(site) == ["slice_floors"]
    cats = Policy.read({"class_recall_floors": {"cat": 0.9}})
    assert cats.override({"class_recall_floors": {"cat": 0.9, "dog": 0}}).looser_than(cats) == ["class_recall_floors"]
    assert cats.override({"class_recall_floors": {"cat": 0.95}}).looser_than(cats) == []


def test_of_sound_slices_at_their_floor_one_fails_in_at_most_one_of_twenty_evaluations() -> None:
    generator, runs = np.random.default_rng(1), 200
    failed = sum(
        slice_floors({"site": 0.9}, evaluation(**{f"s{k}": (int(generator.binomial(100, 0.9)), 100) for k in range(12)})).outcome == "fail"
        for _ in range(runs)
    )
    assert 1 <= failed <= 0.05 * runs + 3 * (0.05 * 0.95 * runs) ** 0.5
