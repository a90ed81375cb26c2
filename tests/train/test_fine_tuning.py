"""Trainings that start from weights of the store: what is taken over, what learns when, and what it is worth."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from typer.testing import CliRunner

from components.bundle.config import BundleConfig
from components.bundle.dataset import Dataset, Split
from components.classifier.errors import TrainingError, UsageError
from components.classifier.images import ImageSpec
from components.classifier.network import build
from components.classifier.progress import TrainingProgress
from components.classifier.weights import load_weights
from components.preflight import checks
from components.registry.weights import Weights
from components.settings.training import TrainingSettings
from components.storage import open_store
from components.train.batches import Batches, Normalise
from components.train.loop import Trainer
from components.train.optimisation import freeze, is_frozen, learning_body, make_optimizer
from components.train.start import Start
from components.train.training import save_weights, train
from pipelines.cli import app
from tests import tiny
from tests.train.fitting import CPU, checkpoints, trainer, weights

SPEC = ImageSpec(8, 8, 1)
SHOW = TrainingProgress(silent=True)


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 10)


def digits(start: int, stop: int, *, odd: bool = False) -> Split:
    """Of each digit the pictures from `start` to `stop`; `odd`: the classes are even and odd, not the ten digits."""
    images, labels = tiny.digits()
    rows = np.concatenate([np.flatnonzero(labels == digit)[start:stop] for digit in range(10)])
    return Split(images[rows], labels[rows] % 2 if odd else labels[rows])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with the weights `ten`: a network that was trained to tell ten digits apart, added by the command."""
    folder = tmp_path_factory.mktemp("ten")
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 60)
        source = trainer(TrainingSettings(epochs=2, batch_size=64, seed=1), digits(0, 100), digits(100, 110))
        source.fit(checkpoints(folder), SHOW)
    save_weights(source.network, folder, "small_cnn")
    given = ["--name", "ten", "--store", str(folder / "store")]
    added = CliRunner().invoke(app, ["weights", "add", str(folder / "model.safetensors"), *given])
    assert added.exit_code == 0, added.output
    return str(folder / "store")


def accuracy(options: TrainingSettings, store: str, folder: Path) -> float:
    """The share of right answers to whether a digit is odd, after a training with one picture of each digit."""
    torch.manual_seed(options.seed)
    training, start = digits(110, 111, odd=True), Start(options, store)
    network, _ = start.network(SPEC, 2)
    normalise = Normalise(*start.normalisation(training), CPU)
    batches = (Batches(training, CPU), Batches(digits(112, 114, odd=True), CPU))
    fitted = Trainer(network, normalise, *batches, lambda pictures, *_: pictures, options, CPU)
    fitted.fit(checkpoints(folder), SHOW)
    logits, labels = fitted.predict(Batches(digits(120, 170, odd=True), CPU))
    return float((logits.argmax(axis=1) == labels).mean())


def test_with_one_picture_of_each_digit_fine_tuned_is_far_better_than_from_scratch(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 40)
    tuned, scratch = [], []
    for seed in range(2):
        tuned.append(accuracy(TrainingSettings(weights="ten", frozen=0.5, epochs=1, seed=seed), store, tmp_path / f"tuned{seed}"))
        scratch.append(accuracy(TrainingSettings(epochs=1, seed=seed), store, tmp_path / f"scratch{seed}"))
    assert min(tuned) > 0.9, (tuned, scratch)
    assert min(tuned) > max(scratch) + 0.1, (tuned, scratch)


