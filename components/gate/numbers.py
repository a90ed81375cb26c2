"""Numbers as a gate must treat them: compared exactly, and shown with enough digits that the display agrees with the decision."""

import math
from decimal import Decimal, InvalidOperation
from fractions import Fraction

DIGITS = 4
"""Decimals shown where more are not needed."""
MOST_DIGITS = 12
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


def exact(value: float) -> Fraction:
    """The decimal number that a float is written as, rounded to 12 decimals: 0.99 is 99/100, and so is 0.9900000000000001."""
    return Fraction(format(Decimal(repr(float(value))), f".{MOST_DIGITS}f"))


def plain(value: float) -> str:
    """A bound as its author meant it, never with an exponent: 1e-05 is 0.00001."""
    text = format(Decimal(repr(float(value))), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def show(value: Fraction | float, bound: float | None = None) -> str:
    """Round to 4 decimals, or to as many as it takes that the rounded number is on the same side of `bound` as the number itself."""
    number = value if isinstance(value, Fraction) else exact(value)
    for digits in range(DIGITS, MOST_DIGITS + 1):
        text = _rounded(number, digits)
        if bound is None or _side(Fraction(text), exact(bound)) == _side(number, exact(bound)):
            return text
    return _rounded(number, MOST_DIGITS)


def _rounded(number: Fraction, digits: int) -> str:
    scaled = round(number * 10**digits)
    return format(Decimal(scaled).scaleb(-digits), "f")


def _side(number: Fraction, bound: Fraction) -> int:
    return (number > bound) - (number < bound)
