"""Variants of published versions: what they answer, what they are made with, and what cannot become one."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.numpy import load_file
from torch import nn

from components.bundle import files
from components.bundle.config import BundleConfig, Variant
from components.bundle.dataset import Dataset, DatasetInfo, Split, write
from components.bundle.environment import load_environment
from components.bundle.evaluation import Evaluation
from components.bundle.model import Classifier
from components.bundle.policy import Policy
from components.classifier.errors import DataError, IntegrityError, RegistryError, TrainingError, UsageError
from components.evaluate.step import run as evaluate
from components.gate.step import judge
from components.publish.publishing import publish
from components.registry import Record, Registry
from components.registry.kept_dataset import keep
from components.registry.parents import choose
from components.registry.publication import publish_directory
from components.registry.weights import Weights
from components.settings.training import TrainingSettings
from components.settings.variant import VariantSettings
from components.storage import open_store
from components.train.convert import export_version
from components.train.training import train
from components.train.variants import graphs
from components.train.variants.average import average_weights, measure_batch_norm
from components.train.variants.making import make_variant
from tests import tiny
from tests.train.together import without_export


@dataclass(frozen=True)
class Place:
    """A store with two versions and the dataset that they were trained on."""

    registry: Registry
    dataset: Dataset
    versions: list[str]

    def make(self, folder: Path, **options: object) -> Path:
        settings = VariantSettings(**options)
        chosen = choose(self.registry, settings)
        make_variant(self.dataset.path, folder, self.registry, chosen.versions, settings)
        return folder


def write_wide(directory: Path, seed: int, digest: str) -> Path:
    """A tiny bundle whose product of matrices is written as two, through 300 features, so that weights are most of the file."""
    tiny.write_bundle(directory, seed=seed, dataset_digest=digest, familiarity=True, trained_at=f"2026-01-0{seed + 1}T00:00:00+00:00")
    model = onnx.load(directory / files.ONNX)
    graph = model.graph
    (weight,) = [value for value in graph.initializer if value.name == "weight"]
    apart, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(300, 64)))
    second = apart @ numpy_helper.to_array(weight)
    graph.initializer.remove(weight)
    graph.initializer.extend(numpy_helper.from_array(v.astype(np.float32), n) for n, v in (("first", apart.T), ("second", second)))
    product = next(node for node in graph.node if node.op_type == "Gemm")
    product.input[:] = ["features", "second", "bias"]
    graph.node.insert(list(graph.node).index(product), helper.make_node("MatMul", ["flat", "first"], ["features"]))
    for number, node in enumerate(graph.node):
        node.name = f"node{number}"
    onnx.save(model, directory / files.ONNX)
    return directory


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    root = tmp_path_factory.mktemp("variants")
    dataset = tiny.write_dataset(root / "dataset")
    (root / "dataset" / "report.html").write_text("<p>checks")
    keep(dataset.path, dataset.info, str(root / "store"))
    registry = Registry(open_store(str(root / "store")), "digits")
    bundles = [write_wide(root / f"bundle{seed}", seed, dataset.info.digest) for seed in range(2)]
    return Place(registry, dataset, [publish_directory(registry, bundle).version for bundle in bundles])


@pytest.fixture(scope="module")
def int8(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place.make(tmp_path_factory.mktemp("int8") / "model", kind="int8", versions=place.versions[0])


@pytest.fixture(scope="module")
def ensemble(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return place.make(tmp_path_factory.mktemp("ensemble") / "model", kind="ensemble", versions=",".join(place.versions))


def members(place: Place, folder: Path) -> list[Classifier]:
    return [Classifier(place.registry.fetch(version, folder / version)) for version in place.versions]


def accuracy(classifier: Classifier, split: Split) -> float:
    return float((classifier.probabilities(split.images).argmax(axis=1) == split.labels).mean())


def test_an_ensemble_answers_the_mean_of_its_members(place: Place, ensemble: Path, tmp_path: Path) -> None:
    images = place.dataset.split("test").images
    answers = [member.answer(images) for member in members(place, tmp_path)]
    mean = np.mean([answer.probabilities for answer in answers], axis=0)
    joined = graphs.joined([onnx.load(tmp_path / version / files.ONNX) for version in place.versions], familiarity=True)
    found = shutil.copytree(ensemble, tmp_path / "ensemble")
    (found / files.ONNX).write_bytes(joined.SerializeToString())
    assert np.abs(Classifier(found).probabilities(images) - mean).max() < 1e-6
    assert np.abs(Classifier(found).answer(images).familiarity - np.mean([a.familiarity for a in answers], axis=0)).max() < 1e-6


def test_what_is_shipped_is_that_mean_at_the_temperature_of_the_config(place: Place, ensemble: Path, tmp_path: Path) -> None:
    images = place.dataset.split("test").images
    mean = np.mean([member.probabilities(images) for member in members(place, tmp_path)], axis=0)
    powers = mean.astype(np.float64) ** (1 / BundleConfig.load(ensemble).temperature)
    assert np.abs(Classifier(ensemble).probabilities(images) - powers / powers.sum(axis=1, keepdims=True)).max() < 1e-5


def test_a_graph_that_was_scaled_can_be_scaled_again(place: Place, tmp_path: Path) -> None:
    images = place.dataset.split("test").images
    folder = place.registry.fetch(place.versions[0], tmp_path / "version")
    before = Classifier(folder).answer(images)
    model = onnx.load(folder / files.ONNX)
    for factor in (2.0, 0.5):
        graphs.scale_probabilities(model, factor)
        graphs.scale_familiarity(model, factor)
    onnx.checker.check_model(model)
    onnx.save(model, folder / files.ONNX)
    after = Classifier(folder).answer(images)
    assert np.abs(after.probabilities - before.probabilities).max() < 1e-5
    assert np.abs(after.familiarity - before.familiarity).max() < 1e-5


def test_an_int8_model_is_smaller_and_as_accurate_as_the_gate_asks(place: Place, int8: Path, tmp_path: Path) -> None:
    parent = place.registry.fetch(place.versions[0], tmp_path / "parent")
    assert (int8 / files.ONNX).stat().st_size < (parent / files.ONNX).stat().st_size / 2
    test = place.dataset.split("test")
    margin = load_environment("dev").policy.maximum_accuracy_drop
    assert margin is not None
    assert accuracy(Classifier(int8), test) >= accuracy(Classifier(parent), test) - margin
    operators = {node.op_type for node in onnx.load(int8 / files.ONNX).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators


def test_of_familiar_pictures_one_in_a_hundred_is_called_unfamiliar(place: Place, int8: Path, ensemble: Path) -> None:
    images = place.dataset.split("validation").images
    for folder in (int8, ensemble):
        classifier = Classifier(folder)
        unfamiliar = classifier.unfamiliar(classifier.answer(images).familiarity)
        assert unfamiliar is not None
        assert unfamiliar.sum() in (1, 2)  # of 200


@pytest.mark.parametrize("kind", ["int8", "ensemble"])
def test_the_same_versions_give_the_same_bytes_and_the_sealed_split_is_not_read(
    place: Place, int8: Path, ensemble: Path, kind: str, tmp_path: Path
) -> None:
    without = shutil.copytree(place.dataset.path, tmp_path / "dataset")
    shutil.rmtree(without / "test")
    versions = place.versions[:1] if kind == "int8" else place.versions
    settings = VariantSettings(kind=kind, versions=",".join(versions))
    make_variant(without, tmp_path / "model", place.registry, versions, settings)
    first = {"int8": int8, "ensemble": ensemble}[kind]
    assert (tmp_path / "model" / files.ONNX).read_bytes() == (first / files.ONNX).read_bytes()


def test_the_calibration_split_can_be_chosen(place: Place, int8: Path, tmp_path: Path) -> None:
    other = place.make(tmp_path / "model", versions=place.versions[0], calibration_split="validation", calibration_pictures=20)
    assert "20 pictures of the validation split" in str(Variant.of(BundleConfig.load(other).parameters))
    assert (other / files.ONNX).read_bytes() != (int8 / files.ONNX).read_bytes()


def test_where_static_ranges_do_not_hold_only_weights_are_quantised(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, labels = tiny.digits()
    dark = images[:1200] // 12
    parts = {"train": (dark, labels[:1200]), "validation": (images[1200:1400], labels[1200:1400]), "test": (images[1400:], labels[1400:])}
    counts = {name: dict.fromkeys(tiny.CLASSES, 1) for name in parts}
    info = write(tmp_path / "dark", DatasetInfo("digits", tiny.CLASSES, (8, 8, 1), counts, 7), parts)
    registry = Registry(open_store(str(tmp_path / "store")), "digits")
    version = publish_directory(registry, write_wide(tmp_path / "bundle", 0, info.digest)).version
    make_variant(tmp_path / "dark", tmp_path / "model", registry, [version], VariantSettings(versions=version))
    operators = {node.op_type for node in onnx.load(tmp_path / "model" / files.ONNX).graph.node}
    assert "DequantizeLinear" in operators
    assert "QuantizeLinear" not in operators
    assert "note: static int8 answers" in capsys.readouterr().out
    sizes = [(folder / files.ONNX).stat().st_size for folder in (tmp_path / "model", tmp_path / "bundle")]
    assert sizes[0] < sizes[1] / 2
    assert accuracy(Classifier(tmp_path / "model"), Dataset.load(tmp_path / "dark").split("test")) > 0.85


def test_of_an_ensemble_with_an_int8_member_the_weights_of_the_others_are_rounded(
    place: Place, int8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = publish_directory(place.registry, int8).version
    mixed = place.make(tmp_path / "mixed", kind="ensemble", versions=f"{small},{place.versions[1]}")
    assert BundleConfig.load(mixed).architecture == "ensemble of 2: (logistic, int8), logistic"
    version = publish_directory(place.registry, mixed).version
    smaller = place.make(tmp_path / "smaller", kind="int8", versions=version)
    assert "a part is in 8 bits already" in capsys.readouterr().out
    assert (smaller / files.ONNX).stat().st_size < (mixed / files.ONNX).stat().st_size / 1.5
    images = place.dataset.split("validation").images
    assert (
        Classifier(smaller).probabilities(images).argmax(axis=1) == Classifier(mixed).probabilities(images).argmax(axis=1)
    ).mean() >= 0.98
    again = publish_directory(place.registry, smaller).version
    whole = place.make(tmp_path / "whole", kind="ensemble", versions=f"{small},{again}")
    with pytest.raises(TrainingError, match="product left to quantise"):
        place.make(tmp_path / "none", kind="int8", versions=publish_directory(place.registry, whole).version)


def test_a_version_says_of_which_it_was_made(place: Place, ensemble: Path) -> None:
    config = BundleConfig.load(ensemble)
    variant = Variant.of(config.parameters)
    assert variant is not None
    assert [parent.version for parent in variant.parents] == place.versions
    assert [parent.sha256[:12] for parent in variant.parents] == [version.rpartition("-")[2] for version in place.versions]
    assert config.architecture == "ensemble of 2: logistic, logistic"
    assert config.dataset_digest == place.dataset.info.digest
    with pytest.raises(IntegrityError, match=r"parameters\.variant"):
        Variant.of({"variant": {"kind": "int16"}})


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"classes": [*tiny.CLASSES[:9], "nine"]}, "classes"),
        ({"size": 9}, "input shapes"),
        ({"channels": 3}, "channels"),
        ({"levels": 12}, "bit depths of 16-bit files"),
        ({"dataset_digest": "1" * 64}, "datasets"),
    ],
)
def test_versions_that_do_not_go_together_are_refused_by_name(place: Place, changed: dict[str, object], what: str, tmp_path: Path) -> None:
    bundle = tiny.write_bundle(tmp_path / "bundle", **{"dataset_digest": place.dataset.info.digest, "samples": 60, **changed})
    other = publish_directory(place.registry, bundle).version
    with pytest.raises(UsageError, match=rf"{place.versions[0]} and {other} cannot become one ensemble: their {what} differ"):
        choose(place.registry, VariantSettings(kind="ensemble", versions=f"{place.versions[0]},{other}"))


def test_a_dataset_that_was_not_kept_is_said_with_the_remedy(tmp_path: Path) -> None:
    fixture = Path(__file__).parent.parent / "fixtures" / "release_0_1" / "store"
    registry = Registry(open_store(str(shutil.copytree(fixture, tmp_path / "store"))), "digits")
    for kind, versions in (("int8", "champion"), ("ensemble", "20260102,20260202"), ("average", "20260102,20260202")):
        with pytest.raises(DataError, match=r"not kept in .*; run a training of the same source with keep_dataset=true"):
            choose(registry, VariantSettings(kind=kind, versions=versions))


def test_what_cannot_be_made_is_refused(place: Place, int8: Path, tmp_path: Path) -> None:
    version = publish_directory(place.registry, int8).version
    with pytest.raises(UsageError, match=f"{version} is int8 already, made of {place.versions[0]}"):
        choose(place.registry, VariantSettings(versions=version))
    with pytest.raises(RegistryError, match=f"{version} has no model.safetensors"):
        choose(place.registry, VariantSettings(kind="average", versions=f"{place.versions[0]},{version}"))
    with pytest.raises(UsageError, match="twice"):
        choose(place.registry, VariantSettings(kind="ensemble", versions=f"{version},{version}"))
    with pytest.raises(UsageError, match="names 2; name one"):
        VariantSettings(kind="int8", versions="a,b")
    with pytest.raises(UsageError, match="2 to 5 versions"):
        VariantSettings(kind="ensemble", versions="champion")
    with pytest.raises(RegistryError, match=r"is an int8 and has no model\.safetensors; choose onnx or openvino"):
        export_version(place.registry, version, "pt2", tmp_path / "exported")
    other = tiny.write_dataset(tmp_path / "other", classes=[f"c{k}" for k in range(10)])
    with pytest.raises(DataError, match="give the dataset version that was kept"):
        make_variant(other.path, tmp_path / "model", place.registry, place.versions[:1], VariantSettings(versions=place.versions[0]))


def test_the_mean_of_weights_is_that_and_batch_norm_is_measured_again() -> None:
    images, labels = tiny.digits()
    networks = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        networks.append(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.9), nn.Linear(64, 10), nn.BatchNorm1d(10)))
    wanted = (networks[0][3].weight + networks[1][3].weight).detach() / 2
    network = average_weights(networks)
    assert torch.equal(network[3].weight, wanted)
    measure_batch_norm(network, nn.Identity(), Split((images / 255).astype(np.float32), labels))
    assert torch.allclose(network[1].running_mean, torch.tensor(images.reshape(-1, 64).mean(axis=0) / 255, dtype=torch.float32), atol=0.01)
    assert not network.training


@pytest.mark.integration
@pytest.mark.timeout(900)
def test_the_average_of_two_fine_tunings_is_judged_by_the_gate_against_the_first(tmp_path: Path) -> None:
    dataset, store = tiny.write_dataset(tmp_path / "dataset"), str(tmp_path / "store")
    (tmp_path / "dataset" / "report.html").write_text("<p>checks")
    keep(dataset.path, dataset.info, store)
    registry = Registry(open_store(store), "digits")
    settings = {"architecture": "tests.train.flat:two_layers", "epochs": 1, "learning_rate": 0.01, "device": "cpu", "name": "digits"}
    with without_export():
        train(dataset.path, tmp_path / "base", TrainingSettings.read(settings))
    Weights(registry.store).add(tmp_path / "base" / files.WEIGHTS, 4, "base")
    for seed in (1, 2):
        train(dataset.path, tmp_path / f"tuned{seed}", TrainingSettings.read(settings, weights="base", seed=seed), store)
    first, second = (publish_directory(registry, tmp_path / f"tuned{seed}").version for seed in (1, 2))
    registry.ledger.append(Record(action="deployed", version=first, champion=first, strategy="quality"))
    place = Place(registry, dataset, [first, second])
    model = place.make(tmp_path / "model", kind="average", versions=f"champion,{second}")

    out = [str(tmp_path / name) for name in ("evaluation", "report.html", "summary.md")]
    evaluate(str(dataset.path), str(model), *out, store, "digits")
    version = publish(model, tmp_path / "evaluation", store=store, name="digits")
    policy = Policy(minimum_accuracy=0.8, maximum_accuracy_drop=0.05)
    rules = load_environment("dev").model_copy(update={"policy": policy})
    decision = judge(tmp_path / "evaluation", registry, version, rules, "dev", "quality", "", "")
    assert decision.verdict == "promote", decision.reasons
    assert Evaluation.load(tmp_path / "evaluation").tradeoff is not None
    variant = Variant.of(registry.get(version).manifest.parameters)
    assert variant is not None
    assert [parent.version for parent in variant.parents] == [first, second]
    mean = np.mean([load_file(tmp_path / f"tuned{seed}" / files.WEIGHTS)["1.weight"] for seed in (1, 2)], axis=0)
    assert np.allclose(load_file(model / files.WEIGHTS)["1.weight"], mean, atol=1e-6)
