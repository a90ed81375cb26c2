"""Challenger against champion: known differences in each direction, and how often the rules err over simulated pairs."""

from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import minimize_scalar
from scipy.stats import binom, binomtest, norm

from components.bundle.decision import RuleResult
from components.bundle.evaluation import Evaluation, Paired
from components.bundle.policy import Policy
from components.classifier.intervals import _tango, difference_interval
from components.gate import champion_rules
from components.gate.decide import Rule, decide
from tests.gate.cases import champion, good

PAIRS = 2000


def judge(rule: str, bound: Any, only_challenger: int, only_champion: int, n: int = 360, correct: int | None = None) -> RuleResult:
    correct = round(n * 0.95) - 1 if correct is None else correct
    decision = decide(Policy.read({rule: bound}), good(n, correct, champion(only_challenger, only_champion, n, correct)))
    result = next(r for r in decision.rules if r.rule == rule)
    assert decision.deploy == (result.outcome == "pass")
    return result


@pytest.mark.parametrize(
    ("rule", "bound", "n", "challenger", "champion_alone", "outcome"),
    [
        # better, equal, a little worse, much worse
        ("maximum_accuracy_drop", 0.02, 360, 9, 1, "pass"),
        ("maximum_accuracy_drop", 0.02, 360, 0, 0, "pass"),
        ("maximum_accuracy_drop", 0.02, 360, 0, 7, "pass"),
        ("maximum_accuracy_drop", 0.02, 350, 0, 7, "pass"),  # met exactly
        ("maximum_accuracy_drop", 0.02, 360, 0, 8, "fail"),
        ("maximum_accuracy_drop", 0.02, 360, 10, 18, "pass"),  # 0.022 below, which equal models are too in one of ten
        ("maximum_accuracy_drop", 0.02, 100, 1, 4, "insufficient"),
        ("maximum_accuracy_drop", 0, 360, 3, 3, "pass"),
        ("maximum_accuracy_drop", 0, 360, 3, 4, "insufficient"),
        ("maximum_accuracy_drop", 0, 360, 0, 6, "fail"),
        ("forbid_significant_drop", True, 360, 9, 1, "pass"),
        ("forbid_significant_drop", True, 360, 0, 0, "pass"),
        ("forbid_significant_drop", True, 360, 0, 5, "pass"),  # p = 1/32
        ("forbid_significant_drop", True, 360, 0, 6, "fail"),  # p = 1/64
        ("forbid_significant_drop", True, 10_000, 50, 120, "fail"),
        ("non_inferiority_margin", 0.005, 10_000, 60, 60, "pass"),
        ("non_inferiority_margin", 0.005, 10_000, 0, 0, "pass"),
        ("non_inferiority_margin", 0.005, 10_000, 150, 40, "pass"),
        ("non_inferiority_margin", 0.005, 10_000, 50, 75, "pass"),  # significantly worse, and shown to be within the margin
        ("non_inferiority_margin", 0.005, 10_000, 40, 80, "fail"),
        ("non_inferiority_margin", 0.005, 10_000, 50, 150, "fail"),
        ("non_inferiority_margin", 0.005, 360, 3, 3, "insufficient"),
        ("non_inferiority_margin", 0.005, 360, 0, 0, "insufficient"),  # even identical answers on 360 pictures do not show it
        ("non_inferiority_margin", 0.02, 360, 0, 0, "pass"),
        ("non_inferiority_margin", 0.005, 10, 0, 1, "insufficient"),
        ("non_inferiority_margin", 0.005, 1, 0, 0, "insufficient"),
        ("require_superiority", True, 360, 6, 0, "pass"),
        ("require_superiority", True, 360, 5, 0, "insufficient"),
        ("require_superiority", True, 360, 3, 3, "fail"),
        ("require_superiority", True, 360, 0, 0, "fail"),
        ("require_superiority", True, 360, 0, 6, "fail"),
        ("require_superiority", True, 10_000, 120, 50, "pass"),
    ],
)
def test_each_side_wins_where_it_should(rule: str, bound: Any, n: int, challenger: int, champion_alone: int, outcome: str) -> None:
    result = judge(rule, bound, challenger, champion_alone, n, correct=n - champion_alone if n <= 10 else None)
    assert result.outcome == outcome, result.reason
    assert f"of {n} pictures, {challenger} right by the challenger alone, {champion_alone} by the champion alone" in result.reason


