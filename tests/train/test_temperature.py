"""One temperature, found where it can be, and 1 where it cannot."""

import numpy as np
import pytest
from scipy.special import softmax

from components.train.temperature import BOUNDS, fit_temperature


def drawn(temperature: float, count: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are overconfident by a factor: labels are drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 3, (count, 5))
    probabilities = softmax(logits / temperature, axis=1)
    return logits, np.array([generator.choice(5, p=p) for p in probabilities])


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_labels_were_drawn_with_is_found(true: float) -> None:
    found, why = fit_temperature(*drawn(true))
    assert found == pytest.approx(true, rel=0.1)
    assert "fitted" in why


def test_noise_does_not_leave_the_bounds() -> None:
    generator = np.random.default_rng(1)
    found, _ = fit_temperature(generator.normal(0, 100, (200, 3)), generator.integers(0, 3, 200))
    assert BOUNDS[0] <= found <= BOUNDS[1]


def test_without_a_mistake_or_with_few_pictures_nothing_is_fitted() -> None:
    logits, labels = np.eye(4)[[0, 1, 2, 3] * 10], np.array([0, 1, 2, 3] * 10)
    assert fit_temperature(logits, labels) == (1.0, "not fitted: no mistake on the validation split")
    few, why = fit_temperature(logits[:5], labels[:5] * 0)
    assert few == 1.0
    assert "5 validation pictures" in why
