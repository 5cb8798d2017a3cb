"""models, sessions, waste, reasoning and unpriced, on calls by hand."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from asked import Call, asked, enter

from tallystick.ingest.store import Store

AT = datetime(2026, 10, 10, 8, tzinfo=UTC)
OCTOBER = {"since": "2026-10-01", "until": "2026-11-01"}
CENT = Decimal("0.01")
_IDS = count(1)


def new_tenant() -> str:
    return f"use-{next(_IDS)}"


def call(after: float = 0, seconds: float = 1, *, trace: int | None = None, cost: Decimal | None = CENT, **more: Any) -> Call:
    """Starts `after` seconds after AT."""
    id_ = next(_IDS)
    extra = {"span_id": id_.to_bytes(8, "big"), "duration_ns": round(seconds * 1e9)} | more.pop("more", {})
    return Call(AT + timedelta(seconds=after), cost, trace_id=(trace or id_).to_bytes(16, "big"), more=extra, **more)


def correction(of: Call, entry: str, cost: Decimal | None, calls: int, sign: int = 0) -> Call:
    """Of one call; sign: of its tokens, 0 is none."""
    read, written = (None if not sign or n is None else sign * n for n in (of.input_tokens, of.output_tokens))
    return replace(of, entry=entry, cost_usd=cost, calls=calls, input_tokens=read, output_tokens=written)


def voided(of: Call) -> Call:
    return correction(of, "void", None if of.cost_usd is None else -of.cost_usd, -1, -1)


def priced(of: Call, cost: Decimal) -> list[Call]:
    """What a reprice makes of an unpriced call."""
    return [correction(of, "reprice", None, -1, -1), correction(of, "reprice", cost, 1, 1)]


def ask(store: Store, tenant: str, name: str, /, **more: Any) -> list[dict[str, Any]]:
    return asked(store, tenant, name, **{**OCTOBER, **more})


def only(row: Mapping[str, Any], *names: str) -> list[Any]:
    return [row[name] for name in names]


def test_models(chdb_store: Store) -> None:
    of = new_tenant()
    twice, unpriced = call(900, response_model="b"), call(50, cost=None, response_model="b")
    calls = [
        call(10, response_model="a"),
        call(30, cost=Decimal("0.05"), response_model="a", status="error"),
        call(20, cost=None, response_model="a"),
        call(40, response_model="b", feature="search"),
        call(60, response_model="", more={"request_model": "asked for"}),
        call(999, response_model="c"),
    ]
    enter(
        chdb_store,
        of,
        [*calls, twice, voided(twice), unpriced, *priced(unpriced, Decimal("0.03")), correction(calls[0], "reprice", CENT, 0)],
    )
    enter(chdb_store, of, [voided(calls[-1])])
    rows = ask(chdb_store, of, "models", by="model,feature")
    assert [only(row, "model", "feature", "calls", "tokens", "cost_usd", "usd_per_call") for row in rows] == [
        ["a", "chat", 3, 330, Decimal("0.07"), Decimal("0.035")],
        ["b", "chat", 1, 110, Decimal("0.03"), Decimal("0.03")],
        ["asked for", "chat", 1, 110, CENT, CENT],
        ["b", "search", 1, 110, CENT, CENT],
    ]
    assert [row["share"] for row in rows] == pytest.approx([7 / 12, 3 / 12, 1 / 12, 1 / 12])
    assert only(rows[0], "calls_priced", "failed", "first_seen", "last_seen") == [
        pytest.approx(2 / 3), pytest.approx(1 / 3), "2026-10-10T08:00:10.000000000Z", "2026-10-10T08:00:30.000000000Z",
    ]  # fmt: skip
    assert ask(chdb_store, of, "models", where=["model=d"]) == []


def test_sessions(chdb_store: Store) -> None:
    of = new_tenant()
    twice = call(500, session="s1", response_model="z", agent="ghost")
    enter(
        chdb_store,
        of,
        [
            call(0, 2, trace=1, session="s1", agent="planner", response_model="x"),
            call(60, 5, trace=1, session="s1", agent="writer", response_model="y", status="error"),
            call(30, 1, trace=2, session="s1", cost=None, feature="search"),
            call(0, 1, trace=1, session="s2", cost=Decimal("0.05")),
            call(0, 1, trace=3, cost=Decimal("0.04")),
            Call(AT, Decimal("0.08"), entry="allocation", calls=0),
            twice,
            voided(twice),
        ],
    )
    first, second = ask(chdb_store, of, "sessions")
    assert only(second, "id", "customer", "feature", "calls", "tokens", "cost_usd", "unpriced_calls", "failed", "agents") == [
        "s1", "acme", "(several)", 3, 330, Decimal("0.02"), 1, 1, "planner, writer",
    ]  # fmt: skip
    assert only(second, "models") == ["gpt-5, x, y"]
    assert only(first, "id", "cost_usd", "seconds", "share", "models") == [
        "s2",
        Decimal("0.05"),
        1,
        pytest.approx(5 / 19),
        "gpt-5",
    ]
    assert second["first_seen"] == "2026-10-10T08:00:00.000000000Z"
    assert second["seconds"] == 65
    runs = ask(chdb_store, of, "sessions", of="run", limit="2")
    assert [only(row, "id", "cost_usd", "calls") for row in runs] == [
        [f"{1:032x}", Decimal("0.07"), 3],
        [f"{3:032x}", Decimal("0.04"), 1],
    ]
    assert ask(chdb_store, of, "sessions", where=["customer=nobody"]) == []


def test_sessions_of_two_tenants_are_two(chdb_store: Store) -> None:
    one, other = new_tenant(), new_tenant()
    enter(chdb_store, one, [call(session="same session", feature=one)])
    enter(chdb_store, other, [call(session="same session", feature=one)])
    assert [row["calls"] for row in asked(chdb_store, None, "sessions", **OCTOBER, where=[f"feature={one}"])] == [1, 1]


def test_waste(chdb_store: Store) -> None:
    of = new_tenant()
    twice, unpriced = call(status="error"), call(status="error", cost=None)
    enter(
        chdb_store,
        of,
        [
            call(cost=Decimal("0.1")),
            call(status="error", cost=Decimal("0.02")),
            call(status="error", cost=Decimal(0), input_tokens=None, output_tokens=None),
            call(status="cancelled", cost=Decimal("0.05"), more={"cache_read_tokens": 7}),
            call(status="cancelled", cost=None),
            call(feature="fine"),
            twice,
            voided(twice),
            unpriced,
            *priced(unpriced, Decimal("0.03")),
        ],
    )
    rows = ask(chdb_store, of, "waste", by="feature")
    assert [row["feature"] for row in rows] == ["chat"]
    assert only(rows[0], "calls", "errors", "cancelled", "unpriced", "input_tokens", "output_tokens") == [6, 3, 2, 1, 407, 40]
    assert only(rows[0], "waste_usd", "error_usd", "cancelled_usd", "share") == [CENT * 10, CENT * 5, CENT * 5, 0.5]
    assert only(rows[0], "retries", "retries_usd") == [0, None]


def test_waste_by_kind_of_error_and_of_nothing(chdb_store: Store) -> None:
    of = new_tenant()
    kinds = [("rate_limit", None), ("timeout", CENT)]
    enter(chdb_store, of, [call(status="error", cost=cost, more={"error_type": kind}) for kind, cost in kinds])
    rows = ask(chdb_store, of, "waste", by="error_type")
    assert [only(row, "error_type", "waste_usd", "share") for row in rows] == [["timeout", CENT, 1], ["rate_limit", None, None]]
    assert ask(chdb_store, of, "waste", where=["feature=none"]) == []


RETRIES = [
    ("the next, soon", [(0, "error", "s", "chat"), (5, "ok", "s", "chat")], 1),
    ("a chain", [(0, "error", "s", "chat"), (5, "error", "s", "chat"), (10, "ok", "s", "chat")], 2),
    ("too late", [(0, "error", "s", "chat"), (31.5, "ok", "s", "chat")], 0),
    ("just in time", [(0, "error", "s", "chat"), (31, "ok", "s", "chat")], 1),
    ("not the next", [(0, "error", "s", "chat"), (5, "ok", "s", "chat"), (8, "ok", "s", "chat")], 1),
    ("beside it", [(0, "error", "s", "chat"), (0.5, "ok", "s", "chat")], 0),
    ("another feature", [(0, "error", "s", "chat"), (5, "ok", "s", "search")], 0),
    ("the next of its feature", [(0, "error", "s", "chat"), (5, "ok", "s", "search"), (8, "ok", "s", "chat")], 1),
    ("another session", [(0, "error", "s", "chat"), (5, "ok", "t", "chat")], 0),
    ("no session, another trace", [(0, "error", "", "chat"), (5, "ok", "", "chat")], 0),
    ("cancelled before", [(0, "cancelled", "s", "chat"), (5, "ok", "s", "chat")], 0),
]


@pytest.mark.parametrize(("calls", "retries"), [case[1:] for case in RETRIES], ids=[case[0] for case in RETRIES])
def test_what_a_retry_is(chdb_store: Store, calls: list[tuple[float, str, str, str]], retries: int) -> None:
    of = new_tenant()
    enter(
        chdb_store,
        of,
        [call(after, status=status, session=session, feature=feature) for after, status, session, feature in calls],
    )
    rows = ask(chdb_store, of, "waste", by="total")
    assert only(rows[0], "retries", "retries_usd", "calls") == [retries, CENT * retries if retries else None, len(calls)]


def test_retries_within_a_trace_as_long_as_wished_and_as_corrected(chdb_store: Store) -> None:
    of = new_tenant()
    again, between = call(100, trace=77), call(50, trace=77)
    enter(
        chdb_store,
        of,
        [call(trace=77, status="error"), again, correction(again, "reprice", Decimal("0.02"), 0), between, voided(between)],
    )
    assert ask(chdb_store, of, "waste")[0]["retries"] == 0
    assert only(ask(chdb_store, of, "waste", within="99")[0], "retries", "retries_usd") == [1, Decimal("0.03")]
    assert ask(chdb_store, of, "waste", within="98.5")[0]["retries"] == 0


@pytest.fixture
def reasoning_prices(chdb_store: Store) -> None:
    """thinker: 1 USD a million tokens out, 3 of reasoning."""
    rates = [Decimal(rate) / 1_000_000 for rate in (0, 0, 0, 0, 1, 3, 0, 0, 0, 0)]
    row = ["use", "p", "thinker", "thinker", "", datetime(1970, 1, 1, tzinfo=UTC), ["thinker"], rates, [], []]
    columns = (
        "book",
        "provider",
        "request_model",
        "response_model",
        "service_tier",
        "valid_from",
        "price_ids",
        "rates",
        "above",
        "day_starts",
    )
    chdb_store.client().insert("prices", [row], column_names=columns)


@pytest.mark.usefixtures("reasoning_prices")
def test_reasoning(chdb_store: Store) -> None:
    of = new_tenant()

    def thought(reasoning: int | None, output: int, cost: str | None = "0.001", price: str = "thinker", **more: Any) -> Call:
        known = {"price_id": price, "reasoning_tokens": reasoning}
        return call(cost=None if cost is None else Decimal(cost), output_tokens=output, more=known, **more)

    twice = thought(500, 600)
    back = replace(voided(twice), more={**twice.more, "reasoning_tokens": -500})
    enter(
        chdb_store,
        of,
        [
            thought(100, 300),
            thought(0, 100),
            thought(None, 1000),
            thought(50, 100, None, ""),
            twice,
            back,
            thought(None, 9, feature="quick"),
        ],
    )
    chat, quick = ask(chdb_store, of, "reasoning", by="feature")
    assert only(chat, "calls", "told", "output_tokens", "reasoning_tokens", "share", "tokens_per_call") == [
        4,
        0.75,
        500,
        150,
        0.3,
        50,
    ]
    assert only(chat, "reasoning_usd", "share_of_cost", "unpriced") == [Decimal("0.0003"), 0.15, 1]
    assert list(quick.values()) == ["quick", 1, 0, None, None, None, None, None, None, 0]
    assert ask(chdb_store, of, "reasoning", where=["feature=none"]) == []


def test_reasoning_at_an_unknown_rate_is_no_zero(chdb_store: Store) -> None:
    of = new_tenant()
    enter(chdb_store, of, [call(more={"reasoning_tokens": 10, "price_id": "of an unknown book"})])
    assert only(ask(chdb_store, of, "reasoning")[0], "reasoning_tokens", "reasoning_usd", "unpriced") == [10, None, 1]


def test_unpriced(chdb_store: Store) -> None:
    of = new_tenant()
    since_priced, twice = call(cost=None, response_model="new"), call(cost=None, response_model="new")
    enter(
        chdb_store,
        of,
        [
            call(cost=Decimal("0.06"), input_tokens=590),
            call(10, cost=None, response_model="new", more={"provider": "p", "cache_write_1h_tokens": 40}),
            call(20, cost=None, response_model="new", more={"provider": "p"}),
            call(30, cost=None, response_model="mute", input_tokens=None, output_tokens=None),
            since_priced,
            *priced(since_priced, Decimal("0.02")),
            twice,
            voided(twice),
        ],
    )
    # Priced: 600 + 110 tokens, 2 calls, 0.08 USD.
    by_tokens, by_calls = 260 * 0.08 / 710, 0.04
    mute, new = ask(chdb_store, of, "unpriced")
    assert only(new, "provider", "model", "why", "calls", "tokens", "calls_share", "tokens_share") == [
        "p", "new", "no price", 2, 260, 0.4, pytest.approx(260 / 970),
    ]  # fmt: skip
    assert only(mute, "model", "why", "calls", "tokens", "calls_share", "tokens_share") == ["mute", "usage unknown", 1, 0, 0.2, 0]
    assert only(new, "guess_usd", "guess_share") == [
        Decimal(f"{by_tokens:.6f}"),
        pytest.approx(by_tokens / (0.08 + by_tokens + by_calls)),
    ]
    assert only(mute, "guess_usd", "guess_share") == [Decimal("0.04"), pytest.approx(by_calls / (0.08 + by_tokens + by_calls))]
    assert only(new, "first_seen", "last_seen") == ["2026-10-10T08:00:10.000000000Z", "2026-10-10T08:00:20.000000000Z"]


def test_unpriced_where_nothing_is_priced_there_is_no_guess(chdb_store: Store) -> None:
    of = new_tenant()
    enter(chdb_store, of, [call(cost=None)])
    assert only(ask(chdb_store, of, "unpriced")[0], "calls", "guess_usd", "guess_share", "calls_share") == [1, None, None, 1]
    assert ask(chdb_store, of, "unpriced", where=["customer=none"]) == []
