"""The one comparison of served with evaluated probabilities."""

from pathlib import Path

import numpy as np
import pytest

from components.bundle.golden import difference, load_golden, save_golden
from components.classifier.errors import IntegrityError

EXPECTED = np.array([[0.1, 0.9], [0.6, 0.4]], np.float32)


def test_the_difference_is_the_largest_distance_of_one_probability() -> None:
    assert difference(EXPECTED, EXPECTED) == 0
    assert difference(EXPECTED + np.array([[0, 0], [0.25, 0]]), EXPECTED) == pytest.approx(0.25)


@pytest.mark.parametrize("found", [EXPECTED[:1], EXPECTED[:, :1], EXPECTED.ravel(), EXPECTED[:0], EXPECTED * np.nan])
def test_what_cannot_be_compared_is_infinitely_far_away(found: np.ndarray) -> None:
    assert difference(found, EXPECTED) == float("inf")
    assert difference(found, found if found.size == 0 else EXPECTED) == float("inf")


def test_golden_pictures_come_back_as_they_were_saved_and_damage_is_named(tmp_path: Path) -> None:
    images = np.arange(12, dtype=np.uint8).reshape(2, 3, 2, 1)
    save_golden(tmp_path, images, EXPECTED)
    for found, saved in zip(load_golden(tmp_path), (images, EXPECTED), strict=True):
        np.testing.assert_array_equal(found, saved)
    (tmp_path / "golden.npz").write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"golden\.npz"):
        load_golden(tmp_path)
