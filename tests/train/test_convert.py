"""`penstock export`: what it writes answers in its own runtime as the version was evaluated, or is not written."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from typer.testing import CliRunner

from components.bundle import files
from components.bundle.config import BundleConfig
from components.bundle.dataset import Dataset
from components.bundle.files import ExportFormat
from components.bundle.golden import load_golden, save_golden
from components.bundle.model import Classifier
from components.classifier.errors import IntegrityError, RegistryError, TrainingError, UsageError
from components.classifier.images import ImageSpec, encode_png, from_bytes
from components.registry import Registry
from components.registry.publication import publish_directory
from components.settings.training import TrainingSettings
from components.storage import open_store
from components.train.convert import FACTS_INSIDE, export_version
from components.train.training import save_weights, train
from pipelines.cli import app
from tests import tiny
from tests.train.test_export import exported as untrained

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
CLASSES = ["né", "one", "two\\three", *"3456789"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real training, narrower than usual, so that the width must be found again; with golden pictures."""
    place = tmp_path_factory.mktemp("trained")
    dataset: Dataset = tiny.write_dataset(place / "dataset", classes=CLASSES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        torch.set_num_threads(1)
        train(dataset.path, place / "model", TrainingSettings(name="digits", epochs=1, width=0.5, device="cpu"))
    test = np.array(dataset.split("test").images[:20])
    save_golden(place / "model", test, *Classifier(place / "model").answer(test))
    return place / "model"


@pytest.fixture(scope="module")
def registry(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    registry = Registry(open_store(str(tmp_path_factory.mktemp("store"))), "digits")
    publish_directory(registry, trained)
    return registry


@pytest.fixture(scope="module")
def version(registry: Registry) -> str:
    (version,) = registry.newest()
    return version


@pytest.fixture(scope="module", params=list(ExportFormat))
def exported(request: pytest.FixtureRequest, registry: Registry, version: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / request.param
    export_version(registry, version, request.param, folder)
    return folder


def test_the_folder_says_what_the_files_take_and_give(exported: Path, version: str) -> None:
    about = json.loads((exported / "export.json").read_text("utf-8"))
    assert (about["version"], about["format"]) == (version, exported.name)
    assert about["classes"] == CLASSES == json.loads((exported / "labels.json").read_text("utf-8"))
    assert {path.name for path in exported.iterdir()} == {*about["files"], "export.json", "labels.json", files.GOLDEN}
    assert about["input"] == {"name": "image", "dtype": "uint8", "shape": ["N", 8, 8, 1], "layout": "NHWC"}
    assert "8x8" in about["preprocessing"]
    familiar = exported.name in ("onnx", "openvino")
    assert about["outputs"] == ["probabilities", "familiarity"][: 1 + familiar]
    assert (about["familiarity_threshold"] is not None) == familiar
    assert about["golden_pictures"] == 20
    assert about["largest_difference"] <= 1e-4


def test_the_example_of_the_documentation_gives_what_the_version_gives(
    exported: Path, trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heading = {"onnx": "onnxruntime", "openvino": "OpenVINO", "pt2": "PyTorch", "torchscript": "TorchScript"}[exported.name]
    preparation, example = (
        re.search(rf"^## {title}.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE) for title in ("What goes in", f"{heading}\n")
    )
    assert preparation is not None
    assert example is not None
    picture = np.random.default_rng(3).integers(0, 256, (19, 13, 3), dtype=np.uint8)
    (exported / "picture.png").write_bytes(encode_png(picture))
    monkeypatch.chdir(exported)
    found: dict[str, np.ndarray] = {}
    exec(compile(preparation[1] + example[1], "docs/export.md", "exec"), found)
    (exported / "picture.png").unlink()
    expected = Classifier(trained).answer(from_bytes(encode_png(picture), BundleConfig.load(trained).input.spec)[None])
    np.testing.assert_allclose(found["probabilities"], expected.probabilities, atol=1e-5)
    if "familiarity" in found:
        np.testing.assert_allclose(found["familiarity"], expected.familiarity, atol=1e-5)
    assert CLASSES[int(expected.probabilities.argmax())] in capsys.readouterr().out


def test_the_file_alone_says_its_classes(exported: Path) -> None:
    inside = {FACTS_INSIDE: ""}
    if exported.name == "onnx":
        text = onnxruntime.InferenceSession(exported / files.ONNX).get_modelmeta().custom_metadata_map["penstock.classes"]
    elif exported.name == "openvino":
        text = openvino.Core().read_model(exported / "model.xml").get_rt_info(["penstock", "classes"]).value
    elif exported.name == "pt2":
        torch.export.load(exported / "model.pt2", extra_files=inside)
        text = json.loads(inside[FACTS_INSIDE])["penstock.classes"]
    else:
        torch.jit.load(exported / "model.torchscript", _extra_files=inside)
        text = json.loads(inside[FACTS_INSIDE])["penstock.classes"]
    assert json.loads(text) == CLASSES


def test_a_file_that_answers_in_another_way_than_evaluated_is_not_written(trained: Path, tmp_path: Path) -> None:
    registry, model = Registry(open_store(str(tmp_path / "store")), "digits"), tmp_path / "model"
    model.mkdir()
    for name in files.TRAINED_FILES:
        (model / name).write_bytes((trained / name).read_bytes())
    images, probabilities = load_golden(trained)
    save_golden(model, images, probabilities[::-1])
    version = publish_directory(registry, model).version
    with pytest.raises(TrainingError, match=r"the answers of model\.torchscript differ from the evaluation\'s by .* for golden pictures"):
        export_version(registry, version, ExportFormat.TORCHSCRIPT, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "store"]


def test_weights_of_another_network_are_refused_and_model_onnx_is_offered(tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, tiny.write_bundle(tmp_path / "model")).version
    with pytest.raises(RegistryError, match=r"model\.safetensors does not make the network .*; choose onnx or openvino"):
        export_version(registry, version, ExportFormat.PT2, tmp_path / "out")
    assert export_version(registry, version, ExportFormat.OPENVINO, tmp_path / "out").outputs == ["probabilities"]


def test_a_version_that_was_changed_is_not_exported(trained: Path, tmp_path: Path) -> None:
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, trained).version
    changed = tmp_path / "store" / "models" / "digits" / version / files.ONNX
    changed.chmod(0o644)
    changed.write_bytes(changed.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=r"model\.onnx was changed"):
        export_version(registry, version, ExportFormat.ONNX, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_left_alone(registry: Registry, version: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="is not an empty folder; name a new one"):
        export_version(registry, version, ExportFormat.ONNX, tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


def test_without_openvino_the_package_is_named(registry: Registry, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'penstock\[openvino\]'"):
        export_version(registry, version, ExportFormat.OPENVINO, tmp_path / "out")


def test_the_command_takes_the_beginning_of_a_version_and_writes_where_it_is_told(registry: Registry, version: str, tmp_path: Path) -> None:
    place = ["--store", registry.store.url, "--name", "digits"]
    done = CliRunner().invoke(app, ["export", version[:15], "--output", str(tmp_path / "out"), "--json", *place])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["version"] == version
    assert (tmp_path / "out" / files.ONNX).is_file()
    address = f"file://{tmp_path}/bucket/out"
    told = CliRunner().invoke(app, ["export", version, "--output", address, *place])
    assert "20 golden pictures agree with the evaluation" in told.stdout
    assert (tmp_path / "bucket" / "out" / "export.json").is_file()
    again = CliRunner().invoke(app, ["export", version, "--output", address, *place])
    assert "holds something already" in str(again.exception)


@pytest.mark.integration
@pytest.mark.parametrize(
    "architecture", ["resnet18", *(pytest.param(it, marks=pytest.mark.release) for it in ("inception_v3", "vit_b_16", "swin_v2_t"))]
)
def test_each_family_of_architectures_can_be_exported(tmp_path: Path, architecture: str) -> None:
    """Networks whose shapes are computed while they run are where tracing goes wrong for other numbers of pictures."""
    spec, model = ImageSpec(32, 40, 3) if architecture == "swin_v2_t" else ImageSpec(28, 28, 1), tmp_path / "model"
    model.mkdir()
    graph = untrained(model, architecture, spec)
    save_weights(graph.network, model, architecture)
    images = np.random.default_rng(0).integers(0, 256, (5, *spec.shape), dtype=np.uint8)
    save_golden(model, images, Classifier(model).probabilities(images))
    registry = Registry(open_store(str(tmp_path / "store")), "noise")
    version = publish_directory(registry, model).version
    for chosen in ExportFormat:
        if (architecture, chosen) == ("swin_v2_t", ExportFormat.OPENVINO):
            with pytest.raises(TrainingError, match=r"OpenVINO does not take this network \(Conversion is failed for: ScatterND"):
                export_version(registry, version, chosen, tmp_path / chosen)
        else:
            assert export_version(registry, version, chosen, tmp_path / chosen).largest_difference <= 1e-4
