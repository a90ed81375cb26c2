"""The policy: typed rules with their bounds, from an environment file or a run's parameters.

Numbers are compared exactly, and shown with enough digits that the display agrees with the decision.
"""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Annotated, Any, Self, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from components.classifier.errors import PolicyError, near, validation_problems

DIGITS = 4
"""Decimals shown where more are not needed."""
COMPUTED_DIGITS = 12
"""Decimals to which a computed figure counts; beyond them lies the rounding of binary arithmetic."""


def parse_number(value: object) -> float:
    """Read a bound: an int or float, or a text that is one decimal number as a whole ("0.99", "1e-05").

    Text is read because YAML and run parameters turn 0.00001 into the text 1e-05. Raises ValueError for truth values, NaN,
    infinities, "99%" and everything else.
    """
    if isinstance(value, str) and "_" not in value:
        try:
            value = float(Decimal(value.strip()))
        except InvalidOperation as error:
            raise ValueError(f"{value!r} is not a number") from error
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")  # noqa: TRY004 - pydantic collects ValueError only
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return float(value)


def parse_share(value: object) -> float:
    """Read a number between 0 and 1, both included; ValueError says how 99 per cent is written."""
    number = parse_number(value)
    if not 0 <= number <= 1:
        hint = f" (write {plain(round(number / 100, 12))} for {plain(number)}%)" if 1 < number <= 100 else ""
        raise ValueError(f"{plain(number)} must be between 0 and 1{hint}")
    return number


def as_written(bound: float) -> Fraction:
    """The decimal number that a bound was written as: 0.99 is 99/100, not the binary fraction next to it."""
    return Fraction(repr(float(bound)))


def as_computed(figure: float) -> Fraction:
    """A computed figure, rounded to 12 decimals: 0.9899999999999999, the sum of rounded parts, is 99/100."""
    return round(as_written(figure), COMPUTED_DIGITS)


