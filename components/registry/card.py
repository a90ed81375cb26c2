"""The model card: what a version is for and its numbers, as Markdown; made only from the version's own files."""

import json

from components.bundle.config import VARIANT, Variant
from components.bundle.headline import Headline
from components.bundle.markdown import escape, table
from components.registry.manifest import Manifest

_LABELS = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "macro_f1": "Macro F1",
    "log_loss": "Log loss",
    "ece": "Calibration error (ECE)",
}
MAX_CONFUSIONS = 3


def model_card(manifest: Manifest, results: Headline) -> str:
    """Write the card of a version from its manifest (a draft without the card itself) and its evaluation's figures.

    The text depends on the version's content only, not on the run, so that publishing again gives the same bytes.
    """
    parameters = [(name, _text(value)) for name, value in sorted(manifest.parameters.items()) if name != VARIANT]
    sections = [
        f"# {escape(manifest.name)} {manifest.version}",
        f"An image classifier ({escape(manifest.architecture)}) that tells {len(manifest.classes)} classes apart: "
        f"{', '.join(escape(name) for name in manifest.classes)}.",
        "## Origin\n\n" + _lines(table(("", ""), _origin(manifest, results))),
        "## Results on the sealed test split\n\n" + _results(results),
        "## Limits\n\n" + _lines(_limits(results)),
        "## Parameters\n\n" + (_lines(table(("Parameter", "Value"), parameters)) if parameters else "None."),
    ]
    return "\n\n".join(sections) + "\n"


def _origin(manifest: Manifest, results: Headline) -> list[tuple[str, str]]:
    rows = [("Trained at", manifest.trained_at), ("Dataset", manifest.dataset_digest), ("Code version", manifest.code_version)]
    rows += [("Content digest", manifest.content_digest)]
    if (variant := Variant.of(manifest.parameters)) is not None:
        rows += [("Made as", f"{variant.kind}: {variant.how}"), ("Made of", ", ".join(parent.version for parent in variant.parents))]
    return rows + ([("Source", results.source)] if results.source else [])


def _results(results: Headline) -> str:
    if results == Headline():
        return "This version was published without an evaluation."
    rows = [(_LABELS[name], f"{value:.4f}" + _interval(results, name)) for name, value in results.figures.items()]
    text = f"{results.n:,} pictures.\n\n" if results.n is not None else ""
    text += _lines(table(("Measure", "Value"), rows)) if rows else "None."
    classes = [
        (c.name, _text(c.support), *("-" if share is None else f"{share:.3f}" for share in (c.precision, c.recall, c.f1)))
        for c in results.per_class or []
        if c is not None
    ]
    return text + ("\n\n" + _lines(table(("Class", "Pictures", "Precision", "Recall", "F1"), classes)) if classes else "")


def _interval(results: Headline, name: str) -> str:
    accuracy = results.accuracy
    if name != "accuracy" or accuracy is None or accuracy.low is None or accuracy.high is None:
        return ""
    return f" (95% interval {accuracy.low:.4f} to {accuracy.high:.4f})"


def _limits(results: Headline) -> list[str]:
    confusions = [c for c in (results.largest_confusions or [])[:MAX_CONFUSIONS] if c is not None]
    lines = [
        "Every picture gets one of the classes above, also one that shows none of them; answers of low confidence belong to a person.",
        "The numbers hold for pictures like those of the test split.",
        *(f"{c.share:.1%} of {escape(c.label)} were taken for {escape(c.predicted)}." for c in confusions),
        *(escape(warning) for warning in results.warnings or []),
    ]
    return [f"- {line}" for line in lines]


def _lines(lines: list[str]) -> str:
    return "\n".join(lines)


def _text(value: object) -> str:
    return "-" if value is None else value if isinstance(value, str) else json.dumps(value, default=str)
