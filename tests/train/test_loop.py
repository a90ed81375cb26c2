"""The loop on real digits: it learns, repeats itself, goes on after a stop, and knows when to end."""

import itertools
import resource
import signal
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from components.bundle.dataset import Split
from components.bundle.training import Epoch
from components.classifier import network
from components.classifier.errors import TrainingError
from components.classifier.progress import TrainingProgress
from components.classifier.stopping import stoppable
from components.settings.training import TrainingSettings
from components.train.batches import Batches, balanced_weights
from components.train.loop import Progress, Trainer
from tests.train.fitting import CPU, checkpoints, exploding, split, trainer, weights

OPTIONS = TrainingSettings(epochs=3, batch_size=32, seed=5)
SHOW = TrainingProgress()
T = TypeVar("T")


def options(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{**OPTIONS.model_dump(), **changes})


@pytest.fixture(autouse=True)
def short_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 5)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tmp_path: Path) -> None:
    first, again, other = (trainer(options(epochs=2, seed=seed), split(0, 300), split(300, 400)) for seed in (5, 5, 6))
    for number, one in enumerate((first, again, other)):
        one.fit(checkpoints(tmp_path / str(number)), SHOW)
    for name, array in weights(first).items():
        np.testing.assert_array_equal(array, weights(again)[name])
    assert any((array != weights(other)[name]).any() for name, array in weights(first).items())


def test_in_16_bits_the_weights_stay_float32_and_it_learns_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    fast, exact = (trainer(options(precision=precision), split(0, 300), split(300, 400)) for precision in ("bfloat16", "auto"))
    found, expected = (one.fit(checkpoints(tmp_path / str(number)), SHOW) for number, one in enumerate((fast, exact)))
    assert found.history[0].train_loss != expected.history[0].train_loss  # 16 bits were really used
    assert all(array.dtype != torch.bfloat16 for array in fast.network.state_dict().values())
    losses = [fitted.history[-1].validation_loss or 0 for fitted in (found, expected)]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)


@pytest.mark.parametrize("seed", range(3))
def test_a_training_that_is_killed_at_random_steps_ends_like_an_unbroken_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = trainer(OPTIONS, split(0, 300), split(300, 400))
    expected = unbroken.fit(checkpoints(tmp_path / "unbroken"), SHOW)
    draws = np.random.default_rng(seed)
    step, kills = Trainer._step, 0

    def mortal(self: Trainer, *batch: Tensor) -> Tensor:
        loss = step(self, *batch)  # dies between the step and the checkpoint of it
        if draws.random() < 0.25 and kills < 4:
            raise KeyboardInterrupt
        return loss

    monkeypatch.setattr(Trainer, "_step", mortal)
    while True:
        broken = trainer(OPTIONS, split(0, 300), split(300, 400))
        torch.manual_seed(int(draws.integers(1000)))  # a new process has other random numbers
        try:
            found = broken.fit(checkpoints(tmp_path / "broken", minutes=1e-9), SHOW)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills == 4
    assert "resumed from the checkpoint of step" in capsys.readouterr().out
    assert [epoch.train_loss for epoch in found.history] == [epoch.train_loss for epoch in expected.history]
    for name, array in weights(unbroken).items():
        np.testing.assert_array_equal(array, weights(broken)[name])


def test_a_stop_is_answered_after_the_step_and_leaves_a_checkpoint_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class StoppedInStep3(TrainingProgress):
        def steps(self, batches: Iterable[T], total: int, done: int) -> Iterator[T]:
            for number, batch in enumerate(batches):
                if number == 2:
                    signal.raise_signal(signal.SIGTERM)
                yield batch

    with stoppable() as stop, pytest.raises(SystemExit, match="143"):
        trainer(OPTIONS, split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), StoppedInStep3(), stop)
    assert f"stopped; the same training goes on after step 3 of 10 in epoch 1 (checkpoint in {tmp_path})" in capsys.readouterr().out
    trainer(OPTIONS, split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), SHOW)
    assert "resumed from the checkpoint of step 3 of 10 in epoch 1" in capsys.readouterr().out


