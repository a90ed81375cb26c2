"""A group of settings reads the mapping of a run, and says every mistake in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.classifier.errors import UsageError
from components.settings.base import check_service_name
from components.settings.ingest import NAMED_SOURCES, IngestSettings, check_source
from components.settings.resources import Resources
from components.settings.scoring import ScoringSettings
from components.settings.training import TrainingSettings


def test_whole_numbers_that_a_mapping_made_floats_are_read_as_whole_numbers() -> None:
    settings = IngestSettings.read({"split_seed": 6.0, "image_size": 28.0, "channels": 3.0})
    assert (settings.split_seed, settings.image_size, settings.channels) == (6, (28, 28), 3)
    assert type(settings.split_seed) is int
    with pytest.raises(UsageError, match=r"split_seed must be a whole number from 0 to 2147483647, not 6\.5"):
        IngestSettings.read({"split_seed": 6.5})


def test_an_empty_text_is_none_where_a_setting_may_be_that() -> None:
    assert IngestSettings.read({"max_near_duplicates": "", "image_size": ""}) == IngestSettings()
    assert TrainingSettings.read({"dropout": ""}).dropout is None
    with pytest.raises(UsageError, match="patience must be a whole number"):
        TrainingSettings.read({"patience": ""})


@given(st.integers(1, 10_000))
def test_every_whole_number_within_bounds_survives_the_way_through_a_mapping(number: int) -> None:
    assert TrainingSettings.read({"patience": float(number)}).patience == number


@given(
    st.one_of(st.floats().filter(lambda number: not (number.is_integer() and 1 <= number <= 10_000)), st.text(), st.booleans(), st.none())
)
def test_everything_else_is_refused_by_name_and_value(value: object) -> None:
    with pytest.raises(UsageError, match="patience must be") as raised:
        TrainingSettings.read({"patience": value})
    assert len(str(raised.value).splitlines()) == 1 or isinstance(value, str)


def test_an_unknown_name_is_refused_with_what_is_near() -> None:
    with pytest.raises(UsageError, match=r"ingest has no setting 'test_fracton' \(did you mean 'test_fraction'\?\); it takes image_size"):
        IngestSettings.read({"test_fracton": 0.1})


def test_a_setting_that_is_a_parameter_of_its_own_is_not_taken_twice() -> None:
    with pytest.raises(UsageError, match=r"epochs is a run parameter of its own; set epochs, not training\.epochs"):
        TrainingSettings.read({"epochs": 3}, epochs=6)


def test_what_is_not_a_mapping_is_refused() -> None:
    with pytest.raises(UsageError, match="training takes a mapping of settings"):
        TrainingSettings.read([1])  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainingSettings().epochs = 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"cpu": "half"},
        {"cpu": "0"},
        {"memory": "2 GB"},
        {"gpu_resource": "gpu"},
        {"node_selector": {"a b": "c"}},
        {"node_selector": {"a": 1}},
    ],
)
def test_what_no_cluster_understands_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Resources.read(wrong)


def test_amounts_and_labels_of_kubernetes_are_taken() -> None:
    for cpu, memory in (("500m", "512Mi"), ("2", "2Gi"), ("1.5", "1000000"), ("0.5", "8G")):
        Resources.read({"cpu": cpu, "memory": memory, "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4", "ssd": ""}})


def test_scoring_reviews_below_the_threshold_of_its_environment_unless_the_run_sets_one() -> None:
    thresholds = {name: ScoringSettings.in_environment({}, name).review_threshold for name in ("dev", "prod")}
    assert thresholds == {"dev": 0.8, "prod": 0.9}
    assert ScoringSettings.in_environment({"review_threshold": 0.5}, "prod").review_threshold == 0.5


def test_the_host_name_that_kserve_makes_is_counted() -> None:
    assert check_service_name("n" * 30, "s" * 22) == "n" * 30
    with pytest.raises(UsageError, match="has 64 characters of 63 at most"):
        check_service_name("n" * 30, "s" * 23)
    with pytest.raises(UsageError, match=r"-canary-predictor-.*has 70 characters"):
        check_service_name("n" * 30, "s" * 22, canary=True)


def test_the_named_sources_are_those_that_ingest_can_load() -> None:
    from components.ingest import published

    assert set(NAMED_SOURCES) == {"digits", *published.SETS}
    for source in (*NAMED_SOURCES, "s3://bucket/somewhere", "file:///tmp", "/tmp"):
        check_source(source)
    with pytest.raises(UsageError, match="extra_training_source 'nowhere' does not exist; give digits"):
        check_source("nowhere", "extra_training_source")