def tensors(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_the_last_layer_is_new_where_the_number_of_classes_differs_and_only_there() -> None:
    torch.manual_seed(0)
    given = tensors(build("small_cnn", SPEC, 6))
    for classes, new in ((4, True), (6, False)):
        network = build("small_cnn", SPEC, classes)
        before = tensors(network)
        loaded = load_weights(network, given, "the weights 'ten'")
        assert (loaded.new_head, loaded.unused) == (new, [])
        after = network.state_dict()
        head = before if new else given
        assert all(torch.equal(after[name], (head if name.startswith("head.") else given)[name]) for name in after)


def test_weights_of_torchvision_and_timm_fit_their_networks_as_they_are() -> None:
    given = {**models.squeezenet1_1().state_dict(), "more.weight": torch.ones(1)}
    network = build("squeezenet1_1", SPEC, 4)
    loaded = load_weights(network, given, "the weights")
    assert (loaded.new_head, loaded.unused) == (True, ["body.more.weight"])
    assert torch.equal(network.state_dict()["body.features.0.weight"], given["features.0.weight"])
    resnet = build("timm/test_resnet", SPEC, 4)
    torch.manual_seed(5)
    other = build("timm/test_resnet", SPEC, 4).state_dict()
    assert not load_weights(resnet, {name.removeprefix("body."): tensor for name, tensor in other.items()}, "the weights").new_head
    assert all(torch.equal(resnet.state_dict()[name], other[name]) for name in other)


def test_keys_that_do_not_fit_are_named() -> None:
    given = tensors(build("small_cnn", SPEC, 6))
    shorter = {name: tensor for name, tensor in given.items() if name != "features.0.0.weight"}
    with pytest.raises(TrainingError, match=r"'ten' do not fit .* 1 of \d+ tensors, such as: features.0.0.weight is 32x1x3x3, in the"):
        load_weights(build("small_cnn", SPEC, 6), shorter, "the weights 'ten'")
    with pytest.raises(TrainingError, match=r"features.0.0.weight is 32x3x3x3, in the file 32x1x3x3"):
        load_weights(build("small_cnn", ImageSpec(8, 8, 3), 6), given, "the weights 'ten'")


def test_a_part_that_is_frozen_stays_bit_for_bit_with_its_statistics(tmp_path: Path, store: str) -> None:
    options = TrainingSettings(weights="ten", frozen=1.0, epochs=2, device="cpu")
    fitted = trainer(options, digits(0, 8), digits(8, 11))
    before = weights(fitted)
    fitted.fit(checkpoints(tmp_path), SHOW)
    changed = {name for name, array in weights(fitted).items() if not np.array_equal(array, before[name])}
    assert changed == {"head.weight", "head.bias"}


def test_after_the_frozen_start_all_layers_learn(tmp_path: Path) -> None:
    fitted = trainer(TrainingSettings(weights="x", frozen=0.3, epochs=2), digits(0, 8), digits(8, 11))
    before = weights(fitted)
    fitted.fit(checkpoints(tmp_path), SHOW)
    assert all(not np.array_equal(array, before[name]) for name, array in weights(fitted).items() if name.endswith("weight"))


def test_a_frozen_start_is_that_of_the_first_cycle() -> None:
    assert [is_frozen(0.25, 0, done) for done in (0.0, 0.2, 0.25, 0.9)] == [True, True, False, False]
    assert not is_frozen(0.25, 6, 0.0), "the second cycle of epochs=auto begins with all layers"
    assert is_frozen(1.0, 6, 0.9)
    assert not is_frozen(0.0, 0, 0.0)


def test_normalisation_of_frozen_layers_uses_its_statistics_and_of_others_the_batch_s() -> None:
    network = build("small_cnn", SPEC, 4)
    kept = network.features[0][0].weight.requires_grad_(False)
    body = learning_body(network)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    freeze(network, body, True)
    assert not any(norm.training for norm in norms)
    assert {name for name, parameter in network.named_parameters() if parameter.requires_grad} == {"head.weight", "head.bias"}
    freeze(network, body, False)
    assert all(norm.training for norm in norms)
    assert [parameter for parameter in network.parameters() if not parameter.requires_grad] == [kept], "what never learnt does not now"


def test_body_and_head_have_rates_of_their_own() -> None:
    network = build("timm/test_convnext", SPEC, 4)
    options = TrainingSettings(weights="x", body_rate=0.02, learning_rate=0.5)
    body, head = make_optimizer(network, options).param_groups
    assert (body["lr"], head["lr"]) == (pytest.approx(0.01), 0.5)
    assert [tuple(parameter.shape) for parameter in head["params"]] == [(4, 64), (4,)]
    assert len(body["params"]) + 2 == len(list(network.parameters()))


@pytest.mark.parametrize("step", [4, 13])
def test_a_fine_tuning_that_is_killed_ends_like_an_unbroken_one(tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    options = TrainingSettings(weights="x", frozen=0.5, epochs=2, batch_size=16, seed=2)

    def one(folder: str) -> tuple[Trainer, Any]:
        return trainer(options, digits(0, 8), digits(8, 11)), checkpoints(tmp_path / folder, minutes=1e-9)

    unbroken, place = one("unbroken")
    unbroken.fit(place, SHOW)
    taken, take = [0], Trainer._step

    def mortal(self: Trainer, *batch: Any) -> Tensor:
        taken[0] += 1
        if taken[0] == step + 1:
            raise KeyboardInterrupt
        return take(self, *batch)

    killed, place = one("killed")
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", mortal)
        with pytest.raises(KeyboardInterrupt):
            killed.fit(place, SHOW)
    again, place = one("killed")
    again.fit(place, SHOW)
    assert place.saved
    for name, array in weights(unbroken).items():
        np.testing.assert_array_equal(array, weights(again)[name])


def test_normalisation_is_the_weights_own_unless_settings_say_otherwise(tmp_path: Path) -> None:
    bundle = tiny.write_bundle(tmp_path / "model", golden=False)
    address = str(tmp_path / "store")
    Weights(open_store(address)).add(bundle / "model.safetensors", 2, "ours")
    training = digits(0, 8)

    def found(**options: Any) -> tuple[float, float]:
        mean, std = Start(TrainingSettings(**options), address).normalisation(training)
        return mean[0], std[0]

    pixels = training.images / 255
    dataset = (pytest.approx(pixels.mean()), pytest.approx(pixels.std()))
    assert found(architecture="logistic", weights="ours") == (0.0, 1.0)
    assert found(architecture="logistic", weights="ours", normalisation="dataset") == dataset
    assert found(architecture="timm/test_resnet") == dataset
    assert found(architecture="timm/test_resnet", normalisation="model") == (0.5, 0.5)
    with pytest.raises(UsageError, match="'small_cnn' has no normalisation of its own"):
        found(normalisation="model")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pretrained": True, "weights": "ten"}, "two starting points"),
        ({"frozen": 0.5}, "frozen and body_rate are for pretrained weights"),
        ({"body_rate": 0.5}, "frozen and body_rate are for pretrained weights"),
        ({"frozen": 1.5, "weights": "ten"}, "frozen"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainingSettings.read(options)


def test_preflight_refuses_weights_that_are_not_there(store: str) -> None:
    def said(name: str) -> str:
        return checks._check_train(TrainingSettings.read({"weights": name}), store, False)

    assert said("ten") == "training: small_cnn from the weights ten, epochs auto"
    with pytest.raises(UsageError, match=r"no weights 'tenn' in .*did you mean ten"):
        said("tenn")


def test_a_version_says_which_weights_it_started_from(
    store: str, digits_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(digits_dataset.path, tmp_path / "model", TrainingSettings(weights="ten", epochs=1, device="cpu"), store)
    parameters = BundleConfig.load(tmp_path / "model").parameters
    record = Weights(open_store(store)).find("ten")
    assert (parameters["weights_name"], parameters["weights_sha256"]) == ("ten", record.sha256)
    assert f"starts from the weights 'ten' (SHA-256 {record.sha256[:12]}…)" in capsys.readouterr().out