def test_the_second_stop_ends_it_at_once(tmp_path: Path) -> None:
    class Hanging(TrainingProgress):
        def steps(self, batches: Iterable[T], total: int, done: int) -> Iterator[T]:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("it went on")

    with stoppable() as stop, pytest.raises(KeyboardInterrupt):
        trainer(OPTIONS, split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), Hanging(), stop)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_cannot_be_written_is_said_and_the_training_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # as on a disk that is nearly full
    try:
        fitted = trainer(OPTIONS, split(0, 300), split(300, 400)).fit(checkpoints(tmp_path / "full"), SHOW)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(fitted.history) == 3
    assert "warning: cannot write" in (out := capsys.readouterr().out)
    assert "the training goes on without a checkpoint of epoch 3" in out


def test_the_best_weights_are_restored(tmp_path: Path) -> None:
    # A rate this high, and labels that contradict each other in validation, make later epochs worse.
    validation = split(300, 400)
    wrong = Split(validation.images, np.roll(validation.labels, 1))
    changed = options(epochs=12, patience=2)
    trained = trainer(changed, split(0, 300), wrong)
    fitted = trained.fit(checkpoints(tmp_path), SHOW)
    assert fitted.stop_reason == "the validation loss was clearly higher for 2 epochs"
    assert len(fitted.history) == fitted.best_epoch + 2 < 12
    logits, labels = trained.predict(trained._validation)
    loss = nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item()
    assert loss == pytest.approx(fitted.history[fitted.best_epoch - 1].validation_loss, abs=1e-5)


def test_auto_goes_on_with_a_second_cycle_until_its_end_where_many_are_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half_wrong = split(300, 400)
    half_wrong.labels[::2] = (half_wrong.labels[::2] + 1) % 10
    fitted = trainer(options(epochs="auto", patience=99), split(0, 100), half_wrong).fit(checkpoints(tmp_path), SHOW)
    assert "note: epochs=auto: more than 1% of the validation pictures are misclassified, 12 epochs follow" in capsys.readouterr().out
    rates = [epoch.learning_rate for epoch in fitted.history]
    assert len(rates) == 18
    assert rates[5] < rates[6] > rates[17], "the second cycle has a high rate again, and a low one at its end"


def test_auto_stops_after_six_epochs_where_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 25)
    fitted = trainer(options(epochs="auto", augmentation="none"), split(0, 100), split(0, 100)).fit(checkpoints(tmp_path), SHOW)
    assert len(fitted.history) == 6
    assert fitted.advice == ""


def test_a_time_budget_is_kept(tmp_path: Path) -> None:
    begun = time.perf_counter()
    fitted = trainer(options(epochs="auto", time_budget="2s"), split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), SHOW)
    assert 1.9 < sum(epoch.seconds for epoch in fitted.history) < time.perf_counter() - begun < 30
    assert fitted.stop_reason == "the time budget of 2s is used up"


def test_the_rate_falls_until_a_time_budget_is_used_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count()  # a machine that takes the same time for each step
    monkeypatch.setattr("components.train.loop.time", SimpleNamespace(perf_counter=lambda: 0.02 * next(looks)))
    fitted = trainer(options(epochs="auto", time_budget="2s"), split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), SHOW)
    assert sum(epoch.seconds for epoch in fitted.history) == pytest.approx(2, abs=0.1)
    assert fitted.history[-1].learning_rate < 0.1 * options().learning_rate


def test_a_loss_that_was_still_falling_is_told(tmp_path: Path) -> None:
    fitted = trainer(options(epochs=2, learning_rate=0.001), split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), SHOW)
    assert "the validation loss was still falling after 2 epochs" in fitted.advice


@pytest.mark.parametrize(
    "settings", [{"optimizer": "sgd", "learning_rate": 0.05}, {"scheduler": "constant"}, {"width": 0.5, "dropout": 0.3}]
)
def test_the_settings_of_the_optimizer_and_the_network_train(tmp_path: Path, settings: dict[str, Any]) -> None:
    fitted = trainer(options(epochs=4, **settings), split(0, 300), split(300, 400)).fit(checkpoints(tmp_path), SHOW)
    assert fitted.history[-1].train_loss < 0.5 * fitted.history[0].train_loss


