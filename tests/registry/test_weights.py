"""Pretrained weights in the store: added, listed, found, verified, removed; in a directory and on S3 alike."""

import json
import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from components.classifier.errors import IntegrityError, TrainingError, UsageError
from components.classifier.weights import read_weights
from components.registry.weights import Weights, find_weights
from components.storage import Store, open_store
from pipelines.cli import app
from tests import tiny


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "My ResNet.pth"
    torch.save({"state_dict": {"module.a": torch.ones(2, 3), "module.b": torch.zeros(3)}, "epoch": 3}, path)
    return path


def test_a_file_is_kept_once_and_comes_back_as_it_was(store: Store, file: Path, tmp_path: Path) -> None:
    weights = Weights(store)
    added = weights.add(file, 2)
    assert (added.name, added.file, added.tensors) == ("my-resnet", "My ResNet.pth", 2)
    assert weights.add(file, 2) == added, "again is no error"
    weights.add(file, 2, "other")
    assert [record.name for record in weights.list()] == ["my-resnet", "other"]
    assert len(list(store.names("weights/files/"))) == 1
    assert weights.find("other").sha256 == added.sha256
    assert weights.find(added.sha256[:8]).name == "my-resnet"
    assert weights.fetch(added, tmp_path / "out").read_bytes() == file.read_bytes()
    weights.remove("my-resnet")
    assert weights.fetch(weights.find("other"), tmp_path / "again").read_bytes() == file.read_bytes()
    weights.remove("other")
    assert list(store.list("weights/")) == []


def test_a_name_stands_for_one_file(store: Store, file: Path, tmp_path: Path) -> None:
    weights = Weights(store)
    weights.add(file, 2, "first")
    torch.save({"a": torch.ones(1)}, tmp_path / "second.pth")
    with pytest.raises(UsageError, match="'first' stands for other weights in"):
        weights.add(tmp_path / "second.pth", 1, "first")
    assert len(list(store.names("weights/files/"))) == 1, "what was not named is not kept"


def test_what_is_not_there_is_refused_with_the_nearest(store: Store, file: Path) -> None:
    with pytest.raises(UsageError, match=r"there are no weights 'resnet'.*add them by `penstock weights add FILE`"):
        Weights(store).find("resnet")
    Weights(store).add(file, 2)
    for selector in ("my-resnett", "My ResNet", "../my-resnet"):
        with pytest.raises(UsageError, match="did you mean my-resnet"):
            Weights(store).find(selector)
    with pytest.raises(UsageError, match="cannot be called 'a/b'"):
        Weights(store).add(file, 2, "a/b")


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_damaged_file_is_never_used(store: Store, file: Path, tmp_path: Path, damage: str) -> None:
    record = Weights(store).add(file, 2)
    key = f"weights/files/{record.sha256}"
    store.delete(key) if damage == "missing" else store.replace(key, store.read(key)[:-1] + b"x")
    with pytest.raises(IntegrityError, match="add the weights again"):
        Weights(store).fetch(record, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_of_a_model_its_architecture_and_normalisation_are_recorded(tmp_path: Path) -> None:
    bundle = tiny.write_bundle(tmp_path / "model", golden=False)
    store = open_store(str(tmp_path / "store"))
    record = Weights(store).add(bundle / "model.safetensors", 2, "ours")
    assert (record.architecture, record.mean, record.std) == ("logistic", [0.0], [1.0])
    assert find_weights(store.url, "ours", "logistic") == record
    with pytest.raises(UsageError, match="are those of architecture 'logistic', not of 'small_cnn'; set architecture=logistic"):
        find_weights(store.url, "ours", "small_cnn")
    with pytest.raises(UsageError, match="are kept in a model store"):
        find_weights("", "ours", "logistic")


def test_files_are_read_without_unpickling_objects(file: Path, tmp_path: Path) -> None:
    assert {key: tuple(value.shape) for key, value in read_weights(file).items()} == {"a": (2, 3), "b": (3,)}
    save_file({"a": torch.ones(2)}, tmp_path / "plain.bin")
    assert list(read_weights(tmp_path / "plain.bin")) == ["a"], "by content, not by name"
    torch.save(torch.nn.Linear(1, 1), tmp_path / "object.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    (tmp_path / "text.pth").write_text("no weights")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "plain.bin").read_bytes()[:20])
    (tmp_path / "nothing").write_bytes(b"")
    for name in ("object.pth", "empty.pth", "text.pth", "cut.safetensors", "nothing", "absent.pth"):
        with pytest.raises(TrainingError, match="give a safetensors file"):
            read_weights(tmp_path / name)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_file_is_refused_in_one_line_whatever_bytes_changed(tmp_path: Path) -> None:
    draws, damaged, told = random.Random(0), tmp_path / "damaged.pth", list[str]()
    for zipped in (True, False):
        torch.save({"a": torch.ones(2, 3), "b": torch.ones(3)}, tmp_path / "whole.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "whole.pth").read_bytes()
        for _ in range(400):
            content = bytearray(whole)
            for _ in range(draws.choice([1, 5, 30])):
                content[draws.randrange(300)] = draws.randrange(256)
            damaged.write_bytes(content)
            try:
                read_weights(damaged)
            except TrainingError as error:
                told.append(str(error))
    assert len(told) > 400
    assert not [line for line in told if "weights_only" in line or "\n" in line]


def test_the_commands_add_list_and_remove(file: Path, tmp_path: Path) -> None:
    store = ["--store", str(tmp_path / "store")]
    run = CliRunner(env={"COLUMNS": "120"})
    assert "No weights in" in run.invoke(app, ["weights", "list", *store]).stdout
    said = run.invoke(app, ["weights", "add", str(file), "--name", "resnet", *store]).stdout
    assert "resnet is in" in said
    assert "--set architecture=NAME --set weights=resnet" in said
    assert "resnet" in run.invoke(app, ["weights", "list", *store]).stdout
    (record,) = json.loads(run.invoke(app, ["weights", "list", "--json", *store]).stdout)
    assert (record["name"], record["tensors"]) == ("resnet", 2)
    assert "is removed" in run.invoke(app, ["weights", "remove", record["sha256"][:8], *store]).stdout
    assert json.loads(run.invoke(app, ["weights", "list", "--json", *store]).stdout) == []
