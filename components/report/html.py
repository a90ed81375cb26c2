"""An evaluation, a training and a dataset as self-contained HTML files: no scripts, nothing fetched, every name escaped.

The report of a version that lies in the registry has the decision that the ledger holds about it at its head.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.bundle.dataset import SPLITS, DatasetInfo
from components.bundle.evaluation import Evaluation
from components.bundle.files import EVALUATION, PREDICTIONS, REPORT
from components.bundle.mistakes import thumbnails_by_row, wrong_pictures
from components.bundle.predictions import Predictions
from components.bundle.training import LearningCurves
from components.classifier.errors import EvaluationError
from components.registry import Record, Registry
from components.report import plots, views

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATE = "report.html.jinja"
MAX_PAIRS, MAX_FILES = 60, 200
"""Of the pairs that look alike, and of the files that were set aside, what the page of a dataset shows at most."""


@dataclass(frozen=True)
class PictureOfDataset:
    """One picture and where it is from."""

    name: str
    split: str
    label: str
    address: tuple[str, bool]
    """As `views.picture_address` makes it: it may be shown among many, and be large."""


def render(
    evaluation: Evaluation,
    predictions: Predictions,
    decision: Mapping[str, Any] | None = None,
    version: str = "",
    navigation: str = "",
) -> str:
    """Render the report.

    `decision` is the gate's, as its `Decision` or a deployment record holds it; without one the report says what the numbers show.
    `version` names the model version where it has been published. `navigation` is what stands above the page, as `Markup`.
    """
    from markupsafe import Markup

    champion, classes = evaluation.champion, views.classes_by_recall(evaluation)
    wrong, thumbnails = wrong_pictures(evaluation, predictions), thumbnails_by_row(predictions)
    return template(TEMPLATE).render(
        e=evaluation,
        version=version,
        navigation=navigation,
        banner=views.banner(evaluation, decision),
        tones=views.OUTCOME_TONES,
        weakest=classes[0],
        paired=champion.paired if champion else None,
        standing=views.against_champion(champion.paired) if champion and champion.paired else None,
        moved=views.moved_classes(champion.paired) if champion and champion.paired else [],
        slices=views.weak_slices(evaluation),
        floor=views.recall_floor(evaluation),
        classes=classes,
        heatmap=views.heatmap(evaluation),
        pictures=views.pictures(evaluation, predictions.mistake_images, predictions.occluded),
        suspects=views.suspects(wrong, thumbnails),
        mistakes=views.mistakes(wrong, thumbnails),
        # matplotlib's own markup; all text in it is ours and numbers, no name from the data gets there
        reliability=Markup(plots.reliability_plot(evaluation.calibration)),
        coverage=Markup(plots.coverage_plot(evaluation.coverage)),
        tradeoff=Markup(plots.tradeoff_plot(evaluation.tradeoff)) if evaluation.tradeoff else None,
        learning=Markup(plots.learning_plot(evaluation.training)) if evaluation.training else None,
    )


def render_training(name: str, curves: LearningCurves) -> str:
    """Render the learning curves of a training as a page of its own, for the run that goes on."""
    from markupsafe import Markup

    return template("training.html.jinja").render(name=name, curves=curves, learning=Markup(plots.learning_plot(curves)))


def render_dataset(info: DatasetInfo, alike: Sequence[tuple[PictureOfDataset, PictureOfDataset, float]], found: int) -> str:
    """Render the page; `alike`: a picture, the one of another split that it looks like, and their correlation; `found` are there in all."""
    totals = {split: sum(info.counts[split].values()) for split in SPLITS}
    return template("dataset.html.jinja").render(
        info=info, splits=SPLITS, totals=totals, alike=alike, more=found - len(alike), max_files=MAX_FILES
    )


@cache
def template(name: str, package: str = "components.report") -> "Template":
    """A page's template, with the filters that all of them use; every value is escaped.

    `package` is the one in whose folder `templates` it lies; it may include those of this package.
    """
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=ChoiceLoader([PackageLoader(place) for place in dict.fromkeys((package, "components.report"))]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {it.__name__: it for it in (percent, whole_percent, figure, signed, size, short, position)}
    return environment.get_template(name)


def percent(value: float | None, n: int = 1000) -> str:
    """A share in per cent, with the digits that tell one picture of `n` from none: 0.98996 of 100,000 is 98.996%."""
    if value is None:
        return "–"
    return f"{100 * value:.{max(1, math.ceil(math.log10(max(n, 1))) - 2)}f}%"


def figure(value: float | None, digits: int = 4) -> str:
    """A figure, or a dash where it is not defined; what is below 1 is never shown as 1."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return f">{1 - 10**-digits:.{digits}f}" if value < 1 and float(text) == 1 else text


def whole_percent(share: float) -> str:
    """A share in per cent in the little room of a cell: a dot below a half, and never 100 where something is missing."""
    if share < 0.005:
        return "·"
    text = f"{100 * share:.0f}"
    return f"{min(99.9, 100 * share):.1f}" if text == "100" and share < 1 else text


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign, a true minus included; nothing at all is ±0."""
    if value is None:
        return "–"
    text = f"{abs(value):.{digits}f}"
    return f"±{text}" if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def size(value: int) -> str:
    """Bytes in the unit that people would say."""
    return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"


def short(digest: str) -> str:
    """The first twelve digits of a digest."""
    return digest[:12]


def position(value: float, floor: float) -> float:
    """Where a share lies on an axis from `floor` to 1, in per cent of its length."""
    return round(100 * (value - floor) / (1 - floor), 1)


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
