"""A variant is timed beside its parents and the champion, on the same pictures."""

import json
from pathlib import Path

import pytest

from components.bundle import files
from components.bundle.config import VARIANT, BundleConfig, Parent, Variant
from components.bundle.dataset import Dataset
from components.bundle.evaluation import Evaluation
from components.bundle.policy import Policy
from components.bundle.predictions import Predictions
from components.evaluate import step
from components.evaluate.comparison import VersionFiles
from components.evaluate.evaluation import evaluate
from components.gate.decide import decide
from components.registry import Registry
from components.registry.publication import publish_directory
from components.report.html import render
from components.storage import open_store
from tests import tiny


def made_of(folder: Path, *parents: str) -> Path:
    """A tiny bundle that says it was made of others."""
    tiny.write_bundle(folder, samples=300)
    config = BundleConfig.load(folder)
    variant = Variant(kind="ensemble", parents=[Parent(version=version, sha256="0" * 64) for version in parents], how="for a test")
    config.model_copy(update={"parameters": {VARIANT: variant.model_dump()}}).save(folder)
    return folder


@pytest.fixture(scope="module")
def evaluated(digits_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluation, as the step makes it, of a variant of one version that is there and one that is not; another one serves."""
    root = tmp_path_factory.mktemp("tradeoff")
    registry = Registry(open_store(str(root / "store")), "digits")
    there = publish_directory(registry, tiny.write_bundle(root / "parent")).version
    model = made_of(root / "model", there, "20260101-000000-000000000000")
    out = root / "evaluation"
    step.run(
        str(digits_dataset.path), str(model), str(out), str(root / "report.html"), str(root / "summary.md"), str(root / "store"), "digits"
    )
    return out


def test_each_model_has_its_accuracy_on_the_same_pictures_and_two_medians(evaluated: Path, digits_dataset: Dataset) -> None:
    found = Evaluation.load(evaluated)
    assert found.tradeoff is not None
    mine, parent = found.tradeoff.models
    assert (mine.role, mine.version, mine.accuracy) == ("this model", "", found.accuracy.value)
    assert (mine.low, mine.high) == (found.accuracy.low, found.accuracy.high)
    assert parent.role == "parent"
    assert parent.accuracy > 0.9
    assert all(model.one_ms > 0 and model.batch_ms > 0 and model.size_bytes > 1000 for model in found.tradeoff.models)
    assert (found.tradeoff.batch, found.tradeoff.threads) == (64, 1)
    assert "onnxruntime" in found.tradeoff.hardware


def test_the_report_shows_it_and_other_reports_do_not(evaluated: Path) -> None:
    evaluation, predictions = Evaluation.load(evaluated), Predictions.load(evaluated)
    assert "Accuracy against latency" in render(evaluation, predictions)
    assert "Accuracy against latency" not in render(evaluation.model_copy(update={"tradeoff": None}), predictions)


def test_a_parent_that_serves_is_shown_once_and_one_that_takes_other_pictures_is_left_out(
    digits_dataset: Dataset, tiny_bundle: Path, tmp_path: Path
) -> None:
    larger = tiny.write_bundle(tmp_path / "larger", size=9, samples=60)
    model = made_of(tmp_path / "model", "a", "b")
    found = evaluate(digits_dataset.path, model, tmp_path / "out", VersionFiles("a", tiny_bundle), {"a": tiny_bundle, "b": larger})
    assert found.tradeoff is not None
    assert [(m.role, m.version) for m in found.tradeoff.models] == [("this model", ""), ("parent and champion", "a")]
    assert "accuracy against latency is shown without the parent b: it takes other pictures, or knows other classes" in found.warnings


def test_the_gate_decides_the_same_without_it(evaluated: Path) -> None:
    values = json.loads((evaluated / files.EVALUATION).read_text())
    policy = Policy(minimum_accuracy=0.5, maximum_latency_ms=1000)
    slow = json.loads(json.dumps(values))
    for model in slow["tradeoff"]["models"]:
        model["one_ms"] = 1e6
    decisions = [decide(policy, given) for given in (values, slow, {**values, "tradeoff": None})]
    assert decisions[0] == decisions[1] == decisions[2]
    assert decisions[0].deploy
