"""What a scoring run came to, in figures and in Markdown."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from components.bundle.markdown import escape
from components.classifier.errors import DataError
from components.classifier.metadata import UNREAD
from components.readers.listing import counted
from components.score.drift import Drift, ExpectedAccuracy, Feature, accuracy_line, compare, drift_lines, expected_accuracy
from components.score.tally import FEATURES, SURE, Tally

MAX_UNFAMILIAR = 0.05
"""Share of unfamiliar pictures above which a run warns: five times what pictures of the training's kind give."""


@dataclass
class Summary:
    """Figures of one run; `rows` = `scored` + `errors`."""

    input: str
    output: str
    model: str
    version: str
    rows: int
    scored: int
    errors: int
    passed_over: int
    """What is not an input: neither scored nor an error."""
    needs_review: int
    review_share: float | None
    """Part of the scored rows that need review; None when there are none."""
    mean_confidence: float | None
    classes: dict[str, int]
    """How often each class was the answer."""
    error_examples: list[dict[str, Any]]
    passed_over_reasons: dict[str, int]
    drift: list[Drift]
    warnings: list[str]
    unfamiliar: int | None = None
    """Scored rows that look like nothing that the version was trained on; None where it cannot say it."""
    expected_accuracy: ExpectedAccuracy | None = None
    """Estimated without labels; None for a version of an older release."""
    device: str = ""
    """What scored rows in this run; empty where an earlier one, which was broken off, had scored all of them."""
    images_per_second: float | None = None
    """Rows that were scored in this run, by the seconds of its shards together."""
    seconds: float = 0.0
    shards: int = 0
    unread_metadata: dict[str, int] = field(default_factory=dict)
    """How many pictures were read without their orientation or colour profile, which cannot be read, by what became of them."""

    def figures(self) -> dict[str, float]:
        """The main figures, those that there are."""
        named = {
            "rows": self.rows,
            "errors": self.errors,
            "passed_over": self.passed_over,
            "review_share": self.review_share,
            "mean_confidence": self.mean_confidence,
            "unfamiliar": self.unfamiliar,
            "expected_accuracy": self.expected_accuracy.value if self.expected_accuracy else None,
            "images_per_second": self.images_per_second,
        }
        return {name: float(value) for name, value in named.items() if value is not None}

    def save(self, path: Path) -> None:
        """Write the summary as strict JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")


def read_summary(data: bytes) -> Summary:
    """Read what `Summary.save` wrote; raises DataError for bytes of another form."""
    try:
        raw: dict[str, Any] = json.loads(data)
        raw["drift"] = [Drift(**drift) for drift in raw["drift"]]
        raw["expected_accuracy"] = ExpectedAccuracy(**raw["expected_accuracy"]) if raw.get("expected_accuracy") else None
        return Summary(**raw)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"this is not the summary.json of a scoring run ({error!r}); score again") from error


def drift_of(tally: Tally) -> list[Drift]:
    """Compare what was counted with the version's reference; empty where there is none."""
    reference = tally.reference
    if reference is None or reference.classes != tally.classes:
        return []
    known = reference.familiarity
    return compare(
        [
            Feature("predicted class", reference.predicted, [tally.labels[name] for name in tally.classes]),
            Feature("confidence", reference.confidence.counts, tally.confidence.tolist(), ordered=True),
            *([Feature("familiarity", known.counts, tally.familiarity.tolist(), ordered=True)] if known else []),
            *(Feature(name, getattr(reference, name).counts, tally.appearance.counts[name].tolist()) for name in FEATURES),
        ]
    )


def accuracy_of(tally: Tally) -> ExpectedAccuracy | None:
    """Estimate the accuracy on the scored rows; None where the reference cannot say it."""
    if tally.reference is None or tally.reference.classes != tally.classes:
        return None
    sure, n = tally.appearance.counts.get(SURE, (0, 0))
    return expected_accuracy(tally.reference, int(sure), int(n))


def unread_metadata(tally: Tally) -> dict[str, int]:
    """How many pictures have metadata that cannot be read, by what became of them."""
    return {told: tally.reasons[told] for told in UNREAD.values() if tally.reasons[told]}


def warnings_of(tally: Tally) -> list[str]:
    """What a user should look at, one line each."""
    lines = drift_lines(drift_of(tally), accuracy_of(tally))
    if tally.unfamiliar and tally.unfamiliar > MAX_UNFAMILIAR * (tally.rows - tally.errors):
        lines.append(f"{tally.unfamiliar} of {tally.rows - tally.errors} pictures look like nothing that the version was trained on")
    if not tally.rows:
        lines.append("nothing was found to score")
    lines += [f"{counted(count, 'picture')} with {told}; _passed_over/ names them" for told, count in unread_metadata(tally).items()]
    if tally.errors:
        lines.append(f"{tally.errors} of {tally.rows} inputs could not be scored; their rows say why")
    return lines


def markdown(summary: Summary) -> str:
    """Return the summary as one Markdown page."""
    review = f"{summary.needs_review:,}" + ("" if summary.review_share is None else f" ({summary.review_share:.1%})")
    rate = "–" if summary.images_per_second is None else f"{summary.images_per_second:,.0f}"
    strange = "–" if summary.unfamiliar is None else f"{summary.unfamiliar:,}"
    lines = [
        f"# {summary.rows:,} inputs scored by {summary.model} {summary.version}",
        "",
        f"`{summary.input}` → `{summary.output}`",
        "",
        "| scored | errors | need review | unfamiliar | passed over | images/s |",
        "|---|---|---|---|---|---|",
        f"| {summary.scored:,} | {summary.errors:,} | {review} | {strange} | {summary.passed_over:,} | {rate} |",
        "",
        *(f"- **{warning}**" for warning in summary.warnings),
        "",
        "| class | answers |",
        "|---|---|",
        *(f"| {escape(name)} | {count:,} |" for name, count in list(summary.classes.items())[:100]),
    ]
    if summary.drift:
        lines += ["", "| drift of | PSI | moved | adjusted p | |", "|---|---|---|---|---|"]
        lines += [_row(drift) for drift in summary.drift]
    if summary.expected_accuracy:
        lines += ["", f"Without labels: {accuracy_line(summary.expected_accuracy)}."]
    if summary.error_examples:
        lines += ["", "| could not be scored | row | why |", "|---|---|---|"]
        lines += [f"| {escape(e['input'])} | {e['index']} | {escape(e['error'])} |" for e in summary.error_examples]
    if summary.passed_over_reasons:
        lines += ["", "| passed over | files |", "|---|---|"]
        lines += [f"| {escape(reason)} | {count:,} |" for reason, count in summary.passed_over_reasons.items()]
    return "\n".join(lines) + "\n"


def _row(drift: Drift) -> str:
    moved = "" if drift.moved is None else f"{drift.moved:+.3f}"
    p = drift.p_value if drift.adjusted is None else drift.adjusted
    return f"| {drift.feature} | {drift.psi:.3f} | {moved} | {p:.2g} | {'**drifted**' if drift.drifted else ''} |"
