"""After a hold the decision says what would change it, and that is true."""

import re

import pytest

from components.bundle.decision import Decision
from components.bundle.policy import Policy
from components.gate.decide import decide
from components.report.markdown import decision_markdown
from tests.gate.cases import champion, evaluation, good


def remedy(decision: Decision, rule: str) -> str:
    return next(r.remedy for r in decision.rules if r.rule == rule)


def number(text: str, before: str) -> int:
    found = re.search(rf"([\d,]+) {before}", text)
    assert found, text
    return int(found[1].replace(",", ""))


def test_so_many_more_right_answers_pass() -> None:
    for policy, rule in (
        (Policy(minimum_accuracy=0.99), "minimum_accuracy"),
        (Policy(minimum_accuracy_lower_bound=0.97), "minimum_accuracy_lower_bound"),
    ):
        more = number(remedy(decide(policy, good(360, 353)), rule), "more of the 360 test pictures right")
        assert decide(policy, good(360, 353 + more)).deploy
        assert not decide(policy, good(360, 353 + more - 1)).deploy


def test_a_bound_is_the_decimal_number_that_was_written() -> None:
    """0.55 is a little more than 55 hundredths in binary."""
    matrix = [[27, 23], [23, 27]]
    assert remedy(decide(Policy(minimum_accuracy=0.55), evaluation(matrix)), "minimum_accuracy") == "1 more of the 100 test pictures right"
    policy = Policy(class_recall_floors={"class0": 0.55, "class1": 0.9})
    told = remedy(decide(policy, evaluation([[55, 45], [60, 40]])), "minimum_class_recall")
    assert "class1" in told
    assert "class0" not in told


def test_so_many_test_pictures_with_the_same_accuracy_pass() -> None:
    policy = Policy(minimum_accuracy_lower_bound=0.97)
    n = number(remedy(decide(policy, good(360, 353)), "minimum_accuracy_lower_bound"), "test pictures with the same shares")
    assert decide(policy, good(round(n * 1.05), round(n * 1.05 * 353 / 360))).deploy
    assert not decide(policy, good(round(n * 0.8), round(n * 0.8 * 353 / 360))).deploy


def test_so_many_test_pictures_show_that_a_challenger_is_no_worse() -> None:
    policy = Policy(non_inferiority_margin=0.005)
    n = number(
        remedy(decide(policy, good(360, 352, champion(4, 4, 360, 352))), "non_inferiority_margin"), "test pictures with the same shares"
    )
    alone = round(n * 1.05 * 4 / 360)
    assert decide(policy, good(round(n * 1.05), round(n * 0.9), champion(alone, alone, round(n * 1.05), round(n * 0.9)))).deploy


@pytest.mark.parametrize("rule", ["maximum_accuracy_drop", "forbid_significant_drop"])
def test_so_many_pictures_fewer_lost_to_the_champion_pass(rule: str) -> None:
    policy = Policy.read({rule: 0.02 if rule == "maximum_accuracy_drop" else True})
    fewer = number(remedy(decide(policy, good(360, 340, champion(2, 16, 360, 340))), rule), "fewer of the pictures wrong")
    assert decide(policy, good(360, 340 + fewer, champion(2, 16 - fewer, 360, 340 + fewer))).deploy


def test_classes_that_hold_are_named_with_what_they_need() -> None:
    judged = evaluation([[0, 1, 0], [0, 40, 0], [0, 20, 20]], classes=["few", "sound", "weak"])
    decision = decide(Policy(minimum_class_recall=0.8, minimum_class_support=5), judged)
    assert "12 more of the 40 pictures of 'weak' right" in remedy(decision, "minimum_class_recall")
    assert remedy(decision, "minimum_class_support") == "more test pictures: 4 of 'few'"
    assert "What would change this:" in decision_markdown(decision)


def test_a_model_that_passes_needs_nothing() -> None:
    decision = decide(Policy(minimum_accuracy=0.9), good())
    assert decision.remedies == []
    assert "What would change" not in decision_markdown(decision)
