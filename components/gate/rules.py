"""The rules: each takes its bound and an evaluation, and says pass, fail, insufficient or skipped, and why.

Every reason names value and bound. Comparisons are exact (fractions of counts where there are counts), bounds are inclusive.
"""

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from components.evaluate.results import ClassResult, Evaluation, Paired
from components.gate import statistics
from components.gate.decision import Outcome, RuleResult
from components.gate.numbers import exact, plain, show

MOST_NAMES = 10
"""Classes named in one reason; the rest are counted."""


def _floor(rule: str, what: str, value: Fraction, bound: float, detail: str = "") -> RuleResult:
    passed = value >= exact(bound)
    relation = "meets" if passed else "is below"
    reason = f"{what} {show(value, bound)}{detail} {relation} the floor {plain(bound)}"
    return _result(rule, "pass" if passed else "fail", reason, value, bound)


def _ceiling(rule: str, what: str, value: Fraction, bound: float, unit: str = "") -> RuleResult:
    passed = value <= exact(bound)
    relation = "is within" if passed else "exceeds"
    return _result(rule, "pass" if passed else "fail", f"{what} {show(value, bound)}{unit} {relation} {plain(bound)}{unit}", value, bound)


def _result(rule: str, outcome: Outcome, reason: str, value: Fraction, bound: float | None) -> RuleResult:
    return RuleResult(rule=rule, outcome=outcome, reason=reason, value=float(value), bound=bound, shown=show(value, bound))


def accuracy(bound: float, evaluation: Evaluation) -> RuleResult:
    """The share of correct test pictures against its floor."""
    share = evaluation.accuracy
    return _floor("minimum_accuracy", "accuracy", Fraction(share.correct, share.n), bound, f" ({share.correct} of {share.n})")


def accuracy_lower_bound(bound: float, evaluation: Evaluation) -> RuleResult:
    """The lower end of the accuracy's 95% interval; insufficient while the floor lies inside the interval."""
    low, high = (exact(end) for end in statistics.proportion_interval(evaluation.accuracy.correct, evaluation.n))
    interval = f"95% interval {show(low, bound)} to {show(high, bound)} of {evaluation.n} test pictures"
    if low >= exact(bound):
        outcome: Outcome = "pass"
        reason = f"{interval} lies at or above the floor {plain(bound)}"
    elif high < exact(bound):
        outcome, reason = "fail", f"{interval} lies below the floor {plain(bound)}"
    else:
        outcome, reason = "insufficient", f"{interval} holds the floor {plain(bound)}: more test pictures or a better model are needed"
    return _result("minimum_accuracy_lower_bound", outcome, reason, low, bound)


def macro_f1(bound: float, evaluation: Evaluation) -> RuleResult:
    """The mean F1 of the classes that have test pictures against its floor."""
    return _floor("minimum_macro_f1", "macro F1", exact(evaluation.macro_f1), bound)


def ece(bound: float, evaluation: Evaluation) -> RuleResult:
    """The calibration error of the shipped probabilities against its ceiling."""
    return _ceiling("maximum_ece", "calibration error", exact(evaluation.calibration.ece_after), bound)


def latency(bound: float, evaluation: Evaluation) -> RuleResult:
    """The 95th percentile of the time for one picture against its ceiling."""
    return _ceiling("maximum_latency_ms", "95th percentile", exact(evaluation.latency.p95_ms), bound, " ms")


def size(bound: float, evaluation: Evaluation) -> RuleResult:
    """The size of model.onnx against its ceiling, in millions of bytes."""
    return _ceiling("maximum_size_mb", "model.onnx", Fraction(evaluation.size_bytes, 1_000_000), bound, " MB")


def class_support(bound: int, evaluation: Evaluation) -> RuleResult:
    """Whether every class has enough test pictures to be judged at all."""
    few = [result for result in evaluation.per_class if result.support < bound]
    least = min(result.support for result in evaluation.per_class)
    if few:
        reason = f"too few test pictures ({bound} needed): {_names([f'{r.name!r} has {r.support}' for r in few])}"
    else:
        reason = f"every class has at least {least} test pictures, {bound} needed"
    return RuleResult(
        rule="minimum_class_support",
        outcome="insufficient" if few else "pass",
        reason=reason,
        value=least,
        bound=bound,
        shown=str(least),
    )


