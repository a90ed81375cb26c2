"""Run parameters from text."""

import pytest

from components.classifier.errors import UsageError
from pipelines.catalogue import load_pipeline
from pipelines.parameters import parse_settings


@pytest.fixture(scope="module")
def training() -> object:
    return load_pipeline("training")


def test_values_take_the_type_of_their_parameter(training: object) -> None:
    settings = ["epochs=3", "learning_rate=1e-3", "pretrained=true", "image_size=28", "gpus=1", 'policy={"minimum_accuracy": 0.9}']
    assert parse_settings(training, settings) == {
        "epochs": 3,
        "learning_rate": 0.001,
        "pretrained": True,
        "image_size": "28",
        "gpus": "1",
        "policy": {"minimum_accuracy": 0.9},
    }


def test_one_key_of_a_mapping_can_be_set(training: object) -> None:
    assert parse_settings(training, ["policy.minimum_accuracy=1e-05", "policy.maximum_ece=0.1"]) == {
        "policy": {"minimum_accuracy": 0.00001, "maximum_ece": 0.1}
    }


def test_a_value_may_hold_an_equals_sign(training: object) -> None:
    assert parse_settings(training, ["source=/data/a=b"]) == {"source": "/data/a=b"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "no parameter 'epoch' .did you mean 'epochs'"),
        ("epochs", "takes key=value"),
        ("=3", "takes key=value"),
        ("epochs=many", "'epochs' takes a whole number, got 'many'"),
        ("epochs=1.5", "'epochs' takes a whole number"),
        ("pretrained=perhaps", "'pretrained' takes true or false"),
        ("policy=[1]", "'policy' takes a mapping"),
        ("epochs.more=3", "has no part 'more'"),
    ],
)
def test_what_cannot_be_meant_is_refused(training: object, setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(training, [setting])


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(UsageError, match="training, scoring"):
        load_pipeline("trainnig")
