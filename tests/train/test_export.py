"""model.onnx gives what torch gives, for every size of batch, and tells nothing about the machine that made it."""

import json
import socket
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from components.bundle import files
from components.bundle.config import BundleConfig, InputConfig, facts_of
from components.bundle.model import Classifier
from components.classifier.errors import TrainingError
from components.classifier.images import ImageSpec
from components.classifier.network import ServingGraph, build
from components.train.export import check_export, export_onnx

MEAN, STD, TEMPERATURE = 0.3, 0.25, 1.7


def exported(directory: Path, architecture: str, spec: ImageSpec, classes: int = 5) -> ServingGraph:
    """An untrained network whose batch normalisation has seen some noise, exported with its configuration."""
    torch.manual_seed(0)
    network = build(architecture, spec, classes)
    with torch.no_grad():
        network.train()(torch.randn(4, spec.channels, spec.height, spec.width))
    mean, std = [MEAN] * spec.channels, [STD] * spec.channels
    graph = ServingGraph(network, mean, std, TEMPERATURE)
    config = BundleConfig(
        name="noise",
        architecture=architecture,
        classes=[f"class {k}" for k in range(classes)],
        input=InputConfig(height=spec.height, width=spec.width, channels=spec.channels, mean=mean, std=std),
        temperature=TEMPERATURE,
        trained_at="2026-01-02T03:04:05+00:00",
        dataset_digest="0" * 64,
        parameters={},
        code_version="test",
    )
    config.save(directory)
    export_onnx(graph, spec, directory / files.ONNX, facts_of(config))
    return graph


def none(spec: ImageSpec) -> np.ndarray:
    return np.zeros((0, *spec.shape), np.uint8)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ServingGraph]:
    directory = tmp_path_factory.mktemp("export")
    return directory, exported(directory, "small_cnn", ImageSpec(8, 8, 1))


def test_batches_of_1_2_7_and_64_equal_torch_and_rows_alone(grey: tuple[Path, ServingGraph]) -> None:
    directory, graph = grey
    assert check_export(graph, directory, none(ImageSpec(8, 8, 1))) <= 1e-4


def test_normalisation_temperature_and_softmax_are_inside(grey: tuple[Path, ServingGraph]) -> None:
    directory, graph = grey
    images = np.random.default_rng(1).integers(0, 256, (9, 8, 8, 1), dtype=np.uint8)
    pictures = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - MEAN) / STD
    with torch.inference_mode():
        expected = nn.functional.softmax(graph.network(pictures) / TEMPERATURE, dim=1).numpy()
    np.testing.assert_allclose(Classifier(directory, threads=1).probabilities(images), expected, atol=1e-5)


def test_the_file_stands_alone_and_names_no_machine(grey: tuple[Path, ServingGraph]) -> None:
    directory, _ = grey
    data = (directory / files.ONNX).read_bytes()
    onnx.checker.check_model(onnx.load_model_from_string(data), full_check=True)
    assert {path.name for path in directory.iterdir()} == {files.ONNX, files.CONFIG}
    model = onnx.load_model_from_string(data)
    for weights in model.graph.initializer:
        weights.ClearField("raw_data")  # random bytes spell any short name
    for trace in (".py", "site-packages", socket.gethostname(), str(Path.cwd()), str(directory)):
        assert trace.encode() not in model.SerializeToString()


def test_a_file_that_differs_from_the_network_does_not_count(grey: tuple[Path, ServingGraph]) -> None:
    directory, graph = grey
    other = ServingGraph(build("small_cnn", ImageSpec(8, 8, 1), 5), [MEAN], [STD], TEMPERATURE)
    with pytest.raises(TrainingError, match=r"model\.onnx differs from the trained network by"):
        check_export(other, directory, none(ImageSpec(8, 8, 1)))
    assert graph is not other


QUICKEST = [
    ("small_cnn", (20, 28, 1)),
    ("compact_cnn", (40, 97, 3)),
    ("resnet18", (8, 8, 1)),
    ("mobilenet_v3_small", (28, 28, 3)),
    ("squeezenet1_1", (32, 32, 3)),
]
SLOWER = [
    ("compact_cnn", (20, 28, 1)),
    ("small_cnn", (64, 48, 3)),
    ("efficientnet_b0", (32, 32, 3)),
    ("shufflenet_v2_x0_5", (8, 8, 1)),
    ("densenet121", (32, 32, 3)),
    ("mnasnet0_5", (32, 32, 3)),
    ("regnet_y_400mf", (32, 32, 3)),
    ("convnext_tiny", (32, 32, 3)),
    ("alexnet", (8, 8, 1)),
    ("vgg11", (8, 8, 1)),
    ("googlenet", (32, 32, 3)),
    ("inception_v3", (28, 28, 1)),
    ("swin_t", (28, 28, 1)),
    ("swin_v2_t", (32, 32, 3)),
    ("maxvit_t", (32, 32, 3)),
    ("vit_b_16", (8, 8, 1)),
]


@pytest.mark.integration
@pytest.mark.timeout(900)  # the largest has 86 million weights
@pytest.mark.parametrize(("architecture", "shape"), [*QUICKEST, *(pytest.param(*it, marks=pytest.mark.release) for it in SLOWER)])
def test_each_family_of_architectures_is_exported(tmp_path: Path, architecture: str, shape: tuple[int, int, int]) -> None:
    spec = ImageSpec(*shape)
    assert check_export(exported(tmp_path, architecture, spec), tmp_path, none(spec)) <= 1e-4


def test_the_file_says_what_it_takes_and_gives(grey: tuple[Path, ServingGraph]) -> None:
    directory, _ = grey
    facts = {entry.key: entry.value for entry in onnx.load(directory / files.ONNX).metadata_props}
    assert json.loads(facts["penstock.classes"]) == BundleConfig.load(directory).classes
    assert "8x8" in facts["penstock.preprocessing"]
    assert "601-2 luma" in facts["penstock.preprocessing"]
    assert facts["penstock.name"] == "noise"
    asked = onnxruntime.InferenceSession(directory / files.ONNX, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert asked == facts


def test_an_equal_network_gives_an_equal_file(grey: tuple[Path, ServingGraph], tmp_path: Path) -> None:
    exported(tmp_path, "small_cnn", ImageSpec(8, 8, 1))
    assert (tmp_path / files.ONNX).read_bytes() == (grey[0] / files.ONNX).read_bytes()
