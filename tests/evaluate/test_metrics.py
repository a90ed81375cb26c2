"""Every figure equals scikit-learn's on the same arrays, and says nothing about classes that are not there."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from components.evaluate.metrics import (
    Figures,
    by_groups,
    confident_mistakes,
    label_quality,
    largest_confusions,
    measure,
    predicted_classes,
    proportion,
)
from tests.evaluate import made


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of 2 to 6 classes, some of which may have no picture, with ties now and then."""
    classes, n = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    labels = np.array(draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)), np.int64)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.normal(0, 2, (n, classes))
    if draw(st.booleans()):
        logits = np.round(logits)
    return labels, made.softmax(logits)


@pytest.mark.parametrize(
    ("groups", "size", "correlation", "truth"), [(20, 12, 0.9, 0.8), (40, 12, 0.5, 0.9), (30, 10, 1.0, 0.9), (100, 5, 0.0, 0.9)]
)
def test_the_interval_by_groups_holds_the_true_accuracy_in_95_of_100_cases(
    groups: int, size: int, correlation: float, truth: float
) -> None:
    """Pictures of a group that are right and wrong together; the plain interval holds it in far fewer cases."""
    rng, held, plain, runs = np.random.default_rng(0), 0, 0, 400
    for _ in range(runs):
        if correlation in {0, 1}:
            share = (rng.random(groups) < truth).astype(float) if correlation else np.full(groups, truth)
        else:
            spread = (1 - correlation) / correlation
            share = rng.beta(truth * spread, (1 - truth) * spread, groups)
        correct = np.concatenate([np.arange(size) < count for count in rng.binomial(size, share)])
        accuracy = proportion(int(correct.sum()), len(correct))
        by, told = by_groups(accuracy, correct, "patient", np.arange(len(correct)) // size)
        held += by.low <= truth <= by.high
        plain += accuracy.low <= truth <= accuracy.high
        assert told.n == groups
        assert told.effective <= len(correct)
    assert held >= 0.92 * runs
    assert correlation == 0 or plain < 0.8 * runs


def test_without_a_mistake_groups_count_and_pictures_of_their_own_are_the_plain_interval() -> None:
    perfect = proportion(96, 96)
    assert by_groups(perfect, np.ones(96, bool), "patient", np.arange(96) // 12)[1].effective < 10
    alone, told = by_groups(perfect, np.ones(96, bool), "patient", np.arange(96))
    assert told.effective == pytest.approx(96, abs=2)
    assert alone.low == pytest.approx(perfect.low, abs=0.002)


def names(count: int) -> list[str]:
    return [f"class {k}" for k in range(count)]


@settings(max_examples=30, deadline=None)
@given(scored())
def test_figures_equal_scikit_learns(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = case
    count = probabilities.shape[1]
    predicted, present, every = probabilities.argmax(axis=1), np.unique(labels), list(range(count))
    figures = measure(labels, probabilities, names(count))
    assert figures.accuracy.value == sk.accuracy_score(labels, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are only predicted, or alone
        assert figures.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(labels, predicted), abs=1e-12)
    for average, value in (("macro", figures.macro_f1), ("weighted", figures.weighted_f1)):
        assert value == pytest.approx(sk.f1_score(labels, predicted, labels=present, average=average, zero_division=0), abs=1e-12)
    assert figures.log_loss == pytest.approx(sk.log_loss(labels, probabilities, labels=every), abs=1e-12)
    onehot = np.eye(count)[labels]
    squared = ((probabilities.astype(np.float64) - onehot) ** 2).sum(axis=1).mean()
    assert figures.brier == pytest.approx(squared / 2 if count == 2 else squared, abs=1e-6)
    np.testing.assert_array_equal(figures.confusion_matrix, sk.confusion_matrix(labels, predicted, labels=every))


@settings(max_examples=30, deadline=None)
@given(scored())
def test_classes_equal_scikit_learns_and_are_null_where_undefined(case: tuple[np.ndarray, np.ndarray]) -> None:
    labels, probabilities = case
    predicted = predicted_classes(probabilities)
    for k, result in enumerate(measure(labels, probabilities, names(probabilities.shape[1])).per_class):
        mine, given_ = labels == k, predicted == k
        assert (result.support, result.predicted, result.correct) == (mine.sum(), given_.sum(), (mine & given_).sum())
        assert result.precision == (pytest.approx(sk.precision_score(mine, given_)) if given_.any() else None)
        assert result.recall == (pytest.approx(sk.recall_score(mine, given_)) if mine.any() else None)
        assert result.f1 == (pytest.approx(sk.f1_score(mine, given_)) if mine.any() else None)
        known = mine.any() and not mine.all()
        assert result.roc_auc == (pytest.approx(sk.roc_auc_score(mine, probabilities[:, k]), abs=1e-6) if known else None)


def test_roc_auc_and_top_k_equal_scikit_learns_where_every_class_is_present() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(300, dtype=np.int64) % 7
    logits = rng.normal(0, 1, (300, 7))
    logits[np.arange(300), labels] += 1
    probabilities = made.softmax(logits)
    figures = measure(labels, probabilities, names(7))
    assert figures.roc_auc == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-12)
    assert {t.k: t.accuracy for t in figures.top_k} == {k: sk.top_k_accuracy_score(labels, probabilities, k=k) for k in (2, 3, 5)}


def test_two_classes_have_one_roc_curve_and_no_top_k() -> None:
    labels = np.array([0, 1, 1, 0, 1])
    probabilities = made.softmax(np.array([[1.0, 0], [0, 2], [1, 0.5], [0.5, 0], [0, 1]]))
    figures = measure(labels, probabilities, ["no", "yes"])
    assert figures.roc_auc == sk.roc_auc_score(labels, probabilities[:, 1])
    assert figures.top_k == []


@pytest.mark.parametrize("declared", [3, 8])
def test_declared_classes_that_are_absent_change_nothing(declared: int) -> None:
    figures = measure(np.array([2, 1, 0, 0]), made.guesses(np.array([2, 1, 0, 1]), declared), names(declared))
    assert round(figures.macro_f1, 4) == 0.7778
    assert figures.balanced_accuracy == pytest.approx(5 / 6)
    absent = [(c.precision, c.recall, c.f1, c.roc_auc, c.recall_low) for c in figures.per_class[3:]]
    assert absent == [(None, None, None, None, None)] * (declared - 3)


def test_a_class_that_is_only_predicted_does_not_count_as_zero() -> None:
    labels = np.zeros(99, np.int64)
    labels[50:] = 1
    predicted = labels.copy()
    predicted[0] = 2
    figures = measure(labels, made.guesses(predicted, 3), names(3))
    assert figures.macro_f1 > 0.99
    assert figures.per_class[2].model_dump(include={"support", "predicted", "precision", "recall", "f1"}) == {
        "support": 0,
        "predicted": 1,
        "precision": 0.0,
        "recall": None,
        "f1": None,
    }


def test_a_single_class_has_no_roc() -> None:
    figures = measure(np.ones(5, np.int64), made.guesses(np.array([1, 1, 0, 1, 2]), 3), names(3))
    assert figures.roc_auc is None
    assert figures.balanced_accuracy == pytest.approx(0.6)


def test_a_small_class_that_is_never_found_shows_below_a_good_accuracy() -> None:
    labels = np.array([0] * 190 + [1] * 10)
    figures = measure(labels, made.guesses(np.zeros(200, np.int64), 2), ["many", "few"])
    assert figures.accuracy.value == 0.95
    assert figures.balanced_accuracy == 0.5
    few = figures.per_class[1]
    assert (few.recall, few.precision, few.f1) == (0.0, None, 0.0)


def test_certain_and_wrong_gives_finite_figures() -> None:
    probabilities = np.array([[1, 0, 0], [0, 1, 0]], np.float32)
    figures = measure(np.array([1, 2]), probabilities, names(3))
    assert np.isfinite(figures.log_loss)
    assert figures.brier == 2.0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_is_scipys_and_holds_the_value(case: tuple[int, int]) -> None:
    correct, n = case
    share = proportion(correct, n)
    interval = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert (share.low, share.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_the_largest_confusions_are_ten_at_most_and_true() -> None:
    rng = np.random.default_rng(3)
    labels, predicted = rng.integers(0, 6, 500), rng.integers(0, 6, 500)
    matrix = sk.confusion_matrix(labels, predicted, labels=range(6))
    found = largest_confusions(matrix, names(6))
    off_diagonal = sorted((matrix[i, j] for i in range(6) for j in range(6) if i != j), reverse=True)
    assert [c.count for c in found] == off_diagonal[:10]
    first = found[0]
    i, j = names(6).index(first.label), names(6).index(first.predicted)
    assert first.share == matrix[i, j] / matrix[i].sum()


def test_without_mistakes_there_are_no_confusions() -> None:
    assert largest_confusions(np.diag([3, 0, 5]), names(3)) == []


def test_mistakes_come_surest_first_with_their_files() -> None:
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.2, 0.8], [0.7, 0.3]], np.float32)
    mistakes = confident_mistakes(np.array([1, 1, 1, 1]), probabilities, ["a", "b"], ["w", "x", "y", "z"])
    assert [(m.file, m.index, m.label, m.predicted) for m in mistakes] == [("x", 1, "b", "a"), ("z", 3, "b", "a"), ("w", 0, "b", "a")]
    assert mistakes[0].confidence == pytest.approx(0.9)
    assert mistakes[0].label_probability == pytest.approx(0.1)


