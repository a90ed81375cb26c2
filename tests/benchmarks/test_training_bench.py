"""The training benchmark's own parts: its loops learn, and a target that was not reached is not a time."""

import pytest

from benchmarks.training import sets
from benchmarks.training.bench import first_reached, reference, setting, timm_defaults
from components.settings.training import TrainingSettings


def test_the_time_of_a_target_is_that_of_the_first_epoch_that_has_it() -> None:
    curve = [(10.0, 5.0, 0.98), (20.0, 10.0, 0.99), (30.0, 15.0, 0.985), (40.0, 20.0, 0.995)]
    assert first_reached(curve, 0.99) == 20.0
    assert first_reached(curve, 0.996) is None


def test_settings_of_the_command_line_are_those_of_training() -> None:
    given = dict(setting(text) for text in ("learning_rate=0.01", "epochs=1", "augmentation=none", "architecture=compact_cnn"))
    read = TrainingSettings.read(given)
    assert (read.learning_rate, read.epochs, read.augmentation, read.architecture) == (0.01, 1, "none", "compact_cnn")


def test_the_reference_learns_and_its_seconds_add_up() -> None:
    curve = list(reference(sets.load("digits"), seed=0, epochs=8))
    assert curve[-1][2] > 0.9
    for spent in (0, 1):
        assert [point[spent] for point in curve] == sorted(point[spent] for point in curve)


@pytest.mark.release
def test_timms_side_learns() -> None:
    curve = list(timm_defaults(sets.load("digits"), seed=0, epochs=3))
    assert curve[-1][2] > 0.7
