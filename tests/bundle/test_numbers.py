from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.bundle.policy import as_computed, as_written, parse_number, plain, show

SHARES = st.floats(0, 1)


@given(st.integers(1, 10**6), st.data())
def test_what_is_shown_lies_on_the_same_side_of_the_bound(n: int, data: st.DataObject) -> None:
    figure = Fraction(data.draw(st.integers(0, n)), n)
    bound = data.draw(st.one_of(SHARES, st.just(round(float(figure), 3)), st.just(float(figure))))
    shown, limit = Fraction(show(figure, bound)), as_written(bound)
    assert (shown > limit) == (figure > limit)
    assert (shown < limit) == (figure < limit)
    assert abs(shown - figure) <= Fraction(1, 20_000)


@pytest.mark.parametrize(
    ("figure", "bound", "shown"),
    [
        (Fraction(98996, 100_000), 0.99, "0.98996"),  # two or four decimals would say 0.99
        (Fraction(99, 100), 0.99, "0.9900"),
        (Fraction(2, 3), 0.5, "0.6667"),
        (Fraction(989_999_999, 10**9), 0.99, "0.989999999"),
        (Fraction(1, 10**6), 0.0, "0.000001"),
        (Fraction(-1, 360), -0.005, "-0.0028"),
        (Fraction(123_456_789, 10), 1000, "12345678.9000"),
    ],
)
def test_digits_grow_only_where_they_must(figure: Fraction, bound: float, shown: str) -> None:
    assert show(figure, bound) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_bound_is_read_from_any_text_of_it_and_shown_without_exponent(bound: float) -> None:
    for text in (repr(bound), f"{bound!r} ", format(Decimal(repr(bound)), "f")):
        assert parse_number(text) == bound
    assert "e" not in plain(bound).lower()
    assert float(plain(bound)) == bound


def test_an_exponent_means_the_same_number() -> None:
    assert parse_number("1e-05") == parse_number("0.00001") == parse_number(0.00001) == parse_number(1e-05)
    assert plain(1e-05) == "0.00001"


@pytest.mark.parametrize(
    "value", ["99%", "0,99", "", " ", "nan", "inf", "-Infinity", "1_0", "0x1", None, True, False, float("nan"), float("inf"), [0.9], {}]
)
def test_what_is_no_finite_number_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="number"):
        parse_number(value)


def test_binary_rounding_does_not_decide() -> None:
    assert as_computed(0.1 + 0.2) == as_written(0.3)
    assert as_computed(0.9899999999999999) == as_written(0.99)
    assert as_computed(0.98999999) < as_written(0.99)
