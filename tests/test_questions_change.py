"""what-changed: its terms are what their definitions say, and add up to the difference, whatever the ledger holds."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import Any

import pytest
from asked import Call, asked, enter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.ingest.store import Store

BEFORE, NOW = datetime(2026, 9, 10, 8, tzinfo=UTC), datetime(2026, 10, 10, 8, tzinfo=UTC)
PERIOD = {"since": "2026-10-01", "until": "2026-11-01", "against_since": "2026-09-01", "against_until": "2026-10-01"}
TERMS = ("volume_usd", "mix_usd", "tokens_usd", "cache_usd", "price_usd", "new_or_gone_usd", "allocated_usd")
BUCKETS = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")
RATES: Mapping[str, Sequence[str]] = {"cheap": ("1", "0.1", "1.25", "2", "4"), "dear": ("3", "0.3", "3.75", "6", "15")}
"""USD for a million tokens, by BUCKETS."""
_TENANTS = count()


@pytest.fixture(scope="module")
def store(chdb_store: Store) -> Store:
    """With prices whose ids are the names of RATES."""
    rows = []
    for name, given_rates in RATES.items():
        *first, output = (Decimal(rate) / 1_000_000 for rate in given_rates)
        rates = [*first, output, output, first[0], output, first[0], Decimal(0)]
        rows.append(["what-changed", "p", name, name, "", datetime(1970, 1, 1, tzinfo=UTC), [name], rates, [], []])
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
    chdb_store.client().insert("prices", rows, column_names=columns)
    return chdb_store


def tenant() -> str:
    return f"what-changed-{next(_TENANTS)}"


def call(at: datetime, price: str = "cheap", tokens: Sequence[int | None] = (), cost: Decimal | None = None, **more: Any) -> Call:
    """Costs what its price says unless told."""
    counts = dict(zip(BUCKETS, tokens, strict=False))
    paid = sum((Decimal(n or 0) * Decimal(rate) for n, rate in zip(tokens, RATES[price], strict=False)), Decimal(0)) / 1_000_000
    others = {"price_id": price, **{name: n for name, n in counts.items() if name not in ("input_tokens", "output_tokens")}}
    return Call(
        at,
        paid if cost is None else cost,
        input_tokens=counts.get("input_tokens"),
        output_tokens=counts.get("output_tokens"),
        more=others | more.pop("more", {}),
        **more,
    )


def ask(store: Store, of: str, **more: Any) -> list[dict[str, Any]]:
    return asked(store, of, "what-changed", **{**PERIOD, **more})


def terms(row: Mapping[str, Any]) -> dict[str, Decimal]:
    return {name: row[name] for name in TERMS if row[name]}


ALONE = [
    # 10 calls of 1,000 + 100 tokens at 1 and 4 USD a million: 0.0014 each.
    ("volume_usd", [call(NOW, tokens=(1000, 0, 0, 0, 100))] * 15, "0.007"),
    ("tokens_usd", [call(NOW, tokens=(2000, 0, 0, 0, 50))] * 10, "0.008"),
    # 600 of 1,000 from the cache at a tenth.
    ("cache_usd", [call(NOW, tokens=(400, 600, 0, 0, 100))] * 10, "-0.0054"),
    ("price_usd", [call(NOW, "dear", tokens=(1000, 0, 0, 0, 100))] * 10, "0.031"),
    (
        "mix_usd",
        [call(NOW, tokens=(1000, 0, 0, 0, 100))] * 5 + [call(NOW, "dear", (100, 0, 0, 0, 0), response_model="other")] * 5,
        "-0.0055",
    ),
    ("new_or_gone_usd", [], "-0.014"),
]


@pytest.mark.parametrize(("term", "calls", "amount"), ALONE, ids=[case[0] for case in ALONE])
def test_what_changes_alone_is_one_term(store: Store, term: str, calls: list[Call], amount: str) -> None:
    of = tenant()
    enter(store, of, [call(BEFORE, tokens=(1000, 0, 0, 0, 100))] * 10 + calls)
    total, group = ask(store, of)
    assert (total["level"], group["level"], group["feature"]) == ("total", "group", "chat")
    assert terms(group) == terms(total) == {term: Decimal(amount)}
    assert group["change_usd"] == Decimal(amount)
    assert (group["before_usd"], group["calls_before"], group["calls"]) == (Decimal("0.014"), 10, len(calls))


def test_corrections_are_price_and_allocations_a_term_of_their_own(store: Store) -> None:
    of = tenant()
    was = call(BEFORE, tokens=(1000, 0, 0, 0, 0))
    enter(store, of, [was, was, call(BEFORE, tokens=(-1000, 0, 0, 0, 0), entry="void", calls=-1)])
    enter(store, of, [call(NOW, tokens=(1000,)), call(NOW, "dear", (None,), Decimal("0.002"), entry="reprice", calls=0)])
    day = NOW.replace(hour=0)
    shared = [
        call(day, cost=Decimal(cost), entry=kind, calls=0, more={"price_id": ""})
        for kind, cost in (("allocation", "0.3"), ("trueup", "-0.1"))
    ]
    enter(store, of, shared)
    total, _ = ask(store, of)
    assert terms(total) == {"price_usd": Decimal("0.002"), "allocated_usd": Decimal("0.2")}
    assert (total["calls_before"], total["calls"]) == (1, 1)


def test_a_price_that_was_first_known_later(store: Store) -> None:
    """Its call is taken back unpriced and entered again, as a reprice does it."""
    of = tenant()
    unpriced = Call(NOW, None)
    back, again = (
        Call(NOW, None, entry="reprice", calls=-1, input_tokens=-100, output_tokens=-10),
        call(NOW, tokens=(100, 0, 0, 0, 10), entry="reprice"),
    )
    enter(store, of, [unpriced])
    total = ask(store, of)[0]
    assert (total["before_usd"], total["cost_usd"], total["change_usd"], total["calls"], total["unpriced"]) == (
        None,
        None,
        0,
        0,
        1,
    )
    enter(store, of, [back, again])
    total = ask(store, of)[0]
    assert (total["cost_usd"], total["calls"], total["unpriced"]) == (Decimal("0.00014"), 1, 0)


def test_a_cache_that_is_new_counts_at_the_rate_it_would_have_had(store: Store) -> None:
    of = tenant()
    enter(store, of, [call(BEFORE, tokens=(1000, 0, 0, 0, 0)), call(NOW, "dear", (500, 500, 0, 0, 0))])
    # At the rates of before: 500 tokens at 0.1 instead of 1 USD a million. Then all is three times as dear.
    assert terms(ask(store, of)[0]) == {"cache_usd": Decimal("-0.00045"), "price_usd": Decimal("0.0011")}


def test_input_that_is_new_counts_at_the_full_rate_it_would_have_had(store: Store) -> None:
    of = tenant()
    enter(store, of, [call(BEFORE, tokens=(0, 0, 0, 0, 100)), call(NOW, tokens=(500, 500, 0, 0, 100))])
    assert terms(ask(store, of)[0]) == {"tokens_usd": Decimal("0.001"), "cache_usd": Decimal("-0.00045")}


@pytest.mark.parametrize("column", ["provider", "service_tier", "request_model"])
def test_another_provider_tier_or_model_is_mix(store: Store, column: str) -> None:
    of = tenant()
    enter(
        store,
        of,
        [call(BEFORE, tokens=(1000,), response_model=""), call(NOW, "dear", (1000,), response_model="", more={column: "other"})],
    )
    assert terms(ask(store, of)[0]) == {"mix_usd": Decimal("0.002")}


def test_without_rates_tokens_cost_the_same(store: Store) -> None:
    of = tenant()
    unknown = {"price_id": "nobody knows"}
    enter(store, of, [call(BEFORE, tokens=(900, 0, 0, 0, 100), cost=Decimal("0.01"), more=unknown)])
    enter(store, of, [call(NOW, tokens=(900, 900, 0, 0, 200), cost=Decimal("0.03"), more=unknown)])
    assert terms(ask(store, of)[0]) == {"tokens_usd": Decimal("0.01"), "price_usd": Decimal("0.01")}


def test_audio_and_reasoning_are_counted_at_their_own_rates(store: Store) -> None:
    of = tenant()
    row = ["what-changed", "p", "voice", "voice", "", datetime(1970, 1, 1, tzinfo=UTC), ["voice"], [], [], []]
    row[7] = [Decimal(rate) / 1_000_000 for rate in (1, 0, 0, 0, 2, 8, 10, 20, 5, 0)]
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
    store.client().insert("prices", [row], column_names=columns)
    parts = {
        "price_id": "voice",
        "audio_input_tokens": 10,
        "image_input_tokens": 20,
        "audio_output_tokens": 5,
        "reasoning_tokens": 10,
    }
    # 70 x 1 + 10 x 10 + 20 x 5 = 270; 25 x 2 + 5 x 20 + 10 x 8 = 230
    enter(store, of, [call(BEFORE, tokens=(100, None, None, None, 40), cost=Decimal("0.0005"), more=parts)])
    # Twice the input of the same kind, at the average rate; nothing is left for price.
    twice = parts | {"audio_input_tokens": 20, "image_input_tokens": 40}
    enter(store, of, [call(NOW, tokens=(200, None, None, None, 40), cost=Decimal("0.00077"), more=twice)])
    assert terms(ask(store, of)[0]) == {"tokens_usd": Decimal("0.00027")}


def test_the_period_before_and_one_that_is_given(store: Store) -> None:
    of = tenant()
    days = {"2026-10-29": 1, "2026-10-30": 2, "2026-10-31": 4, "2026-09-01": 8}
    enter(store, of, [call(datetime.fromisoformat(day).replace(tzinfo=UTC), cost=Decimal(cost)) for day, cost in days.items()])
    period = {"since": "2026-10-31", "until": "2026-11-01"}
    assert asked(store, of, "what-changed", **period)[0]["before_usd"] == 2
    assert (
        asked(store, of, "what-changed", **period, against_since="2026-09-01", against_until="2026-10-30")[0]["before_usd"] == 9
    )
    overlapping = asked(store, of, "what-changed", **period, against_since="2026-10-30", against_until="2026-11-01")[0]
    assert (overlapping["before_usd"], overlapping["cost_usd"]) == (2, 4)


def test_the_total_is_of_all_groups_whatever_the_limit(store: Store) -> None:
    of = tenant()
    enter(store, of, [call(NOW, cost=Decimal(n), customer=f"c{n}") for n in range(1, 5)])
    rows = ask(store, of, by="customer", limit="2")
    assert [(row["level"], row["customer"], row["change_usd"]) for row in rows] == [
        ("total", "", 10),
        ("group", "c4", 4),
        ("group", "c3", 3),
    ]


def test_of_nothing_there_is_no_row(store: Store) -> None:
    of = tenant()
    assert ask(store, of) == ask(store, of, by="total") == []


counts = st.integers(0, 5_000)
generated = st.builds(
    call,
    st.sampled_from([BEFORE, NOW]),
    st.sampled_from([*RATES]),
    st.tuples(counts, *[st.one_of(st.none(), counts)] * 3, counts),
    # Not what the price says: reported by a trueup, rounded, of a fee.
    st.one_of(st.none(), st.decimals("0", "3", places=12)),
    feature=st.sampled_from("ab"),
    response_model=st.sampled_from("xyz"),
)


def expected(calls: Sequence[Call]) -> dict[str, Fraction]:
    """The terms of one group of priced calls, a call at a time: n × tokens a call × share × rate, one factor after the other."""
    n = [Fraction(sum(c.started_at == at for c in calls)) for at in (BEFORE, NOW)]
    cost = [sum((Fraction(c.cost_usd or 0) for c in calls if c.started_at == at), Fraction(0)) for at in (BEFORE, NOW)]
    if not (n[0] and n[1]):
        return {"new_or_gone_usd": cost[1] - cost[0]}
    found: dict[str, Fraction] = defaultdict(
        Fraction, {"volume_usd": (n[1] - n[0]) * cost[0] / n[0], "mix_usd": -n[1] * cost[0] / n[0]}
    )
    for kind in {c.response_model for c in calls if c.started_at == NOW}:
        old, new = ([c for c in calls if c.response_model == kind and c.started_at == at] for at in (BEFORE, NOW))
        paid = [sum((Fraction(c.cost_usd or 0) for c in side), Fraction(0)) for side in (old, new)]
        if not old:
            found["mix_usd"] += paid[1]
            continue
        found["mix_usd"] += len(new) * paid[0] / len(old)
        a_call = [[Fraction(sum(tokens_of(c)[at] for c in side), len(side)) for at in range(5)] for side in (old, new)]
        listed = [
            [Fraction(sum(tokens_of(c)[at] * rate_of(c, at) for c in side)) / len(side) for at in range(5)] for side in (old, new)
        ]
        rates = [
            listed[0][at] / a_call[0][at] if a_call[0][at] else sum((rate_of(c, at) for c in old), Fraction(0)) / len(old)
            for at in range(5)
        ]
        reads = [sum(side[:4], Fraction(0)) for side in a_call]
        read_rate = sum(listed[0][:4], Fraction(0)) / reads[0] if reads[0] else rates[0]
        tokens = (reads[1] - reads[0]) * read_rate + (a_call[1][4] - a_call[0][4]) * rates[4]
        cache = sum((a_call[1][at] * rates[at] for at in range(4)), Fraction(0)) - reads[1] * read_rate
        found["tokens_usd"] += len(new) * tokens
        found["cache_usd"] += len(new) * cache
        found["price_usd"] += paid[1] - len(new) * (paid[0] / len(old) + tokens + cache)
    return found


def tokens_of(one: Call) -> list[int]:
    row = vars(one) | dict(one.more)
    return [row.get(name) or 0 for name in BUCKETS]


def rate_of(one: Call, at: int) -> Fraction:
    return Fraction(RATES[one.more["price_id"]][at]) / 1_000_000


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(generated, min_size=1, max_size=25))
def test_terms_are_as_defined_and_add_up(store: Store, calls: list[Call]) -> None:
    of = tenant()
    enter(store, of, calls)
    total, *groups = ask(store, of)
    for row in (total, *groups):
        assert row["change_usd"] == sum(row[name] for name in TERMS) == (row["cost_usd"] or 0) - (row["before_usd"] or 0)
    sums = {at: sum((c.cost_usd or Decimal(0) for c in calls if c.started_at == at), Decimal(0)) for at in (BEFORE, NOW)}
    assert (total["before_usd"] or 0, total["cost_usd"] or 0) == (sums[BEFORE], sums[NOW])
    assert all(total[name] == sum(group[name] for group in groups) for name in TERMS)
    for group in groups:
        found = expected([c for c in calls if c.feature == group["feature"]])
        # Rounded to 12 decimals each, of which price takes the rest.
        assert {name: abs(Fraction(group[name]) - found.get(name, 0)) < Fraction(4, 10**12) for name in TERMS} == dict.fromkeys(
            TERMS, True
        )


def test_a_month_against_a_longer_one(store: Store) -> None:
    """Terms add up also where divisions don't come out even, in large amounts."""
    of = tenant()
    enter(
        store,
        of,
        [call(BEFORE + timedelta(hours=n), tokens=(n, 1, 2, 3, 7 * n), cost=Decimal(n) / 7 * 10**5) for n in range(1, 20)],
    )
    enter(store, of, [call(NOW + timedelta(hours=n), "dear", (n, 5, 2, 3, n), Decimal(n) / 3 * 10**5) for n in range(1, 12)])
    for row in ask(store, of):
        assert row["change_usd"] == sum(row[name] for name in TERMS)
        assert all(row[name] for name in ("volume_usd", "tokens_usd", "cache_usd", "price_usd"))