def test_figures_do_not_depend_on_the_order_of_pictures() -> None:
    rng = np.random.default_rng(1)
    labels, probabilities = rng.integers(0, 4, 200), made.softmax(rng.normal(0, 1, (200, 4)))
    order = rng.permutation(200)

    def plain(figures: Figures) -> list[float | None]:
        return [figures.accuracy.value, figures.macro_f1, figures.log_loss, figures.brier, figures.roc_auc]

    assert plain(measure(labels, probabilities, names(4))) == pytest.approx(
        plain(measure(labels[order], probabilities[order], names(4))), abs=1e-6
    )


def test_flipped_test_labels_of_digits_are_among_the_most_suspect() -> None:
    images, digits = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(digits))
    train, test = order[:1200], order[1200:]
    probabilities = LogisticRegression(max_iter=300).fit(images[train] / 16, digits[train]).predict_proba(images[test] / 16)
    labels, flipped = digits[test].astype(np.int64), [3, 77, 200, 301, 450]
    labels[flipped] = (labels[flipped] + 3) % 10
    quality = label_quality(labels, probabilities.astype(np.float32))
    assert len(set(np.argsort(quality)[:10]) & set(flipped)) >= 4


def test_labels_of_a_single_class_are_not_suspect() -> None:
    assert label_quality(np.zeros(3, np.int64), np.ones((3, 1), np.float32)).tolist() == [1, 1, 1]
