"""Questions about spend on calls made by hand, with answers worked out here: spend, top-drivers, outliers, unit-costs."""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from statistics import median
from typing import Any

import pytest
from asked import Call, asked, enter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.attribution.spend import spend
from tallystick.ingest.store import Store

OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)
PERIOD = {"since": "2026-10-08", "until": "2026-10-15"}
_TENANTS = count()


def tenant() -> str:
    return f"spend-question-{next(_TENANTS)}"


def usd(text: str) -> Decimal:
    return Decimal(text)


def day(number: int, seconds: int = 0) -> datetime:
    return OCTOBER + timedelta(days=number - 1, seconds=seconds)


_COSTS = st.none() | st.decimals(min_value=-5, max_value=5, places=12, allow_nan=False, allow_infinity=False)


@st.composite
def entries(draw: st.DrawFn) -> Call:
    kind = draw(st.sampled_from([("call", 1), ("void", -1), ("reprice", 0), ("trueup", 0)]))
    return Call(
        started_at=day(draw(st.integers(7, 16)), draw(st.integers(0, 86_399))),
        cost_usd=draw(_COSTS),
        customer=draw(st.sampled_from(["acme", "initech", ""])),
        feature=draw(st.sampled_from(["chat", "search"])),
        input_tokens=None if kind[1] == 0 else kind[1] * draw(st.integers(0, 1000)),
        output_tokens=None,
        entry=kind[0],
        calls=kind[1],
        tags={"plan": draw(st.sampled_from(["pro", "free"]))},
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(entries(), max_size=12),
    by=st.sampled_from(["total", "customer", "customer,feature", "tag:plan", "day,customer"]),
)
def test_spend_is_the_sum_of_rows(chdb_store: Store, rows: list[Call], by: str) -> None:
    mine = tenant()
    enter(chdb_store, mine, rows)
    within = [row for row in rows if day(8) <= row.started_at < day(15)]
    found = asked(chdb_store, mine, "spend", by=by, **PERIOD)
    priced = [row.cost_usd for row in within if row.cost_usd is not None]
    assert sum(row["cost_usd"] or 0 for row in found) == sum(priced, Decimal(0))
    assert sum(row["calls"] for row in found) == sum(row.calls for row in within)
    assert sum(row["tokens"] for row in found) == sum(row.input_tokens or 0 for row in within)
    # The command `costs` asks the same of the ledger in SQL of its own.
    names = [] if by == "total" else by.split(",")
    since, until = (int(at.timestamp()) * 10**9 for at in (day(8), day(15)))
    query = spend(names, since, until, where={"tenant": mine})
    costs = [dict(row) for row in chdb_store.client().query(query.text, parameters=query.params).named_results()]
    groups = {tuple(str(row[name]) for name in names): (row["calls"], row["cost_usd"], row["tokens"]) for row in costs}
    assert {tuple(str(row[name]) for name in names): (row["calls"], row["cost_usd"], row["tokens"]) for row in found} == groups


def test_spend_says_how_much_of_it_is_priced(chdb_store: Store) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(day(9), usd("0.3")), Call(day(9), None, input_tokens=300), Call(day(9), None, customer="new")])
    first, second = asked(chdb_store, mine, "spend", **PERIOD)
    assert (first["customer"], first["cost_usd"], first["share"]) == ("acme", usd("0.3"), 1)
    assert (first["calls_priced"], first["tokens_priced"]) == (0.5, pytest.approx(110 / 420))
    assert (second["customer"], second["cost_usd"], second["share"], second["calls_priced"]) == ("new", None, None, 0)


@pytest.mark.parametrize(
    ("given_", "calls"),
    [
        ({"since": "2026-10-08T12:00:00", "until": "2026-10-09"}, 1),
        ({"since": "2026-10-08T12:00:00+02:00", "until": "2026-10-09"}, 2),
        ({"since": "2026-10-08", "until": "2026-10-09", "where": ["customer=it's", "tag:plan=a=b"]}, 1),
        ({"since": "2026-10-08", "until": "2026-10-09", "where": "model=gpt-5"}, 2),
        ({"since": "2026-10-08", "until": "2026-10-09", "limit": "1"}, 1),
    ],
)
def test_periods_and_filters(chdb_store: Store, given_: dict[str, Any], calls: int) -> None:
    mine = tenant()
    rows = [Call(day(8, 11 * 3600), customer="it's", tags={"plan": "a=b"}), Call(day(8, 12 * 3600)), Call(day(9))]
    enter(chdb_store, mine, rows)
    assert sum(row["calls"] for row in asked(chdb_store, mine, "spend", **given_)) == calls


