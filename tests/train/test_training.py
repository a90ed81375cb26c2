"""A whole training: what it leaves behind, and how it ends when it is killed, stopped or refused."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from components.bundle import dataset, files
from components.bundle.config import BundleConfig, code_version, facts_of
from components.bundle.dataset import Dataset
from components.bundle.model import Classifier
from components.classifier.errors import DataError, DiskError, TrainingError, UsageError
from components.classifier.network import ServingGraph, build
from components.settings.training import TrainingSettings
from components.train.training import Preprocessing, TrainingResult, config, save_weights, train
from tests.train.strange import brighter, strange

OPTIONS = TrainingSettings(name="digits", epochs=4, batch_size=32, device="cpu", seed=3)


@pytest.fixture(scope="module")
def trained(digits_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    directory = tmp_path_factory.mktemp("train") / "model"
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        return directory, train(digits_dataset.path, directory, OPTIONS)


def test_how_pictures_were_read_goes_into_the_model_s_configuration() -> None:
    info = dataset.DatasetInfo(source="test", classes=["a", "b"], shape=(8, 9, 3), counts={}, seed=0, levels=12)
    described = config(info, OPTIONS, Preprocessing([0.5] * 3, [0.2] * 3), {})
    assert BundleConfig.model_validate_json(described.model_dump_json()).input.spec == info.spec
    assert str(info.spec) == "8x9x3 (levels=12)"
    assert "the brightest value is 4095" in facts_of(described)["penstock.preprocessing"]


def test_it_knows_digits_it_has_never_seen(trained: tuple[Path, TrainingResult], digits_dataset: Dataset) -> None:
    test = digits_dataset.split("test")
    probabilities = Classifier(trained[0], threads=1).probabilities(test.images)
    assert (probabilities.argmax(axis=1) == test.labels).mean() >= 0.97


def test_config_tells_what_was_asked_and_what_was_used(trained: tuple[Path, TrainingResult], digits_dataset: Dataset) -> None:
    config = BundleConfig.load(trained[0])
    assert (config.name, config.architecture, config.dataset_digest) == ("digits", "small_cnn", digits_dataset.info.digest)
    assert config.parameters["augmentation"] == "auto"
    assert config.parameters["augmentation_used"] == "affine"
    assert config.parameters["device_used"] == "cpu, 1 threads"
    assert config.parameters["seed"] == 3
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", config.trained_at)
    assert config.code_version.startswith("0.1.0")


def test_training_json_is_strict_and_holds_every_epoch(trained: tuple[Path, TrainingResult]) -> None:
    directory, result = trained
    record = json.loads((directory / files.TRAINING).read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2, 3, 4]
    assert record["best_epoch"] == result.best_epoch
    assert record["stop_reason"] == "all epochs were run"
    assert torch.__version__.startswith(record["versions"]["torch"])
    assert result.as_metrics()["parameters"] == record["parameter_count"]


def test_the_weights_alone_rebuild_the_graph(trained: tuple[Path, TrainingResult], digits_dataset: Dataset) -> None:
    config = BundleConfig.load(trained[0])
    network = build(config.architecture, config.input.spec, len(config.classes))
    network.load_state_dict(load_file(trained[0] / files.WEIGHTS))
    graph = ServingGraph(network, config.input.mean, config.input.std, config.temperature).eval()
    images = np.array(digits_dataset.split("test").images[:20])
    with torch.inference_mode():
        expected = graph(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(Classifier(trained[0], threads=1).probabilities(images), expected, atol=1e-4)
    with safe_open(trained[0] / files.WEIGHTS, "pt") as file:
        assert file.metadata()["architecture"] == "small_cnn"


def test_what_it_was_not_trained_on_is_unfamiliar(trained: tuple[Path, TrainingResult], digits_dataset: Dataset) -> None:
    classifier, own = Classifier(trained[0], threads=1), np.array(digits_dataset.split("test").images)

    def share(pictures: np.ndarray) -> float:
        unfamiliar = classifier.unfamiliar(classifier.answer(pictures).familiarity)
        assert unfamiliar is not None
        return float(unfamiliar.mean())

    found = {name: share(pictures) for name, pictures in strange(own).items()}
    letters = found.pop("letters")
    assert min(found.values()) >= 0.95, found
    assert letters >= 0.6
    assert share(own) <= 0.02
    assert share(brighter(own, 20)) <= 0.05, "another light is familiar"


def test_config_says_by_what_the_threshold_was_set(trained: tuple[Path, TrainingResult], digits_dataset: Dataset) -> None:
    about = BundleConfig.load(trained[0]).familiarity
    assert about is not None
    assert (about.layer, about.features, about.quantile, about.pictures) == ("head", 64, 0.01, len(digits_dataset.split("validation")))


@pytest.mark.integration
def test_equal_trainings_give_equal_files(trained: tuple[Path, TrainingResult], digits_dataset: Dataset, tmp_path: Path) -> None:
    """In a process of its own, because what orders a file by hashes is constant within one."""
    with training_process(digits_dataset.path, tmp_path / "model") as process:
        assert process.wait(120) == 0
    for name in (files.WEIGHTS, files.ONNX):
        assert (tmp_path / "model" / name).read_bytes() == (trained[0] / name).read_bytes(), name


def test_the_files_can_be_read_by_the_next_step(trained: tuple[Path, TrainingResult]) -> None:
    assert {path.name for path in trained[0].iterdir()} == set(files.TRAINED_FILES)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in [trained[0], *trained[0].iterdir()])
    assert [path.name for path in trained[0].parent.iterdir()] == ["model"], "no checkpoint and no working folder is left"


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"architecture": "small_cmn"}, UsageError),
        ({"device": "cuda"}, TrainingError),
        ({"gpus": "1"}, TrainingError),
        ({"architecture": "small_cnn", "pretrained": True}, UsageError),
    ],
)
def test_a_refusal_leaves_nothing(digits_dataset: Dataset, tmp_path: Path, options: dict[str, object], error: type[Exception]) -> None:
    if torch.cuda.is_available() and error is TrainingError:
        pytest.skip("there is a GPU here")
    with pytest.raises(error):
        train(digits_dataset.path, tmp_path / "model", TrainingSettings(**options))
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run ingest again"):
        train(tmp_path / "nowhere", tmp_path / "model", OPTIONS)


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    one, many = (np.zeros((1, 8, 8, 1), np.uint8), np.zeros(1, np.int64)), (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(4, np.int64))
    counts = {"train": {"a": 1, "b": 0}, "validation": {"a": 4, "b": 0}, "test": {"a": 4, "b": 0}}
    info = dataset.DatasetInfo(source="test", classes=["a", "b"], shape=(8, 8, 1), counts=counts, seed=0)
    dataset.write(tmp_path / "data", info, {"train": one, "validation": many, "test": many})
    with pytest.raises(DataError, match="holds 1 pictures, at least 2 are needed"):
        train(tmp_path / "data", tmp_path / "model", OPTIONS)


def test_uneven_classes_are_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 1)
    generator = np.random.default_rng(0)
    images, labels = generator.integers(0, 256, (44, 8, 8, 1), dtype=np.uint8), np.array([0] * 40 + [1] * 4)
    empty = images[:0], labels[:0]
    counts = {"train": {"many": 40, "few": 4}, "validation": {"many": 0, "few": 0}, "test": {"many": 0, "few": 0}}
    info = dataset.DatasetInfo(source="test", classes=["many", "few"], shape=(8, 8, 1), counts=counts, seed=0)
    dataset.write(tmp_path / "data", info, {"train": (images, labels), "validation": empty, "test": empty})
    result = train(tmp_path / "data", tmp_path / "model", TrainingSettings(epochs=1, device="cpu"))
    lines = capsys.readouterr().out
    assert "classes are uneven: 'many' has 40 training pictures, 'few' 4" in lines
    assert "no validation pictures" in lines
    assert "validation_loss" not in result.as_metrics()
    config = BundleConfig.load(tmp_path / "model")
    assert config.temperature == 1.0
    assert config.familiarity is None
    assert Classifier(tmp_path / "model").answer(images[:3]).familiarity is None


@contextmanager
def training_process(data: Path, model: Path) -> Iterator[subprocess.Popen[str]]:
    code = (
        "import sys\nfrom components.settings.training import TrainingSettings\nfrom components.train.training import train\n"
        f"train(sys.argv[1], sys.argv[2], TrainingSettings(**{OPTIONS.as_parameters()!r}))"
    )
    with started([sys.executable, "-c", code, str(data), str(model)]) as process:
        yield process


@contextmanager
def started(command: list[str], **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A program of this code's version, which is killed at the end."""
    environment = {**os.environ, "PENSTOCK_CODE_VERSION": code_version(), **variables}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], start: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(start):
            return
    pytest.fail(f"ended before {start!r}: {process.stderr.read() if process.stderr else ''}")


