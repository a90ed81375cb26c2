"""Results of trials, as a rung gives them."""

from typing import Any

from components.bundle.search import SearchRecord, TrialResult


def result(trial: int, accuracy: float | None, loss: float = 0.5, **more: Any) -> TrialResult:
    given: dict[str, Any] = {
        "settings": {"learning_rate": 0.01 * trial},
        "rung": 1,
        "until": 3,
        "seed": 0,
        "epochs": 3,
        "best_epoch": 3,
        "validation_pictures": 200,
        "seconds": 1.5,
        "device": "cpu",
        "validation_loss": None if accuracy is None else loss,
    }
    return TrialResult(trial=trial, validation_accuracy=accuracy, **{**given, **more})


def record(*results: TrialResult, best: int, **more: Any) -> SearchRecord:
    given: dict[str, Any] = {"name": "digits", "run": "run-1", "time": "2026-01-02T03:04:05+00:00", "dataset_digest": "d" * 64}
    return SearchRecord(
        **{**given, "reduction": 2, "epochs": 12, "command": "penstock run training", **more}, results=list(results), best=best
    )