def test_top_drivers_add_up_to_the_change(chdb_store: Store) -> None:
    mine = tenant()
    told = {"up": ("1", "4"), "down": ("5", "2.5"), "new": (None, "0.5"), "gone": ("0.25", None)}
    rows = [Call(day(9), usd(now), customer=name) for name, (_, now) in told.items() if now]
    rows += [Call(day(2), usd(before), customer=name) for name, (before, _) in told.items() if before]
    enter(chdb_store, mine, [*rows, Call(day(31), usd("99")), Call(datetime(2026, 9, 30, 23, tzinfo=UTC), usd("99"))])
    found = asked(chdb_store, mine, "top-drivers", by="customer", **PERIOD)
    assert [row["customer"] for row in found] == ["up", "down", "new", "gone"]
    for row in found:
        before, now = (None if text is None else usd(text) for text in told[row["customer"]])
        change = (now or Decimal(0)) - (before or Decimal(0))
        assert (row["cost_usd"], row["before_usd"], row["change_usd"]) == (now, before, change)
        assert row["share"] == (None if now is None else pytest.approx(float(now) / 7))
        assert row["change_share"] == pytest.approx(float(change) / 0.75)
        assert row["grew_by"] == (None if before is None else pytest.approx(float(change / before)))
        assert (row["calls"], row["calls_before"]) == (int(now is not None), int(before is not None))
    assert sum(row["change_usd"] for row in found) == usd("0.75")
    changed = asked(chdb_store, mine, "top-drivers", by="customer", order="change", limit="2", **PERIOD)
    assert [row["customer"] for row in changed] == ["up", "down"]


def ids(number: int) -> dict[str, Any]:
    return {"trace_id": number.to_bytes(16, "big"), "more": {"span_id": number.to_bytes(8, "big")}}


def test_outliers_are_beside_what_is_usual(chdb_store: Store) -> None:
    mine = tenant()
    chat = [usd("0.01"), usd("0.02"), usd("0.03"), usd("0.04"), usd("0.90")]
    search = [usd("5"), usd("6"), usd("7")]
    rows = [Call(day(9, at), cost, feature="chat", **ids(at)) for at, cost in enumerate(chat, 1)]
    rows += [Call(day(9, at), cost, feature="search", input_tokens=at, **ids(at)) for at, cost in enumerate(search, 100)]
    # Dearest of all, but taken back; the one of 6 came to 6.5 by a new price; a call that cost nothing is no usual one.
    rows += [
        Call(day(9), usd("50"), feature="other", **ids(200)),
        Call(day(9), usd("-50"), feature="other", entry="void", calls=-1, **ids(200)),
    ]
    rows += [Call(day(9, 101), usd("0.5"), feature="search", entry="reprice", calls=0, input_tokens=None, **ids(101))]
    rows += [Call(day(9), usd("0"), feature="chat", **ids(201)), Call(day(9), None, feature="chat", **ids(202))]
    enter(chdb_store, mine, rows)
    found = asked(chdb_store, mine, "outliers", limit="3", **PERIOD)
    assert [(row["feature"], row["cost_usd"], row["input_tokens"]) for row in found] == [
        ("search", usd("7"), 102),
        ("search", usd("6.5"), 101),
        ("search", usd("5"), 100),
    ]
    assert [(row["usual_usd"], row["similar_calls"]) for row in found] == [(6, 3)] * 3
    (strangest,) = asked(chdb_store, mine, "outliers", limit="1", order="times", **PERIOD)
    usual = float(median(chat))
    assert (strangest["trace_id"], strangest["cost_usd"]) == (f"{5:032x}", usd("0.90"))
    assert (strangest["usual_usd"], strangest["times"]) == (pytest.approx(usual), pytest.approx(0.90 / usual))
    assert len(asked(chdb_store, mine, "outliers", at_least="0.9", **PERIOD)) == 4


