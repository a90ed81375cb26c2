"""The report of a model version that lies in the registry, with the decision that the ledger holds about it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from components.bundle.evaluation import Evaluation
from components.bundle.files import EVALUATION, PREDICTIONS, REPORT
from components.bundle.predictions import Predictions
from components.classifier.errors import EvaluationError
from components.registry import Record, Registry
from components.report.html import render


def stored_report(registry: Registry, version: str, navigation: str = "") -> str:
    """Render the report of a version from its stored evaluation, as this release draws it.

    An evaluation of another release, which this one cannot read, falls back to the report that was stored with it. `navigation` is
    what stands above the page, as `Markup`. Raises EvaluationError when the version has neither.
    """
    there = registry.get(version).manifest.files.keys()
    with registry.opened(version, {EVALUATION, PREDICTIONS, REPORT} & there) as directory:
        return _draw(directory, decision_about(version, registry.ledger.records()), version, navigation)


def judged_report(directory: str | Path, decision: Mapping[str, Any], version: str) -> str:
    """Render the report of the evaluation in a directory with the decision about it.

    An evaluation that cannot be drawn gives a page that says why: the decision stands without a picture of it.
    """
    from markupsafe import Markup

    try:
        return _draw(directory, decision, version)
    except EvaluationError as error:
        return Markup("<!doctype html><meta charset=utf-8><title>No report</title><p>{}</p>\n").format(str(error))


def _draw(directory: str | Path, decision: Mapping[str, Any] | None, version: str, navigation: str = "") -> str:
    stored = Path(directory) / REPORT
    try:
        evaluation, predictions = Evaluation.load(directory), Predictions.load(directory)
    except EvaluationError as error:
        if not stored.exists():
            raise EvaluationError(f"version {version} holds neither an evaluation that can be read nor a report ({error})") from error
        return stored.read_text("utf-8")
    return render(evaluation, predictions, decision, version, navigation)


def decision_about(version: str, records: Iterable[Record]) -> dict[str, Any] | None:
    """The last decision that the ledger holds about a version, or None."""
    decided = [record for record in records if record.version == version and record.decision]
    if not decided:
        return None
    record = decided[-1]
    about = record.model_dump(include={"environment", "strategy", "actor", "reason"})
    return {**record.decision, **about}
