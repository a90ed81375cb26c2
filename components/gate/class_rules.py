"""The rules over every class, or every slice, at once, corrected for multiple comparisons."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, partial
from typing import NamedTuple, Self

from components.bundle.decision import Outcome, RuleResult
from components.bundle.evaluation import ClassResult, Evaluation
from components.bundle.policy import as_written, plain, show
from components.classifier.errors import listed
from components.classifier.intervals import FAMILY, holm, p_below
from components.gate.rules import figure_result

MAX_NAMES = 10
"""Classes named in one reason; the rest are counted."""
_names = partial(listed, most=MAX_NAMES)
RECALL, SUPPORT, SLICES = "minimum_class_recall", "minimum_class_support", "slice_floors"


class Floored(NamedTuple):
    """A class or slice with a floor; `effective` is the sample size of its pictures, which groups make smaller."""

    name: str
    correct: int
    support: int
    floor: float
    effective: float

    @classmethod
    def of(cls, result: ClassResult, floor: float) -> Self:
        """A class that has pictures."""
        return cls(result.name, result.correct, result.support, floor, result.support if result.effective is None else result.effective)


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
    judged = _judge([Floored.of(result, floor) for result, floor in wanted if result.support], bool(floors))
    absent = [repr(result.name) for result, _ in wanted if not result.support]
    floor_text = f"the floor {plain(bound)}" if bound is not None and not floors else "its floor"
    return _result(RECALL, judged, ("recall", "class", floor_text), bound, absent)


def slice_floors(floors: Mapping[str, float], evaluation: Evaluation) -> RuleResult:
    """The accuracy of slices against their floors: `floors` by column for all of its slices, or by `column=value` for one.

    All are tested together at 5%, as the classes' recalls; slices may overlap, since Holm's correction holds for any dependence.
    """
    columns = {part.column for part in evaluation.slices}
    known = columns | {f"{part.column}={part.value}" for part in evaluation.slices}
    unknown = sorted(set(floors) - known)
    if unknown:
        values = [f"{part.column}={part.value}" for part in evaluation.slices if part.column in {key.partition("=")[0] for key in unknown}]
        reason = f"there are no slices {_names(map(repr, unknown))}; there are {_names(map(repr, values or sorted(columns)))}"
        return RuleResult(rule=SLICES, outcome="fail", reason=reason)
    judged = _judge(slices_with_floors(floors, evaluation), named=True)
    return _result(SLICES, judged, ("accuracy", "slice", "its floor"), None, [])


def slices_with_floors(floors: Mapping[str, float], evaluation: Evaluation) -> list[Floored]:
    """The slices that have a floor, called `column=value`."""
    found = []
    for part in evaluation.slices:
        name = f"{part.column}={part.value}"
        if (floor := floors.get(name, floors.get(part.column))) is not None:
            accuracy = part.accuracy
            found.append(Floored(name, accuracy.correct, accuracy.n, floor, accuracy.n if part.effective is None else part.effective))
    return found


@dataclass(frozen=True)
class _Judged:
    """A class or slice with test pictures, its floor, and its p-value corrected for all of them."""

    name: str
    correct: int
    support: int
    floor: float
    effective: float
    adjusted: float
    together: int
    """How many are judged together."""
    named: bool
    """Whether the line says the floor, because floors differ."""

    @cached_property
    def share(self) -> Fraction:
        return Fraction(self.correct, self.support)

    @property
    def line(self) -> str:
        effective = "" if self.effective == self.support else f", by groups an effective sample size of {self.effective:.0f}"
        own_floor = f", floor {plain(self.floor)}" if self.named else ""
        return f"{self.name!r} {show(self.share, self.floor)} ({self.correct} of {self.support}{effective}{own_floor})"

    @cached_property
    def zone(self) -> str:
        """`fail`: significant over all. `insufficient`: with so few pictures, not even 0 correct would be. `chance`: neither."""
        if self.share >= as_written(self.floor):
            return "pass"
        if self.adjusted <= FAMILY:
            return "fail"
        return "insufficient" if self.together * p_below(0, self.effective, self.floor) > FAMILY else "chance"


_ZONES = ("fail", "insufficient", "chance", "pass")


def _judge(present: list[Floored], named: bool) -> list[_Judged]:
    adjusted = holm([p_below(one.correct * one.effective / one.support, one.effective, one.floor) for one in present])
    return [_Judged(*one, p, len(present), named) for one, p in zip(present, adjusted, strict=True)]


def _result(rule: str, judged: list[_Judged], words: tuple[str, str, str], bound: float | None, absent: list[str]) -> RuleResult:
    """The outcome over all; `words`: what is measured, what has it, and how the floor is called."""
    what, whose, floor_text = words
    low = {zone: [j.line for j in judged if j.zone == zone] for zone in ("fail", "insufficient", "chance")}
    outcome: Outcome = "fail" if low["fail"] else "insufficient" if low["insufficient"] or not judged else "pass"
    nearest = min(judged, key=lambda j: (_ZONES.index(j.zone), j.share - as_written(j.floor)), default=None)
    parts = {
        f"{what} significantly below {floor_text}": low["fail"],
        f"{what} below {floor_text}, with too few test pictures to tell whether by chance": low["insufficient"],
        f"{what} below {floor_text} by no more than chance allows": low["chance"],
        f"every {whose} meets {floor_text}, the nearest": [nearest.line] if nearest and nearest.zone == "pass" else [],
        "no test pictures": absent,
    }
    reason = "; ".join(f"{said}: {_names(lines)}" for said, lines in parts.items() if lines)
    if nearest is None:
        return RuleResult(rule=rule, outcome=outcome, reason=reason, bound=bound)
    return figure_result(rule, outcome, reason, nearest.share, nearest.floor)