@pytest.mark.parametrize(("beyond", "outcome"), [(0.0, "pass"), (1e-12, "insufficient")])
def test_a_margin_that_is_met_exactly_is_met(beyond: float, outcome: str) -> None:
    low, _ = difference_interval(3, 3, 360)
    assert judge("non_inferiority_margin", round(-low, 12) - beyond, 3, 3).outcome == outcome


def test_without_a_champion_the_rules_are_skipped() -> None:
    rules = {"maximum_accuracy_drop": 0.02, "forbid_significant_drop": True, "non_inferiority_margin": 0.005, "require_superiority": True}
    decision = decide(Policy.read({"minimum_accuracy": 0.9, **rules}), good())
    assert {rule.rule for rule in decision.rules if rule.outcome == "skipped"} == {*rules, "champion"}
    assert decision.verdict == "promote"


def pairs(rng: np.random.Generator, challenger: float, champion_: float, agreement: float, n: int) -> npt.NDArray[np.int64]:
    """Counts of who alone was right, (PAIRS, 2): both classifiers share a share `agreement` of their luck."""
    alone = np.array([challenger * (1 - champion_), champion_ * (1 - challenger)]) * (1 - agreement)
    low, high = min(challenger, champion_), max(challenger, champion_)
    gap = (high - low) * agreement
    alone[0 if challenger > champion_ else 1] += gap
    return rng.multinomial(n, [*alone, 1 - alone.sum()], size=PAIRS)[:, :2]


def share(counts: npt.NDArray[np.int64], rule: Rule, bound: Any, n: int) -> Counter[str]:
    """How often a rule gives each outcome; equal counts are judged once."""
    found: Counter[str] = Counter()
    distinct, times = np.unique(counts, axis=0, return_counts=True)
    for (b, c), weight in zip(distinct.tolist(), times.tolist(), strict=True):
        paired = Paired.model_construct(n=n, only_challenger=b, only_champion=c)  # what these rules read, unchecked
        found[rule(bound, cast("Evaluation", SimpleNamespace(champion=SimpleNamespace(paired=paired)))).outcome] += weight / len(counts)
    return found


@pytest.mark.parametrize(("accuracy", "agreement", "n"), [(0.99, 0.5, 10_000), (0.9, 0.0, 10_000), (0.98, 0.3, 360), (0.6, 0.0, 50)])
def test_equal_models_are_rarely_called_better_or_worse(accuracy: float, agreement: float, n: int) -> None:
    counts = pairs(np.random.default_rng(1), accuracy, accuracy, agreement, n)
    assert share(counts, champion_rules.superiority, True, n)["pass"] <= 0.05
    assert share(counts, champion_rules.non_inferiority, 0.005, n)["fail"] <= 0.05
    assert share(counts, champion_rules.significant_drop, True, n)["fail"] <= 0.05


@pytest.mark.parametrize(("champion_", "agreement"), [(0.99, 0.0), (0.97, 0.3), (0.95, 0.0), (0.9, 0.5)])
def test_a_drop_of_one_point_is_found_and_never_let_through(champion_: float, agreement: float) -> None:
    counts = pairs(np.random.default_rng(2), champion_ - 0.01, champion_, agreement, 10_000)
    assert share(counts, champion_rules.significant_drop, True, 10_000)["fail"] >= 0.8
    strict = share(counts, champion_rules.non_inferiority, 0.005, 10_000)
    assert strict["fail"] >= 0.8
    assert strict["pass"] <= 0.01


def test_equal_models_with_enough_pictures_are_promoted() -> None:
    counts = pairs(np.random.default_rng(3), 0.99, 0.99, 0.4, 10_000)
    assert share(counts, champion_rules.non_inferiority, 0.005, 10_000)["pass"] >= 0.95


