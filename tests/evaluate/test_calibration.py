"""Calibration before and after temperature scaling, and what a review threshold buys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from components.evaluate.metrics import BINS, calibrate, coverage, expected_error, reliability, uncalibrated
from tests.evaluate import made


def scored(n: int = 4000, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from the probabilities of the logits: perfectly calibrated by their making."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    probabilities = made.softmax(logits)
    labels = (probabilities.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(0, classes - 1)
    return labels.astype(np.int64), logits


def test_bins_equal_scikit_learns_curve() -> None:
    labels, logits = scored()
    probabilities = made.softmax(logits * 1.7)
    bins = [b for b in reliability(labels, probabilities) if b.n]
    confidence, correct = probabilities.max(axis=1).astype(np.float64), probabilities.argmax(axis=1) == labels
    accuracy, mean = calibration_curve(correct, confidence, n_bins=BINS)
    assert [b.accuracy for b in bins] == pytest.approx(accuracy)
    assert [b.confidence for b in bins] == pytest.approx(mean)


def test_the_expected_error_is_the_weighted_gap() -> None:
    # 4 pictures at 0.9, of which 2 are right; 6 at 0.55, of which 6 are: 0.4 * 0.4 + 0.6 * 0.45
    probabilities = np.array([[0.9, 0.1]] * 4 + [[0.55, 0.45]] * 6, np.float32)
    labels = np.array([0, 0, 1, 1] + [0] * 6)
    assert expected_error(reliability(labels, probabilities)) == pytest.approx(0.43, abs=1e-6)


def test_certainty_belongs_to_the_last_bin() -> None:
    bins = reliability(np.array([0, 1]), np.array([[1, 0], [1, 0]], np.float32))
    assert bins[-1].n == 2
    assert expected_error(bins) == 0.5


def test_scaling_by_the_true_temperature_mends_the_error() -> None:
    labels, logits = scored(20_000)
    result = calibrate(labels, made.softmax(logits), temperature=0.5)
    assert result.ece_after < 0.02 < result.ece_before


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 5), st.integers(0, 2**32 - 1))
def test_probabilities_before_scaling_are_recovered(temperature: float, seed: int) -> None:
    logits = np.random.default_rng(seed).normal(0, 2, (20, 4))
    np.testing.assert_allclose(uncalibrated(made.softmax(logits / temperature), temperature), made.softmax(logits), atol=2e-5)


def test_zeros_stay_probabilities() -> None:
    before = uncalibrated(np.array([[1, 0, 0]], np.float32), 2.0)
    np.testing.assert_allclose(before, [[1, 0, 0]], atol=1e-6)


def test_coverage_falls_as_the_threshold_rises_and_counts_inclusively() -> None:
    labels, logits = scored()
    points = coverage(labels, made.softmax(logits))
    assert points[0].coverage == 1
    assert [p.coverage for p in points] == sorted((p.coverage for p in points), reverse=True)
    exact = coverage(np.array([0, 0]), np.array([[0.9, 0.1], [0.4, 0.6]], np.float32))
    assert next(p for p in exact if p.threshold == 0.9).model_dump() == {"threshold": 0.9, "n": 1, "coverage": 0.5, "accuracy": 1.0}


def test_where_nothing_is_answered_accuracy_is_null() -> None:
    points = coverage(np.array([0]), np.array([[0.5, 0.5]], np.float32))
    assert points[-1].accuracy is None
    assert points[-1].n == 0
