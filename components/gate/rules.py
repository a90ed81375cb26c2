"""The rules over single figures: each takes its bound and an evaluation, and says pass, fail or insufficient, and why.

One standard: an estimate that meets its bound passes; one that misses it fails where its error is too small to explain that (2.5% on
that side), and is insufficient otherwise. Counts are compared exactly, as fractions; bounds are inclusive; every reason names both.
"""

from fractions import Fraction

from components.bundle.decision import Outcome, RuleResult
from components.bundle.evaluation import Evaluation
from components.bundle.policy import as_computed, as_written, plain, show
from components.classifier.intervals import (
    ONE_SIDED,
    calibration_error,
    effective_interval,
    macro_f1_interval,
    normal_quantile,
    p_below,
    proportion_interval,
)


def accuracy(bound: float, evaluation: Evaluation) -> RuleResult:
    """The share of correct test pictures against its floor (exact binomial test)."""
    share = evaluation.accuracy
    figure = Fraction(share.correct, share.n)
    if evaluation.groups:
        below = as_computed(_accuracy_interval(evaluation)[1]) < as_written(bound)
    else:
        below = p_below(share.correct, share.n, bound) <= ONE_SIDED
    detail = f" ({share.correct} of {share.n}{_groups(evaluation)})"
    return _floor("minimum_accuracy", "accuracy", figure, bound, figure < as_written(bound) and below, detail)


def _accuracy_interval(evaluation: Evaluation) -> tuple[float, float]:
    """95% interval of the accuracy; by groups, where the dataset has them."""
    if evaluation.groups:
        return effective_interval(evaluation.accuracy.value, evaluation.groups.effective)
    return proportion_interval(evaluation.accuracy.correct, evaluation.n)


def _groups(evaluation: Evaluation) -> str:
    groups = evaluation.groups
    if groups is None:
        return ""
    return f", of {groups.n} groups by {groups.column}, an effective sample size of {groups.effective:.0f}"


def accuracy_lower_bound(bound: float, evaluation: Evaluation) -> RuleResult:
    """The lower end of the accuracy's 95% interval; insufficient while the floor lies inside the interval."""
    low, high = (as_computed(end) for end in _accuracy_interval(evaluation))
    floor = as_written(bound)
    outcome: Outcome = "pass" if low >= floor else "insufficient" if high >= floor else "fail"
    ends = {"pass": f"lies at or above the floor {plain(bound)}", "fail": f"lies below the floor {plain(bound)}"}
    end = ends.get(outcome, f"has the floor {plain(bound)} inside")
    reason = (
        f"the accuracy's 95% interval, {show(low, bound)} to {show(high, bound)} with {evaluation.n} pictures{_groups(evaluation)}, {end}"
    )
    return figure_result("minimum_accuracy_lower_bound", outcome, reason, low, bound)


def macro_f1(bound: float, evaluation: Evaluation) -> RuleResult:
    """The mean F1 of the classes that have test pictures against its floor (interval of `macro_f1_interval`)."""
    _, high = macro_f1_interval(evaluation.macro_f1, evaluation.confusion_matrix)
    if evaluation.groups:
        high = max(high, effective_interval(evaluation.macro_f1, evaluation.groups.effective)[1])
    return _floor("minimum_macro_f1", "macro F1", as_computed(evaluation.macro_f1), bound, as_computed(high) < as_written(bound))


def ece(bound: float, evaluation: Evaluation) -> RuleResult:
    """The calibration error of the shipped probabilities, less what chance adds to it, against its ceiling."""
    bins = [b for b in evaluation.calibration.bins if b.confidence is not None and b.accuracy is not None]
    error, standard_error = evaluation.calibration.ece_after, 0.0
    if bins:
        error, standard_error = calibration_error([b.n for b in bins], [b.confidence or 0 for b in bins], [b.accuracy or 0 for b in bins])
    figure, limit = as_computed(error), as_written(bound)
    shown = as_computed(error - normal_quantile() * standard_error) > limit
    detail = f" ({evaluation.calibration.ece_after:.4f} less what chance adds)" if bins else ""
    what = f"expected calibration error {show(figure, bound)}{detail}"
    return _judged("maximum_ece", what, figure, bound, met=figure <= limit, shown=shown, words=("is within", "exceeds"))


def latency(bound: float, evaluation: Evaluation) -> RuleResult:
    """The 95th percentile of the time for one picture against its ceiling; a measurement, so it is compared as it is."""
    return _ceiling("maximum_latency_ms", "95th percentile for one picture", as_computed(evaluation.latency.p95_ms), bound, " ms")


def size(bound: float, evaluation: Evaluation) -> RuleResult:
    """The size of model.onnx against its ceiling, in millions of bytes; it has no error."""
    return _ceiling("maximum_size_mb", "model.onnx", Fraction(evaluation.size_bytes, 1_000_000), bound, " MB")


def figure_result(rule: str, outcome: Outcome, reason: str, figure: Fraction, bound: float | None) -> RuleResult:
    """A result with a figure, shown with the digits that its bound asks for."""
    return RuleResult(rule=rule, outcome=outcome, reason=reason, value=float(figure), bound=bound, shown=show(figure, bound))


def _floor(rule: str, what: str, figure: Fraction, bound: float, shown: bool, detail: str = "") -> RuleResult:
    text = f"{what} {show(figure, bound)}{detail}"
    return _judged(rule, text, figure, bound, met=figure >= as_written(bound), shown=shown, words=("meets the floor", "is below the floor"))


def _judged(rule: str, what: str, figure: Fraction, bound: float, *, met: bool, shown: bool, words: tuple[str, str]) -> RuleResult:
    reason = f"{what} {words[0] if met else words[1]} {plain(bound)}"
    if met or shown:
        return figure_result(rule, "pass" if met else "fail", reason, figure, bound)
    return figure_result(rule, "insufficient", f"{reason}, by no more than chance allows", figure, bound)


def _ceiling(rule: str, what: str, figure: Fraction, bound: float, unit: str) -> RuleResult:
    met = figure <= as_written(bound)
    reason = f"{what} {show(figure, bound)}{unit} {'is within' if met else 'exceeds'} {plain(bound)}{unit}"
    return figure_result(rule, "pass" if met else "fail", reason, figure, bound)
