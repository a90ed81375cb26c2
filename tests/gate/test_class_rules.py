from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from components.bundle.decision import RuleResult
from components.bundle.evaluation import Evaluation
from components.bundle.policy import Policy
from components.classifier.intervals import holm
from components.gate.class_rules import class_recall
from components.gate.decide import decide
from tests.gate.cases import evaluation


def of_hits(hits: list[int], support: list[int], names: list[str] | None = None) -> Evaluation:
    """Each class' wrong pictures go to the next class."""
    matrix = np.diag(hits)
    for k, (right, total) in enumerate(zip(hits, support, strict=True)):
        matrix[k, (k + 1) % len(hits)] += total - right
    return evaluation(matrix, classes=names)


def recall(judged: Evaluation, bound: float | None = 0.8, **policy: Any) -> RuleResult:
    decision = decide(Policy.read({"minimum_class_recall": bound, **policy}), judged)
    result = next(r for r in decision.rules if r.rule == "minimum_class_recall")
    assert decision.deploy == (result.outcome == "pass")
    return result


def test_a_small_class_hidden_by_accuracy_is_held_and_named() -> None:
    hidden = evaluation([[190, 0], [10, 0]], classes=["many", "few"])
    assert hidden.accuracy.value == 0.95
    decision = decide(Policy(minimum_accuracy=0.9, minimum_class_recall=0.7), hidden)
    assert decision.verdict == "hold"
    assert "minimum_class_recall: fail: recall significantly below the floor 0.7: 'few' 0.0000 (0 of 10)" in decision.reasons


@pytest.mark.parametrize(
    ("hits", "support", "outcome", "says"),
    [
        ([20, 20, 20], [20, 20, 20], "pass", "every class meets the floor 0.8"),
        ([16, 20, 20], [20, 20, 20], "pass", "the nearest: 'class0' 0.8000 (16 of 20)"),
        ([15, 20, 20], [20, 20, 20], "pass", "by no more than chance allows: 'class0' 0.7500"),
        ([12, 20, 20], [20, 20, 20], "pass", "by no more than chance allows: 'class0' 0.6000"),
        ([8, 20, 20], [20, 20, 20], "fail", "significantly below the floor 0.8: 'class0' 0.4000"),
        ([0, 20, 20], [1, 20, 20], "insufficient", "'class0' 0.0000 (0 of 1)"),
        ([1, 20, 20], [1, 20, 20], "pass", "every class meets"),
        ([0, 0, 20], [10, 10, 20], "fail", "'class0' 0.0000 (0 of 10), 'class1' 0.0000 (0 of 10)"),
    ],
)
def test_recall_against_its_floor(hits: list[int], support: list[int], outcome: str, says: str) -> None:
    result = recall(of_hits(hits, support))
    assert result.outcome == outcome
    assert says in result.reason


def test_a_broken_class_is_never_promoted_however_few_its_pictures() -> None:
    for support in range(1, 40):
        for floor in (0.3, 0.5, 0.7, 0.8, 0.9, 0.99, 1.0):
            assert recall(of_hits([0, 500, 500], [support, 500, 500]), floor).outcome != "pass"


def test_one_miss_is_below_a_floor_of_one() -> None:
    assert recall(of_hits([999, 1000], [1000, 1000]), 1).outcome == "fail"


def test_single_classes_may_have_their_own_floors() -> None:
    judged = of_hits([50, 95], [100, 100], ["hard", "easy"])
    assert recall(judged, 0.8).outcome == "fail"
    assert recall(judged, 0.8, class_recall_floors={"hard": 0.4}).outcome == "pass"
    named = recall(judged, None, class_recall_floors={"easy": 0.99})
    assert named.outcome == "fail"
    assert "'easy' 0.9500 (95 of 100, floor 0.99)" in named.reason
    unknown = recall(judged, 0.1, class_recall_floors={"haard": 0.4})
    assert unknown.outcome == "fail"
    assert "names 'haard', but the classes are 'hard', 'easy'" in unknown.reason


def test_many_bad_classes_are_counted_not_all_named() -> None:
    result = recall(of_hits([0] * 30, [20] * 30))
    assert "'class9'" in result.reason
    assert "and 20 more" in result.reason


def outcomes(hits: npt.NDArray[np.int64], support: int, floor: float) -> list[str]:
    """The rule's outcome for every row of `hits` (evaluations, classes), without pydantic's checks."""
    found = []
    for row in hits.tolist():
        per_class = [SimpleNamespace(name=str(k), support=support, correct=right, effective=None) for k, right in enumerate(row)]
        found.append(class_recall(floor, {}, cast("Evaluation", SimpleNamespace(per_class=per_class, classes=[]))).outcome)
    return found


def test_of_many_sound_classes_none_fails_by_chance_more_often_than_stated() -> None:
    """All 50 classes exactly at their floor: the family must be called broken in at most 5% of the evaluations."""
    hits = np.random.default_rng(5).binomial(100, 0.9, size=(100, 50))
    assert outcomes(hits, 100, 0.9).count("fail") / 100 <= 0.05


def test_models_clearly_above_their_floors_pass_though_classes_are_many_and_small() -> None:
    hits = np.random.default_rng(6).binomial(20, 0.95, size=(100, 50))
    assert (hits < 18).any(axis=1).mean() > 0.9  # judged by the figures alone nearly all would be held
    assert outcomes(hits, 20, 0.9).count("pass") / 100 > 0.8


def test_holm_is_that_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