def test_a_model_exactly_at_the_margin_passes_as_rarely_as_stated() -> None:
    counts = pairs(np.random.default_rng(4), 0.985, 0.99, 0.3, 10_000)
    assert share(counts, champion_rules.non_inferiority, 0.005, 10_000)["pass"] <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / PAIRS)


def test_mcnemar_is_scipys_binomial_test() -> None:
    result = judge("forbid_significant_drop", True, 12, 20, 10_000)
    assert result.value == pytest.approx(binomtest(12, 32, 0.5, alternative="less").pvalue, abs=1e-12)
    assert judge("require_superiority", True, 20, 12, 10_000).value == pytest.approx(
        binomtest(20, 32, 0.5, alternative="greater").pvalue, abs=1e-12
    )


def score_by_likelihood(difference: float, b: int, c: int, n: int) -> float:
    """Tango's statistic with the restricted maximum of the likelihood searched for numerically, not by his closed form."""

    def negative(q: float) -> float:
        p = np.clip([q + difference, q, 1 - 2 * q - difference], 1e-300, 1)
        return -float(np.dot([b, c, n - b - c], np.log(p)))

    low, high = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(negative, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
    return float((b - c - n * difference) / np.sqrt(n * (2 * q + difference * (1 - difference))))


@pytest.mark.parametrize(("b", "c", "n"), [(3, 4, 360), (0, 6, 44), (5, 5, 10), (60, 75, 10_000), (1, 9, 30), (12, 2, 50)])
def test_the_interval_holds_what_the_score_test_does_not_reject(b: int, c: int, n: int) -> None:
    low, high = difference_interval(b, c, n)
    assert low <= (b - c) / n <= high
    assert score_by_likelihood(low, b, c, n) == pytest.approx(norm.ppf(0.975), abs=1e-4)
    assert score_by_likelihood(high, b, c, n) == pytest.approx(norm.ppf(0.025), abs=1e-4)


def test_the_statistic_of_tangos_own_example() -> None:
    """44 patients, one better with the standard lens alone, margin 0.1: Z = 1.709 (Tango 1998)."""
    assert _tango(-0.1, 0, 1, 44) == pytest.approx(1.709, abs=0.001)


@pytest.mark.parametrize(
    ("b", "c", "n"), [(0, 0, 1), (1, 0, 1), (0, 1, 1), (10, 0, 10), (0, 10, 10), (0, 0, 100_000), (50_000, 50_000, 100_000)]
)
def test_the_interval_is_defined_at_the_edges_and_symmetric(b: int, c: int, n: int) -> None:
    low, high = difference_interval(b, c, n)
    assert -1 <= low <= (b - c) / n <= high <= 1
    assert low < high
    assert difference_interval(c, b, n) == pytest.approx((-high, -low), abs=1e-9)


def test_identical_answers_still_leave_room_for_a_difference() -> None:
    z2 = norm.ppf(0.975) ** 2
    assert difference_interval(0, 0, 360)[0] == pytest.approx(-z2 / (360 + z2), abs=1e-9)


@pytest.mark.parametrize(("challenger", "champion_", "n"), [(0.9, 0.9, 100), (0.98, 0.96, 360)])
def test_the_interval_covers_the_truth_as_often_as_it_says(challenger: float, champion_: float, n: int) -> None:
    """Exactly, over all outcomes that matter: the sum of the probabilities of those whose interval holds the true difference."""
    p = np.array([challenger * (1 - champion_), champion_ * (1 - challenger)])
    covered = total = 0.0
    for b in range(int(binom.ppf(1 - 1e-7, n, p[0])) + 1):
        chance_b = binom.pmf(b, n, p[0])
        for c in range(int(binom.ppf(1 - 1e-7, n - b, p[1] / (1 - p[0]))) + 1):
            chance = chance_b * binom.pmf(c, n - b, p[1] / (1 - p[0]))
            if chance > 1e-8:
                low, high = difference_interval(b, c, n)
                total += chance
                covered += chance * (low <= challenger - champion_ <= high)
    assert total > 0.999
    assert 0.94 <= covered <= 0.98
