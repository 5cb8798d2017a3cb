"""A month of the simulated year, with all its faults. `benchmarks/alerts_year.py` runs the whole."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from clickhouse_connect.driver.client import Client
from entries import Ledger, a_ledger
from year import Outcome, Year
from year_people import People, per_day
from year_spend import Book, calls

from tallystick.alerts.model import Kind
from tallystick.alerts.periods import period_at, previous
from tallystick.alerts.spend import Wanted, history, spends

D = timedelta(days=1)


@pytest.fixture(scope="module")
def ledger(chdb_client: Client, chdb_path: Path) -> Iterator[Ledger]:
    with a_ledger(chdb_client, chdb_path) as opened:
        yield opened


def flawless(year: Year) -> Outcome:
    """Every key that had to be said was, once; nothing else was; what was said was delivered."""
    counts = year.reckoning.counts.values()
    assert [line for one in counts for line in one.wrong] == []
    assert sum(one.twice + one.never + one.corrections_never for one in counts) == 0
    outcome = year.outcome()
    assert (outcome.lost, outcome.again) == (0, 0)
    assert outcome.delivered + outcome.refused + outcome.silenced == outcome.entered
    return outcome


def test_a_month_with_faults(tmp_path: Path) -> None:
    """With a leap day, and changes of the clock in America and Europe."""
    year = Year(
        tmp_path,
        datetime(2028, 2, 27, tzinfo=UTC),
        datetime(2028, 3, 28, tzinfo=UTC),
        seed=20280229,
        a_day=40,
        step=timedelta(minutes=110),
    )
    year.run()
    outcome = flawless(year)
    counts = year.reckoning.counts.values()
    assert sum(one.due for one in counts) == sum(one.alone + one.with_higher for one in counts) > 300
    assert sum(one.carried for one in counts) > 0
    assert year.reckoning.kinds[Kind.CORRECTION] == sum(one.corrections for one in counts) > 10
    assert outcome.again_after_a_kill > 0
    happened = {
        "evaluator killed",
        "evaluator overtaken in its tick",
        "ledger lost in a tick",
        "downtime",
        "clock",
        "query broken",
    }
    assert happened <= year.faults.keys()


def test_some_hours_on_the_real_ledger(ledger: Ledger, tmp_path: Path) -> None:
    """With a change of the clock in Europe."""
    ledger.forget()
    year = Year(
        tmp_path,
        datetime(2028, 3, 25, 12, tzinfo=UTC),
        datetime(2028, 3, 26, 18, tzinfo=UTC),
        seed=326,
        a_day=100,
        real=ledger.ask,
        enter=ledger.enter,
    )
    year.run()
    assert flawless(year).delivered > 20


def test_the_stand_in_answers_as_the_database(ledger: Ledger, tmp_path: Path) -> None:
    ledger.forget()
    start, end = datetime(2028, 2, 10, tzinfo=UTC), datetime(2028, 3, 27, tzinfo=UTC)
    chance = Random(7)
    arrivals, book, arrived = calls(chance, start, end, 40), Book(), 0
    people = People(chance, per_day(arrivals, (end - start) / D))
    for now in (datetime(2028, 3, 12, 12, tzinfo=UTC), datetime(2028, 3, 26, 1, 30, tzinfo=UTC)):
        fresh = [one.entry for one in arrivals[arrived:] if one.when <= now]
        arrived += len(fresh)
        ledger.enter(fresh)
        for entry in fresh:
            book.enter(entry)
        wanted = [
            Wanted(budget.name, period, budget.scope, budget.each, budget.measure)
            for budget in people.config.budgets
            for current in [period_at(budget.periods, now)]
            for period in (current, previous(budget.periods, current))
        ]
        measures = {one.key: one.measure for one in wanted}
        real, own = spends(ledger.ask, wanted), book.spends(lambda *_: (), wanted)
        for key, measure in measures.items():
            assert {one.value: (one.cost, one.corrections, one.of(measure)) for one in own[key]} == {
                one.value: (one.cost, one.corrections, one.of(measure)) for one in real[key]
            }
        assert book.history(lambda *_: (), wanted) == history(ledger.ask, wanted)
