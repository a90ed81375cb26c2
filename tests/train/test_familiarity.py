"""Familiarity for any network: where its features come from, that the export has it, and how often its threshold errs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor, nn

from components.bundle import dataset, files
from components.bundle.config import BundleConfig, InputConfig, facts_of
from components.bundle.model import Classifier
from components.classifier.images import ImageSpec
from components.classifier.network import ServingGraph, build
from components.settings.training import TrainingSettings
from components.train.batches import Normalise
from components.train.export import check_export, export_onnx
from components.train.familiarity import MAX_FEATURES, FamiliarityFit, last_layer, limit, shrunk_covariance
from components.train.training import train
from tests.train.fitting import CPU, split


class Correlations(nn.Module):
    """A network of one's own without a linear layer or a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patterns = nn.Parameter(torch.randn(64, 10))

    def forward(self, pictures: Tensor) -> Tensor:
        return pictures.flatten(1) @ self.patterns


def network_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    own = {"flat": nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), "none": Correlations()}
    return own[name] if name in own else build(name, ImageSpec(8, 8, 1), 10)


@pytest.mark.parametrize(
    ("name", "layer", "features"),
    [
        ("flat", "1", 64),
        ("squeezenet1_1", "body.classifier.1", 512),
        ("small_cnn", "head", 64),
        ("compact_cnn", "head", 128),
        ("none", "", 10),
    ],
)
def test_every_network_gets_a_second_output(tmp_path: Path, name: str, layer: str, features: int) -> None:
    network, training, validation = network_of(name), split(0, 200), split(200, 300)
    familiarity, about = FamiliarityFit(network, Normalise([0.3], [0.4], CPU), CPU).fit(training, validation, seed=0)
    assert about is not None
    assert (about.layer, about.features) == (layer, features)
    graph = ServingGraph(network, [0.3], [0.4], 1.0, familiarity)
    config = BundleConfig(
        name="x",
        architecture=name,
        classes=[str(k) for k in range(10)],
        input=InputConfig(height=8, width=8, channels=1, mean=[0.3], std=[0.4]),
        temperature=1.0,
        familiarity=about,
        trained_at="2026-01-02T03:04:05+00:00",
        dataset_digest="",
        parameters={},
        code_version="",
    )
    config.save(tmp_path)
    export_onnx(graph, config.input.spec, tmp_path / files.ONNX, facts_of(config))
    check_export(graph, tmp_path, validation.images)
    answers = Classifier(tmp_path, threads=1).answer(np.concatenate([validation.images, 255 - validation.images]))
    assert answers.familiarity is not None
    assert (answers.familiarity[:100] < 0.5).sum() <= 1
    assert (answers.familiarity[100:] < 0.5).all()


@pytest.mark.parametrize(("count", "width"), [(5, 9), (300, 20), (8, 1)])
def test_the_covariance_is_shrunk_as_scikit_learn_does(count: int, width: int) -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(count, width)) @ generator.normal(size=(width, width))
    np.testing.assert_allclose(shrunk_covariance(points), LedoitWolf(assume_centered=True).fit(points).covariance_, rtol=1e-9)
    assert not shrunk_covariance(np.zeros((3, width))).any()


def test_a_layer_that_reads_too_much_is_passed_over() -> None:
    wide = nn.Sequential(nn.Flatten(), nn.Linear(MAX_FEATURES + 1, 2))
    assert last_layer(wide, torch.zeros(1, 1, 1, MAX_FEATURES + 1)) == ("", 0)


@pytest.mark.parametrize("count", [5, 30, 99, 179, 1000])
def test_new_pictures_of_the_same_kind_are_unfamiliar_in_one_of_a_hundred(count: int) -> None:
    """Over draws of the validation split; its distances are about log-normal."""
    generator = np.random.default_rng(0)
    shares = [np.mean(generator.lognormal(0, 0.5, 1000) > limit(generator.lognormal(0, 0.5, count))) for _ in range(500)]
    assert np.mean(shares) <= 0.011
    assert np.mean(shares) >= 0.004


@pytest.mark.parametrize("noise", [1, 8])
def test_classes_whose_pictures_are_almost_alike_are_exported_like_all_others(tmp_path: Path, noise: int) -> None:
    generator = np.random.default_rng(0)
    shown, labels = generator.integers(noise, 256 - noise, (4, 16, 16, 1)), np.arange(260) % 4
    images = (shown[labels] + generator.integers(-noise, noise + 1, (260, 16, 16, 1))).astype(np.uint8)
    parts = {"train": slice(0, 200), "validation": slice(200, 260), "test": slice(0, 0)}
    counts = {name: {str(k): int((labels[part] == k).sum()) for k in range(4)} for name, part in parts.items()}
    info = dataset.DatasetInfo(source="test", classes=list("0123"), shape=(16, 16, 1), counts=counts, seed=0)
    dataset.write(tmp_path / "data", info, {name: (images[part], labels[part]) for name, part in parts.items()})
    train(tmp_path / "data", tmp_path / "model", TrainingSettings(epochs=1, device="cpu", augmentation="none", name="alike"))
    strange = np.concatenate([255 - images[:40], generator.integers(0, 256, (40, 16, 16, 1), dtype=np.uint8)])
    answers = Classifier(tmp_path / "model").answer(np.concatenate([images, strange]))
    assert answers.familiarity is not None
    assert (answers.familiarity[:260] >= 0.5).mean() > 0.95
    assert (answers.familiarity[260:] < 0.5).mean() > 0.95
