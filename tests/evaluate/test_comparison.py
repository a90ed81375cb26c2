"""Challenger and champion on the same pictures: counts, tests and ties."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from components.classifier.intervals import mcnemar
from components.evaluate.comparison import compare
from tests.evaluate import made

CLASSES = ["a", "b", "c"]


def pair(both: int, only_challenger: int, only_champion: int, neither: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels and two sets of probabilities with exactly these counts."""
    mine = np.repeat([1, 1, 0, 0], [both, only_challenger, only_champion, neither])
    theirs = np.repeat([1, 0, 1, 0], [both, only_challenger, only_champion, neither])
    labels = np.arange(len(mine)) % 3
    return labels, made.guesses((labels + 1 - mine) % 3, 3), made.guesses((labels + 1 - theirs) % 3, 3)


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(0, 30)] * 4).filter(lambda counts: sum(counts) > 0))
def test_counts_are_exact(counts: tuple[int, int, int, int]) -> None:
    paired = compare(*pair(*counts), CLASSES)
    assert (paired.both_correct, paired.only_challenger, paired.only_champion, paired.neither) == counts
    assert paired.accuracy.correct == counts[0] + counts[2]
    assert paired.difference == pytest.approx((counts[1] - counts[2]) / sum(counts))
    assert paired.difference_low <= paired.difference <= paired.difference_high
    assert sum(c.only_challenger for c in paired.per_class) == counts[1]
    assert sum(c.only_champion for c in paired.per_class) == counts[2]
    assert sum(c.support for c in paired.per_class) == sum(counts)


def test_the_two_directions_mirror_each_other() -> None:
    labels, better, worse = pair(300, 60, 20, 20)
    forth, back = compare(labels, better, worse, CLASSES), compare(labels, worse, better, CLASSES)
    assert forth.difference == -back.difference > 0
    assert forth.difference_low == pytest.approx(-back.difference_high)
    assert forth.mcnemar_p == back.mcnemar_p < 0.001


def test_a_model_beside_itself_differs_in_nothing() -> None:
    labels, same, _ = pair(30, 5, 0, 5)
    paired = compare(labels, same, same, CLASSES)
    assert (paired.only_challenger, paired.only_champion, paired.difference, paired.mcnemar_p) == (0, 0, 0, 1)
    assert paired.difference_low < 0 < paired.difference_high


@pytest.mark.parametrize("counts", [(1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_one_picture_proves_nothing(counts: tuple[int, int, int, int]) -> None:
    paired = compare(*pair(*counts), CLASSES)
    assert paired.mcnemar_p == 1
    assert paired.difference_high - paired.difference_low > 0.5


@given(st.integers(0, 400), st.integers(0, 400))
@example(75, 76)
@settings(max_examples=50, deadline=None)
def test_mcnemar_is_the_binomial_test_of_the_discordant(b: int, c: int) -> None:
    assert mcnemar(b, c) == pytest.approx(min(1, stats.binomtest(b, b + c).pvalue) if b + c else 1, rel=1e-12)


def test_a_class_that_is_absent_has_no_recall() -> None:
    labels = np.array([0, 0, 1])
    paired = compare(labels, made.guesses(labels, 3), made.guesses(labels, 3), CLASSES)
    assert [c.recall for c in paired.per_class] == [1, 1, None]
