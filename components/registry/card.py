"""The model card: what a version is for and its numbers, as Markdown; made only from the version's own files."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.classifier.errors import DataError

if TYPE_CHECKING:
    from components.registry.manifest import Manifest

_HEADLINE = {
    "accuracy": ("accuracy", "value"),
    "balanced_accuracy": ("balanced_accuracy",),
    "macro_f1": ("macro_f1",),
    "log_loss": ("log_loss",),
    "ece": ("calibration", "ece_after"),
}
_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~&])")


def headline(evaluation: Path | None) -> dict[str, float]:
    """Return the headline numbers of an evaluation.json: accuracy, balanced accuracy, macro F1, log loss, ECE.

    Numbers that are absent or not finite are left out. Raises DataError for a file that is not JSON.
    """
    numbers = {name: _number(_read(evaluation), *path) for name, path in _HEADLINE.items()}
    return {name: number for name, number in numbers.items() if number is not None}


def model_card(manifest: "Manifest", evaluation: Path | None) -> str:
    """Write the card of a version from its manifest (a draft without the card itself) and its evaluation.json, if there is one.

    The text depends on the version's content only, not on the run, so that publishing again gives the same bytes.
    """
    results = _read(evaluation)
    sections = [
        f"# {escape(manifest.name)} {manifest.version}",
        f"An image classifier ({escape(manifest.architecture)}) that tells {len(manifest.classes)} classes apart: "
        f"{', '.join(escape(name) for name in manifest.classes)}.",
        "## Origin\n\n" + _table(("", ""), _origin(manifest, results)),
        "## Results on the sealed test split\n\n" + _results(results),
        "## Limits\n\n" + _limits(results),
        "## Parameters\n\n" + _table(("Parameter", "Value"), [(k, _text(v)) for k, v in sorted(manifest.parameters.items())]),
    ]
    return "\n\n".join(sections) + "\n"


def escape(text: str) -> str:
    """Return text in which nothing is Markdown or HTML, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _origin(manifest: "Manifest", results: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("Trained at", manifest.trained_at), ("Dataset", manifest.dataset_digest), ("Code version", manifest.code_version)]
    rows += [("Content digest", manifest.content_digest)]
    return rows + ([("Source", str(results["source"]))] if results.get("source") else [])


def _results(results: Mapping[str, Any]) -> str:
    if not results:
        return "This version was published without an evaluation."
    rows = []
    for name, path in _HEADLINE.items():
        number = _number(results, *path)
        if number is not None:
            rows.append((_LABELS[name], f"{number:.4f}" + (_interval(results) if name == "accuracy" else "")))
    count = results.get("n")
    text = (f"{count:,} pictures.\n\n" if isinstance(count, int) else "") + _table(("Measure", "Value"), rows)
    classes = [_class_row(entry) for entry in _list(results, "per_class")]
    if classes:
        text += "\n\n" + _table(("Class", "Pictures", "Precision", "Recall", "F1"), classes)
    return text


def _interval(results: Mapping[str, Any]) -> str:
    low, high = _number(results, "accuracy", "low"), _number(results, "accuracy", "high")
    return f" (95% interval {low:.4f} to {high:.4f})" if low is not None and high is not None else ""


def _class_row(entry: Mapping[str, Any]) -> tuple[str, ...]:
    shares = [_number(entry, field) for field in ("precision", "recall", "f1")]
    return (str(entry.get("name", "")), _text(entry.get("support")), *("-" if s is None else f"{s:.3f}" for s in shares))


def _limits(results: Mapping[str, Any]) -> str:
    lines = [
        "Every picture gets one of the classes above, also one that shows none of them; answers of low confidence belong to a person.",
        "The numbers hold for pictures like those of the test split.",
    ]
    for entry in _list(results, "largest_confusions")[:3]:
        share = _number(entry, "share")
        if share is not None:
            lines.append(f"{share:.1%} of {escape(str(entry.get('label')))} were taken for {escape(str(entry.get('predicted')))}.")
    lines += [escape(str(warning)) for warning in results.get("warnings") or []]
    return "\n".join(f"- {line}" for line in lines)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]) if rows else "None."


def _text(value: object) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)


def _list(results: Mapping[str, Any], field: str) -> list[Mapping[str, Any]]:
    found = results.get(field)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


def _number(results: Any, *path: str) -> float | None:
    for part in path:
        results = results.get(part) if isinstance(results, dict) else None
    if isinstance(results, bool) or not isinstance(results, int | float):
        return None
    try:
        number = float(results)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return number if math.isfinite(number) else None


def _read(evaluation: Path | None) -> dict[str, Any]:
    if evaluation is None:
        return {}
    try:
        results = json.loads(evaluation.read_bytes())
    except ValueError as error:
        raise DataError(f"{evaluation} is not JSON ({error}); evaluate the model again") from error
    return results if isinstance(results, dict) else {}
