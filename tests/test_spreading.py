"""Shares add up, are fair, and depend on nothing but weights."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.attribution.spreading import spread

AMOUNTS = st.decimals(min_value=-(10**9), max_value=10**9, places=12)
WEIGHTS = st.lists(st.decimals(min_value=0, max_value=10**6, places=12), min_size=1, max_size=40).filter(any)


@given(AMOUNTS, WEIGHTS)
def test_shares_add_up_and_none_is_a_unit_off(amount: Decimal, weights: list[Decimal]) -> None:
    shares = spread(amount, weights)
    assert sum(map(Fraction, shares)) == Fraction(amount)
    whole = sum(map(Fraction, weights))
    for share, weight in zip(shares, weights, strict=True):
        exact = Fraction(amount) * Fraction(weight) / whole
        assert abs(Fraction(share) - exact) < Fraction(1, 10**12)
        assert share.as_tuple().exponent == -12


def test_the_largest_remainder_gets_the_unit_and_of_equals_the_first() -> None:
    weights = [Decimal(1), Decimal(1), Decimal(1)]
    assert spread(Decimal("0.02"), weights, 2) == [Decimal("0.01"), Decimal("0.01"), Decimal("0.00")]
    assert spread(Decimal("-0.02"), weights, 2) == [Decimal("-0.01"), Decimal("-0.01"), Decimal("0.00")]
    assert spread(Decimal("10"), [Decimal("4.6"), Decimal("5.4")], 0) == [Decimal(5), Decimal(5)]
    assert spread(Decimal("1"), [Decimal(0), Decimal("1e-12"), Decimal("1e-12")], 0) == [0, 1, 0]


def test_nothing_can_be_shared_among_nobody() -> None:
    assert spread(Decimal(0), [Decimal(0), Decimal(0)]) == [0, 0]
    assert spread(Decimal(0), []) == []
    with pytest.raises(ValueError, match="every weight is 0"):
        spread(Decimal(1), [Decimal(0)])


@pytest.mark.parametrize(
    ("amount", "weights", "said"),
    [("1", ["1", "-1"], "negative"), ("0.0000000000001", ["1"], "more than 12 decimals")],
)
def test_what_cannot_be_shared(amount: str, weights: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        spread(Decimal(amount), [Decimal(weight) for weight in weights])
