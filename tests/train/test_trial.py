"""A trial pauses and goes on as a training that never paused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.bundle.dataset import Dataset
from components.bundle.search import Trial, TrialResult
from components.classifier import network
from components.classifier.errors import TrainingError, UsageError
from components.classifier.progress import TrainingProgress
from components.settings.training import TrainingSettings
from components.train.loop import Trainer
from components.train.trial import train_trial
from tests.train.fitting import checkpoints, exploding, split, trainer

GIVEN: dict[str, Any] = {"name": "digits", "device": "cpu", "epochs": 3, "width": 0.25, "batch_size": 256, "augmentation": "none"}
OPTIONS = TrainingSettings(**GIVEN)


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 5)


def run(dataset: Dataset, until: int, store: Path, options: TrainingSettings = OPTIONS) -> TrialResult:
    return train_trial(dataset.path, Trial(trial=1, settings={"width": 0.25}, rung=1, until=until), options, str(store))


def figures(result: TrialResult) -> dict[str, Any]:
    return result.model_dump(exclude={"seconds", "checkpoint", "until"})


def test_rung_by_rung_the_weights_are_those_of_a_training_without_pauses(digits_dataset: Dataset, tmp_path: Path) -> None:
    by_rungs = [run(digits_dataset, until, tmp_path / "rungs") for until in (1, 1, 3)]
    at_once = run(digits_dataset, 3, tmp_path / "once")
    assert [it.epochs for it in by_rungs] == [1, 1, 3]
    assert figures(by_rungs[0]) == figures(by_rungs[1]), "a step that is started again finds what it did"
    assert figures(by_rungs[2]) == figures(at_once)
    states = [torch.load(it.checkpoint, weights_only=True) for it in (by_rungs[2], at_once)]
    assert by_rungs[2].checkpoint != at_once.checkpoint
    for name, tensor in states[0]["best"].items():
        np.testing.assert_array_equal(tensor, states[1]["best"][name])


def test_a_trial_that_is_run_again_is_judged_by_what_it_had_in_its_rung(
    digits_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0, 0.5])  # of the three epochs: the second is clearly worse than the first
    monkeypatch.setattr("components.train.loop.calibrated_losses", lambda _, labels: np.full(len(labels), next(losses)))
    first, last, again = (run(digits_dataset, until, tmp_path) for until in (2, 3, 2))
    assert (first.best_epoch, last.best_epoch) == (1, 3)
    assert figures(again) == figures(first)


def test_a_training_that_was_complete_when_it_was_lost_ends_without_another_epoch(tmp_path: Path) -> None:
    first = trainer(OPTIONS, split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), TrainingProgress())
    again = trainer(OPTIONS, split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), TrainingProgress())
    assert (again.history, again.best_epoch, again.advice) == (first.history, first.best_epoch, first.advice)


def test_a_trial_that_diverges_is_a_result(digits_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network.OWN, "exploding", exploding)
    found = run(digits_dataset, 1, tmp_path, TrainingSettings(**{**GIVEN, "architecture": "exploding", "width": 1.0}))
    assert "the training diverged; lower learning_rate" in found.error
    assert (found.validation_accuracy, found.epochs) == (None, 0)


def test_a_trial_that_fails_late_leaves_no_checkpoint(digits_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(run(digits_dataset, 1, tmp_path).checkpoint).is_file()
    monkeypatch.setattr(Trainer, "_step", lambda *_: torch.tensor(torch.nan))
    assert "the training diverged" in run(digits_dataset, 3, tmp_path).error
    assert not list((tmp_path / "checkpoints").glob("*.pt"))


def test_settings_that_do_not_go_together_fail_that_trial_only(digits_dataset: Dataset, tmp_path: Path) -> None:
    found = run(digits_dataset, 1, tmp_path, TrainingSettings(**{**GIVEN, "architecture": "resnet18"}))
    assert "width changes compact_cnn and small_cnn only" in found.error


def test_a_device_that_is_missing_is_an_error_of_the_whole_search(digits_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gpus=1"):
        run(digits_dataset, 1, tmp_path, TrainingSettings(**{**GIVEN, "device": "auto", "gpus": "1"}))


def test_a_trial_without_a_place_for_its_checkpoint_is_refused(digits_dataset: Dataset) -> None:
    with pytest.raises(UsageError, match="needs a place for its checkpoint"):
        train_trial(digits_dataset.path, Trial(trial=1, settings={}, rung=1, until=1), OPTIONS, "")
