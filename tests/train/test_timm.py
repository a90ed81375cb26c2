"""Networks of timm by name: built for the pictures there are, refused with near matches, trained and exported like all others."""

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import timm
import timm.layers
import torch
import torch.nn.functional as F
from huggingface_hub import constants
from safetensors.torch import save_file

from components.bundle.config import BundleConfig
from components.bundle.dataset import Dataset
from components.bundle.model import Classifier
from components.classifier import network
from components.classifier.errors import TrainingError, UsageError
from components.classifier.images import ImageSpec
from components.classifier.layers import head_layers
from components.classifier.pretrained import check_pretrained, normalisation
from components.settings.training import TrainingSettings
from components.train.batch_norm import WholeBatch
from components.train.training import train


@pytest.mark.parametrize(
    ("name", "shape", "size"),
    [
        ("timm/test_resnet", (8, 10, 1), (32, 40)),
        ("timm/test_efficientnet.r160_in1k", (64, 40, 3), (64, 40)),
        ("timm/test_vit", (8, 8, 1), (160, 160)),
    ],
)
def test_it_takes_small_and_grey_pictures(name: str, shape: tuple[int, int, int], size: tuple[int, int]) -> None:
    built = network.build(name, ImageSpec(*shape), 4).eval()
    assert built.size == size
    with torch.inference_mode():
        assert built(torch.zeros(2, shape[2], *shape[:2])).shape == (2, 4)


def test_batch_normalisation_of_timm_is_what_processes_share(monkeypatch: pytest.MonkeyPatch) -> None:
    shared, layer, x = list[object](), timm.layers.BatchNormAct2d(3), torch.randn(7, 3, 2, 2)
    expected = copy.deepcopy(layer)(x)
    monkeypatch.setattr("components.train.batch_norm._batch_norm", lambda *args, **more: shared.append(args) or F.batch_norm(*args, **more))
    with WholeBatch():
        assert torch.equal(layer(x), expected)
    assert len(shared) == 1


def test_the_layers_that_classify_are_timms() -> None:
    assert head_layers(network.build("timm/test_resnet", ImageSpec(32, 32, 3), 4)) == ("body.fc",)
    assert head_layers(network.build("timm/test_convnext", ImageSpec(32, 32, 3), 4)) == ("body.head.fc",)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm/resnet-18", "did you mean timm/resnet18"),
        ("timm/zzzzzzz", "unknown architecture 'timm/zzzzzzz'"),
        ("timm/resnet18.a1_in2k", "no weights 'a1_in2k' for resnet18; did you mean timm/resnet18.a1_in1k"),
        ("timm/qwen3_vit_88m_enc", "is not a classifier"),
    ],
)
def test_an_unknown_name_is_refused_with_near_matches(name: str, says: str) -> None:
    with pytest.raises(UsageError) as raised:
        network.check_architecture(name)
    assert says in str(raised.value)


def test_larger_pictures_than_a_network_of_one_size_takes_are_refused() -> None:
    with pytest.raises(UsageError, match="takes pictures of up to 160x160, these are 300x200; set image_size=160"):
        network.build("timm/test_vit", ImageSpec(300, 200, 3), 2)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs timm, which is not installed; run `pip install 'penstock\[timm\]'`"):
        network.check_architecture("timm/resnet18")


def test_pictures_are_normalised_as_its_data_config_says() -> None:
    assert normalisation("timm/test_resnet", 3) == ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])
    assert normalisation("timm/resnet18", 1)[0] == [pytest.approx(0.449)]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the Hugging Face hub, which does not answer."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}")
    return tmp_path / "hub"


def test_without_file_and_network_pretrained_names_the_remedy(hub: Path) -> None:
    for attempt in (
        lambda: check_pretrained("timm/test_resnet"),
        lambda: network.build("timm/test_resnet", ImageSpec(32, 32, 3), 2, pretrained=True),
    ):
        with pytest.raises(TrainingError, match=r"weights of timm/test_resnet are missing and .*`penstock weights add FILE"):
            attempt()
    with pytest.raises(UsageError, match="'timm/gcvit_tiny' has no pretrained weights on the Hugging Face hub"):
        check_pretrained("timm/gcvit_tiny")


def test_the_file_in_the_hub_s_cache_is_used_without_network(hub: Path) -> None:
    torch.manual_seed(3)
    there = timm.create_model("test_resnet")
    folder = hub / "models--timm--test_resnet.r160_in1k"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(there.state_dict(), snapshot / "model.safetensors")
    assert check_pretrained("timm/test_resnet") == snapshot / "model.safetensors"
    torch.manual_seed(4)
    built = network.build("timm/test_resnet", ImageSpec(32, 32, 3), 3, pretrained=True)
    found = built.state_dict()
    assert all(torch.equal(found[f"body.{key}"], value) for key, value in there.state_dict().items() if not key.startswith("fc."))
    assert found["body.fc.weight"].shape[0] == 3


@pytest.mark.integration
def test_it_is_trained_and_exported_with_the_normalisation_inside(
    digits_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 1)
    options = TrainingSettings(architecture="timm/test_efficientnet", normalisation="model", epochs=1, device="cpu")
    result = train(digits_dataset.path, tmp_path / "model", options)
    assert result.export_difference < 1e-4
    config = BundleConfig.load(tmp_path / "model")
    assert (config.architecture, config.input.mean) == ("timm/test_efficientnet", [pytest.approx(0.449)])
    answers = Classifier(tmp_path / "model", threads=1).probabilities(np.array(digits_dataset.split("test").images[:5]))
    assert answers.shape == (5, 10)
