"""What a message tells of a budget's spend besides the figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from entries import Entry, Ledger, a_ledger

from tallystick.alerts.behind import sql_behind
from tallystick.alerts.drivers import Announced, Details, Part, Usual, beyond, details, rank
from tallystick.alerts.model import Driver, Measure, Period
from tallystick.alerts.periods import PeriodSpec, Unit, period_at, previous
from tallystick.alerts.spend import Wanted, spends
from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.ingest.store import Store

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
MARCH = period_at(PeriodSpec(Unit.MONTH), NOW)
FEBRUARY = previous(PeriodSpec(Unit.MONTH), MARCH)


def part(dimension: str, value: str, spent: str, before: str = "0") -> Part:
    return Part(dimension, value, Decimal(spent), Decimal(before))


def told(drivers: Sequence[Driver]) -> list[str]:
    def of(amount: Decimal | None) -> str:
        return "?" if amount is None else f"{amount.normalize():f}"

    return [f"{one.dimension} {one.value} {of(one.spent)} ({of(one.before)})" for one in drivers]


class TestRank:
    def test_what_grew_most_comes_first_then_what_is_largest(self) -> None:
        parts = [
            part("agent", "a", "50", "49"),
            part("agent", "b", "30"),
            part("model", "m", "5", "4"),
            part("model", "n", "60", "100"),
        ]
        drivers = rank(parts, Decimal(80), compared=True)
        assert told(drivers) == ["agent b 30 (0)", "agent a 50 (49)", "model m 5 (4)", "model n 60 (100)"]
        assert drivers[0].share == Decimal(30) / 80

    def test_without_a_period_before_the_largest_come_first(self) -> None:
        parts = [part("agent", "a", "50"), part("agent", "b", "30"), part("model", "n", "60"), part("model", "o", "20")]
        assert told(rank(parts, Decimal(80), compared=False)) == [
            "model n 60 (?)",
            "agent a 50 (?)",
            "agent b 30 (?)",
            "model o 20 (?)",
        ]

    def test_a_dimension_with_one_value_tells_nothing(self) -> None:
        parts = [part("team", "red", "80", "20"), part("agent", "a", "50"), part("agent", "b", "30")]
        assert [one.dimension for one in rank(parts, Decimal(80), compared=True)] == ["agent", "agent"]

    def test_unless_another_has_gone(self) -> None:
        parts = [part("model", "new", "80"), part("model", "old", "0", "20")]
        assert told(rank(parts, Decimal(80), compared=True)) == ["model new 80 (0)"]

    def test_five_are_enough(self) -> None:
        assert len(rank([part("agent", str(n), "1") for n in range(20)], Decimal(20), compared=True)) == 5

    def test_nothing_spent_is_no_division_by_zero(self) -> None:
        assert rank([part("agent", "a", "1", "2"), part("agent", "b", "-1")], Decimal(0), compared=True)[0].share == 0


@pytest.mark.parametrize(
    ("quartiles", "calls", "limit"),
    [
        pytest.param((1_500, 2_000, 2_600), 500, 10_000, id="50,000 where 2,000 are usual"),
        pytest.param((20_000, 30_000, 60_000), 500, 260_000, id="long documents vary"),
        pytest.param((30_000, 30_000, 30_000), 500, 150_000, id="all alike"),
        pytest.param((2, 3, 5), 500, 10_000, id="tiny calls cost nothing, however many times the usual"),
        pytest.param((1_500, 2_000, 2_600), 19, None, id="too few to know"),
    ],
)
def test_what_stands_out(quartiles: tuple[float, float, float], calls: int, limit: int | None) -> None:
    assert beyond(Usual(calls, quartiles, 0)) == limit


@pytest.fixture(scope="module")
def ledger(chdb_client: Client, chdb_path: Path) -> Iterator[Ledger]:
    with a_ledger(chdb_client, chdb_path) as opened:
        opened.enter(_months())
        yield opened


def _months() -> list[Entry]:
    """acme and globex over two months; in March acme's `search` doubles, and a new model comes."""
    entries = []
    for day in range(40):
        at = FEBRUARY.start + timedelta(days=day, hours=6)
        for n in range(20):
            usual = Entry(
                at + timedelta(minutes=n),
                Decimal("0.01"),
                feature="chat",
                agent=f"agent-{n % 2}",
                team="red",
                tokens=(1_900, 50, None, None, 50),
            )
            entries += [replace(usual, customer=customer, trace=1_000 * day + n) for customer in ("acme", "globex")]
            if at >= MARCH.start:
                entries.append(
                    replace(usual, customer="acme", feature="search", model="gpt-6", cost=None if n == 0 else Decimal("0.02"))
                )
    late = MARCH.start + timedelta(days=2)
    huge = Entry(
        late,
        Decimal("0.5"),
        customer="acme",
        feature="chat",
        agent="agent-1",
        team="red",
        tokens=(49_000, None, None, None, 1_000),
        trace=0xABC,
    )
    voided = replace(huge, tokens=(90_000, None, None, None, 0), trace=0xDEF)
    undone = replace(voided, entry="void", calls=-1, cost=Decimal("-0.5"), tokens=(-90_000, None, None, None, 0))
    other = replace(huge, customer="globex", tokens=(9_000, None, None, None, 0), trace=0x123)
    # After the same stretch of February, which isn't compared.
    later = Entry(FEBRUARY.start + timedelta(days=25), Decimal(100), customer="acme", feature="chat", agent="agent-0", team="red")
    return [*entries, huge, voided, undone, other, later]


