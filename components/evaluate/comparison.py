"""Two models on the same pictures, paired: challenger and champion, or two published versions."""

import numpy as np

from components.bundle.dataset import Labels
from components.bundle.evaluation import Paired, PairedClass
from components.bundle.model import Probabilities
from components.classifier.intervals import difference_interval, effective_pairs, mcnemar
from components.evaluate import calibration, metrics
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
        ece=calibration.expected_error(calibration.reliability(labels, champion)),
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
