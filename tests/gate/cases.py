"""Evaluations with known figures: whole and valid, made from the confusion matrix and the champion's paired counts."""

from typing import Any

import numpy as np

from components.bundle.evaluation import Evaluation
from components.classifier.intervals import difference_interval, mcnemar, proportion_interval


def proportion(correct: int, n: int) -> dict[str, Any]:
    low, high = proportion_interval(correct, n)
    return {"value": correct / n, "correct": correct, "n": n, "low": low, "high": high}


def evaluation(matrix: Any, *, classes: list[str] | None = None, champion: dict[str, Any] | None = None, **changes: Any) -> Evaluation:
    """The evaluation of a model with this confusion matrix (rows: labels); everything else is harmless."""
    matrix = np.asarray(matrix)
    names = classes or [f"class{k}" for k in range(len(matrix))]
    n, correct = int(matrix.sum()), int(np.trace(matrix))
    per_class, scores = [], []
    for k, name in enumerate(names):
        support, predicted, hits = int(matrix[k].sum()), int(matrix[:, k].sum()), int(matrix[k, k])
        f1 = 2 * hits / (support + predicted) if support else None
        scores += [f1] if f1 is not None else []
        recall = {"recall": hits / support, "recall_low": 0.0, "recall_high": 1.0} if support else dict.fromkeys(RECALL)
        precision = hits / predicted if predicted else None
        per_class.append(
            {
                "name": name,
                "support": support,
                "predicted": predicted,
                "correct": hits,
                "precision": precision,
                **recall,
                "f1": f1,
                "roc_auc": None,
            }
        )
    values = {
        "name": "digits",
        "architecture": "small_cnn",
        "trained_at": "2026-01-02T03:04:05+00:00",
        "evaluated_at": "2026-01-02T03:05:05+00:00",
        "code_version": "test",
        "dataset_digest": "d" * 64,
        "trained_on_digest": "d" * 64,
        "source": "digits",
        "test_digest": "e" * 64,
        "n": n,
        "classes": names,
        "accuracy": proportion(correct, n),
        "balanced_accuracy": float(np.mean([r["recall"] for r in per_class if r["recall"] is not None])),
        "macro_f1": float(np.mean(scores)),
        "weighted_f1": float(np.mean(scores)),
        "log_loss": 0.1,
        "brier": 0.05,
        "roc_auc": None,
        "top_k": [],
        "per_class": per_class,
        "confusion_matrix": matrix.tolist(),
        "largest_confusions": [],
        "calibration": {"temperature": 1.0, "ece_before": 0.02, "ece_after": 0.01, "bins": [], "bins_before": []},
        "coverage": [],
        "slices": [],
        "mistakes": [],
        "latency": {
            "p50_ms": 0.4,
            "p95_ms": 0.9,
            "n": 100,
            "batch_images_per_second": 1000.0,
            "batch_size": 64,
            "threads": 1,
            "device": "cpu",
        },
        "size_bytes": 250_000,
        "champion": champion,
        "warnings": [],
    }
    return Evaluation.model_validate({**values, **changes})


CHAMPION = "20260101-000000-aaaaaaaaaaaa"
RECALL = ("recall", "recall_low", "recall_high")


def good(n: int = 360, correct: int | None = None, champion: dict[str, Any] | None = None, **changes: Any) -> Evaluation:
    """Ten classes, almost all right: the wrong ones are spread evenly over the classes."""
    correct = round(n * 0.98) if correct is None else correct
    matrix = np.diag([len(range(k, n, 10)) for k in range(10)])
    for mistake in range(n - correct):
        label = mistake % 10
        matrix[label, label] -= 1
        matrix[label, (label + 1 + mistake // 10 % 9) % 10] += 1
    return evaluation(matrix, champion=champion, **changes)


def champion(only_challenger: int, only_champion: int, n: int, correct: int, version: str = CHAMPION) -> dict[str, Any]:
    """A champion paired with a challenger that has `correct` of `n` right."""
    both = correct - only_challenger
    low, high = difference_interval(only_challenger, only_champion, n)
    paired = {
        "n": n,
        "both_correct": both,
        "only_challenger": only_challenger,
        "only_champion": only_champion,
        "neither": n - both - only_challenger - only_champion,
        "accuracy": proportion(both + only_champion, n),
        "balanced_accuracy": 0.9,
        "macro_f1": 0.9,
        "log_loss": 0.1,
        "brier": 0.05,
        "ece": 0.01,
        "mcnemar_p": mcnemar(only_challenger, only_champion),
        "difference": (only_challenger - only_champion) / n,
        "difference_low": low,
        "difference_high": high,
        "per_class": [],
    }
    same = {"classes_equal": True, "shape_equal": True, "same_images": True}
    return {"version": version, **same, "dataset_digest": "d" * 64, "reason": "", "paired": paired}


def apart(reason: str, version: str = CHAMPION) -> dict[str, Any]:
    """A champion that cannot be compared, and why."""
    flags = {"classes_equal": False, "shape_equal": True, "same_images": False}
    return {"version": version, **flags, "dataset_digest": "", "reason": reason, "paired": None}
