"""forecast: the method of budgets, as SQL. Compared with alerts/forecast.py, which has tests of its own; and by hand where that is silent."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import pytest
from asked import Call, asked, enter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tallystick.alerts.forecast import forecast, history_from
from tallystick.alerts.model import Period
from tallystick.ingest.store import Store

DAY = timedelta(days=1)
OCTOBER = Period(datetime(2026, 10, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC), "2026-10")
FIRST = history_from(OCTOBER)
_TENANTS = count()


def tenant() -> str:
    return f"forecast-{next(_TENANTS)}"


def ask(store: Store, of: str, at: datetime, **more: Any) -> list[dict[str, Any]]:
    return asked(store, of, "forecast", **{"at": at.isoformat(), **more})


def spending(cents: Sequence[int | None], first: datetime = FIRST, hour: int = 6, **more: Any) -> list[Call]:
    """A call a day, at `hour`; None is none."""
    return [
        Call(first + n * DAY + timedelta(hours=hour), Decimal(spend) / 100, **more)
        for n, spend in enumerate(cents)
        if spend is not None
    ]


a_day = st.one_of(st.none(), st.integers(0, 10_000))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cents=st.one_of(
        st.lists(a_day, max_size=59),
        # Weeks alike but for some noise and a peak.
        st.builds(
            lambda week, noise, peak: [*(base + more for base, more in zip(week * 9, noise[:peak], strict=False)), 50_000],
            st.lists(st.integers(0, 5_000), min_size=7, max_size=7),
            st.lists(st.integers(0, 500), min_size=59, max_size=59),
            st.integers(20, 58),
        ),
    ),
    minutes=st.integers(28 * 1440, 59 * 1440 - 1),
)
@example(cents=[100] * 59, minutes=40 * 1440)
@example(cents=[None] * 28 + [100, 200], minutes=30 * 1440)
@example(cents=[None] * 28 + [100, 200], minutes=30 * 1440 - 1)
@example(cents=[0, 0, 0, 0, 0, 700, 700] * 8, minutes=56 * 1440 + 700)
def test_it_says_what_budgets_say(chdb_store: Store, cents: list[int | None], minutes: int) -> None:
    of, now = tenant(), FIRST + timedelta(minutes=minutes)
    calls = spending(cents)
    enter(chdb_store, of, calls)
    steps = {one.started_at.replace(hour=0): one.cost_usd or Decimal(0) for one in calls if one.started_at < now}
    spent = sum((spend for at, spend in steps.items() if at >= OCTOBER.start), Decimal(0))
    expected = forecast(OCTOBER, now, spent, steps)
    [found] = ask(chdb_store, of, now)
    assert (found["spent_usd"] or 0) == spent
    if expected is None:
        assert (found["method"], found["forecast_usd"], found["low_usd"], found["high_usd"]) == (
            "too little history",
            None,
            None,
            None,
        )
        return
    close = Decimal("0.000003")
    for name, value in (("forecast_usd", expected.expected), ("low_usd", expected.low), ("high_usd", expected.high)):
        assert abs(found[name] - value) <= close
    assert found["days_left"] == pytest.approx((OCTOBER.end - now) / DAY)


def test_the_method_is_told(chdb_store: Store) -> None:
    of = tenant()
    enter(chdb_store, of, spending([None] * 28 + [100] * 20))

    def told(days: float) -> list[Any]:
        row = ask(chdb_store, of, OCTOBER.start + days * DAY)[0]
        return [row["method"], row["days_known"], row["forecast_usd"], row["per_day_usd"]]

    assert told(1.5) == ["too little history", 1, None, 1]
    assert told(2) == ["run rate", 2, 31, 1]
    assert told(13.5) == ["run rate", 13, Decimal("31.5"), 1]
    assert told(14) == ["weekdays", 14, 31, 1]


@pytest.mark.parametrize(
    ("period", "spent", "days_left"), [("week", 4, 3.5), ("month", 15, 16.5), ("quarter", 15, 77.5), ("year", 43, 77.5)]
)
def test_periods(chdb_store: Store, period: str, spent: int, days_left: float) -> None:
    # 2026-10-15 is a Thursday. A dollar a day since 28 days before October; the year knows all of it.
    of = tenant()
    enter(chdb_store, of, spending([100] * 60))
    [row] = ask(chdb_store, of, OCTOBER.start + 14.5 * DAY, period=period)
    assert (row["spent_usd"], row["days_left"]) == (spent, days_left)
    assert row["forecast_usd"] == pytest.approx(Decimal(spent + days_left))


def test_groups_each_by_themselves_with_corrections_and_coverage(chdb_store: Store) -> None:
    of = tenant()
    at = OCTOBER.start + 10 * DAY
    ten = [None] * 28 + [100] * 10
    enter(chdb_store, of, spending(ten, customer="a"))
    enter(chdb_store, of, spending(ten[:-5], customer="b"))
    # Each of a's calls was cheaper by half, and one entered twice; half of b's are unpriced; c has nothing that is priced.
    enter(
        chdb_store,
        of,
        spending(
            [None if n is None else -50 for n in ten],
            customer="a",
            entry="reprice",
            calls=0,
            input_tokens=None,
            output_tokens=None,
        ),
    )
    twice: dict[str, Any] = {"customer": "a", "hour": 7}
    enter(
        chdb_store,
        of,
        spending(ten[:29], **twice)
        + spending([None] * 28 + [-100], **twice, entry="void", calls=-1, input_tokens=-100, output_tokens=-10),
    )
    unpriced = [Call(one.started_at, None, customer=name) for name in "bc" for one in spending(ten[:-5])]
    enter(chdb_store, of, unpriced)
    rows = {row["customer"]: row for row in ask(chdb_store, of, at, by="customer")}
    assert {name: (row["spent_usd"], row["tokens_priced"]) for name, row in rows.items()} == {
        "a": (5, 1),
        "b": (5, 0.5),
        "c": (None, 0),
    }
    assert [rows["a"][name] for name in ("forecast_usd", "low_usd", "high_usd")] == [Decimal("15.5")] * 3
    assert [rows["c"][name] for name in ("forecast_usd", "days_known", "method")] == [None, 0, "too little history"]
    assert rows["b"]["forecast_usd"] == 5 + Decimal("0.5") * 21
    assert rows["b"]["low_usd"] >= 5
    # Ordered by the forecast; what has none comes last.
    assert [*rows][2] == "c"
    assert len(ask(chdb_store, of, at, by="customer", limit="2")) == 2
    assert [row["spent_usd"] for row in ask(chdb_store, of, at, where=["customer=b"])] == [5]


def test_what_begins_later_is_left_out(chdb_store: Store) -> None:
    of = tenant()
    enter(chdb_store, of, spending([None] * 28 + [100] * 31))
    assert ask(chdb_store, of, OCTOBER.start + timedelta(days=9, hours=6))[0]["spent_usd"] == 9
    assert ask(chdb_store, of, OCTOBER.start + timedelta(days=9, hours=6, seconds=1))[0]["spent_usd"] == 10


def test_of_nothing(chdb_store: Store) -> None:
    assert ask(chdb_store, tenant(), OCTOBER.start, by="feature") == []
    [row] = ask(chdb_store, tenant(), OCTOBER.start + DAY)
    assert {name: row[name] for name in ("spent_usd", "forecast_usd", "per_day_usd", "tokens_priced")} == dict.fromkeys(
        ("spent_usd", "forecast_usd", "per_day_usd", "tokens_priced")
    )
