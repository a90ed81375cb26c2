"""The steps between the trials, as Kubeflow calls them, on trials that were really trained."""

import json
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from components.bundle.dataset import Dataset
from components.bundle.search import SearchRecord, TrialResult, save_search, search_records
from components.classifier.errors import TrainingError
from components.report.search import render_search
from components.search.component import choose_best, keep_best, plan_trials
from components.search.steps import choose, command_of
from components.settings.search import settings_of_trial
from components.storage import open_store
from components.train.component import train_trial
from pipelines.catalogue import load_pipeline
from pipelines.parameters import parse_settings
from tests.search.results import record, result

OWN: dict[str, Any] = {"name": "digits", "architecture": "small_cnn", "pretrained": False, "device": "cpu", "gpus": "0"}
POD: dict[str, Any] = {
    **dict.fromkeys(("pod_cpu", "pod_memory", "pod_cpu_limit", "pod_memory_limit", "gpu_resource"), ""),
    "node_selector": {},
}
TRAINING = {"epochs": 2.0, "augmentation": "none", "batch_size": 256.0}
SEARCH = {"width": [0.25, 0.5], "learning_rate": [0.003]}


def test_the_better_trial_goes_on_wins_and_is_what_the_training_step_gets(
    digits_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.train.loop.MIN_STEPS_PER_EPOCH", 5)
    store = str(tmp_path / "store")
    base = {**OWN, "training": TRAINING}
    dataset = dsl.Dataset(uri=str(digits_dataset.path))

    def rung(trials: list[str]) -> list[str]:
        place = dsl.Metrics(uri=str(tmp_path / "metrics"))
        return [train_trial.python_func(dataset=dataset, trial=it, metrics=place, store=store, **base, **POD) for it in trials]

    rungs = [rung(plan_trials.python_func(**base, search=SEARCH))]
    checkpoints = [Path(TrialResult.model_validate_json(it).checkpoint) for it in rungs[0]]
    for _ in range(2):
        rungs.append(rung(keep_best.python_func(results=rungs[-1], **base, search=SEARCH)))
    kept_record, report = dsl.Artifact(uri=str(tmp_path / "trials")), dsl.HTML(uri=str(tmp_path / "report"))
    architecture, pretrained, epochs, training = choose_best.python_func(
        dataset=dataset,
        **dict(zip(("first", "second", "third"), rungs, strict=True)),
        source="digits",
        ingest={},
        store=store,
        search=SEARCH,
        run="run-1",
        record=kept_record,
        report=report,
        metrics=dsl.Metrics(uri=str(tmp_path / "metrics")),
        **base,
    )
    (kept,) = search_records(open_store(store), "digits")
    assert kept == SearchRecord.load(tmp_path / "trials")
    assert [(it.rung, it.epochs) for it in kept.results] == [(1, 1), (1, 1), (2, 1), (3, 2)]
    first = kept.results[:2]
    assert kept.best == max(first, key=lambda it: (it.validation_accuracy or 0, -(it.validation_loss or 0))).trial
    assert (architecture, pretrained, epochs) == ("small_cnn", False, "2")
    assert training == {"augmentation": "none", "batch_size": 256.0, **kept.winner.settings}
    assert [path.exists() for path in checkpoints] == [trial.trial == kept.best for trial in first]
    assert kept.winner.checkpoint in {str(path) for path in checkpoints}
    assert f"Trial {kept.best} won" in (tmp_path / "report").read_text("utf-8")


def test_the_printed_command_trains_exactly_the_winner() -> None:
    training, own = {"epochs": 4, "dropout": 0.25}, {**OWN, "pretrained": True}
    winner = result(3, 0.9, settings={"optimizer": "sgd", "architecture": "resnet18", "width": 2.0})
    data = {"source": "s3://bucket/my pets", "ingest": {"image_size": 64}}
    words = shlex.split(command_of(winner, training, own, data, "s3://models/a b"))
    assert words[:6] == ["penstock", "run", "training", "--store", "s3://models/a b", "--name"]
    arguments = parse_settings(load_pipeline("training"), [word for before, word in pairwise(words) if before == "--set"])
    assert (arguments.pop("source"), arguments.pop("ingest")) == ("s3://bucket/my pets", {"image_size": 64})
    read = settings_of_trial(arguments.pop("training"), {"name": "digits", "device": "cpu", "gpus": "0", **arguments}, {})
    assert read == settings_of_trial(training, own, winner.settings)


def test_where_the_last_rung_fails_the_best_of_the_rung_before_wins(digits_dataset: Dataset, tmp_path: Path) -> None:
    first = [result(k, 0.9 + k / 100) for k in (1, 2, 3)]
    second = [result(k, 0.9 + k / 100, rung=2, until=6) for k in (2, 3)]
    third = [result(3, None, rung=3, until=12, error="the training diverged")]
    given = {"search": {}, "training": {}, "own": OWN, "source": "digits", "ingest": {}, "store": str(tmp_path), "run": "run-1"}
    chosen = choose([it.model_dump_json() for it in first + second + third], digits_dataset, **given)
    assert (chosen.best, chosen.winner.rung, chosen.epochs) == (2, 2, 12)
    page = render_search(chosen)
    assert "Trial 2 won" in page
    assert "the training diverged" in page
    with pytest.raises(TrainingError, match="no trial could be trained; trial 3"):
        choose([it.model_dump_json() for it in third], digits_dataset, **given)


def test_searches_of_a_model_are_found_newest_first(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert search_records(store, "digits") == []
    for run, time in (("a", "2026-01-02T00:00:00+00:00"), ("b", "2026-01-03T00:00:00+00:00")):
        save_search(record(result(1, 0.9), best=1, run=run, time=time), store)
        save_search(record(result(1, 0.9), best=1, run=run, time=time), store)
    save_search(record(result(1, 0.9), best=1, name="pets"), store)
    assert [it.run for it in search_records(store, "digits")] == ["b", "a"]
    assert json.loads((tmp_path / "searches/digits/a/search.json").read_text("utf-8"))["best"] == 1
