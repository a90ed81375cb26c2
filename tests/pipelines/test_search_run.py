"""A search for real, through kfp's own local runner, from a grid of settings to a version that serves."""

import json
from pathlib import Path

import pytest

from components.registry import Registry
from components.storage import open_store
from tests.pipelines.runs import Done, penstock

SPACE = '{"learning_rate": [0.003, 0.03], "reduction": 2}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def searched(folder: Path) -> Done:
    quick = ("--set", "training.epochs=2", "--set", "augmentation=none", "--set", "batch_size=256")
    return penstock("run", "search", "--store", "store", "--name", "digits", "--set", f"search={SPACE}", *quick, "--json", cwd=folder)


@pytest.mark.integration
def test_the_winner_goes_on_from_its_checkpoint_and_through_the_gate(searched: Done, folder: Path) -> None:
    assert searched.code == 0, searched.err
    trials = [name for name in searched.steps if name.startswith("train-")]
    assert trials == ["train-trial", "train-trial", "train-trial-2", "train-trial-3", "train-model"]
    log = (Path(searched.json["directory"]) / "run.log").read_text("utf-8")
    assert log.count("resumed from the checkpoint of epoch 1") == 2
    assert log.count("resumed from the checkpoint of epoch 2") == 1
    assert log.count(" epoch 2: train loss") + log.count("\nepoch 2: train loss") == 1
    assert searched.json["outputs"]["decision"] == "deploy"
    registry = Registry(open_store(str(folder / "store")), "digits")
    assert registry.ledger.champion() == searched.json["outputs"]["version"]
    assert not list((folder / ".penstock/checkpoints").glob("*.pt")), "neither the losers' nor the winner's stay"


@pytest.mark.integration
def test_its_trials_are_shown_again_from_the_store(searched: Done, folder: Path) -> None:
    run = searched.json["run"]
    listed = json.loads(penstock("searches", "list", "--store", "store", "--json", cwd=folder).out)
    assert [(it["run"], len(it["results"])) for it in listed] == [(run, 4)]
    shown = penstock("searches", "show", run[:-2], "--store", "store", "--output", "search.html", cwd=folder)
    assert shown.code == 0, shown.err
    assert "the winner again, alone: penstock run training" in shown.out
    assert f"Trial {listed[0]['best']} won" in (folder / "search.html").read_text("utf-8")
    assert "no search begins with 'x'" in penstock("searches", "show", "x", "--store", "store", cwd=folder).err


def test_a_value_out_of_bounds_is_refused_before_anything_runs(tmp_path: Path) -> None:
    refused = penstock("run", "search", "--set", "search.width=[1, 16]", cwd=tmp_path)
    assert refused.code == 2
    assert "width must be from 0.25 to 4, not 16" in refused.err
    assert not (tmp_path / ".penstock" / "runs").exists()
