"""Tests and intervals that count groups hold what they promise: simulated with groups whose pictures are right and wrong together."""

import numpy as np
import pytest

from components.classifier.intervals import FAMILY, ONE_SIDED, difference_interval, effective_pairs, mcnemar, p_below
from components.evaluate import metrics, slices
from components.evaluate.comparison import compare
from components.gate.class_rules import slice_floors
from tests.gate import cases

RUNS = 600


def discordant(rng: np.random.Generator, groups: int, size: int, correlation: float, alone: tuple[float, float]) -> np.ndarray:
    """Per group how many pictures only the challenger and only the champion gets right, (groups, 2)."""
    shares = np.array([*alone, 1 - sum(alone)])
    if correlation == 1:
        return size * np.eye(3, dtype=int)[rng.choice(3, groups, p=shares)][:, :2]
    own = rng.dirichlet(shares * (1 - correlation) / correlation, groups) if correlation else np.tile(shares, (groups, 1))
    return rng.multinomial(size, own)[:, :2]


@pytest.mark.parametrize(("groups", "size", "correlation"), [(40, 12, 0.0), (40, 12, 0.5), (40, 12, 1.0), (100, 5, 0.5), (12, 10, 0.9)])
@pytest.mark.parametrize("alone", [(0.05, 0.05), (0.15, 0.15), (0.12, 0.04)])
def test_two_models_compared_by_groups_err_as_seldom_as_they_promise(
    groups: int, size: int, correlation: float, alone: tuple[float, float]
) -> None:
    """An equal challenger is called worse in 2.5 of 100 cases, and the interval holds the true difference in 95."""
    rng, held, worse, plainly_worse, n = np.random.default_rng(0), 0, 0, 0, groups * size
    for _ in range(RUNS):
        b, c = discordant(rng, groups, size, correlation, alone).T
        scale = effective_pairs(b.tolist(), c.tolist(), [size] * groups) / n
        assert scale <= 1
        low, high = difference_interval(b.sum() * scale, c.sum() * scale, n * scale)
        held += low <= alone[0] - alone[1] <= high
        worse += mcnemar(b.sum() * scale, c.sum() * scale, "less") <= ONE_SIDED
        plainly_worse += mcnemar(b.sum(), c.sum(), "less") <= ONE_SIDED
    assert held >= 0.92 * RUNS
    assert worse <= 0.04 * RUNS
    if alone == (0.15, 0.15) and correlation >= 0.5:
        assert plainly_worse > 0.05 * RUNS, "counting pictures, it would err more often"


@pytest.mark.parametrize(("groups", "size", "correlation"), [(20, 12, 0.5), (40, 6, 0.9), (15, 10, 1.0)])
def test_a_sound_class_is_called_broken_as_seldom_as_is_promised(groups: int, size: int, correlation: float) -> None:
    rng, broken, plainly, floor, runs = np.random.default_rng(1), 0, 0, 0.8, 300
    labels = np.zeros(groups * size, np.int64)
    member = np.arange(len(labels)) // size
    (template,) = [r for r in metrics.measure(labels, np.tile([0.9, 0.1], (len(labels), 1)), ["a", "b"]).per_class if r.name == "a"]
    for _ in range(runs):
        own = (
            rng.beta(floor * (1 - correlation) / correlation, 0.2 * (1 - correlation) / correlation, groups)
            if correlation < 1
            else (rng.random(groups) < floor).astype(float)
        )
        correct = np.concatenate([np.arange(size) < count for count in rng.binomial(size, own)])
        hits = int(correct.sum())
        given = template.model_copy(update={"correct": hits, "recall": hits / len(labels)})
        (result,) = metrics.classes_by_groups([given], labels, correct, member)
        assert result.effective is not None
        broken += p_below(hits * result.effective / len(labels), result.effective, floor) <= FAMILY
        plainly += p_below(hits, len(labels), floor) <= FAMILY
    assert broken <= 0.07 * runs
    assert plainly > 0.1 * runs


def test_slices_at_their_floor_are_rarely_called_broken_where_their_pictures_are_of_groups() -> None:
    rng, groups, size, runs = np.random.default_rng(2), 24, 12, 150
    member, site = np.repeat(np.arange(groups), size), np.repeat(np.arange(groups) % 2, size)
    columns = slices.Columns(None, {"site": [f"s{k}" for k in site]}, [])
    seen = slices.Appearance(np.zeros(groups * size), np.zeros(groups * size))
    failed = dict.fromkeys(("by groups", "by pictures"), 0)
    for _ in range(runs):
        own = rng.beta(0.8 * 0.5 / 0.5, 0.2 * 0.5 / 0.5, groups)
        predicted = (rng.random(groups * size) >= own[member]).astype(np.int64)
        for how, members in (("by groups", member), ("by pictures", None)):
            found = slices.slice_accuracies(np.zeros_like(predicted), predicted, ["a", "b"], seen, columns, members)
            evaluation = cases.evaluation(np.diag([500, 500])).model_copy(update={"slices": found})
            failed[how] += slice_floors({"site": 0.8}, evaluation).outcome == "fail"
    assert failed["by groups"] <= 0.07 * runs < 0.1 * runs < failed["by pictures"]


def test_models_that_never_differ_count_as_many_pictures_as_groups() -> None:
    assert effective_pairs([0] * 8, [0] * 8, [12] * 8) == pytest.approx(8)
    assert effective_pairs([1, 0, 0], [0, 1, 0], [1, 1, 1]) == pytest.approx(3)
    labels, sure = np.zeros(96, np.int64), np.tile([0.9, 0.1], (96, 1))
    by_groups = compare(labels, sure, sure, ["a", "b"], np.arange(96) // 12)
    plain = compare(labels, sure, sure, ["a", "b"])
    assert (by_groups.effective, plain.effective) == (pytest.approx(8), None)
    assert by_groups.difference_low < 5 * plain.difference_low


@pytest.mark.parametrize(("correct", "n", "floor"), [(0, 5, 0.5), (5, 5, 0.5), (3, 7, 0.9), (3, 7, 1.0), (3, 7, 0.0)])
def test_the_tests_of_whole_counts_are_scipys_exact_ones(correct: int, n: int, floor: float) -> None:
    from scipy.stats import binomtest

    assert p_below(correct, n, floor) == pytest.approx(binomtest(correct, n, floor, "less").pvalue, rel=1e-12)
    for side in ("less", "greater", "two-sided"):
        assert mcnemar(correct, n, side) == pytest.approx(binomtest(correct, correct + n, 0.5, side).pvalue, rel=1e-12)
