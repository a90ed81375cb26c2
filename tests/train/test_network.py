"""Every name builds a network that takes the pictures there are, or says why not."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torchvision import models

from components.classifier import network
from components.classifier.errors import UsageError
from components.classifier.images import ImageSpec
from components.preflight.checks import OWN_ARCHITECTURES, check_search, check_training


@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (3, 5, 3), (8, 8, 1), (16, 12, 3), (20, 28, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3), (97, 40, 1), (30, 900, 1)]
)
@pytest.mark.parametrize("name", ["compact_cnn", "small_cnn"])
def test_penstocks_own_networks_take_any_size(name: str, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    built = network.build(name, ImageSpec(*shape), 7)
    assert built(torch.zeros(2, channels, height, width)).shape == (2, 7)
    assert sum(p.numel() for p in built.parameters()) < 1_500_000


@pytest.mark.parametrize("side", [4, 9])
def test_a_convolution_over_the_whole_picture_gives_what_any_convolution_gives(side: int) -> None:
    torch.manual_seed(0)
    layer = network.WholePicture(3, 5, 4).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pictures = torch.randn(2, 3, side, side)
    for given in (pictures, pictures.to(memory_format=torch.channels_last)):
        torch.testing.assert_close(layer(given), torch.nn.functional.conv2d(given, layer.weight, layer.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (40, 28, 3)])
def test_a_torchvision_classifier_takes_small_and_grey_pictures(name: str, shape: tuple[int, int, int]) -> None:
    height, width, channels = shape
    built = network.build(name, ImageSpec(*shape), 4).eval()
    with torch.inference_mode():
        assert built(torch.zeros(2, channels, height, width)).shape == (2, 4)


def test_pictures_are_enlarged_by_the_smallest_whole_factor_that_suffices() -> None:
    assert network.build("resnet18", ImageSpec(8, 10, 1), 2).size == (32, 40)
    assert network.build("resnet18", ImageSpec(28, 28, 1), 2).size == (56, 56)
    assert not network.build("resnet18", ImageSpec(32, 100, 3), 2).resized


def test_an_architecture_of_one_size_refuses_larger_pictures() -> None:
    with pytest.raises(UsageError, match=r"'vit_b_16' takes pictures of up to 224x224, these are 300x200; set image_size=224"):
        network.build("vit_b_16", ImageSpec(300, 200, 3), 2)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("resnet-18", "resnet18"),
        ("ResNet18", "resnet18"),
        ("smallcnn", "small_cnn"),
        ("mobilenet_v3", "mobilenet_v3"),
        ("zzz", "use compact_cnn, small_cnn, a classifier of torchvision"),
    ],
)
def test_an_unknown_name_is_refused_with_near_matches(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        network.build(name, ImageSpec(8, 8, 1), 2)
    assert f"unknown architecture {name!r}" in str(raised.value)
    assert hint in str(raised.value)


def test_a_network_too_large_for_one_file_is_refused_before_it_is_built() -> None:
    with pytest.raises(UsageError, match=r"'vit_h_14' has 6\d\d,\d+,\d+ parameters, more than the 475,000,000 that one ONNX file can hold"):
        network.check_architecture("vit_h_14")


@pytest.mark.parametrize("name", ["fcn_resnet50", "fasterrcnn_resnet50_fpn", "raft_small", "r3d_18"])
def test_what_is_no_classifier_of_pictures_is_not_offered(name: str) -> None:
    assert name not in network.architectures()
    with pytest.raises(UsageError, match="unknown architecture"):
        network.check_architecture(name)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mnasnet0_5"])
def test_batch_statistics_follow_within_a_short_training(name: str) -> None:
    built = network.build(name, ImageSpec(8, 8, 1), 4)
    assert {module.momentum for module in built.modules() if isinstance(module, nn.BatchNorm2d)} == {0.1}


def test_an_own_architecture_takes_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "OWN", dict(network.OWN))

    @network.architecture("linear")
    def linear(spec: ImageSpec, classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(spec.height * spec.width * spec.channels, classes))

    assert "linear" in network.architectures()
    assert network.build("linear", ImageSpec(4, 4, 1), 3)(torch.zeros(2, 1, 4, 4)).shape == (2, 3)


def test_preflight_knows_our_own_networks_without_importing_any() -> None:
    assert {name for name, builder in network.OWN.items() if builder.__module__.startswith("components.")} == OWN_ARCHITECTURES


@pytest.mark.parametrize(
    ("name", "width", "dropout", "says"),
    [
        ("resnet18", 2.0, None, "width changes compact_cnn and small_cnn only"),
        ("resnet18", 1.0, 0.2, "'resnet18' has no dropout layer"),
        ("timm/test_resnet", 1.0, 0.2, "has no dropout layer"),
        ("timm/test_vit", 1.0, 0.2, ""),
        ("vit_l_16", 1.0, 0.2, ""),
        ("regnet_y_400mf", 1.0, 0.2, ""),
    ],
)
def test_what_a_network_lacks_is_known_without_building_it(name: str, width: float, dropout: float | None, says: str) -> None:
    with pytest.raises(UsageError, match=says) if says else nullcontext():
        network.check_changes(name, width, dropout)


def test_own_architectures_have_no_pretrained_weights() -> None:
    with pytest.raises(UsageError, match="'small_cnn' has no pretrained weights"):
        network.build("small_cnn", ImageSpec(8, 8, 1), 2, pretrained=True)


# Networks are built without memory for their weights; regnet computes its widths with tensors, so that two real ones stand for all.
FITTING = [name for name in models.list_models(module=models) if name not in {"vit_h_14", "regnet_y_128gf"}]
WEIGHTLESS = [name for name in FITTING if not name.startswith("regnet")]
FAMILIES = {
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
}
"""One of each kind of last layer and of working size."""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "device"),
    [
        *(pytest.param(name, "meta", marks=[] if name in FAMILIES else pytest.mark.release) for name in WEIGHTLESS),
        ("regnet_y_400mf", "cpu"),
        pytest.param("regnet_x_400mf", "cpu", marks=pytest.mark.release),
    ],
)
def test_the_last_layer_of_every_torchvision_classifier_is_replaced(name: str, device: str) -> None:
    options = {"aux_logits": False, "init_weights": False} if name in {"googlenet", "inception_v3"} else {}
    with torch.device(device):
        original = models.get_model(name, weights=None, **options)
        side = network._working_size(name, ImageSpec(32, 32, 3))
        replaced = network._with_head(original, 5).eval()
        assert replaced(torch.zeros(2, 3, *side)).shape == (2, 5)


@pytest.mark.parametrize(
    ("training", "search", "says"),
    [
        ({"width": 2}, {}, "width changes compact_cnn and small_cnn only"),
        ({}, {"dropout": [None, 0.2]}, "'resnet18' has no dropout layer"),
        ({}, {"architecture": ["small_cnn", "resnet18"], "width": [1, 2]}, "width changes compact_cnn and small_cnn only"),
    ],
)
def test_preflight_refuses_what_the_network_lacks_in_each_trial_of_a_search_too(
    training: dict[str, object], search: dict[str, object], says: str
) -> None:
    given = {"name": "digits", "source": "digits", "store": "s3://b", "architecture": "resnet18", "ingest": {}, "resources": {}}
    with pytest.raises(UsageError, match=says):
        list((check_search if search else check_training)({**given, "training": training, "search": search}))
