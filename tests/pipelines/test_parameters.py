"""Run parameters from text."""

import pytest
from pydantic import create_model

from components.classifier.errors import PenstockError, UsageError
from components.settings.resources import Resources
from pipelines.catalogue import load_pipeline
from pipelines.descriptions import GROUPS
from pipelines.parameters import check_groups, parse_settings


@pytest.fixture(scope="module")
def training() -> object:
    return load_pipeline("training")


def test_values_take_the_type_of_their_parameter(training: object) -> None:
    settings = ["epochs=3", "learning_rate=1e-3", "pretrained=true", "image_size=28", "gpus=1", 'policy={"minimum_accuracy": 0.9}']
    assert parse_settings(training, settings) == {
        "epochs": "3",
        "training": {"learning_rate": 0.001},
        "pretrained": True,
        "ingest": {"image_size": 28},
        "gpus": "1",
        "policy": {"minimum_accuracy": 0.9},
    }


def test_one_key_of_a_mapping_can_be_set(training: object) -> None:
    assert parse_settings(training, ["policy.minimum_accuracy=1e-05", "policy.maximum_ece=0.1"]) == {
        "policy": {"minimum_accuracy": 0.00001, "maximum_ece": 0.1}
    }


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("training.learning_rate=0.01", {"training": {"learning_rate": 0.01}}),
        ("training.epochs=3", {"epochs": "3"}),
        ("seed=7", {"training": {"seed": 7}}),
        ("split_seed=7", {"ingest": {"split_seed": 7}}),
        ("image_size=28x32", {"ingest": {"image_size": "28x32"}}),
        ("extra_training_source=123", {"ingest": {"extra_training_source": "123"}}),
        ("namespace=team", {"namespace": "team"}),
        ("canary_steps=[10, 50]", {"serving": {"canary_steps": [10, 50]}}),
        ("minimum_accuracy=null", {"policy": {"minimum_accuracy": None}}),
        ("policy.class_recall_floors.cat=0.5", {"policy": {"class_recall_floors": {"cat": 0.5}}}),
        ("gpu_resource=amd.com/gpu", {"resources": {"gpu_resource": "amd.com/gpu"}}),
        ('node_selector={"disk": "ssd"}', {"resources": {"node_selector": {"disk": "ssd"}}}),
        ("node_selector.cloud.google.com/gke-accelerator=l4", {"resources": {"node_selector": {"cloud.google.com/gke-accelerator": "l4"}}}),
    ],
)
def test_a_setting_is_found_in_its_group(training: object, setting: str, expected: dict[str, object]) -> None:
    assert parse_settings(training, [setting]) == expected


def test_settings_of_one_group_come_together(training: object) -> None:
    given = ["image_size=28", 'ingest={"channels": 1}', "ingest.split_seed=2"]
    assert parse_settings(training, given) == {"ingest": {"image_size": 28, "channels": 1, "split_seed": 2}}


def test_a_name_in_two_groups_asks_which_one(training: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(GROUPS, "resources", create_model("More", __base__=Resources, seed=(int, 0)))
    with pytest.raises(UsageError, match=r"'seed' is a setting of several groups; say which: training\.seed or resources\.seed"):
        parse_settings(training, ["seed=1"])


def test_scoring_takes_its_old_names() -> None:
    given = ["review_threshold=0.9", "batch_size=256", "gpus=1", "shards=2"]
    assert parse_settings(load_pipeline("scoring"), given) == {
        "scoring": {"review_threshold": 0.9, "batch_size": 256},
        "gpus": "1",
        "shards": 2,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"training": {"patience": 0}}, "patience must be from 1"),
        ({"serving": {"mood": "Knative"}}, "no setting 'mood'"),
        ({"policy": {"minimum_accuracy": 99}}, "between 0 and 1"),
    ],
)
def test_what_is_sent_to_a_cluster_is_checked_before(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(PenstockError, match=message):
        check_groups(arguments)


def test_a_value_may_hold_an_equals_sign(training: object) -> None:
    assert parse_settings(training, ["source=/data/a=b"]) == {"source": "/data/a=b"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epoch=3", "no parameter 'epoch' .did you mean 'epochs'"),
        ("epochs", "takes key=value"),
        ("source=pets\udcff", r"source=pets\\xff holds bytes that are not UTF-8"),
        ("=3", "takes key=value"),
        ("pretrained=perhaps", "'pretrained' takes true or false"),
        ("policy=[1]", "'policy' takes a mapping"),
        ("epochs.more=3", "has no part 'more'"),
    ],
)
def test_what_cannot_be_meant_is_refused(training: object, setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_settings(training, [setting])


def test_a_value_and_its_keys_are_not_given_together(training: object) -> None:
    for given in (["policy.class_recall_floors=0.5", "policy.class_recall_floors.cat=0.9"], ["training.seed=1", "training.seed.x=2"]):
        with pytest.raises(UsageError, match="has a value already"):
            parse_settings(training, given)


@pytest.mark.parametrize("text", ["", " "])
def test_a_setting_is_emptied_by_an_empty_text_as_kubeflow_cannot_pass_null_on(training: object, text: str) -> None:
    assert parse_settings(training, [f"image_size={text}", f"max_near_duplicates={text}"]) == {
        "ingest": {"image_size": "", "max_near_duplicates": ""}
    }


@pytest.mark.parametrize("text", ["many", "1.5"])
def test_a_number_that_is_not_whole_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="'shards' takes a whole number, got"):
        parse_settings(load_pipeline("scoring"), [f"shards={text}"])


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(UsageError, match=r"training, .*scoring"):
        load_pipeline("trainnig")
