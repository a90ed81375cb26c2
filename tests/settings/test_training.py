"""Wrong settings are named with their bounds, before anything is loaded."""

import pytest

from components.classifier.errors import UsageError
from components.settings.training import TrainingSettings


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epochs": -1}, "epochs must be auto or a whole number from 1 to 10000, not -1"),
        ({"epochs": 0}, "a whole number from 1 to 10000, not 0"),
        ({"epochs": 2.5}, "epochs must be auto or a whole number"),
        ({"epochs": "many"}, "epochs must be auto or a whole number"),
        ({"epochs": float("inf")}, "epochs must be auto or a whole number"),
        ({"epochs": float("nan")}, "epochs must be auto or a whole number"),
        ({"epochs": True}, "epochs must be auto or a whole number"),
        ({"time_budget": "10"}, "time_budget '10' is not a duration; use one such as 90s, 10m or 2h"),
        ({"time_budget": "0m"}, "is not a duration"),
        ({"time_budget": "10m", "epochs": 6}, "epochs=6 and time_budget=10m are two ways to say how long; set one of them"),
        ({"batch_size": 1}, "batch_size must be from 2"),
        ({"learning_rate": 0}, "learning_rate must be from 1e-06 to 1, not 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be a number"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number"),
        ({"label_smoothing": 0.9}, "label_smoothing must be from 0 to 0.5"),
        ({"patience": 0}, "patience must be from 1"),
        ({"seed": -1}, "seed must be from 0"),
        ({"pretrained": "yes"}, "pretrained must be true or false"),
        ({"augmentation": "strong"}, "unknown augmentation 'strong'; use auto, none"),
        ({"device": "tpu"}, "unknown device 'tpu'; use auto, cpu, cuda"),
        ({"device": "cpu:0"}, "unknown device 'cpu:0'; use auto, cpu, cuda, mps, gpu, or one GPU of several as cuda:0"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ({"gpus": "17"}, "gpus must be a whole number from 0 to 16, not '17': those of one node; for more set nodes in resources"),
        ({"name": ""}, "name is empty"),
    ],
)
def test_a_wrong_value_is_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        TrainingSettings(**given)
    assert message in str(raised.value)


def test_a_whole_number_may_come_as_a_float() -> None:
    options = TrainingSettings(epochs=5.0, learning_rate=1)
    assert (options.epochs, type(options.epochs)) == (5, int)
    assert (options.learning_rate, type(options.learning_rate)) == (1.0, float)


def test_the_place_of_checkpoints_does_not_shape_the_result() -> None:
    assert TrainingSettings(checkpoints="/a").as_parameters() == TrainingSettings(checkpoints="/b").as_parameters()