def plain(bound: float) -> str:
    """A bound as its author meant it, never with an exponent: 1e-05 is 0.00001."""
    text = format(Decimal(repr(float(bound))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def show(figure: Fraction, bound: float | None = None) -> str:
    """Round to 4 decimals, or to as many as it takes that the rounded figure is on the same side of `bound` as the figure."""
    digits = DIGITS
    if bound is not None:
        limit = as_written(bound)
        while _side(round(figure, digits), limit) != _side(figure, limit) and digits < 3 * COMPUTED_DIGITS:
            digits += 1
    scaled = int(round(figure, digits) * 10**digits)
    return format(Decimal(scaled).scaleb(-digits), "f")


def _side(figure: Fraction, limit: Fraction) -> int:
    return (figure > limit) - (figure < limit)


def _positive(value: object) -> float:
    number = parse_number(value)
    if number <= 0:
        raise ValueError(f"{plain(number)} must be greater than 0")
    return number


def _count(value: object) -> int:
    number = parse_number(value)
    if number < 0 or number != int(number):
        raise ValueError(f"{plain(number)} must be a whole number, 0 or more")
    return int(number)


def _switch(value: object) -> bool:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} must be true or false")  # noqa: TRY004 - pydantic collects ValueError only
    return value


Share = Annotated[float | None, BeforeValidator(parse_share)]
Positive = Annotated[float | None, BeforeValidator(_positive)]
Floors = dict[str, Annotated[float, BeforeValidator(parse_share)]]


class Policy(BaseModel):
    """What a model must show to serve. A rule that is not set, or null, is not judged; a policy without rules promotes nothing.

    Bounds are inclusive: a value that meets its bound exactly passes. Shares lie between 0 and 1.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)
    minimum_accuracy: Share = None
    """Share of test pictures that are classified correctly."""
    minimum_accuracy_lower_bound: Share = None
    """The lower end of the accuracy's 95% interval: the fewer the test pictures, the higher the accuracy must be."""
    minimum_macro_f1: Share = None
    """The mean of all classes' F1."""
    minimum_class_recall: Share = None
    """The recall floor of every class; a class fails when it is significantly below, over all classes at 5%."""
    class_recall_floors: Floors = Field(default_factory=dict)
    """Floors of single classes by name, in place of minimum_class_recall."""
    slice_floors: Floors = Field(default_factory=dict)
    """Accuracy floors of slices: of all of a column ({"site": 0.9}), or of one ({"site=north": 0.8}), judged over all of them at 5%."""
    minimum_class_support: Annotated[int, BeforeValidator(_count)] = 1
    """Test pictures that every class must have; always judged. 0 allows classes that the test split lacks."""
    maximum_ece: Share = None
    """Expected calibration error of the shipped probabilities."""
    maximum_latency_ms: Positive = None
    """95th percentile for one picture, on the machine that evaluated."""
    maximum_size_mb: Positive = None
    """model.onnx, in millions of bytes."""
    maximum_accuracy_drop: Share = None
    """Lenient: how far the observed accuracy may lie below the champion's on the same pictures."""
    forbid_significant_drop: Annotated[bool, BeforeValidator(_switch)] = False
    """Lenient: hold a challenger that is significantly worse than the champion (exact McNemar test)."""
    non_inferiority_margin: Share = None
    """Strict: the challenger must be shown to be less than this below the champion."""
    require_superiority: Annotated[bool, BeforeValidator(_switch)] = False
    """The challenger must be significantly better than the champion (exact McNemar test)."""
    correct_for_reuse: Annotated[bool, BeforeValidator(_switch)] = False
    """Divide the level of require_superiority by the number of versions that the test split has judged (Bonferroni)."""

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        unknown = [str(name) for name in values if name not in cls.model_fields]
        if unknown:
            raise ValueError(_unknown(unknown, list(cls.model_fields)))
        return {name: value for name, value in values.items() if value is not None}

    @classmethod
    def read(cls, values: object, source: str = "policy") -> Self:
        """Make a policy of what a file or a run parameter holds.

        Raises PolicyError in one line that names `source`, the rule and what its bound must be.
        """
        if not isinstance(values, Mapping):
            raise PolicyError(f"{source}: a policy is a table of rules and bounds such as minimum_accuracy: 0.95, not {values!r}")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise PolicyError(f"{source}: {'; '.join(validation_problems(error))}") from error

    def override(self, values: object, source: str = "run parameter policy") -> Self:
        """This policy with single rules replaced; null turns a rule off. Raises PolicyError."""
        self.read(values, source)  # so that an error is about what was given, not about the sum of both
        return self.read({**self.model_dump(), **cast("Mapping[str, object]", values)}, source)

    def looser_than(self, other: "Policy") -> list[str]:
        """Return the rules by which this policy lets through what the other holds: lower floors, higher ceilings, rules turned off."""
        return [name for name in type(self).model_fields if _looser(name, getattr(self, name), getattr(other, name), self, other)]

    def rules_set(self) -> dict[str, Any]:
        """The rules that this policy sets, by name, and minimum_class_support, which is always judged."""
        return {name: value for name, value in self.model_dump().items() if value is not None and value is not False and value != {}}


def bound_text(bound: Any) -> str:
    """A rule's bound as its author wrote it: `0.9`, of floors by name `site 0.9, site=north 0.8`, of a switch or of none nothing."""
    if isinstance(bound, Mapping):
        return ", ".join(f"{name} {plain(floor)}" for name, floor in bound.items())
    return "" if bound is None or isinstance(bound, bool) else plain(bound)


def _looser(name: str, mine: Any, theirs: Any, policy: Policy, other: Policy) -> bool:
    # Floors for more classes or slices are looser too: the others are then tested by Holm's method among more.
    if name == "class_recall_floors":
        if theirs and other.minimum_class_recall is None and mine.keys() - theirs.keys():
            return True
        floors = [(policy.class_recall_floors.get(c, policy.minimum_class_recall), floor) for c, floor in theirs.items()]
        floors += [(floor, other.minimum_class_recall) for c, floor in mine.items() if c not in theirs]
        return any(_looser("minimum_class_recall", *pair, policy, other) for pair in floors)
    if name == "slice_floors":
        if theirs and any(key not in theirs and key.partition("=")[0] not in theirs for key in mine):
            return True
        return any(key not in mine or mine[key] < floor for key, floor in theirs.items()) or any(
            floor < theirs.get(key.partition("=")[0], 0.0) for key, floor in mine.items() if key not in theirs
        )
    if isinstance(theirs, bool):
        return theirs and not mine
    if theirs is None or mine is None:
        return mine is None and theirs is not None
    return bool(mine < theirs if name.startswith("minimum_") else mine > theirs)


def _unknown(unknown: Sequence[str], known: list[str]) -> str:
    return "; ".join([*(f"unknown rule {name!r}{near(name, known, 0.5)}" for name in unknown), f"the rules are {', '.join(known)}"])
