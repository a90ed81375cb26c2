"""`penstock watch`: what calls for a training, what holds it back, and that one is started once."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.classifier.errors import IntegrityError, UsageError
from components.registry import Registry
from components.registry.ledger import draft_record
from components.registry.publication import publish_directory
from components.review import ReviewQueue
from components.review.accuracy import live_accuracy
from components.score.drift import Drift, ExpectedAccuracy
from components.storage import Store, open_store
from components.storage.memory import MemoryStore
from pipelines.cli import app
from pipelines.cli.submit import run_arguments
from pipelines.submit import Server, SubmissionFailed, is_active
from pipelines.watching import Bounds, ObservedDrift, Start, Started, Watches, known_by, reason_to_wait, reasons, start_once
from tests import tiny
from tests.cli.test_refusals import penstock
from tests.pipelines.kubeflow_api import Kubeflow
from tests.pipelines.kubeflow_api import kubeflow as kubeflow
from tests.review import queue_of

pytestmark = pytest.mark.filterwarnings("ignore")
BOUNDS = Bounds(min_accuracy=0.9, max_drop=0.02, min_pictures=20, cool_down=timedelta(hours=12))
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def labelled(queue: ReviewQueue, version: str, right: int, wrong: int) -> None:
    """Audited pictures of a version, of which so many were answered rightly."""
    for number in range(right + wrong):
        queue.put(queue_of.entry(number, "3", 0.95, version=version, reason="audit"))
    for number, entry in enumerate(queue.entries(version)):
        queue.label(entry.id, "3" if number < right else "8", "ann")


def expected(change: float, width: float = 0.005) -> ExpectedAccuracy:
    return ExpectedAccuracy(0.97 + change, 0.9, 0.99, 0.97, change, change - width, change + width)


def drifted(*features: str) -> list[Drift]:
    return [Drift(name, 0.4, 1e-9, drifted=True) for name in features] + [Drift("contrast", 0.01, 0.5, drifted=False)]


def test_what_too_few_pictures_say_is_told_with_the_remedy(tmp_path: Path) -> None:
    queue = ReviewQueue(open_store(str(tmp_path)), "digits")
    labelled(queue, queue_of.FIRST, 10, 5)
    live = live_accuracy(queue_of.FIRST, queue.entries())
    few, enough = (ObservedDrift("the predictors", number, drifted(), None) for number in (19, 1_200))
    assert known_by(None, [], BOUNDS) == (
        "judged by 0 labels: too few to say anything, 20 are needed; name predictors or --scores, or label pictures by `penstock review`"
    )
    assert known_by(live, [few], BOUNDS).startswith("judged by 15 labels, 19 pictures of the predictors: too few to say anything, 20 are")
    assert known_by(live, [enough], BOUNDS) == "judged by 15 labels, 1,200 pictures of the predictors"


def test_live_accuracy_counts_by_the_upper_end_of_its_interval(tmp_path: Path) -> None:
    found = {}
    for right, wrong in ((21, 4), (23, 2), (5, 5)):
        queue = ReviewQueue(open_store(str(tmp_path / f"{right}")), "digits")
        labelled(queue, queue_of.FIRST, right, wrong)
        found[right] = reasons(live_accuracy(queue_of.FIRST, queue.entries()), [], BOUNDS)
    assert found == {
        21: [],  # 0.84, but 0.9 is within the interval of 25 labels
        23: [],
        5: [],  # 10 labels are too few
    }
    queue = ReviewQueue(open_store(str(tmp_path / "bad")), "digits")
    labelled(queue, queue_of.FIRST, 10, 15)
    assert reasons(live_accuracy(queue_of.FIRST, queue.entries()), [], BOUNDS) == [
        "live accuracy is at most 0.5926 (95%), below 0.9, by 25 labels"
    ]


@pytest.mark.parametrize(
    ("look", "said"),
    [
        (ObservedDrift("the predictors", 500, drifted("confidence"), expected(-0.001)), []),
        (ObservedDrift("the predictors", 500, drifted(), expected(-0.03, width=0.04)), []),  # chance explains it
        (ObservedDrift("the predictors", 19, drifted("confidence"), expected(-0.2)), []),
        (
            ObservedDrift("s3://data/scores", 500, drifted("confidence", "brightness"), expected(-0.05)),
            [
                "accuracy without labels is 0.9200, 0.9700 at evaluation, by 500 pictures of s3://data/scores "
                "(confidence, brightness drifted)"
            ],
        ),
        (ObservedDrift("the predictors", 500, drifted("brightness"), None), ["brightness drifted in 500 pictures of the predictors"]),
        (ObservedDrift("the predictors", 500, drifted(), None), []),
    ],
)
def test_drift_counts_by_what_it_costs(look: ObservedDrift, said: list[str]) -> None:
    assert reasons(None, [look], BOUNDS) == said


def started(hours_ago: float) -> Start:
    time = (NOW - timedelta(hours=hours_ago)).isoformat(timespec="seconds")
    return Start(time=time, version="v", reasons=["worse"], pipeline="retraining", where="")


@pytest.mark.parametrize(
    ("last", "active", "words"),
    [
        (None, False, ""),
        ((started(13), Started(run="r-1")), False, ""),
        ((started(11), Started(run="r-1")), False, "r-1 was started at 2026-05-01T01:00:00+00:00; not again before 2026-05-01T13:00:00"),
        ((started(11), None), False, "a run of which nothing is known was started"),
        ((started(30), Started(run="r-1")), True, "r-1, which was started at 2026-04-30T06:00:00+00:00, still goes on"),
    ],
)
def test_a_start_not_long_ago_or_a_run_that_goes_on_holds_the_next_back(
    last: tuple[Start, Started | None] | None, active: bool, words: str
) -> None:
    found = reason_to_wait(last, active, BOUNDS.cool_down, NOW)
    assert words in found
    assert bool(found) == bool(words)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One that a cluster could reach, by its address."""
    return MemoryStore.named(tmp_path.name)


