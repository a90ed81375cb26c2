"""The rules over every class at once, corrected for multiple comparisons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from components.bundle.decision import Outcome, RuleResult
from components.bundle.evaluation import ClassResult, Evaluation
from components.bundle.numbers import as_written, plain, show
from components.classifier.intervals import FAMILY, holm, p_below
from components.gate.rules import figure_result

MAX_NAMES = 10
"""Classes named in one reason; the rest are counted."""
RECALL, SUPPORT = "minimum_class_recall", "minimum_class_support"


def class_support(bound: int, evaluation: Evaluation) -> RuleResult:
    """Whether every class has enough test pictures to be judged at all."""
    few = [result for result in evaluation.per_class if result.support < bound]
    least = min(result.support for result in evaluation.per_class)
    reason = f"every class has at least {least} test pictures, {bound} needed"
    if few:
        reason = f"too few test pictures, {bound} needed: {_names(f'{r.name!r} has {r.support}' for r in few)}"
    outcome: Outcome = "insufficient" if few else "pass"
    return RuleResult(rule=SUPPORT, outcome=outcome, reason=reason, value=least, bound=bound, shown=str(least))


def class_recall(bound: float | None, floors: Mapping[str, float], evaluation: Evaluation) -> RuleResult:
    """The recall of every class against its floor: `floors` by name, `bound` for the others.

    Recalls below the floor are tested together at 5% (exact binomial tests, Holm), so that of many sound classes one rarely fails by
    chance. A class whose pictures are so few that not even a recall of 0 would be significant is insufficient. Whether classes may
    lack test pictures altogether is class_support's to say.
    """
    unknown = sorted(set(floors) - set(evaluation.classes))
    if unknown:
        known = _names(repr(name) for name in evaluation.classes)
        reason = f"class_recall_floors names {_names(map(repr, unknown))}, but the classes are {known}"
        return RuleResult(rule=RECALL, outcome="fail", reason=reason, bound=bound)
    wanted = [(result, floor) for result in evaluation.per_class if (floor := floors.get(result.name, bound)) is not None]
    judged = _judge([(result, floor) for result, floor in wanted if result.support], named=bool(floors))
    absent = [repr(result.name) for result, _ in wanted if not result.support]
    low = {zone: [j.line for j in judged if j.zone == zone] for zone in ("fail", "insufficient", "chance")}
    outcome: Outcome = "fail" if low["fail"] else "insufficient" if low["insufficient"] or not judged else "pass"
    floor_text = f"the floor {plain(bound)}" if bound is not None and not floors else "its floor"
    nearest = min(judged, key=lambda j: (_ZONES.index(j.zone), j.recall - as_written(j.floor)), default=None)
    parts = {
        f"recall significantly below {floor_text}": low["fail"],
        f"recall below {floor_text}, with too few test pictures to tell whether by chance": low["insufficient"],
        f"recall below {floor_text} by no more than chance allows": low["chance"],
        f"every class meets {floor_text}, the nearest": [nearest.line] if nearest and nearest.zone == "pass" else [],
        "no test pictures": absent,
    }
    reason = "; ".join(f"{what}: {_names(lines)}" for what, lines in parts.items() if lines)
    if nearest is None:
        return RuleResult(rule=RECALL, outcome=outcome, reason=reason, bound=bound)
    return figure_result(RECALL, outcome, reason, nearest.recall, nearest.floor)


@dataclass(frozen=True)
class _Judged:
    """A class with test pictures, its floor, and its p-value corrected for all classes."""

    result: ClassResult
    floor: float
    adjusted: float
    classes: int
    """How many classes are judged together."""
    named: bool
    """Whether the policy names a floor for some class, so that floors differ."""

    @cached_property
    def recall(self) -> Fraction:
        return Fraction(self.result.correct, self.result.support)

    @property
    def line(self) -> str:
        own_floor = f", floor {plain(self.floor)}" if self.named else ""
        return f"{self.result.name!r} {show(self.recall, self.floor)} ({self.result.correct} of {self.result.support}{own_floor})"

    @cached_property
    def zone(self) -> str:
        """`fail`: significant over all classes. `insufficient`: with so few pictures, not even 0 correct would be. `chance`: neither."""
        if self.recall >= as_written(self.floor):
            return "pass"
        if self.adjusted <= FAMILY:
            return "fail"
        return "insufficient" if self.classes * p_below(0, self.result.support, self.floor) > FAMILY else "chance"


_ZONES = ("fail", "insufficient", "chance", "pass")


def _judge(present: list[tuple[ClassResult, float]], *, named: bool) -> list[_Judged]:
    adjusted = holm([p_below(result.correct, result.support, floor) for result, floor in present])
    return [_Judged(result, floor, p, len(present), named) for (result, floor), p in zip(present, adjusted, strict=True)]


def _names(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - MAX_NAMES
    return ", ".join(listed[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
