"""Schedules, against a small server that answers as the Kubeflow Pipelines API does."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from components.classifier.errors import UsageError
from pipelines.cli import app
from pipelines.schedules import Trigger, duration_text, read_trigger
from tests.cli.test_refusals import penstock
from tests.pipelines.kubeflow_api import Kubeflow
from tests.pipelines.kubeflow_api import kubeflow as kubeflow

Penstock = Callable[..., str]
"""Runs `penstock schedule …` and returns what it said."""

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def schedule(kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Penstock:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KFP_HOST", kubeflow.url)

    def call(*arguments: str) -> str:
        app(["schedule", *arguments], standalone_mode=False)
        return capsys.readouterr().out

    return call


@pytest.mark.parametrize(
    ("cron", "every", "trigger"),
    [
        ("30 6 * * 1", "", Trigger(cron="0 30 6 * * 1")),
        ("15 30 6 * * 1", "", Trigger(cron="15 30 6 * * 1")),
        ("@daily", "", Trigger(cron="@daily")),
        ("", "90s", Trigger(seconds=90)),
        ("", "6h", Trigger(seconds=21600)),
        ("", "2d", Trigger(seconds=172800)),
    ],
)
def test_five_fields_get_a_second_because_kubeflow_reads_six(cron: str, every: str, trigger: Trigger) -> None:
    assert read_trigger(cron, every) == trigger


@pytest.mark.parametrize(
    ("cron", "every", "words"),
    [
        *(("", "", "--cron"), ("0 6 * * 1", "6h", "--every"), ("0 6 *", "", "3 fields"), ("", "0h", "30m"), ("", "six hours", "30m")),
        *(("CRON_TZ=Europe/Berlin 0 6 * * 1", "", "names a time zone"), ("TZ=UTC 0 0 6 * * 1", "", "in UTC")),
    ],
)
def test_a_trigger_of_another_form_is_refused(cron: str, every: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_trigger(cron, every)


def test_a_duration_is_told_in_the_largest_unit_that_fits() -> None:
    assert [duration_text(seconds) for seconds in (172800, 21600, 5400, 61)] == ["2d", "6h", "90m", "61s"]


def test_a_schedule_runs_one_at_a_time_and_does_not_catch_up(schedule: Penstock, kubeflow: Kubeflow) -> None:
    said = schedule(
        "training", "--cron", "0 6 * * 1", "--set", "source=s3://data/pets", "--set", "epochs=3", "--service-account", "trainer"
    )
    assert "training-pets starts cron 0 0 6 * * 1, one run at a time" in said
    (made,) = kubeflow.recurring.values()
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == (1, True, "ENABLE")
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 6 * * 1"
    assert made["runtime_config"]["parameters"] == {"source": "s3://data/pets", "name": "pets", "epochs": "3"}
    assert made["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "penstock-retraining"
    assert made["service_account"] == "trainer"


def test_a_schedule_trains_only_when_something_changed_unless_it_is_to_train_always(schedule: Penstock, kubeflow: Kubeflow) -> None:
    schedule("training", "--every", "1d", "--always")
    schedule("scoring", "--every", "1d")
    names = [it["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] for it in kubeflow.recurring.values()]
    assert names == ["penstock-training", "penstock-scoring"]
    with pytest.raises(typer.BadParameter, match="for trainings"):
        schedule("scoring", "--every", "1d", "--always")


def test_a_schedule_is_listed_paused_resumed_and_deleted_by_its_name_or_id(schedule: Penstock, kubeflow: Kubeflow) -> None:
    kubeflow.page = 1
    for name in ("first", "second"):
        schedule("scoring", "--every", "6h", "--as", name)
    listed = json.loads(schedule("list", "--json"))
    assert [(one["name"], one["state"], one["trigger"]) for one in listed] == [
        ("first", "active", "every 6h"),
        ("second", "active", "every 6h"),
    ]
    assert schedule("pause", "second") == "second is paused\n"
    assert [one["state"] for one in json.loads(schedule("list", "--json"))] == ["active", "paused"]
    schedule("resume", "s-2")
    assert [one["state"] for one in json.loads(schedule("list", "--json"))] == ["active", "active"]
    schedule("delete", "first")
    assert "first" not in schedule("list")


def test_a_name_that_is_taken_or_unknown_or_ambiguous_is_refused(
    schedule: Penstock, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    schedule("scoring", "--every", "6h")
    taken = penstock(monkeypatch, capsys, "schedule", "scoring", "--every", "1d")
    assert (taken.code, len(kubeflow.recurring)) == (2, 1)
    assert "there is a schedule scoring-digits already" in taken.text
    assert "no schedule 'other'; there are scoring-digits" in penstock(monkeypatch, capsys, "schedule", "pause", "other").text
    kubeflow.recurring["s-2"] = {**kubeflow.recurring["s-1"], "recurring_run_id": "s-2"}
    assert "name one by its ID: s-1, s-2" in penstock(monkeypatch, capsys, "schedule", "delete", "scoring-digits").text


def test_of_two_that_make_a_schedule_of_one_name_at_once_the_second_is_told(
    schedule: Penstock, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.between = lambda: schedule("scoring", "--every", "6h", "--as", "hourly")
    second = penstock(monkeypatch, capsys, "schedule", "scoring", "--every", "1d", "--as", "hourly")
    assert second.code == 2
    assert "there is a schedule hourly already" in second.text
    (made,) = kubeflow.recurring.values()
    assert made["trigger"]["periodic_schedule"]["interval_second"] == 21600


def test_a_server_that_refuses_is_one_line(
    schedule: Penstock, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.refuse_with = 403
    assert "--token" in penstock(monkeypatch, capsys, "schedule", "list").text


def test_runs_of_a_schedule_go_to_the_mlflow_experiment_that_it_names(schedule: Penstock, kubeflow: Kubeflow) -> None:
    schedule("training", "--every", "6h", "--mlflow-experiment", "pets")
    (made,) = kubeflow.recurring.values()
    assert made["plugins_input"] == {"mlflow": {"experiment_name": "pets"}}