@pytest.mark.parametrize("batch_size", [64, 128])
@pytest.mark.parametrize("architecture", ["small_cnn", "compact_cnn", "resnet18"])
def test_65_pictures_train_with_batch_normalisation(
    tmp_path: Path, batch_size: int, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 2)
    changed = options(epochs=1, batch_size=batch_size, architecture=architecture)
    fitted = trainer(changed, split(0, 65), split(65, 66)).fit(checkpoints(tmp_path), SHOW)
    assert np.isfinite(fitted.history[0].train_loss)


def _chosen(*epochs: list[float]) -> int:
    """The epoch whose weights are kept, from the losses of each validation picture in each epoch."""
    trained, progress = trainer(OPTIONS, split(0, 20), split(20, 24)), Progress()
    for number, losses in enumerate(epochs, 1):
        trained._losses = np.array(losses)
        trained._choose(progress, Epoch(number, 0.0, float(np.mean(losses)), 0.5, 0.1, 1.0))
    return progress.best_epoch


def test_of_epochs_that_are_about_equal_the_last_is_kept_and_not_one_that_is_clearly_worse() -> None:
    assert _chosen([2, 2, 2, 2], [1, 1, 1, 1], [1.5, 1.5, 1.6, 1.5]) == 2, "every picture's loss rose"
    assert _chosen([2, 2, 2, 2], [1, 1, 1, 1], [0.1, 0.1, 0.1, 4.0]) == 3, "one picture's loss rose, the others' fell"
    steps = [[1.0, 1.0, 1.0, 1.0], [0.9, 1.2, 1.2, 0.9], [0.8, 1.4, 1.4, 1.2]]
    assert _chosen(*steps) == 2, "the third is compared with the lowest, and not with the one before it"


def test_a_balanced_loss_finds_a_class_of_three_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 20)
    pictures, labels = split(0, 600).images, split(0, 600).labels
    kept = np.sort(np.concatenate([np.flatnonzero(labels != 8), np.flatnonzero(labels == 8)[:3]]))
    few, test = Split(pictures[kept], labels[kept]), split(600, 1200)
    recalls = []
    for balanced in (None, balanced_weights(few.labels, 10)):
        trained = trainer(options(epochs=3), few, test)
        trained._class_weights = balanced
        trained.fit(checkpoints(tmp_path / str(balanced is None)), SHOW)
        logits, expected = trained.predict(trained._validation)
        recalls.append(float((logits.argmax(axis=1) == 8)[expected == 8].mean()))
    assert recalls[1] > recalls[0] + 0.1, recalls


def test_balanced_weights_are_scikit_learns() -> None:
    labels = np.array([0] * 9 + [1] * 3 + [3])
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    np.testing.assert_allclose(balanced_weights(labels, 5), [*expected[:2], 0, expected[2], 0], rtol=1e-6)


def test_without_validation_the_training_loss_chooses(tmp_path: Path) -> None:
    fitted = trainer(options(epochs=2), split(0, 100), split(0, 0)).fit(checkpoints(tmp_path), SHOW)
    assert fitted.best_epoch == 2
    assert fitted.history[1].validation_loss is None


def test_black_pictures_train_without_a_number_that_is_none(tmp_path: Path) -> None:
    black = Split(np.zeros((40, 8, 8, 1), np.uint8), np.arange(40) % 2)
    fitted = trainer(options(epochs=1), black, black, classes=2).fit(checkpoints(tmp_path), SHOW)
    assert np.isfinite(fitted.history[0].train_loss)


def test_a_diverged_loss_is_told_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(network.OWN, "exploding", exploding)
    with pytest.raises(TrainingError, match=r"the loss became \w+ in epoch 1.*lower learning_rate \(it is 0\.003\)"):
        trainer(options(architecture="exploding"), split(0, 100), split(100, 120)).fit(checkpoints(tmp_path), SHOW)


@pytest.mark.integration
@pytest.mark.parametrize(("architecture", "epochs"), [("resnet18", 2), pytest.param("mobilenet_v3_small", 5, marks=pytest.mark.release)])
def test_torchvision_classifiers_learn_digits(tmp_path: Path, architecture: str, epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 60)
    trained = trainer(TrainingSettings(epochs=epochs, architecture=architecture), split(0, 1200), split(1200, 1400))
    trained.fit(checkpoints(tmp_path), SHOW)
    test = split(1400, 1797)
    logits, labels = trained.predict(Batches(test, CPU))
    assert (logits.argmax(axis=1) == labels).mean() > 0.9
