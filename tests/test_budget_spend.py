"""All budgets of a tick in one statement: what it answers, beside sums made by hand."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from entries import Entry, Ledger, a_ledger
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tallystick.alerts.forecast import history_from, step_of
from tallystick.alerts.model import Measure, Period, Spend
from tallystick.alerts.periods import PeriodSpec, Unit, period_at, previous
from tallystick.alerts.spend import Wanted, history, spends
from tallystick.attribution.spend import spend as spend_by

NOW = datetime(2026, 3, 29, 12, 34, 56, 789_000, tzinfo=UTC)
"""On the day on which Berlin loses an hour."""
UTC_START = datetime(1970, 1, 1, tzinfo=UTC)
MARCH = period_at(PeriodSpec(Unit.MONTH), NOW)
CORRECTIONS = {"reprice", "trueup", "allocation"}
ODD = ["", "acme", "it's", "a\\b", "x\ty"]


@pytest.fixture(scope="module")
def ledger(chdb_client: Client, chdb_path: Path) -> Iterator[Ledger]:
    with a_ledger(chdb_client, chdb_path) as opened:
        yield opened


def counted(ledger: Ledger) -> tuple[Any, list[str]]:
    """An `ask` that writes down what it is asked."""
    asked: list[str] = []

    def ask(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        asked.append(sql)
        return ledger.ask(sql, params)

    return ask, asked


def of(entry: Entry, dimension: str) -> str:
    if dimension.startswith("tag:"):
        return entry.tags.get(dimension.removeprefix("tag:"), "")
    return str(getattr(entry, dimension))


def by_hand(entries: Sequence[Entry], wanted: Wanted) -> dict[str, Spend]:
    groups: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        inside = wanted.period.start <= entry.at < wanted.period.end
        if inside and all(of(entry, dimension) in values for dimension, values in wanted.scope.items()):
            groups[of(entry, wanted.each) if wanted.each else ""].append(entry)
    if wanted.each is None:
        groups[""]
    return {
        value: Spend(
            value,
            cost=sum((one.cost for one in group if one.cost is not None), Decimal(0)),
            corrections=sum((one.cost for one in group if one.cost is not None and one.entry in CORRECTIONS), Decimal(0)),
            tokens=sum(count or 0 for one in group for count in one.tokens),
            priced_tokens=sum(count or 0 for one in group if one.cost is not None for count in one.tokens),
            calls=sum(one.calls for one in group),
            priced_calls=sum(one.calls for one in group if one.cost is not None),
        )
        for value, group in groups.items()
    }


moments = st.one_of(
    st.datetimes(datetime(2026, 2, 20), datetime(2026, 4, 3), timezones=st.just(UTC)),  # noqa: DTZ001
    # Around midnight in UTC, Berlin and Kolkata, to the microsecond.
    st.builds(
        lambda day, hour, off: datetime(2026, 3, 1, tzinfo=UTC) + timedelta(days=day, hours=hour, microseconds=off),
        st.integers(-8, 32), st.sampled_from([0, 18.5, 22, 23]), st.integers(-1, 1),
    ),
)  # fmt: skip
counts = st.none() | st.integers(-5_000, 10**12)
entries = st.builds(
    Entry,
    at=moments,
    cost=st.none() | st.decimals(-1000, 1000, places=12),
    entry=st.sampled_from(["call", "call", "call", "void", "reprice", "trueup", "allocation"]),
    calls=st.integers(-1, 1),
    tenant=st.sampled_from(["default", "globex"]),
    customer=st.sampled_from(ODD),
    feature=st.sampled_from(["chat", "search"]),
    agent=st.sampled_from(["", "writer"]),
    team=st.sampled_from(["blue", "red"]),
    user=st.sampled_from(["u1", "u2"]),
    tags=st.sampled_from([{}, {"plan": "free"}, {"plan": "it's", "x": "y"}]),
    model=st.sampled_from(["gpt-5", "claude"]),
    status=st.sampled_from(["ok", "error"]),
    tokens=st.tuples(counts, counts, counts, counts, counts),
)
VALUES: Mapping[str, list[str]] = {
    "customer": [*ODD, "nobody"], "feature": ["chat", "search"], "agent": ["", "writer"], "team": ["blue", "red"], "tenant": ["default", "globex"],
    "user": ["u1", "u2"], "status": ["ok", "error", "no such status"], "tag:plan": ["", "free", "it's"], "model": ["gpt-5", "claude"],
}  # fmt: skip
scopes = st.lists(
    st.sampled_from(sorted(VALUES)) | st.sampled_from(["agent", "feature", "team"]), max_size=3, unique=True
).flatmap(
    lambda names: st.fixed_dictionaries(
        {name: st.lists(st.sampled_from(VALUES[name]), min_size=1, max_size=3, unique=True).map(tuple) for name in names}
    )
)
specs = st.builds(
    PeriodSpec,
    st.sampled_from(list(Unit)),
    st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]),
    st.sampled_from([0, 6]),
)
periods = st.builds(
    lambda spec, back: previous(spec, period_at(spec, NOW)) if back else period_at(spec, NOW), specs, st.booleans()
)
budgets = st.lists(periods, min_size=1, max_size=3).flatmap(
    lambda few: st.lists(
        st.builds(
            Wanted,
            st.uuids().map(str),
            st.sampled_from(few),
            scopes,
            st.none() | st.sampled_from(sorted(VALUES)),
            st.sampled_from(list(Measure)),
        ),
        min_size=1,
        max_size=12,
    )
)


@settings(
    max_examples=40,
    deadline=None,
    phases=(Phase.generate,),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(written=st.lists(entries, max_size=40), wanted=budgets)
def test_any_budgets_over_any_ledger_are_what_one_would_add_up(
    ledger: Ledger, written: list[Entry], wanted: list[Wanted]
) -> None:
    ledger.forget()
    if written:
        ledger.enter(written)
    ask, asked = counted(ledger)
    found = spends(ask, wanted, full=True)
    assert len(asked) == 1
    lean = spends(ask, wanted)
    for one in wanted:
        expected = by_hand(written, one)
        assert {each.value: each for each in found[one.key]} == expected
        told = {each.value: (each.of(one.measure), each.corrections) for each in lean[one.key]}
        assert told == {value: (each.of(one.measure), each.corrections) for value, each in expected.items()}


CALLS = [
    Entry(MARCH.start + timedelta(hours=5 * n), Decimal(n) * Decimal("1.000000000003"), customer=f"c{n % 7}", feature=f"f{n % 3}", team="red", user=f"u{n % 5}")
    for n in range(140)
]  # fmt: skip
EARLIER = [replace(CALLS[n], at=MARCH.start - timedelta(hours=5 * n, minutes=1)) for n in range(140)]


@pytest.fixture(scope="module")
def march(ledger: Ledger) -> Ledger:
    ledger.forget()
    ledger.enter([*EARLIER, *CALLS])
    return ledger


def test_totals_are_those_of_the_api(march: Ledger) -> None:
    (found,) = spends(march.ask, [Wanted("each", MARCH, each="customer")], full=True).values()
    since, until = (int(at.timestamp()) * 10**9 for at in (MARCH.start, MARCH.end))
    asked = spend_by(["customer"], since, until)
    rows = list(march.client.query(asked.text, parameters=asked.params).named_results())
    assert {one.value: (one.cost, one.tokens, one.calls, one.priced_tokens, one.priced_calls) for one in found} == {
        row["customer"]: (row["cost_usd"], row["tokens"], row["calls"], row["priced_tokens"], row["priced_calls"]) for row in rows
    }
    assert len(found) == 7


BERLIN = period_at(PeriodSpec(Unit.MONTH, "Europe/Berlin"), NOW)


@pytest.mark.parametrize(
    ("wanted", "projection", "rows"),
    [
        pytest.param(Wanted("utc", MARCH, each="customer"), 1, 1, id="a month of UTC is asked of the projection"),
        pytest.param(Wanted("berlin", BERLIN, each="customer"), 1, 2, id="one of Berlin too, but for its edges"),
        pytest.param(Wanted("scope", MARCH, {"customer": ("c1",), "feature": ("f1", "f2")}), 1, 1, id="with values fixed"),
        pytest.param(Wanted("tokens", MARCH, measure=Measure.TOKENS), 1, 1, id="tokens"),
        pytest.param(Wanted("user", MARCH, each="user"), 0, 2, id="no user is in it"),
    ],
)
@pytest.mark.parametrize("full", [False, True])
def test_the_projection_answers_for_whole_days(march: Ledger, wanted: Wanted, projection: int, rows: int, full: bool) -> None:
    read: list[str] = []

    def explain(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        read.extend(str(row[0]) for row in march.ask(f"EXPLAIN {sql}", params) if "ReadFromMergeTree" in str(row[0]))
        return []

    spends(explain, [wanted], full=full)
    assert (sum("(spend)" in line for line in read), sum("(spend)" not in line for line in read)) == (projection, rows)


def test_budgets_on_the_same_dimensions_share_a_scan(march: Ledger) -> None:
    wanted = [Wanted(f"budget {n}", MARCH, {"customer": (f"c{n}",)}) for n in range(2_000)]
    wanted += [
        Wanted("each", MARCH, each="customer"),
        Wanted("f", MARCH, each="feature"),
        Wanted("t", MARCH, {"team": ("red",)}),
        Wanted("all", MARCH),
    ]
    ask, asked = counted(march)
    found = spends(ask, wanted)
    assert (len(asked), asked[0].count("FROM ledger")) == (1, 3)
    assert [one.cost for one in found["budget 3", MARCH.start]] == [
        sum((one.cost or 0 for one in CALLS if one.customer == "c3"), Decimal(0))
    ]
    assert [one.cost for one in found["budget 1999", MARCH.start]] == [0]
    assert found["t", MARCH.start] == found["all", MARCH.start]
    assert {one.value for one in found["each", MARCH.start]} == {f"c{n}" for n in range(7)}


@pytest.mark.parametrize(
    ("wanted", "filtered"),
    [
        pytest.param(
            [Wanted("a", MARCH, {"user": ("u1",)}), Wanted("b", MARCH, {"user": ("u2", "u3")})], True, id="of users a few"
        ),
        pytest.param([Wanted("a", MARCH, {"user": tuple(f"u{n}" for n in range(2_000))})], True, id="of users many"),
        pytest.param([Wanted("a", MARCH, {"user": ("u1",)}), Wanted("b", MARCH, each="user")], False, id="all users"),
        pytest.param([Wanted("a", MARCH, {"customer": tuple(f"c{n}" for n in range(2_000))})], False, id="of customers many"),
    ],
)
def test_only_values_that_somebody_looks_at_are_asked_for(march: Ledger, wanted: list[Wanted], filtered: bool) -> None:
    ask, asked = counted(march)
    spends(ask, wanted)
    assert bool(re.search("(user|customer) IN", asked[0])) == filtered


def test_no_budgets_ask_nothing() -> None:
    def ask(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        raise AssertionError

    assert not spends(ask, [])
    assert not history(ask, [])


def test_what_was_not_asked_for_is_unknown(march: Ledger) -> None:
    (found,) = spends(march.ask, [Wanted("cost", MARCH)]).values()
    assert (found[0].tokens, found[0].calls, found[0].priced_share) == (None, None, None)
    with pytest.raises(ValueError, match="tokens weren't asked for"):
        found[0].of(Measure.TOKENS)


@pytest.mark.parametrize("measure", Measure)
@pytest.mark.parametrize("each", [None, "customer", "user"])
@pytest.mark.parametrize(
    "period", [MARCH, BERLIN, period_at(PeriodSpec(Unit.DAY), datetime(2026, 3, 20, tzinfo=UTC))], ids=["utc", "berlin", "day"]
)
def test_history_is_spend_by_step(march: Ledger, period: Period, each: str | None, measure: Measure) -> None:
    wanted = Wanted("budget", period, {"feature": ("f0", "f2")}, each, measure)
    steps = history(march.ask, [wanted])[wanted.key]
    size, since = step_of(period), history_from(period)
    expected: dict[str, dict[datetime, Decimal]] = {}
    for entry in [*EARLIER, *CALLS]:
        step = UTC_START + (entry.at - UTC_START) // size * size
        if entry.feature != "f1" and since - size < step < period.end:
            of_value = expected.setdefault(of(entry, each) if each else "", {})
            of_value.setdefault(step, Decimal(0))
            of_value[step] += {Measure.COST: entry.cost or 0, Measure.TOKENS: 110, Measure.CALLS: 1}[measure]
    assert steps == expected
    assert len(steps) == (1 if each is None else len(expected)) > 0
