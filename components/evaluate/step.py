"""Around the evaluation: fetch the champion, and bring the results into the forms that Kubeflow shows."""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.bundle import files
from components.bundle.config import BundleConfig, Variant
from components.bundle.evaluation import Evaluation
from components.bundle.predictions import Predictions
from components.classifier.errors import RegistryError
from components.evaluate.comparison import VersionFiles
from components.evaluate.evaluation import evaluate
from components.integrations import steps
from components.integrations.observe import observed
from components.registry import Registry
from components.report.markdown import evaluation_markdown
from components.report.views import most_confused
from components.storage import open_store

ROC_POINTS = 200
ROC_PAIRS = 10_000_000
MATRIX_CLASSES = 100
"""More classes than this would bring the artifact's metadata near the limit of 4 MB, and no one could read them."""


@dataclass(frozen=True)
class StepResult:
    """What the step hands to Kubeflow: figures, a square matrix with its labels, and a ROC curve (fpr, tpr, threshold)."""

    champion: str
    metrics: dict[str, float]
    categories: list[str]
    matrix: list[list[int]]
    roc: tuple[list[float], list[float], list[float]] | None


@observed(steps.evaluate)
def run(dataset: str, model: str, evaluation: str, report: str, summary: str, store: str, name: str) -> StepResult:
    """Evaluate, with the registry's champion beside, and write report and summary where they are shown."""
    registry = Registry(open_store(store), name)
    version = registry.ledger.champion() or ""
    with tempfile.TemporaryDirectory(prefix="penstock-champion-") as scratch:
        champion = _fetch(registry, version, Path(scratch) / "champion") if version else None
        parents = _fetch_parents(registry, Path(model), Path(scratch))
        result = evaluate(dataset, model, evaluation, champion, parents)
    shutil.copyfile(Path(evaluation) / files.REPORT, report)
    Path(summary).write_text(evaluation_markdown(result), "utf-8")
    categories, matrix = shown_matrix(result)
    return StepResult(version, figures(result), categories, matrix, roc_curve(Predictions.load(evaluation)))


def figures(evaluation: Evaluation) -> dict[str, float]:
    """The figures that a list of runs shows; those that are not defined are left out."""
    shown = {
        "accuracy": evaluation.accuracy.value,
        "accuracy_low": evaluation.accuracy.low,
        "macro_f1": evaluation.macro_f1,
        "balanced_accuracy": evaluation.balanced_accuracy,
        "log_loss": evaluation.log_loss,
        "roc_auc": evaluation.roc_auc,
        "ece": evaluation.calibration.ece_after,
        "latency_p50_ms": evaluation.latency.p50_ms,
        "latency_p95_ms": evaluation.latency.p95_ms,
        "test_pictures": float(evaluation.n),
    }
    if evaluation.champion is not None and evaluation.champion.paired is not None:
        shown["champion_accuracy"] = evaluation.champion.paired.accuracy.value
    return {key: value for key, value in shown.items() if value is not None}


def shown_matrix(evaluation: Evaluation) -> tuple[list[str], list[list[int]]]:
    """The confusion matrix with its labels; of very many classes, those with the most mistakes."""
    matrix = np.array(evaluation.confusion_matrix)
    chosen = most_confused(matrix, MATRIX_CLASSES)
    return [evaluation.classes[k] for k in chosen], matrix[np.ix_(chosen, chosen)].tolist()


def roc_curve(predictions: Predictions) -> tuple[list[float], list[float], list[float]] | None:
    """ROC curve (false positive rate, true positive rate, threshold), thinned; None when a single class is present.

    Of two classes it is the second's; of more, every (picture, class) pair counts as one answer (micro-average), of some ten
    million pairs at most.
    """
    from sklearn.metrics import roc_curve as curve

    every = max(1, predictions.probabilities.size // ROC_PAIRS)
    labels, scores = predictions.labels[::every], predictions.probabilities[::every]
    if len(np.unique(labels)) < 2:
        return None
    if scores.shape[1] == 2:
        fpr, tpr, thresholds = curve(labels, scores[:, 1])
    else:
        fpr, tpr, thresholds = curve((labels[:, None] == np.arange(scores.shape[1])).ravel(), scores.ravel())
    # Even steps along the curve's length keep its bend, where most of the points that scikit-learn gives are not.
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(fpr), np.diff(tpr)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], ROC_POINTS)).clip(0, len(fpr) - 1))
    finite = np.clip(thresholds, 0.0, 1.0)  # the first threshold is infinite, which JSON cannot hold
    return fpr[kept].tolist(), tpr[kept].tolist(), finite[kept].astype(float).tolist()


def _fetch(registry: Registry, version: str, destination: Path) -> VersionFiles:
    try:
        return VersionFiles(version, registry.fetch(version, destination, (files.ONNX, files.CONFIG)))
    except RegistryError as error:
        # A champion whose files are gone or damaged must not keep a sound successor from being evaluated.
        return VersionFiles(version, None, str(error))


def _fetch_parents(registry: Registry, model: Path, scratch: Path) -> dict[str, Path] | None:
    """The versions that a variant was made of, by name; None for a model that was trained. One that is gone since is said, and left out."""
    variant = Variant.of(BundleConfig.load(model).parameters)
    if variant is None:
        return None
    found = [_fetch(registry, parent.version, scratch / parent.version) for parent in variant.parents]
    for one in found:
        if one.problem:
            print(f"note: accuracy against latency is shown without {one.version}: {one.problem}")
    return {one.version: one.path for one in found if one.path is not None}