def one_of(ledger: Ledger, wanted: Wanted, value: str = "", before: Period | None = FEBRUARY) -> Details:
    (found,) = details(ledger.ask, [Announced(wanted, value, before)], NOW)
    return found


def test_drivers_are_what_grew_against_the_same_stretch(ledger: Ledger) -> None:
    found = one_of(ledger, Wanted("acme", MARCH, {"customer": ("acme",)}))
    # All is team red's, which tells nothing; the hundred dollars of 26 February aren't compared with.
    assert told(found.drivers) == [
        "feature search 4.56 (0)",
        "model gpt-6 4.56 (0)",
        "agent agent-1 4.1 (2)",
        "agent agent-0 3.36 (2)",
        "feature chat 2.9 (4)",
    ]
    assert found.drivers[0].share == Decimal("4.56") / Decimal("7.46")


def test_a_request_far_beyond_the_usual_of_its_model_stands_out(ledger: Ledger) -> None:
    (huge,) = one_of(ledger, Wanted("acme", MARCH, {"customer": ("acme",)})).outliers
    assert (huge.trace_id, huge.model, huge.tokens, huge.usual_tokens) == (f"{0xABC:032x}", "gpt-5", 50_000, 2_000)
    assert (huge.cost, huge.started_at) == (Decimal("0.5"), MARCH.start + timedelta(days=2))


def test_the_three_largest_requests_are_told(ledger: Ledger) -> None:
    # Of the whole ledger 50,000 tokens are still the most; 9,000 are many, and not enough to matter.
    assert [one.tokens for one in one_of(ledger, Wanted("all", MARCH)).outliers] == [50_000]


def test_coverage_is_told(ledger: Ledger) -> None:
    spend = one_of(ledger, Wanted("acme", MARCH, {"customer": ("acme",)})).spend
    assert (spend.calls, spend.priced_calls, spend.tokens) == (481, 469, 480 * 2_000 + 50_000)
    assert spend.priced_share == 1 - Decimal(12 * 2_000) / (480 * 2_000 + 50_000)