def start(store: Store, launch: Callable[[Callable[[str], None]], None] | None, active: bool = False) -> str:
    return start_once(
        Watches(store, "digits"),
        ["worse"],
        "v1",
        pipeline="retraining",
        where="",
        cool_down=BOUNDS.cool_down,
        is_active=lambda run: active,
        launch=launch,
    )


def test_of_two_watchers_that_see_the_same_one_starts_a_training(store: Store) -> None:
    runs: list[str] = []

    def launch(tell: Callable[[str], None]) -> None:
        runs.append("r-1")
        tell("r-1")

    def first_while_the_second_looks(run: str) -> bool:
        return False

    class Slow(Watches):
        """Sees no start of others until it is about to claim its own."""

        def claim(self, number: int, start: Start) -> bool:
            assert Watches(store, "digits").claim(number, start)
            return super().claim(number, start)

    second = start_once(
        Slow(store, "digits"),
        ["worse"],
        "v1",
        pipeline="retraining",
        where="",
        cool_down=BOUNDS.cool_down,
        is_active=first_while_the_second_looks,
        launch=launch,
    )
    assert second == "a training is called for, and another watcher has just started one"
    assert runs == []
    assert "not again before" in start(store, launch)
    assert runs == []


def test_a_start_is_recorded_with_its_reasons_and_its_run(store: Store) -> None:
    assert start(store, lambda tell: tell("r-1")) == "started retraining, run r-1"
    last = Watches(store, "digits").last()
    assert last is not None
    assert (last[0].version, last[0].reasons, last[1]) == ("v1", ["worse"], Started(run="r-1"))
    assert "r-1, which was started at" in start(store, lambda tell: tell("r-2"), active=True)


def test_a_start_that_failed_is_noted_and_does_not_hold_the_next_back(store: Store) -> None:
    def fails(tell: Callable[[str], None]) -> None:
        raise SubmissionFailed("kubeflow.example answered 503; try again")

    with pytest.raises(SubmissionFailed):
        start(store, fails)
    assert json.loads(store.read("watches/digits/000001.run.json"))["error"] == "kubeflow.example answered 503; try again"
    assert start(store, lambda tell: tell("r-2")) == "started retraining, run r-2"
    assert sorted(store.names("watches/digits/")) == ["000001.json", "000001.run.json", "000002.json", "000002.run.json"]


def test_a_dry_run_and_no_reason_record_nothing(store: Store) -> None:
    assert "without --dry-run the pipeline retraining would start now" in start(store, None)
    assert list(store.names("watches/")) == []


def test_a_record_that_is_not_a_watchers_is_named(store: Store) -> None:
    store.create("watches/digits/000001.json", b"{}")
    with pytest.raises(IntegrityError, match=r"digits/000001\.json is not what this release writes \(time: .*\); find out"):
        Watches(store, "digits").last()


@pytest.fixture
def champion(store: Store, tmp_path: Path) -> str:
    """A version that serves, and of whose answers people called two thirds wrong."""
    registry = Registry(store, "digits")
    version = publish_directory(registry, tiny.write_bundle(tmp_path / "bundle")).version
    registry.ledger.append(draft_record("deployed", version, "quality"))
    labelled(ReviewQueue(store, "digits"), version, 10, 20)
    return version


def test_the_command_starts_a_gated_training_on_kubeflow_once(
    champion: str, store: Store, kubeflow: Kubeflow, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KFP_HOST", kubeflow.url)

    def watch(*more: str) -> dict[str, Any]:
        arguments = ["watch", "--store", store.url, "--set", "source=s3://data/digits", "--min-pictures", "20", "--json", *more]
        app(arguments, standalone_mode=False)
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    with pytest.raises(UsageError, match="store 'here' is a folder of this machine, which no step on Kubeflow sees"):
        run_arguments("training", ["store=here"])
    assert watch("--min-accuracy", "0.2")["reasons"] == []
    assert "would start now" in watch("--dry-run")["done"]
    assert kubeflow.runs == []
    said = watch()
    assert (said["version"], said["done"]) == (champion, "started retraining, run r-1")
    assert "below 0.9, by 30 labels" in said["reasons"][0]
    (sent,) = kubeflow.runs
    assert sent["pipeline_spec"]["pipeline_spec"]["pipelineInfo"]["name"] == "penstock-retraining"
    parameters = sent["runtime_config"]["parameters"]
    assert parameters == {"name": "digits", "store": store.url, "environment": "dev", "source": "s3://data/digits"}
    kubeflow.states = [("RUNNING", {}), ("FAILED", {})]
    assert "still goes on" in watch()["done"]
    assert "not again before" in watch()["done"]
    assert len(kubeflow.runs) == 1


def test_a_run_that_the_server_does_not_know_is_not_active(kubeflow: Kubeflow) -> None:
    assert not is_active("r-9", Server(kubeflow.url))
    kubeflow.states = [("PENDING", {})]
    assert is_active("r-1", Server(kubeflow.url))


def test_what_to_train_on_must_be_said(
    champion: str, store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = penstock(monkeypatch, capsys, "watch", "--store", store.url)
    assert (refused.code, "say what to train on" in refused.text) == (2, True)
    with pytest.raises(UsageError, match="exclude each other"):
        app(["watch", "--once", "--every", "15m"], standalone_mode=False)
