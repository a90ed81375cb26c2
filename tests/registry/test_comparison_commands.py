"""`penstock models diff` and `mistakes` on versions that were really evaluated."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from components.bundle.evaluation import Champion
from components.bundle.policy import Policy
from components.classifier.errors import UsageError
from components.evaluate.comparison import compare_versions
from components.gate.decide import decide
from components.registry import Record, Registry
from components.registry.evaluated import read_evaluated
from components.report.comparison import common_predictions
from components.storage import open_store
from pipelines.cli import models
from tests import tiny
from tests.registry import evaluated


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str, str, str]:
    """A store; a weak version, a good one, and one of another name on other test pictures."""
    root = tmp_path_factory.mktemp("compared")
    url = str(root / "store")
    registry, other = Registry(open_store(url), "digits"), Registry(open_store(url), "large")
    dataset, larger = tiny.write_dataset(root / "data"), tiny.write_dataset(root / "larger", size=10)
    weak = evaluated.publish(registry, root / "weak", dataset, 60)
    good = evaluated.publish(registry, root / "good", dataset, 1200, trained_at="2026-02-01T00:00:00+00:00", familiarity=True)
    strange = evaluated.publish(other, root / "strange", larger, 1200, size=10)
    registry.ledger.append(Record(action="deployed", version=good, strategy="quality"))
    return url, weak, good, strange


def run(store: str, *arguments: str) -> str:
    result = CliRunner().invoke(models.app, [*arguments, "--store", store])
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_difference_is_judged_by_the_gates_test_and_counted_picture_by_picture(store: tuple[str, str, str, str]) -> None:
    url, weak, good, _ = store
    found = json.loads(run(url, "diff", f"digits/{weak}", "digits/champion", "--json"))["comparison"]
    registry = Registry(open_store(url), "digits")
    a, b = read_evaluated(registry, weak), read_evaluated(registry, good)
    was, is_ = (side.predictions.probabilities.argmax(axis=1) == side.predictions.labels for side in (a, b))
    assert [picture["row"] for picture in found["mended"]] == (~was & is_).nonzero()[0].tolist() != []
    assert [picture["row"] for picture in found["broken"]] == (was & ~is_).nonzero()[0].tolist()
    assert found["standing"] == "significantly better"
    assert found["paired"]["only_challenger"] == len(found["mended"])
    assert all(picture["label"] == picture["second"] != picture["first"] for picture in found["mended"])
    assert compare_versions(b, a).standing[1] == "significantly worse"
    assert compare_versions(a, a).standing[1] == "not significantly different"
    shown = " ".join(run(url, "diff", weak, good, "--name", "digits").split())
    assert "the second is significantly better on the same 397 test pictures" in shown


def test_the_page_shows_every_changed_picture_and_both_learning_curves(store: tuple[str, str, str, str], tmp_path: Path) -> None:
    url, weak, good, _ = store
    page = tmp_path / "diff.html"
    run(url, "diff", weak, good, "--name", "digits", "--html", str(page))
    html = page.read_text("utf-8")
    registry = Registry(open_store(url), "digits")
    compared = compare_versions(read_evaluated(registry, weak), read_evaluated(registry, good))
    assert html.count("<img ") == len(compared.mended) + len(compared.broken) > 0
    assert html.count("<svg ") == 2
    assert "<script" not in html
    assert "significantly better" in html


def test_versions_of_different_pictures_are_compared_by_their_figures_with_the_reason(store: tuple[str, str, str, str]) -> None:
    url, _, good, strange = store
    found = json.loads(run(url, "diff", f"digits/{good}", f"large/{strange}", "--json"))["comparison"]
    assert found["paired"] is None
    assert "different test pictures" in found["reason"]
    assert "different test pictures" in run(url, "diff", f"digits/{good}", f"large/{strange}")


def test_a_version_that_was_evaluated_beside_the_other_is_compared_on_its_own_pictures(store: tuple[str, str, str, str]) -> None:
    url, weak, good, _ = store
    registry = Registry(open_store(url), "digits")
    a, b = read_evaluated(registry, weak), read_evaluated(registry, good)
    compared = compare_versions(a, b)
    equal = {"classes_equal": True, "shape_equal": True, "same_images": True}
    champion = Champion(version=weak, **equal, dataset_digest="", reason="", paired=compared.paired)
    newer = replace(
        b,
        evaluation=b.evaluation.model_copy(update={"champion": champion, "test_digest": "f" * 64}),
        predictions=replace(b.predictions, champion_probabilities=a.predictions.probabilities),
    )
    found = compare_versions(a, newer)
    assert found.paired == compared.paired
    assert compare_versions(newer, a).standing[1] == "significantly worse"
    names = common_predictions(a, replace(newer, predictions=replace(newer.predictions, champion_probabilities=None)))
    assert "different test pictures" in str(names)


def test_pictures_of_groups_are_compared_by_groups_as_the_gate_does(store: tuple[str, str, str, str]) -> None:
    url, weak, good, _ = store
    registry = Registry(open_store(url), "digits")
    a, b = (read_evaluated(registry, version) for version in (weak, good))
    alone = compare_versions(a, b).paired
    grouped = replace(b, predictions=replace(b.predictions, groups=np.minimum(np.arange(b.evaluation.n), 2)))
    found = compare_versions(a, grouped)
    assert alone is not None
    assert found.paired is not None
    assert (alone.effective, found.paired.only_challenger) == (None, alone.only_challenger)
    assert found.paired.effective is not None
    assert found.paired.effective < 50 < alone.n
    assert found.standing[1] == "not significantly different" != compare_versions(a, b).standing[1]
    beside = Champion(
        version=weak, classes_equal=True, shape_equal=True, same_images=True, dataset_digest="", reason="", paired=found.paired
    )
    (rule,) = [
        rule
        for rule in decide(Policy(require_superiority=True), b.evaluation.model_copy(update={"champion": beside})).rules
        if rule.rule == "require_superiority"
    ]
    assert rule.outcome == "insufficient"


def test_mistakes_are_listed_filtered_by_classes_and_written_whole(store: tuple[str, str, str, str], tmp_path: Path) -> None:
    url, weak, good, _ = store
    wrong = json.loads(run(url, "mistakes", weak, "--name", "digits", "--json"))
    registry = Registry(open_store(url), "digits")
    found = read_evaluated(registry, weak).evaluation
    assert len(wrong) == found.n - found.accuracy.correct > 24
    assert [row["confidence"] for row in wrong] == sorted((row["confidence"] for row in wrong), reverse=True)
    pair = found.largest_confusions[0]
    options = ["--label", pair.label, "--predicted", pair.predicted]
    assert len(json.loads(run(url, "mistakes", weak, "--name", "digits", *options, "--json"))) == pair.count
    run(url, "mistakes", weak, "--name", "digits", "-o", str(tmp_path / "all.csv"))
    with (tmp_path / "all.csv").open(newline="") as file:
        assert [int(row["row"]) for row in csv.DictReader(file)] == [row["row"] for row in wrong]
    run(url, "mistakes", "champion", "--name", "digits", "-o", str(tmp_path / "all.parquet"))
    table = pq.read_table(tmp_path / "all.parquet").to_pylist()
    assert table == json.loads(run(url, "mistakes", good, "--name", "digits", "--json"))
    assert all(0 <= row["familiarity"] <= 1 for row in table)
    assert f"{len(wrong)} of 397 test pictures are wrong" in run(url, "mistakes", weak, "--name", "digits")
    suspect = json.loads(run(url, "mistakes", weak, "--name", "digits", "--suspect", "--json"))
    assert [row["label_quality"] for row in suspect] == sorted(row["label_quality"] for row in wrong)
    with pytest.raises(UsageError, match="has no class 'cat'"):
        run(url, "mistakes", weak, "--name", "digits", "--label", "cat")