def test_a_call_that_was_priced_later_can_be_an_outlier(chdb_store: Store) -> None:
    mine = tenant()
    unpriced = Call(day(9), None, **ids(1))
    taken_back = Call(day(9), None, entry="reprice", calls=-1, input_tokens=-100, output_tokens=-10, **ids(1))
    priced = Call(day(9), usd("3"), entry="reprice", calls=1, **ids(1))
    enter(chdb_store, mine, [unpriced, taken_back, priced])
    assert [(row["cost_usd"], row["similar_calls"]) for row in asked(chdb_store, mine, "outliers", **PERIOD)] == [(usd("3"), 1)]


def test_unit_costs(chdb_store: Store) -> None:
    mine = tenant()
    rows = [
        Call(day(9), usd("0.30"), session="s1", customer="acme"),
        Call(day(9), usd("0.10"), session="s1", customer="acme", status="error", output_tokens=0),
        Call(day(9), usd("0.20"), session="s2", customer="initech"),
        Call(day(9), usd("0.40"), session="", customer="acme"),
        Call(day(9), None, session="s3", customer="hooli"),
        # An idle GPU, shared out; and a call that was entered twice.
        Call(day(9), usd("0.50"), entry="allocation", calls=0, customer="acme", input_tokens=None, output_tokens=None),
        Call(day(9), usd("0.20"), session="s2", customer="initech", trace_id=b"2" * 16),
        Call(
            day(9), usd("-0.20"), session="s2", customer="initech", entry="void", calls=-1, input_tokens=-100, output_tokens=-10
        ),
    ]
    enter(chdb_store, mine, rows)
    (row,) = asked(chdb_store, mine, "unit-costs", by="total", **PERIOD)
    cost, calls, tokens = usd("1.50"), 4, 4 * 100 + 3 * 10
    assert (row["cost_usd"], row["calls"], row["sessions"], row["customers"]) == (cost, calls, 2, 2)
    assert row["per_call_usd"] == cost / calls
    assert row["per_session_usd"] == usd("0.60") / 2
    assert row["per_customer_usd"] == cost / 2
    assert row["per_1000_completions_usd"] == 1000 * cost / 3
    assert abs(row["per_million_tokens_usd"] - 1_000_000 * cost / tokens) < usd("1e-11")
    assert row["calls_priced"] == 0.8


def test_unit_costs_of_what_has_no_price_are_unknown(chdb_store: Store) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(day(9), None, session="s")])
    (row,) = asked(chdb_store, mine, "unit-costs", **PERIOD)
    assert {name: value for name, value in row.items() if name.endswith("_usd")} == dict.fromkeys(
        ("cost_usd", "per_call_usd", "per_session_usd", "per_customer_usd", "per_1000_completions_usd", "per_million_tokens_usd")
    )
    assert (row["calls"], row["calls_priced"]) == (0, 0)


def test_unit_costs_by_a_dimension_are_those_of_its_rows(chdb_store: Store) -> None:
    mine = tenant()
    rows = [Call(day(9), usd(f"0.{n}"), feature=f"f{n % 3}", session=f"s{n % 2}") for n in range(1, 10)]
    enter(chdb_store, mine, rows)
    costs = defaultdict(list)
    for row in rows:
        costs[row.feature].append(row.cost_usd or Decimal(0))
    found = {row["feature"]: row["per_call_usd"] for row in asked(chdb_store, mine, "unit-costs", **PERIOD)}
    assert found == {feature: sum(all_, Decimal(0)) / len(all_) for feature, all_ in costs.items()}


@pytest.mark.parametrize(
    "name", ["\\N", "\0", "a\tb\nc", "it's", "`\\`", "{limit:UInt32}", "%s", "名前", "*/ 1 /*by:names*/", "'; DROP TABLE ledger"]
)
def test_names_of_all_kinds_are_values(chdb_store: Store, name: str) -> None:
    mine = tenant()
    enter(chdb_store, mine, [Call(day(9), customer=name, tags={name: "x"}), Call(day(9), customer="other")])
    (row,) = asked(chdb_store, mine, "spend", where=[f"customer={name}", f"tag:{name}=x"], **PERIOD)
    assert (row["customer"], row["calls"]) == (name, 1)
    found = asked(chdb_store, mine, "spend", by=f"tag:{name}", **PERIOD)
    assert {value: row["calls"] for row in found for column, value in row.items() if column == f"tag:{name}"} == {"x": 1, "": 1}
