"""Every picture counts, and no batch holds a single one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.bundle.dataset import Split
from components.train.batches import Batches, batches_per_pass, weighted_loss

CPU = torch.device("cpu")


def numbered(count: int) -> Batches:
    images = np.zeros((count, 2, 2, 1), np.uint8)
    return Batches(Split(images, np.arange(count)), CPU)


@given(pictures=st.integers(2, 700), batch_size=st.integers(2, 300))
def test_a_pass_gives_each_picture_once_and_never_one_alone(pictures: int, batch_size: int) -> None:
    steps = batches_per_pass(pictures, batch_size)
    batches = [batch.labels.numpy() for batch in numbered(pictures).shuffled(batch_size, (1, 1), steps)]
    assert sorted(np.concatenate(batches)) == list(range(pictures))
    assert all(2 <= len(batch) <= batch_size + 1 for batch in batches)
    assert len(batches) == steps > 0


@pytest.mark.parametrize(("batch_size", "sizes"), [(64, [33, 32]), (128, [65])])
def test_65_pictures(batch_size: int, sizes: list[int]) -> None:
    assert [len(batch.labels) for batch in numbered(65).shuffled(batch_size, (0, 0), len(sizes))] == sizes


def test_a_small_set_is_passed_over_again_in_another_order() -> None:
    batches = [batch.labels.numpy() for batch in numbered(10).shuffled(16, (0, 1), 3)]
    assert all(sorted(batch) == list(range(10)) for batch in batches)
    assert list(batches[0]) != list(batches[1])


def test_order_is_the_seeds() -> None:
    first, again, other = (
        torch.cat([batch.labels for batch in numbered(50).shuffled(8, seed, 7)]).tolist() for seed in [(3, 1), (3, 1), (3, 2)]
    )
    assert first == again
    assert first != other


def test_pictures_arrive_unchanged_with_their_labels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 5, 3), dtype=np.uint8)
    for pictures, labels, _, _ in Batches(Split(images, np.arange(9)), CPU).shuffled(4, (0, 0), 3):
        np.testing.assert_array_equal(pictures.permute(0, 2, 3, 1).numpy(), images[labels.numpy()])
    together = torch.cat([pictures for pictures, _ in Batches(Split(images, np.arange(9)), CPU).in_order(4)])
    np.testing.assert_array_equal(together.permute(0, 2, 3, 1).numpy(), images)


def test_a_split_that_lies_on_the_device_gives_the_same_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (21, 4, 5, 3), dtype=np.uint8)
    read = Batches(Split(images, np.arange(21)), CPU)
    monkeypatch.setattr(Batches, "_fits", lambda self: True)
    held = Batches(Split(images, np.arange(21)), CPU)
    for (pictures, labels, _, _), (expected, expected_labels, _, _) in zip(
        held.shuffled(8, (1, 1), 5), read.shuffled(8, (1, 1), 5), strict=True
    ):
        assert torch.equal(pictures, expected)
        assert torch.equal(labels, expected_labels)


def test_a_weight_counts_as_many_copies_of_a_picture_and_0_as_none() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(12, 3, generator=generator), torch.arange(12) % 3
    weights = torch.tensor([0, 1, 2, 3] * 3)
    of_class = torch.tensor([0.5, 1.0, 3.0])
    for class_weights in (None, of_class):
        found = weighted_loss(logits, labels, weights.float(), class_weights, 0.1)
        copies = weighted_loss(logits.repeat_interleave(weights, 0), labels.repeat_interleave(weights), None, class_weights, 0.1)
        assert found.item() == pytest.approx(copies.item(), rel=1e-6)
    assert weighted_loss(logits, labels, torch.ones(12)).item() == pytest.approx(weighted_loss(logits, labels, None).item(), rel=1e-6)
    assert weighted_loss(logits, labels, torch.zeros(12)).item() == 0


def test_each_picture_comes_with_its_own_weight() -> None:
    split = Split(np.zeros((21, 2, 2, 1), np.uint8), np.arange(21))
    for _, labels, weights, _ in Batches(split, CPU, np.arange(21, dtype=np.float32) / 2).shuffled(4, (0, 0), 9):
        assert weights is not None
        assert torch.equal(weights, labels / 2)
