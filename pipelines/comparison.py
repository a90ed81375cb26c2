"""Compare two published versions on the pictures that both were measured on."""

from components.evaluate.comparison import compare
from components.registry.evaluated import Evaluated
from components.report.comparison import Comparison, changed_pictures, common_predictions


def compare_versions(first: Evaluated, second: Evaluated) -> Comparison:
    """Pair two versions, the second as the challenger; where they have no test pictures in common the comparison says why."""
    found = common_predictions(first, second)
    if isinstance(found, str):
        return Comparison(first, second, None, found)
    mended, broken = changed_pictures(first, second, found.labels, (found.first, found.second), found.whose)
    paired = compare(found.labels, found.second, found.first, first.evaluation.classes, found.groups)
    return Comparison(first, second, paired, "", mended, broken)
