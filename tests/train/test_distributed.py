"""Two processes train one network as one does: the same result from half the work each, stopped and ended together."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.bundle import files
from components.bundle.config import BundleConfig, code_version
from components.bundle.dataset import Dataset
from components.classifier.errors import DataError, TrainingError, UsageError
from components.classifier.network import build
from components.registry.weights import Weights
from components.settings.training import TrainingSettings
from components.storage import open_store
from components.train.batch_norm import is_synchronised
from components.train.batches import Batches, batches_per_pass
from components.train.distributed import Group, launch
from components.train.training import train
from tests.train import together
from tests.train.fitting import split
from tests.train.flat import two_layers
from tests.train.test_training import started, wait_for

pytestmark = pytest.mark.timeout(900)  # each process loads torch, which takes seconds of CPU time

CPU = torch.device("cpu")
PLAIN = {
    "architecture": "tests.train.flat:normalised",
    "sync_batch_norm": "on",
    "precision": "float32",
    "epochs": 2,
    "optimizer": "sgd",
    "learning_rate": 0.05,
    "class_weights": "balanced",
    "batch_size": 95,
}


@contextmanager
def training(data: Path, model: Path, options: dict[str, object], counts: str = "", store: str = "") -> Iterator[subprocess.Popen[str]]:
    """Two processes that train, with their launcher."""
    command = [sys.executable, "-m", "tests.train.together", "2", str(data), str(model), json.dumps({"device": "cpu", **options})]
    with started([*command, counts, store], OMP_NUM_THREADS="1") as process:
        yield process


@pytest.fixture
def finished(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Train in two processes that this one launches, so that one fewer loads torch; returns what they printed."""
    monkeypatch.setenv("PENSTOCK_CODE_VERSION", code_version())  # as `started` does: the checkpoints of both are the same

    def train_to_the_end(data: Path, model: Path, options: dict[str, object], counts: str = "", store: str = "") -> str:
        assert launch(2, together.counted, data, model, TrainingSettings.read(options, device="cpu"), counts, store) is not None
        return capfd.readouterr().out

    return train_to_the_end


def alone(data: Path, model: Path, options: dict[str, object], store: str = "") -> dict[str, torch.Tensor]:
    """The weights of the same training in this one process."""
    with together.without_export():
        train(data, model, TrainingSettings.read(options, device="cpu"), store)
    return load_file(model / files.WEIGHTS)


def kept_weights(network: torch.nn.Module, folder: Path) -> dict[str, object]:
    """The settings that start from weights in a store, which are those of a network of three classes."""
    torch.save(network.state_dict(), folder / "three.pth")
    Weights(open_store(str(folder / "store"))).add(folder / "three.pth", 4)
    return {"weights": "three"}


def test_two_parts_are_the_whole_batch_and_its_order() -> None:
    digits, weights = split(0, 95), np.arange(95, dtype=np.float32)
    whole, first, second = (Batches(digits, CPU, weights, group) for group in (Group(), Group(0, 2), Group(1, 2)))
    for all_of_it, one, two in zip(*(batches.shuffled(20, (1, 2), 6) for batches in (whole, first, second)), strict=True):
        assert one.whole == two.whole == all_of_it.whole == len(all_of_it.images)
        for expected, part, other in zip(all_of_it[:3], one[:3], two[:3], strict=True):
            assert torch.equal(expected[::2], part)
            assert torch.equal(expected[1::2], other)
    in_order = [np.concatenate([labels.numpy() for _, labels in whole.in_order(20, Group(rank, 2))]) for rank in (0, 1)]
    assert np.array_equal(in_order[0], digits.labels[::2])
    assert np.array_equal(in_order[1], digits.labels[1::2])


