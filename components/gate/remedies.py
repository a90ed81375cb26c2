"""What would change the outcome of a rule that holds a model: how much better it must be, or how many more test pictures it takes."""

import math
from collections.abc import Callable
from fractions import Fraction

from components.bundle.decision import RuleResult
from components.bundle.evaluation import Evaluation, Paired
from components.bundle.policy import Policy, as_written, plain
from components.classifier.intervals import FAMILY, ONE_SIDED, difference_interval, effective_interval, mcnemar, proportion_interval
from components.gate.class_rules import Floored, slices_with_floors

MAX_PICTURES = 1_000_000
MAX_NAMES = 5


def remedy(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
    """Say in a few words what would let the rule pass; nothing for a rule that does not hold the model."""
    if result.outcome not in ("fail", "insufficient") or result.rule not in REMEDIES:
        return ""
    return REMEDIES[result.rule](result, evaluation, policy)


def _accuracy(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
    n, correct = evaluation.n, evaluation.accuracy.correct
    return f"{max(1, math.ceil(as_written(result.bound or 0) * n) - correct)} more of the {n} test pictures right"


def _lower_bound(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
    n, correct, bound = evaluation.n, evaluation.accuracy.correct, result.bound or 0
    if evaluation.groups:
        share, effective = correct / n, evaluation.groups.effective
        return _pictures(n, lambda times: effective_interval(share, effective * times)[0] >= bound)
    more = next((k for k in range(correct, n + 1) if proportion_interval(k, n)[0] >= bound), None)
    better = f"{more - correct} more of the {n} test pictures right" if more is not None else ""
    pictures = _pictures(n, lambda times: proportion_interval(round(correct * times), round(n * times))[0] >= bound)
    return " or ".join(part for part in (better, pictures) if part)


def _figure(what: str) -> Callable[[RuleResult, Evaluation, Policy], str]:
    return lambda result, evaluation, policy: f"{what}: {plain(result.bound or 0)} or better, now {result.shown}"


def _recall(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
    floors = {c.name: policy.class_recall_floors.get(c.name, policy.minimum_class_recall) for c in evaluation.per_class}
    judged = sum(floors[c.name] is not None and c.support > 0 for c in evaluation.per_class)
    low = [Floored.of(c, floor) for c in evaluation.per_class if c.support and (floor := floors[c.name]) is not None]
    return _floors(result, low, judged, "classes")


def _slices(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
    found = slices_with_floors(policy.slice_floors, evaluation)
    return _floors(result, found, len(found), "slices")


def _floors(result: RuleResult, found: list[Floored], judged: int, what: str) -> str:
    """How many more pictures of each must be right; `found` are of `judged` that are judged together."""
    parts = []
    for name, correct, support, floor, effective in found:
        if Fraction(correct, support) >= as_written(floor):
            continue
        independent = math.log(FAMILY / judged) / math.log(1 - floor) if floor < 1 else 1
        enough = math.ceil(independent * support / effective)
        more = f"{math.ceil(as_written(floor) * support) - correct} more of the {support} pictures of {name!r} right"
        parts.append(more + (f", or {enough} pictures to tell" if result.outcome == "insufficient" and enough > support else ""))
    return "; ".join(parts[:MAX_NAMES]) + (f"; and {len(parts) - MAX_NAMES} more {what}" if len(parts) > MAX_NAMES else "")


def _support(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
    few = [c for c in evaluation.per_class if c.support < policy.minimum_class_support]
    named = ", ".join(f"{policy.minimum_class_support - c.support} of {c.name!r}" for c in few[:MAX_NAMES])
    return f"more test pictures: {named}" + (f" and of {len(few) - MAX_NAMES} more classes" if len(few) > MAX_NAMES else "")


def _paired(passes: Callable[[float, float, float, float], bool]) -> Callable[[RuleResult, Evaluation, Policy], str]:
    """The remedy of a rule against the champion: more pictures right, or more of the same pictures."""

    def words(result: RuleResult, evaluation: Evaluation, policy: Policy) -> str:
        paired = evaluation.champion.paired if evaluation.champion else None
        if paired is None:
            return ""
        bound = result.bound or 0
        return " or ".join(part for part in (_gain(paired, bound), _more(paired, bound)) if part)

    def _gain(paired: Paired, bound: float) -> str:
        b, c, scale = paired.only_challenger, paired.only_champion, paired.scale
        gain = next((k for k in range(1, c + 1) if passes(b * scale, (c - k) * scale, paired.n * scale, bound)), None)
        return f"{gain} fewer of the pictures wrong that only the champion gets right" if gain else ""

    def _more(paired: Paired, bound: float) -> str:
        b, c, n, scale = paired.only_challenger, paired.only_champion, paired.n, paired.scale
        return _pictures(n, lambda times: passes(scale * round(b * times), scale * round(c * times), scale * round(n * times), bound))

    return words


def _pictures(n: int, passes: Callable[[float], bool]) -> str:
    """With how many test pictures the same shares would pass, to about a tenth; nothing where no number does."""
    times = 1.1
    while n * times <= MAX_PICTURES:
        if passes(times):
            return f"about {float(f'{n * times:.2g}'):,.0f} test pictures with the same shares, now {n:,}"
        times *= 1.1
    return ""


REMEDIES: dict[str, Callable[[RuleResult, Evaluation, Policy], str]] = {
    "minimum_accuracy": _accuracy,
    "minimum_accuracy_lower_bound": _lower_bound,
    "minimum_macro_f1": _figure("a macro F1"),
    "minimum_class_recall": _recall,
    "slice_floors": _slices,
    "minimum_class_support": _support,
    "maximum_ece": _figure("a calibration error"),
    "maximum_latency_ms": _figure("milliseconds per picture (a smaller architecture takes fewer)"),
    "maximum_size_mb": _figure("megabytes (a smaller architecture has fewer)"),
    "maximum_accuracy_drop": _paired(lambda b, c, n, bound: c - b <= bound * n),
    "forbid_significant_drop": _paired(lambda b, c, n, _: mcnemar(b, c, "less") > ONE_SIDED),
    "non_inferiority_margin": _paired(lambda b, c, n, bound: difference_interval(b, c, n)[0] >= bound),
    "require_superiority": _paired(lambda b, c, n, level: mcnemar(b, c, "greater") <= level),
}
