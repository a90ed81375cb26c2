"""A user's own network by its import path."""

import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from components.bundle.config import BundleConfig
from components.bundle.dataset import Dataset
from components.classifier.errors import UsageError
from components.classifier.images import ImageSpec
from components.classifier.layers import head_layers
from components.classifier.network import build, check_architecture
from components.classifier.weights import load_weights
from components.settings.training import TrainingSettings
from components.train.optimisation import make_optimizer
from components.train.training import train

SOURCE = """
import functools
import math
import torch
from torch import nn

class TwoLayers(nn.Module):
    def __init__(self, spec, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), 32), nn.ReLU(), nn.Linear(32, classes))

    def forward(self, pictures):
        return self.layers(pictures)

def too_few(spec, classes):
    return TwoLayers(spec, classes - 1)

def of_one_size(spec, classes):
    return TwoLayers(type(spec)(9, 9, 1), classes)

def no_module(spec, classes):
    return 3

def without_classes(spec):
    return 3

small = functools.partial(TwoLayers)

def raising(spec, classes):
    return {}["head"]

class Wrong(TwoLayers):
    def forward(self, pictures):
        return self.no_such_layer(pictures)

# its head is made first, and runs last
class HeadFirst(nn.Module):
    def __init__(self, spec, classes):
        super().__init__()
        self.head = nn.Linear(32, classes)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(spec.shape), 32), nn.ReLU())

    def forward(self, pictures):
        return self.head(self.body(pictures))

# its layers are made at the first call, and it keeps what it computed, and what it made once
class Keeping(nn.Module):
    def __init__(self, spec, classes):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.LazyLinear(32), nn.BatchNorm1d(32), nn.ReLU())
        self.head = nn.Linear(32, classes)
        self.scale = None

    def forward(self, pictures):
        if self.scale is None:
            self.scale = torch.full((1, 32), 2.0)
        self.features = self.layers(pictures) * self.scale
        return self.head(self.features)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user's, in which commands are run."""
    (tmp_path / "own_nets.py").write_text(SOURCE)
    (tmp_path / "needs_more.py").write_text("import no_such_library\n")
    (tmp_path / "broken_nets.py").write_text("def f(:\n")
    (tmp_path / "failing_nets.py").write_text("width = undefined\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("own_nets", "needs_more", "broken_nets", "failing_nets"):
        sys.modules.pop(name, None)


def test_a_class_of_a_module_in_this_folder_is_trained_and_recorded(folder: Path, digits_dataset: Dataset) -> None:
    options = TrainingSettings(architecture="own_nets:TwoLayers", epochs=2, device="cpu")
    result = train(digits_dataset.path, folder / "model", options)
    assert result.validation_accuracy is not None
    assert result.validation_accuracy > 0.8
    config = BundleConfig.load(folder / "model")
    assert config.architecture == "own_nets:TwoLayers"
    assert config.parameters["architecture_sha256"] == hashlib.sha256(SOURCE.encode()).hexdigest()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("own_nets:TwoLayer", "own_nets has no class or function 'TwoLayer'; did you mean TwoLayers"),
        ("own_net:TwoLayers", "there is no module 'own_net' installed or in "),
        ("own_nets.more:TwoLayers", "cannot be imported|there is no module"),
        ("needs_more:Net", "needs the module 'no_such_library', which is not installed"),
        ("broken_nets:Net", "broken_nets cannot be imported"),
        ("failing_nets:Net", r"failing_nets cannot be imported \(NameError: name 'undefined' is not defined\)"),
        (":Net", "cannot be imported"),
        ("own_nets:without_classes", r"let it take these two: without_classes\(spec, classes\)"),
    ],
)
def test_what_cannot_be_imported_is_refused_before_anything_is_built(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check_architecture(name)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("too_few", r"gives \(2, 2\) for two pictures; let it give logits of shape \(2, 3\)"),
        ("of_one_size", "cannot take pictures of 8x8x1"),
        ("raising", r"cannot be made for pictures of 8x8x1 and 3 classes \(KeyError: 'head'\)"),
        ("Wrong", r"cannot take pictures of 8x8x1 \(AttributeError: 'Wrong' object has no attribute 'no_such_layer'\)"),
        ("no_module", "gives a int; let it give a torch.nn.Module"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_before_it_is_trained(name: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        build(f"own_nets:{name}", ImageSpec(8, 8, 1), 3)


def test_it_trains_after_it_was_tried() -> None:
    built = build("own_nets:TwoLayers", ImageSpec(8, 8, 1), 3)
    assert built.training
    assert all(parameter.requires_grad for parameter in built.parameters())
    assert built(torch.zeros(2, 1, 8, 8)).requires_grad


@pytest.mark.parametrize("name", ["Keeping", "small"])
def test_a_network_that_keeps_what_it_computed_trains_in_both_cycles(name: str, folder: Path, digits_dataset: Dataset) -> None:
    options = TrainingSettings(architecture=f"own_nets:{name}", device="cpu", learning_rate=0.0001, augmentation="none")
    result = train(digits_dataset.path, folder / "model", options)
    assert result.epochs == 18
    assert BundleConfig.load(folder / "model").parameters["architecture_sha256"] == hashlib.sha256(SOURCE.encode()).hexdigest()


def test_the_layer_that_runs_last_classifies_wherever_it_was_made() -> None:
    network = build("own_nets:HeadFirst", ImageSpec(8, 8, 1), 3)
    assert head_layers(network) == ("head",)
    assert load_weights(network, build("own_nets:HeadFirst", ImageSpec(8, 8, 1), 5).state_dict(), "the weights").new_head
    rates = [group["lr"] for group in make_optimizer(network, TrainingSettings(pretrained=True, learning_rate=0.1)).param_groups]
    assert rates == pytest.approx([0.01, 0.1])
    body, head = make_optimizer(network, TrainingSettings(pretrained=True)).param_groups
    assert [len(head["params"][0]), len(body["params"][0])] == [3, 32]
