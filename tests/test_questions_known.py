"""as-known: what was known when, and what was entered since; whatever was entered when."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from asked import Call, asked, enter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.ingest.store import Store

OCTOBER = {"since": "2026-10-01", "until": "2026-11-01"}
SINCE = {"late_usd": "call", "void_usd": "void", "reprice_usd": "reprice", "allocation_usd": "allocation", "trueup_usd": "trueup"}
"""Figure → kind of entry."""
_TENANTS = count()


def tenant() -> str:
    return f"known-{next(_TENANTS)}"


def entered(day: int, entry: str, cents: int | None, calls: int, hour: int = 12, month: int = 10) -> Call:
    """An entry of 10 October (or of another month), made on a day of November."""
    at = datetime(2026, 11, day, tzinfo=UTC) + timedelta(hours=hour)
    cost = None if cents is None else Decimal(cents) / 100
    return Call(datetime(2026, month, 10, tzinfo=UTC), cost, entry=entry, calls=calls, more={"entered_at": at})


def ask(store: Store, of: str, **more: Any) -> list[dict[str, Any]]:
    return asked(store, of, "as-known", **{**OCTOBER, **more})


def test_a_month_is_booked_and_then_corrected(chdb_store: Store) -> None:
    of = tenant()
    enter(
        chdb_store,
        of,
        [
            entered(1, "call", 100, 1),
            entered(1, "call", 100, 1, hour=23),
            entered(1, "call", None, 1),
            entered(3, "void", -100, -1, hour=0),
            entered(3, "reprice", 5, 0),
            entered(4, "call", 40, 1),
            entered(8, "allocation", 30, 0),
            entered(8, "trueup", -7, 0),
            entered(9, "call", 999, 1, month=9),
        ],
    )
    enter(chdb_store, tenant(), [entered(6, "call", 1, 1)])
    rows = ask(chdb_store, of)
    assert [(row["known_on"], row["calls"], row["cost_usd"]) for row in rows] == [
        ("2026-11-08", 3, Decimal("1.68")),
        ("2026-11-04", 3, Decimal("1.45")),
        ("2026-11-03", 2, Decimal("1.05")),
        ("2026-11-01", 3, Decimal(2)),
    ]
    assert {row["now_usd"] for row in rows} == {Decimal("1.68")}
    first, booked = rows[-1], rows[0]
    assert [first[name] for name in SINCE] == [Decimal(cents) / 100 for cents in (40, -100, 5, 30, -7)]
    assert (first["calls_since"], booked["calls_since"]) == (0, 0)
    assert {booked[name] for name in SINCE} == {0}
    assert [row["known_on"] for row in ask(chdb_store, of, limit="1")] == ["2026-11-08"]
    assert ask(chdb_store, of, where=["customer=nobody"]) == []

    def on(day: str) -> list[Any]:
        [row] = ask(chdb_store, of, on=day)
        return [row[name] for name in ("known_on", "calls", "cost_usd", "late_usd", "now_usd")]

    assert on("2026-11-03T09:00:00") == ["2026-11-03", 2, Decimal("1.05"), Decimal("0.4"), Decimal("1.68")]
    assert on("2026-11-02") == ["2026-11-02", 3, 2, Decimal("0.4"), Decimal("1.68")]
    assert on("2026-10-31") == ["2026-10-31", 0, None, Decimal("2.4"), Decimal("1.68")]


def test_what_was_unpriced_wasnt_free(chdb_store: Store) -> None:
    of = tenant()
    enter(chdb_store, of, [entered(1, "call", None, 1), entered(2, "reprice", None, -1), entered(2, "reprice", 7, 1)])
    assert [(row["cost_usd"], row["now_usd"], row["calls"], row["reprice_usd"]) for row in ask(chdb_store, of)] == [
        (Decimal("0.07"), Decimal("0.07"), 1, 0),
        (None, Decimal("0.07"), 1, Decimal("0.07")),
    ]


entries = st.builds(
    entered,
    st.integers(1, 6),
    st.sampled_from([*SINCE.values()]),
    st.one_of(st.none(), st.integers(-500, 500)),
    st.integers(-1, 1),
    st.integers(0, 23),
)


def total(calls: Iterable[Call], entry: str | None = None) -> Decimal:
    return sum((one.cost_usd or Decimal(0) for one in calls if entry in (None, one.entry)), Decimal(0))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(entries, min_size=1, max_size=20))
def test_each_day_adds_up_to_now(chdb_store: Store, calls: list[Call]) -> None:
    of = tenant()
    enter(chdb_store, of, calls)
    for row in ask(chdb_store, of):
        end = datetime.fromisoformat(row["known_on"]).replace(tzinfo=UTC) + timedelta(days=1)
        known, since = ([one for one in calls if (one.more["entered_at"] < end) is then] for then in (True, False))
        assert ((row["cost_usd"] or 0), row["calls"]) == (total(known), sum(one.calls for one in known))
        assert {name: row[name] for name in SINCE} == {name: total(since, kind) for name, kind in SINCE.items()}
        assert row["calls_since"] == sum(one.calls for one in since)
        assert (row["now_usd"] or 0) == total(calls) == (row["cost_usd"] or 0) + sum(row[name] for name in SINCE)
