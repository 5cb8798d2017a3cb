"""Questions about what spend is worth, on calls made by hand: cost-per-outcome and cache-money, with answers worked out here."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from asked import Call, asked, enter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.ingest.outcomes import ReportedOutcome, write_outcomes
from tallystick.ingest.store import Store

NINTH = datetime(2026, 10, 9, 12, tzinfo=UTC)
PERIOD = {"since": "2026-10-08", "until": "2026-10-15"}
_NUMBERS = count(1)


def tenant() -> str:
    return f"worth-{next(_NUMBERS)}"


def usd(text: str) -> Decimal:
    return Decimal(text)


def trace(number: int) -> dict[str, Any]:
    return {"trace_id": number.to_bytes(16, "big")}


def report(store: Store, owner: str, *told: Mapping[str, Any]) -> None:
    base = {"outcome": "resolved", "success": True, "at": NINTH}
    outcomes = [ReportedOutcome.model_validate(base | {"id": str(number)} | dict(one)) for number, one in enumerate(told)]
    write_outcomes(store.client(), owner, outcomes, NINTH)


def test_what_failed_is_paid_for_by_what_succeeded(chdb_store: Store) -> None:
    mine = tenant()
    rows = [
        Call(NINTH, usd("0.30"), session="s1", **trace(1)),
        Call(NINTH, usd("0.20"), session="s1", **trace(2)),
        Call(NINTH, usd("0.10"), session="s2", **trace(3)),
        Call(NINTH, usd("0.05"), session="s1", entry="reprice", calls=0, input_tokens=None, output_tokens=None, **trace(2)),
        # Nobody says what came of these; and what belongs to no call at all.
        Call(NINTH, usd("4"), session="s9", **trace(9)),
        Call(NINTH, usd("1"), session="", entry="trueup", calls=0, input_tokens=None, output_tokens=None),
    ]
    enter(chdb_store, mine, rows)
    report(
        chdb_store,
        mine,
        {"session": "s1", "revenue_usd": "2"},
        {"session": "s2", "success": False},
        {"session": "never-metered", "revenue_usd": "7"},
        {"customer": "acme"},
    )
    (row,) = asked(chdb_store, mine, "cost-per-outcome", by="total", **PERIOD)
    cost = usd("0.65")
    assert (row["outcomes"], row["successes"], row["success_rate"]) == (4, 3, 0.75)
    assert (row["cost_usd"], row["revenue_usd"], row["margin_usd"]) == (cost, usd("9"), usd("9") - cost)
    assert abs(row["cost_per_success_usd"] - cost / 3) < usd("1e-12")
    assert row["revenue_per_usd"] == pytest.approx(9 / 0.65)
    assert row["revenue_per_million_tokens_usd"] == pytest.approx(9 / 330 * 1e6)
    assert (row["without_cost"], row["without_revenue"]) == (2, 2)
    assert (row["spend_usd"], row["spend_without_outcome_usd"]) == (usd("5.65"), usd("5"))


def test_a_trace_goes_before_its_session(chdb_store: Store) -> None:
    mine = tenant()
    enter(
        chdb_store, mine, [Call(NINTH, usd("0.30"), session="s", **trace(1)), Call(NINTH, usd("0.20"), session="s", **trace(2))]
    )
    by_trace = {"trace_id": f"{1:032x}", "session": "s", "outcome": "of a trace"}
    report(chdb_store, mine, by_trace, {"session": "s", "outcome": "of the rest"})
    found = {row["outcome"]: row["cost_usd"] for row in asked(chdb_store, mine, "cost-per-outcome", **PERIOD)}
    assert found == {"of a trace": usd("0.30"), "of the rest": usd("0.20")}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    costs=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 10**12)), min_size=1, max_size=8),
    told=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["resolved", "escalated", "lost"])), min_size=1, max_size=9),
    by=st.sampled_from(["total", "outcome", "customer", "session,outcome"]),
)
def test_shares_add_up_to_the_last_decimal(
    chdb_store: Store, costs: list[tuple[str, int]], told: list[tuple[str, str]], by: str
) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(NINTH, Decimal(cost).scaleb(-12), session=session) for session, cost in costs])
    report(chdb_store, mine, *({"session": session, "outcome": outcome} for session, outcome in told))
    found = asked(chdb_store, mine, "cost-per-outcome", by=by, **PERIOD)
    tied = sum((Decimal(cost).scaleb(-12) for session, cost in costs if session in {one for one, _ in told}), Decimal(0))
    everything = sum((Decimal(cost).scaleb(-12) for _, cost in costs), Decimal(0))
    assert sum(row["cost_usd"] or 0 for row in found) == tied
    assert sum(row["outcomes"] for row in found) == len(told)
    assert {(row["spend_usd"], row["spend_without_outcome_usd"] or 0) for row in found} == {(everything, everything - tied)}


def test_outcomes_of_one_session_share_its_cost(chdb_store: Store) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(NINTH, usd("1"), session="s", input_tokens=10, output_tokens=0)])
    report(chdb_store, mine, *({"session": "s", "outcome": outcome} for outcome in ("a", "b", "b")))
    found = {row["outcome"]: row["cost_usd"] for row in asked(chdb_store, mine, "cost-per-outcome", **PERIOD)}
    assert found == {"a": usd("0.333333333333"), "b": usd("0.666666666667")}


def test_outcomes_of_one_session_share_its_tokens(chdb_store: Store) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(NINTH, usd("1"), session="s", input_tokens=10, output_tokens=None)])
    report(chdb_store, mine, *({"session": "s", "outcome": outcome, "revenue_usd": "3"} for outcome in ("a", "b", "b")))
    found = {
        row["outcome"]: row["revenue_per_million_tokens_usd"] for row in asked(chdb_store, mine, "cost-per-outcome", **PERIOD)
    }
    assert found == {"a": pytest.approx(3e6 / 3), "b": pytest.approx(6e6 / 7)}


def test_what_an_outcome_does_not_say_its_calls_do(chdb_store: Store) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(NINTH, usd("1"), customer="acme", feature="chat", session="s", tags={"plan": "pro"})])
    report(chdb_store, mine, {"session": "s"}, {"session": "s", "customer": "initech", "tags": {"plan": "free"}})
    rows = asked(chdb_store, mine, "cost-per-outcome", by="customer,feature", **PERIOD)
    assert {(row["customer"], row["feature"], row["cost_usd"]) for row in rows} == {
        ("acme", "chat", usd("0.5")),
        ("initech", "chat", usd("0.5")),
    }
    (filtered,) = asked(chdb_store, mine, "cost-per-outcome", by="tag:plan", where="customer=initech", **PERIOD)
    assert (filtered["tag:plan"], filtered["outcomes"], filtered["spend_usd"]) == ("free", 1, None)


def test_the_period_is_the_outcomes_and_calls_may_be_older(chdb_store: Store) -> None:
    mine = tenant()
    early = datetime(2026, 10, 3, tzinfo=UTC)
    rows = [
        Call(early, usd("0.4"), session="s"),
        Call(NINTH, usd("0.1"), session="s"),
        Call(NINTH + timedelta(days=7), usd("9"), session="s"),
    ]
    enter(chdb_store, mine, rows)
    report(chdb_store, mine, {"session": "s"}, {"session": "s", "at": early}, {"session": "s", "at": NINTH + timedelta(days=7)})
    (row,) = asked(chdb_store, mine, "cost-per-outcome", **PERIOD)
    assert (row["outcomes"], row["cost_usd"], row["spend_usd"]) == (1, usd("0.5"), usd("0.1"))
    (row,) = asked(chdb_store, mine, "cost-per-outcome", lookback="4", **PERIOD)
    assert row["cost_usd"] == usd("0.1")


def test_tags_of_calls_count_and_are_taken_back_with_them(chdb_store: Store) -> None:
    mine = tenant()
    tags = {"outcome": "paid", "revenue_usd": "5"}
    twice = Call(NINTH, usd("0.2"), tags=tags, **trace(1))
    void = Call(NINTH, usd("-0.2"), tags=tags, entry="void", calls=-1, input_tokens=-100, output_tokens=-10, **trace(1))
    enter(chdb_store, mine, [twice, void, Call(NINTH, usd("0.3"), tags=tags, **trace(2))])
    (row,) = asked(chdb_store, mine, "cost-per-outcome", **PERIOD)
    assert (row["outcome"], row["outcomes"], row["successes"], row["revenue_usd"], row["cost_usd"]) == (
        "paid",
        1,
        1,
        usd("5"),
        usd("0.3"),
    )


def test_unpriced_calls_leave_the_cost_unknown(chdb_store: Store) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(NINTH, None, session="s")])
    report(chdb_store, mine, {"session": "s", "revenue_usd": "1"})
    (row,) = asked(chdb_store, mine, "cost-per-outcome", **PERIOD)
    unknown = ("cost_usd", "cost_per_success_usd", "margin_usd", "revenue_per_usd", "spend_usd", "spend_without_outcome_usd")
    assert [row[name] for name in unknown] == [None] * len(unknown)
    assert (row["without_cost"], row["revenue_usd"]) == (1, usd("1"))


BUCKETS = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens")
PRICES: Mapping[str, Mapping[str, Decimal]] = {
    "worth-haiku": dict(zip(BUCKETS, map(Decimal, ("0.000001", "0.0000001", "0.00000125", "0.000002")), strict=True)),
    "worth-mini": dict(zip(BUCKETS, map(Decimal, ("0.0000004", "0.0000001", "0.0000004", "0.0000004")), strict=True)),
}


@pytest.fixture(scope="module")
def priced(chdb_store: Store) -> Store:
    """With the prices above, in a book of their own."""
    rows = [
        [
            "worth",
            "p",
            name,
            name,
            "",
            datetime(2026, 1, 1, tzinfo=UTC),
            [name],
            [*(rates[b] for b in BUCKETS), *[Decimal(0)] * 6],
        ]
        for name, rates in PRICES.items()
    ]
    names = ["book", "provider", "request_model", "response_model", "service_tier", "valid_from", "price_ids", "rates"]
    chdb_store.client().insert("prices", rows, column_names=names)
    return chdb_store


def cached(price: str, tokens: tuple[int, int, int, int], feature: str = "chat", sign: int = 1, **more: Any) -> Call:
    counts = {name: sign * number for name, number in zip(BUCKETS, tokens, strict=True)}
    return Call(
        NINTH,
        usd("0.01"),
        feature=feature,
        response_model=price,
        calls=sign,
        entry="call" if sign > 0 else "void",
        input_tokens=counts.pop("input_tokens"),
        more={"price_id": price, **counts, **more},
    )


def test_cache_money_is_net_of_writes(priced: Store) -> None:
    mine = tenant()
    rows = [
        cached("worth-haiku", (100, 5000, 2000, 300)),
        cached("worth-haiku", (700, 9000, 0, 0)),
        cached("worth-mini", (50, 4000, 1000, 0)),
        cached("no-such-price", (10, 90, 0, 0)),
        # Entered twice: nothing of it counts.
        cached("worth-haiku", (9, 99_999, 9, 9)),
        cached("worth-haiku", (9, 99_999, 9, 9), sign=-1),
    ]
    enter(priced, mine, rows)
    saved = extra = Decimal(0)
    for price, tokens in (("worth-haiku", (800, 14_000, 2000, 300)), ("worth-mini", (50, 4000, 1000, 0))):
        rates = PRICES[price]
        full = rates["input_tokens"]
        saved += tokens[1] * (full - rates["cache_read_tokens"])
        extra += tokens[2] * (rates["cache_write_5m_tokens"] - full) + tokens[3] * (rates["cache_write_1h_tokens"] - full)
    (row,) = asked(priced, mine, "cache-money", by="feature", **PERIOD)
    assert (row["saved_usd"], row["write_extra_usd"], row["net_usd"]) == (saved, extra, saved - extra)
    assert (row["cache_read_tokens"], row["cache_write_tokens"], row["missed_at_most_usd"]) == (18_090, 3300, 0)
    whole = 800 + 14_000 + 2300 + 50 + 4000 + 1000 + 100
    assert row["read_share"] == pytest.approx(18_090 / whole)
    assert row["tokens_rated"] == pytest.approx(1 - 100 / whole)


def test_what_was_missed_is_bounded_from_above(priced: Store) -> None:
    mine = tenant()
    rows = [
        # Reads nothing from a cache: what of it is text and long enough might have been read from one.
        cached("worth-haiku", (3000, 0, 0, 0), "search"),
        cached("worth-haiku", (2000, 0, 0, 0), "search", audio_input_tokens=400, image_input_tokens=100),
        cached("worth-haiku", (1023, 0, 0, 0), "search"),
        cached("worth-haiku", (8000, 0, 0, 0), "search"),
        cached("worth-haiku", (8000, 0, 0, 0), "search", sign=-1),
        # The same feature with a model that does use one, and another feature that does.
        cached("worth-mini", (5000, 10, 0, 0), "search"),
        cached("worth-haiku", (5000, 10, 0, 0), "chat"),
    ]
    enter(priced, mine, rows)
    rates = PRICES["worth-haiku"]
    difference = rates["input_tokens"] - rates["cache_read_tokens"]
    found = {(row["feature"], row["model"]): row["missed_at_most_usd"] for row in asked(priced, mine, "cache-money", **PERIOD)}
    assert found == {
        ("search", "worth-haiku"): (3000 + 1500) * difference,
        ("search", "worth-mini"): 0,
        ("chat", "worth-haiku"): 0,
    }
    (row,) = asked(priced, mine, "cache-money", by="total", cacheable_from="1000", **PERIOD)
    assert row["missed_at_most_usd"] == (3000 + 1500 + 1023) * difference


def test_rates_that_a_tenant_may_not_see_are_not_needed(priced: Store) -> None:
    mine, theirs = tenant(), tenant()
    enter(priced, mine, [cached("worth-haiku", (100, 5000, 0, 0))])
    enter(priced, theirs, [cached("worth-mini", (100, 5000, 0, 0))])
    for owner in (mine, theirs):
        (row,) = asked(priced, owner, "cache-money", by="tenant", **PERIOD)
        assert (row["tenant"], row["tokens_rated"]) == (owner, 1)
    both = asked(priced, None, "cache-money", by="tenant", where="feature=chat", limit="100000", **PERIOD)
    assert {mine, theirs} <= {row["tenant"] for row in both}
