"""Two models on the same pictures, paired: challenger and champion, or why they cannot be compared, or two published versions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.bundle.dataset import Labels
from components.bundle.evaluation import Champion, Paired, PairedClass
from components.bundle.model import Classifier, Probabilities
from components.classifier.errors import EvaluationError, IntegrityError
from components.classifier.images import Pixels
from components.classifier.intervals import difference_interval, effective_pairs, mcnemar
from components.evaluate import metrics
from components.evaluate.inference import score
from components.registry.evaluated import Evaluated
from components.report.comparison import Comparison, changed_pictures, common_predictions


def compare(labels: Labels, challenger: Probabilities, champion: Probabilities, classes: list[str], groups: Labels | None = None) -> Paired:
    """Count who was right where, and measure the champion by itself; all arrays have one row per picture.

    With `groups`, int64 (N,), test and interval count groups and not pictures.
    """
    mine = metrics.predicted_classes(challenger) == labels
    theirs = metrics.predicted_classes(champion) == labels
    figures = metrics.measure(labels, champion, classes)
    only_challenger, only_champion = int((mine & ~theirs).sum()), int((~mine & theirs).sum())
    effective = None
    if groups is not None:
        b, c, sizes = (np.bincount(groups, rows).astype(int).tolist() for rows in (mine & ~theirs, ~mine & theirs, None))
        effective = effective_pairs(b, c, sizes)
    scale = 1.0 if effective is None else effective / len(labels)
    low, high = difference_interval(only_challenger * scale, only_champion * scale, len(labels) * scale)
    return Paired(
        n=len(labels),
        both_correct=int((mine & theirs).sum()),
        only_challenger=only_challenger,
        only_champion=only_champion,
        neither=int((~mine & ~theirs).sum()),
        accuracy=figures.accuracy,
        balanced_accuracy=figures.balanced_accuracy,
        macro_f1=figures.macro_f1,
        log_loss=figures.log_loss,
        brier=figures.brier,
        ece=metrics.expected_error(metrics.reliability(labels, champion)),
        mcnemar_p=mcnemar(only_challenger * scale, only_champion * scale),
        difference=(only_challenger - only_champion) / len(labels),
        difference_low=low,
        difference_high=high,
        effective=effective,
        per_class=[
            PairedClass(
                name=result.name,
                support=result.support,
                recall=result.recall,
                only_challenger=int((mine & ~theirs)[labels == k].sum()),
                only_champion=int((~mine & theirs)[labels == k].sum()),
            )
            for k, result in enumerate(figures.per_class)
        ],
    )


def compare_versions(first: Evaluated, second: Evaluated) -> Comparison:
    """Pair two versions, the second as the challenger; where they have no test pictures in common the comparison says why."""
    found = common_predictions(first, second)
    if isinstance(found, str):
        return Comparison(first, second, None, found)
    mended, broken = changed_pictures(first, second, found.labels, (found.first, found.second), found.whose)
    paired = compare(found.labels, found.second, found.first, first.evaluation.classes, found.groups)
    return Comparison(first, second, paired, "", mended, broken)


@dataclass(frozen=True)
class VersionFiles:
    """A published version and where its files are; `path` is None where `problem` says why they could not be fetched."""

    version: str
    path: Path | None
    problem: str = ""


def score_champion(
    files: VersionFiles,
    challenger: Classifier,
    images: Pixels,
    labels: Labels,
    probabilities: Probabilities,
    groups: Labels | None = None,
) -> tuple[Champion, Probabilities | None]:
    """Score the champion on `images` and pair it with the challenger's `probabilities`; `groups`: see `compare`.

    Where they cannot be compared, the reason is recorded and nothing is raised: the gate then holds.
    """
    facts: dict[str, Any] = {"version": files.version, "classes_equal": False, "shape_equal": False, "dataset_digest": ""}

    def not_compared(reason: str) -> tuple[Champion, None]:
        return Champion(**facts, same_images=False, reason=reason, paired=None), None

    if files.path is None:
        return not_compared(files.problem or "its files could not be fetched")
    try:
        champion = Classifier(files.path)
    except IntegrityError as error:
        return not_compared(f"it cannot be loaded: {error}")
    facts["classes_equal"], facts["shape_equal"] = champion.classes == challenger.classes, champion.spec == challenger.spec
    facts["dataset_digest"] = champion.config.dataset_digest
    if not facts["classes_equal"]:
        return not_compared(f"it knows other classes: {difference(champion.classes, challenger.classes)}")
    if not facts["shape_equal"]:
        return not_compared(f"it takes {champion.spec} pictures, the challenger {challenger.spec}")
    try:
        theirs = score(champion, images).probabilities
    except EvaluationError as error:
        return not_compared(f"it cannot be scored: {error}")
    paired = compare(labels, probabilities, theirs, challenger.classes, groups)
    return Champion(**facts, same_images=True, reason="", paired=paired), theirs


def difference(mine: list[str], theirs: list[str]) -> str:
    """Say in a few words how two class lists differ."""
    if len(mine) != len(theirs):
        return f"{len(mine)} against {len(theirs)}"
    if sorted(mine) == sorted(theirs):
        return "the same names in another order"
    first = next(k for k, (a, b) in enumerate(zip(mine, theirs, strict=True)) if a != b)
    return f"number {first} is {mine[first]!r} against {theirs[first]!r}"
