"""Two versions on the same test pictures: what differs, which pictures changed, and a page that shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from components.bundle.dataset import Labels
from components.bundle.evaluation import Paired
from components.bundle.mistakes import thumbnails_by_row
from components.bundle.model import Probabilities
from components.classifier.intervals import ONE_SIDED
from components.registry.evaluated import Evaluated
from components.registry.manifest import Difference
from components.report.views import MAX_LISTED, MAX_PICTURE_BYTES, picture_addresses


@dataclass(frozen=True)
class ChangedPicture:
    """A test picture that one version got right and the other wrong; `address` is its thumbnail, "" where no version kept one."""

    row: int
    file: str
    label: str
    first: str
    """What the first version took it for."""
    second: str
    address: str = ""
    pixelated: bool = False


@dataclass(frozen=True)
class Comparison:
    """Two versions beside each other. `paired` is null, with the `reason`, where they were not measured on the same pictures.

    In `paired` the second version is the challenger and the first the champion.
    """

    first: Evaluated
    second: Evaluated
    paired: Paired | None
    reason: str
    mended: Sequence[ChangedPicture] = ()
    """Wrong before, right now."""
    broken: Sequence[ChangedPicture] = ()
    """Right before, wrong now."""

    @property
    def standing(self) -> tuple[str, str]:
        """Whether the difference is significant by the gate's test, exact McNemar at 2.5% to each side, as (tone, words)."""
        if self.paired is None:
            return "warn", "not comparable"
        if self.paired.p_value("less") <= ONE_SIDED:
            return "bad", "significantly worse"
        if self.paired.p_value("greater") <= ONE_SIDED:
            return "good", "significantly better"
        return "plain", "not significantly different"


class Common(NamedTuple):
    """What two versions said of the same pictures; `groups` int64 (N,), None where the dataset has no groups or they are not known."""

    labels: Labels
    first: Probabilities
    second: Probabilities
    whose: str
    """Whose test split it is: first, second or both."""
    groups: Labels | None


def common_predictions(first: Evaluated, second: Evaluated) -> Common | str:
    """Find the same pictures that both versions were measured on; else say why there are none.

    Either both were evaluated on the same sealed split, or one was evaluated beside the other while that one served.
    """
    a, b = first.evaluation, second.evaluation
    if a.classes != b.classes:
        return "they know different classes"
    if a.test_digest == b.test_digest:
        one, other = first.predictions, second.predictions
        return Common(one.labels, one.probabilities, other.probabilities, "both", other.groups if one.groups is None else one.groups)
    for newer, older, whose in ((second, first, "second"), (first, second, "first")):
        theirs = newer.predictions.champion_probabilities
        if theirs is not None and newer.evaluation.champion is not None and newer.evaluation.champion.version == older.version:
            mine = newer.predictions.probabilities
            pair = (theirs, mine) if whose == "second" else (mine, theirs)
            return Common(newer.predictions.labels, *pair, whose, newer.predictions.groups)
    return "they were evaluated on different test pictures, and neither of them beside the other"


def changed_pictures(
    first: Evaluated, second: Evaluated, labels: Labels, probabilities: tuple[Probabilities, Probabilities], whose: str
) -> tuple[list[ChangedPicture], list[ChangedPicture]]:
    """List the pictures that became right, and those that became wrong; a version keeps names and thumbnails of its own mistakes."""
    before, after = (rows.argmax(axis=1) for rows in probabilities)
    keepers = [side for side, name in ((first, "first"), (second, "second")) if whose in {"both", name}]
    files = {row: file for side in keepers for row, file in (side.predictions.files or {}).items()}
    files |= {mistake.index: mistake.file for side in keepers for mistake in side.evaluation.mistakes}
    images = {row: image for side in keepers for row, image in thumbnails_by_row(side.predictions).items()}
    classes = first.evaluation.classes

    def changed(rows: Labels) -> list[ChangedPicture]:
        found = []
        for row, address in zip(rows, picture_addresses(rows, images, MAX_PICTURE_BYTES // 2), strict=True):
            names = classes[labels[row]], classes[before[row]], classes[after[row]]
            found.append(ChangedPicture(int(row), files.get(int(row), ""), *names, *address))
        return found

    right_before, right_after = before == labels, after == labels
    return changed(np.flatnonzero(~right_before & right_after)), changed(np.flatnonzero(right_before & ~right_after))


def render_comparison(comparison: Comparison, differences: Sequence[Difference], navigation: str = "") -> str:
    """Render the comparison as one self-contained page; `navigation` is what stands above it, as `Markup`."""
    from markupsafe import Markup

    from components.report import plots
    from components.report.html import template

    curves = [(side, Markup(plots.learning_plot(side.training))) for side in (comparison.first, comparison.second) if side.training]
    return template("comparison.html.jinja").render(
        c=comparison, p=comparison.paired, a=comparison.first, b=comparison.second, standing=comparison.standing,
        changed=[("Wrong before, right now", "good", comparison.mended), ("Right before, wrong now", "bad", comparison.broken)],
        curves=curves, max_listed=MAX_LISTED, navigation=navigation,
        differences=[d for d in differences if d.section in {"origin", "parameters"}],
    )  # fmt: skip
