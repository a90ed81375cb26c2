"""Numbers as a gate must treat them: compared exactly, and shown with enough digits that the display agrees with the decision."""

import math
from decimal import Decimal, InvalidOperation
from fractions import Fraction

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
        hint = f" (write {plain(number / 100)} for {plain(number)}%)" if 1 < number <= 100 else ""
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
