"""Pictures really move, each in its own way, and only as far as the table says."""

import numpy as np
import pytest
import torch

from components.classifier.images import ImageSpec
from components.train.augmentation import Augmentation, resolve


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("channels", "name"), [(1, "affine"), (3, "photo")])
def test_auto_follows_the_channels(channels: int, name: str) -> None:
    assert resolve("auto", ImageSpec(8, 8, channels))[0] == name


def test_grey_pictures_are_never_mirrored_by_auto() -> None:
    assert not resolve("auto", ImageSpec(8, 8, 1))[1].mirror


@pytest.mark.parametrize("name", ["light", "affine", "photo"])
def test_each_picture_moves_in_its_own_way(name: str) -> None:
    _, augment = resolve(name, ImageSpec(28, 28, 1))
    same = torch.rand(1, 1, 28, 28, generator=generator()).expand(6, -1, -1, -1)
    moved = augment(same, generator(1))
    assert moved.shape == same.shape
    assert all(not torch.allclose(moved[i], moved[j]) for i in range(6) for j in range(i))
    torch.testing.assert_close(moved, augment(same, generator(1)))


def test_none_changes_nothing() -> None:
    pictures = torch.rand(3, 3, 8, 8)
    assert resolve("none", ImageSpec(8, 8, 3))[1](pictures, generator()) is pictures


def test_a_mirror_image_is_exact() -> None:
    pictures = torch.rand(40, 3, 9, 12, generator=generator())
    moved = Augmentation(mirror=True)(pictures, generator(2))
    mirrored = [torch.allclose(m, p.flip(-1), atol=1e-5) for m, p in zip(moved, pictures, strict=True)]
    kept = [torch.allclose(m, p, atol=1e-5) for m, p in zip(moved, pictures, strict=True)]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert 8 <= sum(mirrored) <= 32


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 80)])
def test_a_rotation_keeps_shapes_and_distances(height: int, width: int) -> None:
    rows, columns = np.mgrid[:height, :width]
    distance = np.hypot(rows - height / 2 + 0.5, columns - width / 2 + 0.5)
    disc = np.clip(1 - distance / 18, 0, 1).astype(np.float32)
    pictures = torch.from_numpy(disc).expand(5, 1, -1, -1)
    moved = Augmentation(degrees=90)(pictures, generator(3))
    assert (moved - pictures).abs().max() < 0.03, "a soft disc in the middle looks the same from all sides"


def test_a_shift_stays_within_its_share() -> None:
    pictures = torch.zeros(200, 1, 50, 50)
    pictures[:, :, 25, 25] = 1
    moved = Augmentation(shift=0.1)(pictures, generator(4))
    weight = moved / moved.sum(dim=(2, 3), keepdim=True)
    rows = (weight * torch.arange(50.0).view(1, 1, -1, 1)).sum(dim=(1, 2, 3)) - 25
    assert rows.abs().max() <= 5.01
    assert rows.abs().max() > 4