def class_recall(bound: float | None, floors: Mapping[str, float], evaluation: Evaluation) -> RuleResult:
    """Every class' recall against its floor, the classes taken together at 5% (exact binomial tests, Holm).

    A class at or above its floor is good. Below it, the class fails when that is significant over all classes; it is unclear when it
    is significant by itself only, or when its pictures are so few that not even a recall of 0 would be; else it may be chance.
    """
    unknown = sorted(set(floors) - set(evaluation.classes))
    if unknown:
        known = _names([repr(name) for name in evaluation.classes])
        reason = f"class_recall_floors names {_names([repr(name) for name in unknown])}; the classes are {known}"
        return RuleResult(rule="minimum_class_recall", outcome="fail", reason=reason, bound=bound)
    judged = [(result, floor) for result in evaluation.per_class if (floor := floors.get(result.name, bound)) is not None]
    present = [(result, floor) for result, floor in judged if result.support]
    if not present:
        return RuleResult(rule="minimum_class_recall", outcome="insufficient", reason="no judged class has test pictures", bound=bound)
    adjusted = statistics.holm([statistics.p_below(result.correct, result.support, floor) for result, floor in present])
    found: dict[Outcome, list[str]] = {"pass": [], "fail": [], "insufficient": [], "skipped": []}
    for (result, floor), p in zip(present, adjusted, strict=True):
        outcome = _class_outcome(result, floor, p)
        line = f"{result.name!r} {show(Fraction(result.correct, result.support), floor)} ({result.correct} of {result.support}"
        line += f", floor {plain(floor)})" if floors else ")"
        found[outcome].append(line)
    lowest, lowest_floor = min(present, key=lambda pair: Fraction(pair[0].correct, pair[0].support) - exact(pair[1]))
    absent = [repr(result.name) for result, _ in judged if not result.support]
    reason = _recall_reason(bound, lowest, lowest_floor, found["fail"], found["insufficient"], found["skipped"], absent)
    verdict: Outcome = "fail" if found["fail"] else "insufficient" if found["insufficient"] or absent else "pass"
    return _result("minimum_class_recall", verdict, reason, Fraction(lowest.correct, lowest.support), lowest_floor)


def _class_outcome(result: ClassResult, floor: float, adjusted: float) -> Outcome:
    """`skipped` stands for a recall below the floor that may well be chance."""
    if Fraction(result.correct, result.support) >= exact(floor):
        return "pass"
    if adjusted <= statistics.FAMILY:
        return "fail"
    alone = statistics.p_below(result.correct, result.support, floor)
    lowest_possible = statistics.p_below(0, result.support, floor)
    return "insufficient" if alone <= statistics.FAMILY or lowest_possible > statistics.FAMILY else "skipped"


def _recall_reason(
    bound: float | None, lowest: ClassResult, floor: float, fail: list[str], unclear: list[str], chance: list[str], absent: list[str]
) -> str:
    what = f"the floor {plain(bound)}" if bound is not None else "its floor"
    parts = []
    if fail:
        parts.append(f"recall significantly below {what}: {_names(fail)}")
    if unclear:
        parts.append(f"recall below {what}, which may be chance, with too few test pictures to say: {_names(unclear)}")
    if absent:
        parts.append(f"no test pictures: {_names(absent)}")
    if chance:
        parts.append(f"recall below {what} by no more than chance allows: {_names(chance)}")
    if not parts:
        share = show(Fraction(lowest.correct, lowest.support), floor)
        parts.append(f"every class meets {what}; the nearest is {lowest.name!r} with recall {share} ({lowest.correct} of {lowest.support})")
    return "; ".join(parts)


def comparable(evaluation: Evaluation, version: str, serving: str | None) -> RuleResult:
    """Whether the evaluation compares with the version that serves now, on the same pictures and classes."""
    champion = evaluation.champion
    compared = champion.version if champion else ""
    if serving is not None and serving not in (compared, version):
        was = f"{compared!r}" if compared else "nothing"
        return RuleResult(
            rule="champion",
            outcome="fail",
            reason=f"the evaluation compares with {was}, but {serving or 'nothing'!r} serves now; run again to compare with it",
        )
    if champion is None:
        return RuleResult(rule="champion", outcome="skipped", reason="no version serves yet, so there is nothing to compare with")
    if champion.paired is None:
        how = "deploy it by hand (strategy manual) or by force if it is meant to take over"
        return RuleResult(rule="champion", outcome="fail", reason=f"cannot be compared with {champion.version}: {champion.reason}; {how}")
    reason = f"compared with {champion.version} on the same {champion.paired.n} test pictures"
    return RuleResult(rule="champion", outcome="pass", reason=reason)


def _against_champion(rule: str, judge: Callable[[Paired], RuleResult], evaluation: Evaluation) -> RuleResult:
    champion = evaluation.champion
    if champion is None:
        return RuleResult(rule=rule, outcome="skipped", reason="no version serves yet")
    if champion.paired is None:
        return RuleResult(rule=rule, outcome="fail", reason=f"cannot be compared with {champion.version}")
    return judge(champion.paired)