def test_a_killed_training_goes_on_and_ends_like_an_unbroken_one(
    trained: tuple[Path, TrainingResult], digits_dataset: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with training_process(digits_dataset.path, tmp_path / "model") as process:
        wait_for(process, "epoch 1:")
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / ".model.checkpoint").is_dir()
    train(digits_dataset.path, tmp_path / "model", OPTIONS)
    assert "resumed from the checkpoint of epoch" in capsys.readouterr().out
    expected, found = (load_file(directory / files.WEIGHTS) for directory in (trained[0], tmp_path / "model"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.integration)])
def test_a_training_that_is_told_to_stop_leaves_only_its_checkpoint(
    digits_dataset: Dataset, tmp_path: Path, number: signal.Signals
) -> None:
    with training_process(digits_dataset.path, tmp_path / "out" / "model") as process:
        wait_for(process, "epoch 1:")
        process.send_signal(number)
        assert process.wait(60) != 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".model.checkpoint"]


@pytest.mark.parametrize("room", [100, 100_000])  # neither config.json fits, or model.onnx does not
def test_where_the_model_cannot_be_written_the_error_says_from_where_the_same_training_goes_on(
    digits_dataset: Dataset, tmp_path: Path, room: int
) -> None:
    code = (
        "import resource, sys\nfrom components.settings.training import TrainingSettings\nfrom components.train import training\n"
        "write = training.TrainingRun.write\n"
        "def on_a_full_disk(*given):\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, -1))\n"
        "    return write(*given)\n"
        "training.TrainingRun.write = on_a_full_disk\n"
        "options = TrainingSettings(epochs=1, device='cpu', augmentation='none')\n"
        "training.train(sys.argv[1], sys.argv[2], options)"
    )
    with started([sys.executable, "-c", code, str(digits_dataset.path), str(tmp_path / "model")]) as process:
        _, errors = process.communicate(timeout=120)
    last = errors.splitlines()[-1]
    assert last.startswith("components.classifier.errors.DiskError: cannot write "), errors
    assert "then start the same training again, it goes on after epoch 1 (checkpoint in " in last
    assert [path.name for path in tmp_path.iterdir()] == [".model.checkpoint"]


def test_weights_that_do_not_fit_on_the_disk_are_an_error_of_the_disk(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DiskError, match=r"cannot write model\.safetensors to .*; free space"):
            save_weights(torch.nn.Linear(100, 100), tmp_path, "linear")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_training_that_is_told_to_stop_while_it_exports_ends_as_it_was_told(digits_dataset: Dataset, tmp_path: Path) -> None:
    code = (
        "import signal, sys, torch\nfrom components.settings.training import TrainingSettings\n"
        "from components.train.training import train\n"
        "def swallowing(*given, **more):\n"  # as torch's exporter does
        "    try:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "    except BaseException:\n"
        "        raise RuntimeError('no module') from None\n"
        "torch.onnx.export = swallowing\n"
        "options = TrainingSettings(epochs=1, device='cpu', augmentation='none')\n"
        "train(sys.argv[1], sys.argv[2], options)"
    )
    with started([sys.executable, "-c", code, str(digits_dataset.path), str(tmp_path / "model")]) as process:
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert [path.name for path in tmp_path.iterdir()] == [".model.checkpoint"]
