"""A checkpoint is found by the training that it belongs to, and by no other."""

import errno
import re
from pathlib import Path

import pytest
import torch

from components.settings.training import TrainingSettings
from components.train.checkpoint import Checkpoints, checkpoint_address

CPU = torch.device("cpu")


@pytest.fixture(params=["directory", "memory", "beside"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"directory": str(tmp_path / "volume"), "memory": f"memory://{tmp_path.name}", "beside": ""}[request.param]


def test_it_is_found_by_the_same_inputs_only(where: str, tmp_path: Path) -> None:
    first, again, other = (Checkpoints(where, tmp_path / "model", {"seed": seed}) for seed in (1, 1, 2))
    assert first.load(CPU) is None
    for epoch in (1, 2):
        assert first.save({"epoch": epoch, "weights": {"a": torch.ones(3) * epoch}}, f"epoch {epoch}") == ""
    found = again.load(CPU)
    assert found is not None
    assert found["epoch"] == 2
    assert found["weights"]["a"].tolist() == [2, 2, 2]
    assert other.load(CPU) is None
    first.clear()
    assert again.load(CPU) is None
    assert not (tmp_path / ".model.checkpoint").exists()


def test_a_damaged_one_is_said_and_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path), tmp_path / "model", {})
    checkpoints.save({"epoch": 1, "weights": torch.ones(1000)}, "epoch 1")
    (file,) = tmp_path.glob("training-*.pt")
    whole = file.read_bytes()
    one = torch.ones(1).numpy().tobytes()
    of_a_weight = whole.index(one * 100) + 40 * len(one)  # torch reads such a file, with another weight
    changed = whole[:of_a_weight] + bytes([whole[of_a_weight] ^ 1]) + whole[of_a_weight + 1 :]
    for content in (whole[:500], b"", b"not a checkpoint", changed):
        file.write_bytes(content)
        told = list[str]()
        assert checkpoints.load(CPU, told.append) is None
        assert told == [f"warning: the checkpoint {file.name} in {tmp_path} is damaged; the training starts over"]


def test_one_that_cannot_be_removed_is_told_and_the_training_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints = Checkpoints(str(tmp_path), tmp_path / "model", {})
    checkpoints.save({"epoch": 1}, "epoch 1")
    (file,) = tmp_path.glob("training-*.pt")
    told = list[str]()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr(Path, "unlink", refuse)
    checkpoints.clear(told.append)
    assert re.fullmatch(rf"warning: cannot delete .* read-only; .*; the training is complete, delete {file} yourself", told[0])


def test_a_disk_gets_one_after_each_epoch_and_a_store_every_few_minutes(tmp_path: Path) -> None:
    disk = Checkpoints(str(tmp_path), tmp_path / "model", {}, minutes=60)
    store = Checkpoints(f"memory://{tmp_path.name}", tmp_path / "model", {}, minutes=60)
    hurried = Checkpoints(f"memory://{tmp_path.name}", tmp_path / "model", {}, minutes=1e-9)
    due = {
        name: (one.due(epoch_ended=False), one.due(epoch_ended=True))
        for name, one in (("disk", disk), ("store", store), ("hurried", hurried))
    }
    assert due == {"disk": (False, True), "store": (False, False), "hurried": (True, True)}


def test_they_lie_where_the_run_says_or_in_the_model_store(monkeypatch: pytest.MonkeyPatch) -> None:
    own = TrainingSettings(checkpoints="s3://own/place")
    assert checkpoint_address(TrainingSettings()) == ""
    assert checkpoint_address(TrainingSettings(), "s3://models/penstock/") == "s3://models/penstock/checkpoints"
    monkeypatch.setenv("PENSTOCK_CHECKPOINTS", "/volume")
    assert checkpoint_address(TrainingSettings(), "s3://models/penstock") == "/volume"
    assert checkpoint_address(own, "s3://models/penstock") == "s3://own/place"
