"""The rules against the version that serves, on the same test pictures, paired."""

import math
from collections.abc import Callable
from fractions import Fraction

from components.bundle.decision import Outcome, RuleResult
from components.bundle.evaluation import Evaluation, Paired
from components.bundle.policy import as_computed, as_written, plain, show
from components.classifier.intervals import ONE_SIDED, difference_interval, mcnemar
from components.gate.rules import figure_result

Judge = Callable[[Paired], RuleResult]


def comparable(evaluation: Evaluation, version: str, serving: str | None) -> RuleResult:
    """Whether the evaluation compares with the version that serves now, on the same pictures and classes.

    `serving` is None where the caller does not ask what serves now; a version that serves already is not compared with itself.
    """
    champion = evaluation.champion
    compared = champion.version if champion else ""
    if serving is not None and serving not in (compared, version):
        reason = f"overtaken: the evaluation compares with {compared or 'no version'}, but {serving or 'none'} serves now; run again"
        return RuleResult(rule="champion", outcome="fail", reason=reason)
    if champion is None:
        return RuleResult(rule="champion", outcome="skipped", reason="no version serves yet, so there is nothing to compare with")
    if champion.paired is None:
        remedy = "if it is meant to take over, deploy it by name (strategy manual) or by force"
        return RuleResult(rule="champion", outcome="fail", reason=f"no comparison with {compared}: {champion.reason}; {remedy}")
    reason = f"compared with {compared} on the same {champion.paired.n} test pictures"
    if champion.dataset_digest != evaluation.dataset_digest:
        reason += "; it was trained on another dataset version and may know some of them, which favours the champion"
    return RuleResult(rule="champion", outcome="pass", reason=reason)


def accuracy_drop(bound: float, evaluation: Evaluation) -> RuleResult:
    """The drop in accuracy below the champion's: one that is larger than allowed fails where it is significant.

    One that is not significant passes, since equal models differ by as much; but where so few pictures make the bound that not even
    those, all lost, would be significant, it is insufficient.
    """

    def judge(paired: Paired) -> RuleResult:
        drop = -_difference(paired)
        p = as_computed(paired.p_value("less"))
        outcome: Outcome = "pass"
        if drop <= 0:
            reason = f"accuracy is {show(-drop)} above the champion's" if drop else "accuracy equals the champion's"
        elif drop <= as_written(bound):
            reason = f"accuracy is {show(drop, bound)} below the champion's, within {plain(bound)}"
        else:
            reason = f"accuracy is {show(drop, bound)} below the champion's, more than {plain(bound)}"
            if p <= as_written(ONE_SIDED):
                outcome = "fail"
            elif mcnemar(0, paired.scale * math.ceil(as_written(bound) * paired.n), "less") > ONE_SIDED:
                outcome, reason = "insufficient", f"{reason}, with too few test pictures to tell whether by chance ({_p(p)})"
            else:
                reason = f"{reason}, by no more than chance allows ({_p(p)})"
        return figure_result("maximum_accuracy_drop", outcome, f"{reason}; {_counts(paired)}", drop, bound)

    return _against_champion("maximum_accuracy_drop", judge, evaluation)


def significant_drop(_: bool, evaluation: Evaluation) -> RuleResult:
    """Whether the challenger is significantly worse than the champion (one-sided exact McNemar test at 2.5%)."""

    def judge(paired: Paired) -> RuleResult:
        p = as_computed(paired.p_value("less"))
        worse = p <= as_written(ONE_SIDED)
        reason = f"{'' if worse else 'not '}significantly worse than the champion ({_p(p)}); {_counts(paired)}"
        return figure_result("forbid_significant_drop", "fail" if worse else "pass", reason, p, ONE_SIDED)

    return _against_champion("forbid_significant_drop", judge, evaluation)


def non_inferiority(margin: float, evaluation: Evaluation) -> RuleResult:
    """Whether the challenger is shown to lie no more than `margin` below the champion (95% score interval, Tango 1998).

    Where that is not shown, it fails when significantly worse (exact McNemar test), and is insufficient otherwise.
    """

    def judge(paired: Paired) -> RuleResult:
        low, high = (as_computed(end) for end in _interval(paired))
        p = as_computed(paired.p_value("less"))
        interval = f"accuracy {_signed(_difference(paired))} against the champion, 95% interval {_signed(low, -margin)} to {_signed(high)}"
        if low >= -as_written(margin):
            outcome: Outcome = "pass"
            reason = f"{interval}, not below -{plain(margin)}; {_counts(paired)}"
        elif p <= as_written(ONE_SIDED):
            outcome, reason = "fail", f"worse than the champion: {interval} ({_p(p)}); {_counts(paired)}"
        else:
            outcome = "insufficient"
            reason = f"{interval}: {paired.n} test pictures cannot rule out a drop of more than {plain(margin)}; {_counts(paired)}"
        return figure_result("non_inferiority_margin", outcome, reason, low, -margin)

    return _against_champion("non_inferiority_margin", judge, evaluation)


def superiority(_: bool, evaluation: Evaluation, level: float = ONE_SIDED) -> RuleResult:
    """Whether the challenger is significantly better than the champion (one-sided exact McNemar test at 2.5%, or at `level`)."""

    def judge(paired: Paired) -> RuleResult:
        p = as_computed(paired.p_value("greater"))
        if p <= as_written(level):
            outcome: Outcome = "pass"
            reason = "significantly better than the champion"
        elif paired.only_challenger > paired.only_champion:
            outcome, reason = "insufficient", "better than the champion by no more than chance allows"
        else:
            outcome, reason = "fail", "not better than the champion"
        return figure_result("require_superiority", outcome, f"{reason} ({_p(p, level)}); {_counts(paired)}", p, level)

    return _against_champion("require_superiority", judge, evaluation)


def _against_champion(rule: str, judge: Judge, evaluation: Evaluation) -> RuleResult:
    champion = evaluation.champion
    if champion is None:
        return RuleResult(rule=rule, outcome="skipped", reason="no version serves yet")
    if champion.paired is None:
        return RuleResult(rule=rule, outcome="fail", reason=f"no comparison with {champion.version}")
    return judge(champion.paired)


def _interval(paired: Paired) -> tuple[float, float]:
    """The 95% interval of the difference; of effective pictures, where the dataset has groups."""
    return difference_interval(*(count * paired.scale for count in (paired.only_challenger, paired.only_champion, paired.n)))


def _difference(paired: Paired) -> Fraction:
    return Fraction(paired.only_challenger - paired.only_champion, paired.n)


def _p(p: Fraction, level: float = ONE_SIDED) -> str:
    shown = "below 0.0001" if p < Fraction(1, 10_000) else show(p, level)
    return f"p {shown}, significant up to {plain(level)}"


def _counts(paired: Paired) -> str:
    effective = "" if paired.effective is None else f", by groups an effective sample size of {paired.effective:.0f}"
    alone = f"{paired.only_challenger} right by the challenger alone, {paired.only_champion} by the champion alone"
    return f"of {paired.n} pictures{effective}, {alone}"


def _signed(figure: Fraction, bound: float | None = None) -> str:
    return ("+" if figure > 0 else "") + show(figure, bound)
