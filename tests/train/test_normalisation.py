"""Mean and spread of the training split."""

import numpy as np

from components.bundle.dataset import Split
from components.train.batches import mean_and_std


def test_they_are_those_of_all_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 200, (2500, 5, 4, 3), dtype=np.uint8)
    images[..., 2] //= 3
    mean, std = mean_and_std(Split(images, np.zeros(2500, np.int64)))
    np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), atol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std(axis=(0, 1, 2)), atol=1e-12)


def test_a_channel_without_spread_is_left_as_it_is() -> None:
    images = np.full((3, 2, 2, 1), 51, np.uint8)
    assert mean_and_std(Split(images, np.zeros(3, np.int64))) == ([0.2], [1.0])
