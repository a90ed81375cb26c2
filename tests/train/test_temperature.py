"""One temperature, drawn to 1 by a prior that yields to mistakes."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from components.train.temperature import BOUNDS, CROSS_FITTED, fit_temperature, refit_temperature


def drawn(temperature: float, count: int = 4000, seed: int = 0, spread: float = 3) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are overconfident by a factor: labels are drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, spread, (count, 5))
    cumulated = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, (cumulated > generator.random((count, 1))).argmax(axis=1)


def loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


@pytest.mark.parametrize("true", [0.6, 1.0, 2.5])
def test_with_many_mistakes_the_temperature_that_labels_were_drawn_with_is_found(true: float) -> None:
    found, what = fit_temperature(*drawn(true))
    assert found == pytest.approx(true, rel=0.1)
    assert what.startswith("fitted with a prior: validation loss ")


def test_one_mistake_is_not_enough_to_make_everything_sure() -> None:
    """178 pictures sure to some 0.95, and one that is wrong: without a prior the temperature is a quarter."""
    logits = np.zeros((179, 10))
    labels = np.arange(179) % 10
    logits[np.arange(179), labels] = np.random.default_rng(0).normal(6, 1, 179)
    logits[0, 3] = logits[0, 0] + 0.1
    found, what = fit_temperature(logits, labels)
    assert 0.6 < found <= 1
    assert "1 of 179 validation pictures are mistakes" in what


@pytest.mark.parametrize("count", [30, 100, 500])
def test_on_new_pictures_a_small_split_costs_little_where_nothing_is_to_be_mended(count: int) -> None:
    logits, labels = drawn(1.0, 20_000, seed=99)
    found = [fit_temperature(*drawn(1.0, count, seed))[0] for seed in range(30)]
    excess = [loss(logits, labels, temperature) / loss(logits, labels, 1.0) - 1 for temperature in found]
    assert np.mean(excess) < 0.01


def test_a_small_split_is_fitted_only_where_cross_fitting_shows_a_gain() -> None:
    said = [fit_temperature(*drawn(true, CROSS_FITTED // 2, seed)) for seed in range(20) for true in (1.0, 3.0)]
    kept = [what for temperature, what in said if temperature == 1.0]
    fitted = [what for temperature, what in said if temperature != 1.0]
    assert kept
    assert all("cross-fitting no temperature lowers the loss" in what for what in kept)
    assert len(fitted) >= 20
    assert all("cross-fitted loss" in what for what in fitted)


def test_noise_does_not_leave_the_bounds() -> None:
    generator = np.random.default_rng(1)
    found, _ = fit_temperature(generator.normal(0, 100, (2000, 3)), generator.integers(0, 3, 2000))
    assert BOUNDS[0] <= found <= BOUNDS[1]


def test_without_a_mistake_nothing_is_fitted() -> None:
    logits, labels = np.eye(4)[[0, 1, 2, 3] * 10], np.array([0, 1, 2, 3] * 10)
    assert fit_temperature(logits, labels) == (1.0, "not fitted: no mistake on the validation split")


def test_a_single_picture_is_no_reason() -> None:
    assert fit_temperature(np.array([[1.0, 0.0]]), np.array([1]))[0] == 1.0


@pytest.mark.parametrize(("true", "again"), [(1.0, False), (1.01, False), (0.5, True), (2.0, True)])
def test_probabilities_are_calibrated_again_only_where_that_helps_by_more_than_chance(true: float, again: bool) -> None:
    logits, labels = drawn(true, count=1000)
    found, what = refit_temperature(softmax(logits, axis=1).astype(np.float32), labels)
    if again:
        assert found == pytest.approx(true, rel=0.15)
        assert "fitted with a prior" in what
    else:
        assert found == 1
        assert "no more than chance" in what