def accuracy_drop(bound: float, evaluation: Evaluation) -> RuleResult:
    """How far the accuracy seen lies below the champion's, without a statement on chance."""

    def judge(paired: Paired) -> RuleResult:
        drop = Fraction(paired.only_champion - paired.only_challenger, paired.n)
        if drop <= 0:
            reason = f"accuracy is {show(-drop)} above the champion's" if drop else "accuracy equals the champion's"
            return _result("maximum_accuracy_drop", "pass", f"{reason} ({_counts(paired)})", drop, bound)
        relation = "within" if drop <= exact(bound) else "more than"
        reason = f"accuracy is {show(drop, bound)} below the champion's, {relation} {plain(bound)} ({_counts(paired)})"
        return _result("maximum_accuracy_drop", "pass" if drop <= exact(bound) else "fail", reason, drop, bound)

    return _against_champion("maximum_accuracy_drop", judge, evaluation)


def significant_drop(_: bool, evaluation: Evaluation) -> RuleResult:
    """Whether the challenger is significantly worse than the champion (one-sided exact McNemar test at 2.5%)."""

    def judge(paired: Paired) -> RuleResult:
        p = statistics.p_worse(paired.only_challenger, paired.only_champion)
        worse = p <= statistics.ONE_SIDED
        word = "significantly worse" if worse else "not significantly worse"
        reason = f"{word} than the champion: {_counts(paired)}, p = {show(exact(p), statistics.ONE_SIDED)} against 0.025"
        return _result("forbid_significant_drop", "fail" if worse else "pass", reason, exact(p), round(statistics.ONE_SIDED, 3))

    return _against_champion("forbid_significant_drop", judge, evaluation)


def non_inferiority(margin: float, evaluation: Evaluation) -> RuleResult:
    """Whether the challenger is shown to lie less than `margin` below the champion (95% score interval, Tango 1998).

    Fails when it is significantly worse (exact McNemar test) and not shown to be within the margin; else insufficient.
    """

    def judge(paired: Paired) -> RuleResult:
        low, high = statistics.difference_interval(paired.only_challenger, paired.only_champion, paired.n)
        p = statistics.p_worse(paired.only_challenger, paired.only_champion)
        difference = Fraction(paired.only_challenger - paired.only_champion, paired.n)
        interval = (
            f"difference to the champion {_signed(difference)}, 95% interval {_signed(exact(low), -margin)} to {_signed(exact(high))}"
        )
        if exact(low) >= -exact(margin):
            outcome: Outcome = "pass"
            reason = f"{interval}, not below -{plain(margin)}"
        elif p <= statistics.ONE_SIDED:
            outcome, reason = "fail", f"worse than the champion: {interval}, {_counts(paired)}, p = {show(exact(p), 0.025)}"
        else:
            outcome = "insufficient"
            reason = f"{interval}, reaches below -{plain(margin)}: {paired.n} test pictures cannot show that it is not worse"
        return _result("non_inferiority_margin", outcome, reason, exact(low), -margin)

    return _against_champion("non_inferiority_margin", judge, evaluation)


def superiority(_: bool, evaluation: Evaluation) -> RuleResult:
    """Whether the challenger is significantly better than the champion (one-sided exact McNemar test at 2.5%)."""

    def judge(paired: Paired) -> RuleResult:
        p = statistics.p_better(paired.only_challenger, paired.only_champion)
        shown = f"{_counts(paired)}, p = {show(exact(p), statistics.ONE_SIDED)} against 0.025"
        if p <= statistics.ONE_SIDED:
            outcome: Outcome = "pass"
            reason = f"significantly better than the champion: {shown}"
        elif paired.only_challenger > paired.only_champion:
            outcome, reason = "insufficient", f"better than the champion by no more than chance allows: {shown}"
        else:
            outcome, reason = "fail", f"not better than the champion: {shown}"
        return _result("require_superiority", outcome, reason, exact(p), round(statistics.ONE_SIDED, 3))

    return _against_champion("require_superiority", judge, evaluation)


def _counts(paired: Paired) -> str:
    return f"only the challenger right on {paired.only_challenger}, only the champion on {paired.only_champion} of {paired.n}"


def _signed(number: Fraction, bound: float | None = None) -> str:
    return ("+" if number > 0 else "") + show(number, bound)


def _names(names: list[str]) -> str:
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


RULES: dict[str, Callable[[Any, Evaluation], RuleResult]] = {
    "minimum_accuracy": accuracy,
    "minimum_accuracy_lower_bound": accuracy_lower_bound,
    "minimum_macro_f1": macro_f1,
    "maximum_ece": ece,
    "maximum_latency_ms": latency,
    "maximum_size_mb": size,
    "maximum_accuracy_drop": accuracy_drop,
    "forbid_significant_drop": significant_drop,
    "non_inferiority_margin": non_inferiority,
    "require_superiority": superiority,
}
"""The rules that need nothing but their bound, by the name they have in a policy."""
