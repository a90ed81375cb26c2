"""The rules over single figures: each takes its bound and an evaluation, and says pass, fail or insufficient, and why.

Every reason names value and bound. Comparisons are exact (fractions of counts where there are counts), bounds are inclusive.
"""

from fractions import Fraction

from components.bundle.decision import Outcome, RuleResult
from components.bundle.evaluation import Evaluation
from components.bundle.numbers import as_computed, as_written, plain, show
from components.classifier.intervals import proportion_interval


def accuracy(bound: float, evaluation: Evaluation) -> RuleResult:
    """The share of correct test pictures against its floor."""
    share = evaluation.accuracy
    return _floor("minimum_accuracy", "accuracy", Fraction(share.correct, share.n), bound, f" ({share.correct} of {share.n})")


def accuracy_lower_bound(bound: float, evaluation: Evaluation) -> RuleResult:
    """The lower end of the accuracy's 95% interval; insufficient while the floor lies inside the interval."""
    low, high = (as_computed(end) for end in proportion_interval(evaluation.accuracy.correct, evaluation.n))
    floor = as_written(bound)
    outcome: Outcome = "pass" if low >= floor else "insufficient" if high >= floor else "fail"
    ends = {"pass": f"lies at or above the floor {plain(bound)}", "fail": f"lies below the floor {plain(bound)}"}
    end = ends.get(outcome, f"has the floor {plain(bound)} inside: more test pictures or a better model are needed")
    reason = f"the accuracy's 95% interval, {show(low, bound)} to {show(high, bound)} with {evaluation.n} pictures, {end}"
    return figure_result("minimum_accuracy_lower_bound", outcome, reason, low, bound)


def macro_f1(bound: float, evaluation: Evaluation) -> RuleResult:
    """The mean F1 of the classes that have test pictures against its floor."""
    return _floor("minimum_macro_f1", "macro F1", as_computed(evaluation.macro_f1), bound)


def ece(bound: float, evaluation: Evaluation) -> RuleResult:
    """The calibration error of the shipped probabilities against its ceiling."""
    return _ceiling("maximum_ece", "expected calibration error", as_computed(evaluation.calibration.ece_after), bound)


def latency(bound: float, evaluation: Evaluation) -> RuleResult:
    """The 95th percentile of the time for one picture against its ceiling."""
    return _ceiling("maximum_latency_ms", "95th percentile for one picture", as_computed(evaluation.latency.p95_ms), bound, " ms")


def size(bound: float, evaluation: Evaluation) -> RuleResult:
    """The size of model.onnx against its ceiling, in millions of bytes."""
    return _ceiling("maximum_size_mb", "model.onnx", Fraction(evaluation.size_bytes, 1_000_000), bound, " MB")


def figure_result(rule: str, outcome: Outcome, reason: str, figure: Fraction, bound: float | None) -> RuleResult:
    """A result with a figure, shown with the digits that its bound asks for."""
    return RuleResult(rule=rule, outcome=outcome, reason=reason, value=float(figure), bound=bound, shown=show(figure, bound))


def _floor(rule: str, what: str, figure: Fraction, bound: float, detail: str = "") -> RuleResult:
    met = figure >= as_written(bound)
    reason = f"{what} {show(figure, bound)}{detail} {'meets' if met else 'is below'} the floor {plain(bound)}"
    return figure_result(rule, "pass" if met else "fail", reason, figure, bound)


def _ceiling(rule: str, what: str, figure: Fraction, bound: float, unit: str = "") -> RuleResult:
    met = figure <= as_written(bound)
    reason = f"{what} {show(figure, bound)}{unit} {'is within' if met else 'exceeds'} {plain(bound)}{unit}"
    return figure_result(rule, "pass" if met else "fail", reason, figure, bound)
