from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from components.bundle.decision import RuleResult
from components.bundle.evaluation import Groups
from components.bundle.policy import Policy
from components.classifier.intervals import macro_f1_interval
from components.gate.decide import decide
from components.gate.scenarios import SAMPLERS, Setting
from tests.gate.cases import evaluation, good


def judge(rule: str, bound: Any, judged: Any) -> RuleResult:
    """The one rule's result, and that the decision goes with it."""
    decision = decide(Policy.read({rule: bound}), judged)
    result = next(r for r in decision.rules if r.rule == rule)
    assert decision.deploy == (result.outcome == "pass")
    return result


def two_classes(correct: int, n: int) -> Any:
    wrong = n - correct
    half = n // 2
    return evaluation([[half - wrong // 2, wrong // 2], [wrong - wrong // 2, n - half - (wrong - wrong // 2)]])


@pytest.mark.parametrize(
    ("correct", "n", "bound", "outcome", "shown"),
    [
        (98996, 100_000, 0.99, "insufficient", "0.98996"),
        (98_900, 100_000, 0.99, "fail", "0.9890"),
        (99, 100, 0.99, "pass", "0.9900"),
        (98, 100, 0.99, "insufficient", "0.9800"),
        (95, 100, 0.99, "fail", "0.9500"),
        (100, 100, 1, "pass", "1.0000"),
        (99_999, 100_000, 1, "fail", "0.99999"),
        (7, 10, "0.7", "pass", "0.7000"),
        (1, 10, 1e-05, "pass", "0.1000"),
        (1, 3, 1 / 3, "pass", None),  # 1/3 is a little more than its float
    ],
)
def test_accuracy_is_compared_exactly_and_shown_so(correct: int, n: int, bound: Any, outcome: str, shown: str | None) -> None:
    result = judge("minimum_accuracy", bound, two_classes(correct, n))
    assert result.outcome == outcome
    assert result.value == correct / n
    if shown:
        assert result.shown == shown
        assert shown in result.reason


@pytest.mark.parametrize(
    ("rule", "bound", "alone"),
    [("minimum_accuracy", 0.99, "fail"), ("minimum_accuracy_lower_bound", 0.9, "pass"), ("minimum_macro_f1", 0.99, "fail")],
)
def test_groups_make_the_gate_less_sure_and_are_named(rule: str, bound: float, alone: str) -> None:
    """360 pictures of 12 patients tell what some 20 independent ones tell."""
    judged = good(360, 345)
    assert judge(rule, bound, judged).outcome == alone
    grouped = judge(rule, bound, judged.model_copy(update={"groups": Groups(column="patient", n=12, effective=20.0)}))
    assert grouped.outcome == "insufficient"
    assert rule == "minimum_macro_f1" or ", of 12 groups by patient, an effective sample size of 20" in grouped.reason


@pytest.mark.parametrize(("bound", "outcome"), [(0.95, "pass"), (0.97, "insufficient"), (0.995, "fail")])
def test_the_lower_bound_is_that_of_scipy(bound: float, outcome: str) -> None:
    result = judge("minimum_accuracy_lower_bound", bound, good(360, 353))
    assert result.outcome == outcome
    assert result.value == pytest.approx(binomtest(353, 360).proportion_ci(0.95, "wilson").low, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "good_bound", "bad_bound", "changes"),
    [
        ("minimum_macro_f1", 0.9, 0.99, {}),
        ("maximum_ece", 0.01, 0.0099, {}),
        ("maximum_latency_ms", 0.9, 0.899, {}),
        ("maximum_size_mb", 0.25, 0.249, {}),
        ("minimum_class_support", 36, 37, {}),
    ],
)
def test_every_figure_has_two_sides_and_meeting_the_bound_passes(rule: str, good_bound: float, bad_bound: float, changes: Any) -> None:
    policy = {"minimum_accuracy": 0.5}
    for bound, outcomes in ((good_bound, {"pass"}), (bad_bound, {"fail", "insufficient"})):
        decision = decide(Policy.read({**policy, rule: bound}), good(**changes))
        assert next(r for r in decision.rules if r.rule == rule).outcome in outcomes
        assert decision.deploy == (bound == good_bound)


def test_macro_f1_that_meets_its_floor_but_for_binary_rounding_passes() -> None:
    third = evaluation(np.diag([10, 10, 10]), macro_f1=0.7 + 0.1 - 1e-16)
    assert judge("minimum_macro_f1", 0.8, third).outcome == "pass"


def outcome(rule: str, bound: float, judged: Any) -> str:
    """What one rule says."""
    return next(r.outcome for r in decide(Policy.read({rule: bound}), judged).rules if r.rule == rule)


def test_a_missed_floor_fails_only_where_its_error_does_not_explain_it() -> None:
    """98 of 100 do not show that the accuracy is below 0.99; 9,800 of 10,000 do."""
    assert [outcome("minimum_accuracy", 0.99, two_classes(98 * k, 100 * k)) for k in (1, 100)] == ["insufficient", "fail"]
    assert [outcome("minimum_macro_f1", 0.99, two_classes(98 * k, 100 * k)) for k in (1, 100)] == ["insufficient", "fail"]


def calibrated(n: int, gap: float) -> Any:
    """An evaluation whose pictures all have a confidence of 0.9, and an accuracy that is `gap` off."""
    bins = [{"low": 13 / 15, "high": 14 / 15, "n": n, "confidence": 0.9, "accuracy": 0.9 - gap}]
    calibration = {"temperature": 1.0, "ece_before": 0.0, "ece_after": gap, "bins": bins, "bins_before": []}
    return good(calibration=calibration)


def test_a_calibration_gap_that_chance_explains_does_not_hold() -> None:
    assert outcome("maximum_ece", 0.05, calibrated(50, 0.06)) == "pass"
    assert outcome("maximum_ece", 0.05, calibrated(50, 0.1)) == "insufficient"
    assert outcome("maximum_ece", 0.05, calibrated(5000, 0.06)) == "insufficient"
    assert outcome("maximum_ece", 0.05, calibrated(5000, 0.07)) == "fail"


@pytest.mark.parametrize(("classes", "n", "share"), [(2, 100, 0.9), (10, 360, 0.97), (10, 1000, 0.9), (30, 900, 0.8)])
def test_the_interval_of_macro_f1_covers_the_truth(classes: int, n: int, share: float) -> None:
    covered = 0
    for judged, _ in SAMPLERS["minimum_macro_f1"](np.random.default_rng(1), share, "at the bound", n, Setting(classes), 400):
        low, high = macro_f1_interval(judged.macro_f1, judged.confusion_matrix)
        covered += low <= share <= high  # with equal classes and errors spread evenly the true macro F1 is the accuracy
    assert 0.92 <= covered / 400 <= 0.99