def test_many_announcements_are_asked_together(ledger: Ledger) -> None:
    asked: list[str] = []

    def ask(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        asked.append(sql)
        return ledger.ask(sql, params)

    announced = [Announced(Wanted("each", MARCH, each="customer"), value, FEBRUARY) for value in ("acme", "globex", "nobody")]
    announced += [
        Announced(Wanted("tokens", MARCH, {"customer": ("acme", "globex")}, "agent", Measure.TOKENS), "agent-1", FEBRUARY),
        Announced(Wanted("all", MARCH, measure=Measure.CALLS), "", None),
        Announced(
            Wanted(
                "narrow",
                MARCH,
                {"customer": ("acme",), "feature": ("chat",), "agent": ("agent-1",), "team": ("red",), "model": ("gpt-5",)},
            ),
            "",
            FEBRUARY,
        ),
    ]
    found = details(ask, announced, NOW)
    assert len(asked) == 4
    assert [one_of(ledger, one.wanted, one.value, one.before) for one in announced] == found
    acme, globex, nobody, tokens, everything, narrow = found
    assert told(globex.drivers) == ["agent agent-1 1.7 (2)", "agent agent-0 1.2 (2)"]
    assert {one.before for one in everything.drivers} == {None}
    assert told(everything.drivers)[:2] == ["feature chat 482 (?)", "model gpt-5 482 (?)"]
    assert (nobody.spend.calls, nobody.drivers, nobody.outliers) == (0, (), ())
    assert [one.value for one in tokens.drivers if one.dimension == "customer"] == ["acme", "globex"]
    assert (narrow.drivers, [one.tokens for one in narrow.outliers]) == ((), [50_000])
    assert acme.drivers
    assert details(ask, [], NOW) == []


ODD = 'it\'s C:\\new \t \n "x" -- /* {p0:String} é'


@pytest.fixture(scope="module")
def ledger_of_product(chdb_store: Store) -> Iterator[Ledger]:
    ours = Ledger(chdb_store.client())
    ours.enter([
        Entry(at, Decimal("0.000000000001") * n, customer=customer, team=team, tenant="drivers", tags={ODD: ODD}, feature="search")
        for n, (at, customer, team) in enumerate(
            (at, customer, team)
            for at in (MARCH.start - timedelta(hours=1), MARCH.start, NOW, MARCH.end - timedelta(microseconds=1), MARCH.end)
            for customer in ("acme", "globex", ODD)
            for team in ("", "red")
        )
    ])  # fmt: skip
    yield ours
    for month in (202602, 202603, 202604):
        ours.client.command(f"ALTER TABLE ledger DROP PARTITION {month}")


@pytest.mark.parametrize(
    ("wanted", "value"),
    [
        (Wanted("b", MARCH), ""),
        (Wanted("b", MARCH, {"customer": ("acme", "globex")}, "feature"), "search"),
        (Wanted("b", MARCH, {"customer": (ODD,)}, "tag:" + ODD), ODD),
        (Wanted("b", MARCH, {"status": ("ok", "no such status"), "model": ("gpt-5",), "team": ("",)}, measure=Measure.CALLS), ""),
        (Wanted("b", period_at(PeriodSpec(Unit.MONTH, "Europe/Berlin"), NOW), each="customer", measure=Measure.TOKENS), "acme"),
        (Wanted("b", Period(NOW, NOW + timedelta(microseconds=1), "now")), ""),
    ],
    ids=["all", "several values", "odd names", "a status there isn't", "of Berlin", "a microsecond"],
)  # fmt: skip
def test_the_sql_behind_a_figure_answers_with_it(
    chdb_store: Store, ledger_of_product: Ledger, wanted: Wanted, value: str
) -> None:
    """As a user runs it: in the cage, on the product's own tables."""
    found = {one.value: one.of(wanted.measure) for one in spends(ledger_of_product.ask, [wanted])[wanted.key]}
    with chdb_store.reader(None, READER_SETTINGS) as reader:
        result = run(reader, sql_behind(wanted, value), {})
    assert [len(result.rows), len(result.columns)] == [1, 1]
    assert Decimal(result.rows[0][0]) == found[value] > 0


def test_a_status_that_there_is_not_is_no_error(chdb_store: Store, ledger_of_product: Ledger) -> None:
    with chdb_store.reader(None, READER_SETTINGS) as reader:
        assert run(reader, sql_behind(Wanted("b", MARCH, {"status": ("gone",)}, measure=Measure.CALLS), ""), {}).rows == [[0]]
