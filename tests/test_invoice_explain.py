"""The parts of a difference add up to it, and each kind is found where it was made."""

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tallystick.attribution.invoices.explain import Billed, Kind, Metered, explain
from tallystick.attribution.invoices.lines import BUCKETS

DAY = date(2026, 10, 1)
RATES = {
    "input": Decimal("0.0000025"), "cache_read": Decimal("0.00000125"), "cache_write_5m": Decimal("0.000003"),
    "cache_write_1h": Decimal("0.000005"), "output": Decimal("0.00001"),
}  # fmt: skip
USED = {"input": 1_000_000, "cache_read": 400_000, "output": 200_000}


def value(tokens: Mapping[str, int], factor: Decimal = Decimal(1)) -> dict[str, Decimal]:
    return {bucket: count * RATES[bucket] * factor for bucket, count in tokens.items()}


def ledger(tokens: Mapping[str, int] = USED, **facts: object) -> Metered:
    held = {
        "calls": 100,
        "priced_calls": 100,
        "tokens": tokens,
        "cost_usd": sum(value(tokens).values(), Decimal(0)),
        "rates": RATES,
    }
    return Metered(**(held | facts))  # type: ignore[arg-type]


def bill(tokens: Mapping[str, int] = USED, factor: str = "1", **facts: object) -> Billed:
    costs = value(tokens, Decimal(factor))
    held = {"tokens": tokens, "cost_usd": sum(costs.values(), Decimal(0)), "costs": costs}
    return Billed(**(held | facts))  # type: ignore[arg-type]


def parts(metered: Metered, billed: Billed | None) -> dict[Kind, Decimal]:
    return {part.kind: part.usd for part in explain({DAY: (metered, billed)})[DAY]}


def test_nothing_differs() -> None:
    assert parts(ledger(), bill()) == {}


def test_unmetered_calls_at_the_ledgers_rates() -> None:
    assert parts(ledger(), bill(USED | {"output": 250_000})) == {"unmetered": Decimal("0.5")}


def test_calls_that_were_not_billed() -> None:
    assert parts(ledger(), bill(USED | {"output": 150_000})) == {"overmetered": Decimal("-0.5")}
    assert parts(ledger(), None) == {"not_billed": Decimal("-5")}


def test_a_price_names_both_rates() -> None:
    ((part,),) = explain({DAY: (ledger(), bill(factor="0.9"))}).values()
    assert (part.kind, part.usd) == ("price", Decimal("-0.5"))
    assert (
        part.text == "input 2.25 instead of 2.5, cache_read 1.125 instead of 1.25, output 9 instead of 10 USD per million tokens"
    )
    ((part,),) = explain({DAY: (ledger(), bill(factor="0.9", costs={}))}).values()
    assert part.text == "2.8125 instead of 3.125 USD per million tokens"


def test_tokens_billed_as_uncached() -> None:
    moved = {"input": 1_100_000, "cache_read": 300_000, "output": 200_000}
    assert parts(ledger(), bill(moved)) == {"cache": Decimal("0.125")}


def test_unpriced_calls_at_the_invoices_rates() -> None:
    held = ledger(calls=110, unpriced={"input": 100_000})
    assert parts(held, bill(USED | {"input": 1_100_000})) == {"unpriced": Decimal("0.25")}
    nothing = Metered(calls=10, unpriced={"input": 100_000})
    assert parts(nothing, bill({"input": 100_000})) == {"unpriced": Decimal("0.25")}
    assert parts(nothing, Billed(cost_usd=Decimal(3))) == {"unpriced": Decimal(3)}


def test_rounding_is_within_the_invoices_decimals() -> None:
    assert parts(ledger(), bill(cost_usd=Decimal("5.004"), half_units=Decimal("0.005"))) == {"rounding": Decimal("0.004")}
    assert parts(ledger(), bill(cost_usd=Decimal("5.006"), half_units=Decimal("0.005"))) == {"price": Decimal("0.006")}
    assert parts(ledger(), Billed(cost_usd=Decimal("5.004"), half_units=Decimal("0.005"))) == {"rounding": Decimal("0.004")}


def test_without_tokens_money_stays_unexplained() -> None:
    assert parts(ledger(), Billed(cost_usd=Decimal(6))) == {"unexplained": Decimal(1)}
    assert parts(Metered(), Billed(cost_usd=Decimal(6))) == {"unmetered": Decimal(6)}


def test_credits_and_taxes_and_what_was_trued_up() -> None:
    assert parts(Metered(), Billed(cost_usd=Decimal(-2), no_use=True)) == {"other_item": Decimal(-2)}
    assert parts(ledger(trued_up_usd=Decimal("-0.5")), bill(factor="0.9")) == {
        "trued_up": Decimal("0.5"),
        "price": Decimal("-0.5"),
    }


def test_calls_that_moved_over_midnight() -> None:
    less, more = USED | {"output": 170_000}, USED | {"output": 230_000}
    found = explain({
        DAY: (ledger(late_usd=Decimal("0.3")), bill(less)),
        DAY + timedelta(days=1): (ledger(late_usd=Decimal("9"), early_usd=Decimal(9)), bill(more)),
        DAY + timedelta(days=3): (ledger(early_usd=Decimal(9)), bill(less)),
    })  # fmt: skip
    told = [{part.kind: part.usd for part in held} for held in found.values()]
    assert told == [{"day_boundary": Decimal("-0.3")}, {"day_boundary": Decimal("0.3")}, {"overmetered": Decimal("-0.3")}]
    # No more than what the ledger has around midnight.
    found = explain({
        DAY: (ledger(late_usd=Decimal("0.1")), bill(less)), DAY + timedelta(days=1): (ledger(early_usd=Decimal(9)), bill(more))
    })  # fmt: skip
    told = [{part.kind: part.usd for part in held} for held in found.values()]
    assert told[0] == {"overmetered": Decimal("-0.2"), "day_boundary": Decimal("-0.1")}
    assert told[1] == {"unmetered": Decimal("0.2"), "day_boundary": Decimal("0.1")}


COUNTS = st.dictionaries(st.sampled_from(BUCKETS), st.integers(0, 10**9), max_size=5)
MONEY = st.decimals(min_value=-(10**6), max_value=10**6, places=12)
SOME_RATES = st.dictionaries(st.sampled_from(BUCKETS), st.decimals(min_value=0, max_value=Decimal("0.01"), places=15), max_size=5)
LEDGERS = st.builds(
    Metered, st.integers(0, 1000), st.integers(0, 1000), COUNTS, COUNTS, st.none() | MONEY, MONEY, SOME_RATES, MONEY, MONEY
)
BILLS = st.none() | st.builds(Billed, st.none() | COUNTS, MONEY, st.just({}), st.decimals(0, 1, places=6), st.booleans())


@given(st.dictionaries(st.integers(0, 3), st.tuples(LEDGERS, BILLS), min_size=1, max_size=4))
def test_parts_add_up_to_the_difference(days: dict[int, tuple[Metered, Billed | None]]) -> None:
    found = explain({DAY + timedelta(days=at): pair for at, pair in days.items()})
    for at, (metered, billed) in days.items():
        paid = billed.cost_usd if billed is not None and billed.cost_usd is not None else Decimal(0)
        assert sum((part.usd for part in found[DAY + timedelta(days=at)]), Decimal(0)) == paid - metered.total_usd
