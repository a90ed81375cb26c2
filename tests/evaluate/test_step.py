"""The evaluate step as the pipeline runs it: the champion comes from the registry, results go to Kubeflow's artifacts."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from kfp import dsl
from sklearn import metrics as sk

from components.bundle.evaluation import Evaluation
from components.bundle.files import EVALUATED_FILES
from components.bundle.predictions import Predictions
from components.evaluate.component import evaluate_model
from components.evaluate.evaluation import evaluate
from components.evaluate.step import MATRIX_CLASSES, ROC_POINTS, roc_curve, shown_matrix
from components.registry import Record, Registry
from components.registry.publication import publish_directory
from components.storage import open_store
from tests.evaluate import made

CLASSES = ["a", "b", "c"]


@dataclass
class Step:
    """The component with its artifacts in a folder."""

    root: Path

    def run(self, labels: np.ndarray, predicted: np.ndarray) -> str:
        info = made.write_dataset(self.root / "data", labels, CLASSES).info
        made.write_model(self.root / "model", made.guesses(predicted, 3), CLASSES, dataset_digest=info.digest)
        out = self.root / "artifacts"
        self.evaluation, self.metrics = dsl.Artifact(uri=str(out / "evaluation")), dsl.Metrics(uri=str(out / "metrics"))
        self.matrix = dsl.ClassificationMetrics(uri=str(out / "matrix"))
        self.report, self.summary = dsl.HTML(uri=str(out / "report")), dsl.Markdown(uri=str(out / "summary"))
        version: str = evaluate_model.python_func(
            dataset=dsl.Dataset(uri=str(self.root / "data")),
            model=dsl.Model(uri=str(self.root / "model")),
            evaluation=self.evaluation,
            metrics=self.metrics,
            confusion_matrix=self.matrix,
            report=self.report,
            summary=self.summary,
            store=str(self.root / "store"),
            name="made",
        )
        return version

    @property
    def registry(self) -> Registry:
        return Registry(open_store(str(self.root / "store")), "made")

    def deploy(self) -> str:
        """Publish what was evaluated last, and make it the champion."""
        for path in Path(self.evaluation.path).iterdir():
            (self.root / "model" / path.name).write_bytes(path.read_bytes())
        (self.root / "model" / "model.safetensors").write_bytes(b"weights")
        (self.root / "model" / "training.json").write_text("{}")
        version = publish_directory(self.registry, self.root / "model").version
        self.registry.ledger.append(Record(action="deployed", version=version, champion=version, strategy="quality"))
        return version

    @property
    def result(self) -> Evaluation:
        return Evaluation.load(self.evaluation.path)


@pytest.fixture
def step(tmp_path: Path) -> Step:
    return Step(tmp_path)


def shifted(labels: np.ndarray, wrong: int) -> np.ndarray:
    predicted = labels.copy()
    predicted[:wrong] = (predicted[:wrong] + 1) % 3
    return predicted


def test_the_first_model_meets_no_champion(step: Step) -> None:
    labels = np.arange(60) % 3
    assert step.run(labels, shifted(labels, 6)) == ""
    assert step.result.champion is None
    assert sorted(p.name for p in Path(step.evaluation.path).iterdir()) == sorted(EVALUATED_FILES)
    assert step.metrics.metadata["accuracy"] == 0.9
    json.dumps(step.metrics.metadata, allow_nan=False)
    assert "<h1>made" in Path(step.report.path).read_text("utf-8")
    assert "90.00% of 60 sealed test pictures right" in Path(step.summary.path).read_text("utf-8")


def test_a_second_model_meets_the_first_on_the_same_pictures(step: Step) -> None:
    labels = np.arange(60) % 3
    step.run(labels, shifted(labels, 6))
    champion = step.deploy()
    assert step.run(labels, shifted(labels, 2)) == champion
    assert step.result.champion is not None
    assert step.result.champion.paired is not None
    assert step.result.champion.paired.only_challenger == 4
    assert step.metrics.metadata["champion_accuracy"] == 0.9


def test_a_champion_whose_files_are_gone_or_changed_is_recorded(step: Step) -> None:
    labels = np.arange(60) % 3
    step.run(labels, labels)
    champion = step.deploy()
    model = step.root / "store" / "models" / "made" / champion / "model.onnx"
    good = model.read_bytes()
    model.write_bytes(good[:-1] + b"?")
    assert step.run(labels, labels) == champion
    assert step.result.champion is not None
    assert "model.onnx" in step.result.champion.reason
    for path in model.parent.iterdir():
        path.unlink()
    assert step.run(labels, labels) == champion
    assert step.result.champion.paired is None


def test_the_matrix_is_square_and_labelled(step: Step) -> None:
    labels = np.arange(60) % 3
    step.run(labels, shifted(labels, 6))
    shown = step.matrix.metadata["confusionMatrix"]
    assert [spec["displayName"] for spec in shown["annotationSpecs"]] == CLASSES
    assert [row["row"] for row in shown["rows"]] == step.result.confusion_matrix


def test_very_many_classes_are_thinned_to_those_with_mistakes(tmp_path: Path) -> None:
    classes, labels = [str(k) for k in range(120)], np.arange(240) % 120
    predicted = labels.copy()
    predicted[119] = 118
    made.write_dataset(tmp_path / "data", labels, classes)
    made.write_model(tmp_path / "model", made.guesses(predicted, 120), classes)
    names, matrix = shown_matrix(evaluate(tmp_path / "data", tmp_path / "model", tmp_path / "out"))
    assert len(names) == len(matrix) == len(matrix[0]) == MATRIX_CLASSES
    assert matrix[names.index("119")][names.index("118")] == 1


@pytest.mark.parametrize("classes", [2, 5])
def test_the_thinned_roc_curve_keeps_its_area(classes: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 5000)
    logits = rng.normal(0, 1, (5000, classes))
    logits[np.arange(5000), labels] += 1
    probabilities = made.softmax(logits)
    curve = roc_curve(Predictions(labels, probabilities, None, np.zeros((0, 1, 1, 1), np.uint8)))
    assert curve is not None
    fpr, tpr, thresholds = curve
    assert len(fpr) == len(tpr) == len(thresholds) <= ROC_POINTS
    assert np.isfinite(thresholds).all()
    truth, scores = (labels, probabilities[:, 1]) if classes == 2 else (np.eye(classes)[labels].ravel(), probabilities.ravel())
    assert sk.auc(fpr, tpr) == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-3)
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)


def test_a_single_class_has_no_roc_curve(step: Step) -> None:
    step.run(np.zeros(9, np.int64), np.zeros(9, np.int64))
    assert "confidenceMetrics" not in step.matrix.metadata
    assert "roc_auc" not in step.metrics.metadata