def test_each_process_gets_two_pictures_of_every_batch_at_least() -> None:
    for pictures in range(8, 200):
        smallest = pictures // batches_per_pass(pictures, 8, 4)
        assert smallest // 4 >= 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"gpus": "4", "batch_size": 6}, "each GPU needs two pictures"),
        ({"gpus": "many"}, "gpus must be a whole number from 0 to 16"),
        ({"gpus": "17"}, "gpus must be a whole number from 0 to 16"),
        ({"gpus": "2", "device": "cuda:1"}, "use device=cuda or auto"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(options: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainingSettings.read({}, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpus_that_are_not_there_are_said_in_one_line(digits_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gpus=2 was requested, but there is no GPU here"):
        train(digits_dataset.path, tmp_path / "model", TrainingSettings(gpus="2"))


def test_layers_of_two_processes_normalise_by_the_whole_batch() -> None:
    for (layer, batch), found in zip(together.layers(), launch(2, together.normalised_together), strict=True):
        wanted = together.through(layer, batch, Group())
        assert found.keys() == wanted.keys()
        tolerance = 2e-5 if batch.dtype == torch.float32 else 0.02
        for name, value in wanted.items():
            whole = value[::2] if name in {"out", "gradient"} else value  # the first process' part
            assert torch.allclose(found[name], whole, atol=tolerance), (type(layer).__name__, name)


@pytest.mark.parametrize(
    ("asked", "processes", "batch_size", "shared"),
    [
        ("auto", 4, 128, False),
        ("auto", 4, 127, True),
        ("off", 4, 8, False),
        ("on", 2, 128, True),
        ("on", 1, 8, False),
        ("auto", 1, 8, False),
    ],
)
def test_statistics_are_shared_where_a_part_is_small(asked: str, processes: int, batch_size: int, shared: bool) -> None:
    assert is_synchronised(TrainingSettings.read({"sync_batch_norm": asked}, batch_size=batch_size), processes) == shared


@pytest.mark.integration
def test_two_processes_end_with_the_weights_of_one_and_do_half_the_work_each(
    digits_dataset: Dataset, tmp_path: Path, finished: Callable[..., str]
) -> None:
    (tmp_path / "counts").mkdir()
    told = finished(digits_dataset.path, tmp_path / "two", PLAIN, str(tmp_path / "counts"))
    one, two = alone(digits_dataset.path, tmp_path / "one", PLAIN), load_file(tmp_path / "two" / files.WEIGHTS)
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)
    assert float(re.findall(r"val accuracy ([0-9.]+)", told)[-1]) > 0.9
    assert sum(line.startswith("epoch ") for line in told.splitlines()) == 2  # one process prints
    config = BundleConfig.load(tmp_path / "two")
    assert config.parameters["device_used"].startswith("2 x cpu")
    first, second = (int((tmp_path / "counts" / name).read_text()) for name in ("first", "second"))
    trained = second  # the second one leaves after the training
    assert abs(first - len(digits_dataset.split("validation")) - trained) <= 150  # batches of 95: 48 and 47


@pytest.mark.integration
def test_two_processes_fine_tune_as_one(digits_dataset: Dataset, tmp_path: Path, finished: Callable[..., str]) -> None:
    torch.manual_seed(4)
    tuned = {**PLAIN, "architecture": "tests.train.flat:two_layers", "frozen": 0.25, "body_rate": 0.5}
    tuned |= kept_weights(two_layers(digits_dataset.info.spec, 3), tmp_path)
    told = finished(digits_dataset.path, tmp_path / "two", tuned, store=str(tmp_path / "store"))
    assert "a new last layer" in told
    one = alone(digits_dataset.path, tmp_path / "one", tuned, str(tmp_path / "store"))
    two = load_file(tmp_path / "two" / files.WEIGHTS)
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


@pytest.mark.integration
def test_a_killed_training_of_two_leaves_no_process_and_goes_on_as_if_unbroken(
    digits_dataset: Dataset, tmp_path: Path, finished: Callable[..., str]
) -> None:
    """At the kill the body is still frozen; each process drops features of its own, and pictures are changed at random."""
    size = {"width": 0.25, "dropout": 0.2}
    network = build("small_cnn", digits_dataset.info.spec, 3, width=0.25, dropout=0.2)
    options = {**size, "epochs": 2, "frozen": 0.75, "checkpoints": str(tmp_path / "checkpoints"), **kept_weights(network, tmp_path)}
    data, store = digits_dataset.path, str(tmp_path / "store")
    finished(data, tmp_path / "unbroken", options, store=store)
    with training(data, tmp_path / "model", options, store=store) as process:
        wait_for(process, "epoch 1:")
        process.kill()
        told, _ = process.communicate(timeout=100)  # until the last process that could print has ended
    assert "stopped" not in told, "killed too, not asked to stop"
    assert "resumed from the checkpoint of" in finished(data, tmp_path / "model", options, store=store)
    assert (tmp_path / "unbroken" / files.WEIGHTS).read_bytes() == (tmp_path / "model" / files.WEIGHTS).read_bytes()


@pytest.mark.integration
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)])
def test_two_that_are_told_to_stop_leave_only_their_checkpoint(
    digits_dataset: Dataset, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    with training(digits_dataset.path, tmp_path / "out" / "model", {**PLAIN, "epochs": 500, "patience": 500}) as process:
        wait_for(process, "epoch 1:")
        process.send_signal(number)
        told, errors = process.communicate()
    assert process.returncode == code, errors
    assert "stopped; the same training goes on after" in told
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".model.checkpoint"]


@pytest.mark.integration
def test_an_error_of_one_process_is_the_error_of_the_training(
    digits_dataset: Dataset, tmp_path: Path, finished: Callable[..., str]
) -> None:
    with pytest.raises(DataError, match="the second process cannot go on; give it a better one"):
        finished(digits_dataset.path, tmp_path / "model", PLAIN, "fail")
    assert not (tmp_path / "model").exists()
