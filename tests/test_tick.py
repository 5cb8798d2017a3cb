"""Budgets over time, on real ledgers: what people hear, and what they don't hear twice."""

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers import SchedulerNotRunningError
from clickhouse_connect.driver.client import Client
from entries import Entry, a_ledger
from entries import Ledger as Calls
from postgres import fresh_url

from tallystick.alerts.channels import Sent
from tallystick.alerts.config import load_config
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.model import Kind, Message
from tallystick.alerts.outbox import Outbox
from tallystick.alerts.scheduler import Scheduler
from tallystick.alerts.spend import Ask
from tallystick.alerts.tick import LEASE, Evaluator, Ticked
from tallystick.attribution.spend import spend as spend_by

D = Decimal
SMALLEST = """
channels:
  team: {type: slack, url: "${SLACK_WEBHOOK_URL}"}
budgets:
  - {name: acme, amount: 100, period: month, scope: {customer: acme}, notify: [team]}
  - {name: each-agent, amount: 5, period: day, each: agent, thresholds: [50, 80, 100], notify: [team]}
"""
ACME = "name: acme, amount: 100, period: month"
ENVIRON = {"SLACK_WEBHOOK_URL": "https://hooks.slack.com/services/T/B/secret"}


def utc(*when: int) -> datetime:
    return datetime(2026, *when, tzinfo=UTC)  # type: ignore[arg-type, misc]


def file(*budgets: str) -> str:
    """A configuration of these budgets, each written without its braces."""
    lines = "\n".join(f"  - {{notify: [team], {one}}}" for one in budgets)
    return f'channels:\n  team: {{type: slack, url: "${{SLACK_WEBHOOK_URL}}"}}\nbudgets:\n{lines}\n'


class Room:
    """Where messages arrive."""

    name = "team"
    interval_s = 0.0

    def __init__(self) -> None:
        self.messages: list[Message] = []

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        del delivery_id, thread
        self.messages.append(message)
        return Sent()


class Office:
    """One evaluator and its outbox, over calls that a test enters at a time of the test's own."""

    def __init__(self, calls: Calls, url: str, text: str = SMALLEST) -> None:
        self.calls, self.url, self.text, self.room = calls, url, text, Room()
        self.now = utc(3, 2)
        self.ledger = Ledger(url)
        self.restart()

    def restart(self) -> None:
        """As after a crash: nothing is left but what the ledgers hold."""
        config = load_config(self.text, ENVIRON)
        self.evaluator = Evaluator(self.ledger, self.calls.ask, config, holder="office", author="test")
        self.outbox = Outbox(self.ledger, {"team": self.room})

    def edit(self, text: str) -> None:
        self.text = text
        self.evaluator.use(load_config(text, ENVIRON))

    def at(self, *when: int) -> "Office":
        self.now = utc(*when)
        return self

    def spend(self, cost: str, at: datetime | None = None, **of: Any) -> Entry:
        entry = Entry(at=at or self.now - timedelta(seconds=5), cost=D(cost), **of)
        self.calls.enter([entry])
        return entry

    def correct(self, call: Entry, cost: str, entry: str = "reprice") -> None:
        self.calls.enter(
            [
                Entry(
                    at=call.at,
                    cost=D(cost),
                    entry=entry,
                    calls=-1 if entry == "void" else 0,
                    customer=call.customer,
                    agent=call.agent,
                )
            ]
        )

    def tick(self) -> list[str]:
        """What one evaluation makes people hear: `BUDGET VALUE PERIOD: MARK`."""
        heard = len(self.room.messages)
        assert self.evaluator.tick(self.now) is not None
        self.outbox.deliver_due(self.now)
        return [f"{subject(one)}: {one.key.mark.removeprefix('actual:')}" for one in self.room.messages[heard:]]

    @property
    def last(self) -> Message:
        return self.room.messages[-1]


def subject(message: Message) -> str:
    assert message.period is not None
    return " ".join(filter(None, (message.key.subject, message.key.value, message.period.label)))


@pytest.fixture(scope="module")
def ledger(chdb_client: Client, chdb_path: Path) -> Iterator[Calls]:
    with a_ledger(chdb_client, chdb_path) as opened:
        yield opened


@pytest.fixture
def calls(ledger: Calls) -> Calls:
    ledger.forget()
    return ledger


@pytest.fixture
def office(calls: Calls, tmp_path: Path) -> Iterator[Office]:
    opened = Office(calls, fresh_url("sqlite", tmp_path))
    yield opened
    opened.ledger.close()


# What is said, and when


def test_the_smallest_configuration(office: Office) -> None:
    assert office.at(3, 2, 9).tick() == []
    office.spend("49.99", customer="acme")
    office.spend("1000", customer="globex")
    assert office.tick() == ["each-agent 2026-03-02: 100"]
    office.spend("0.01", customer="acme")
    assert office.at(3, 2, 10).tick() == ["acme 2026-03: 50"]
    assert office.last.title == "acme: 50 % of 100.00 USD used this month"

    office.at(3, 3, 9).spend("2.50", agent="writer")
    office.spend("4", agent="planner")
    assert sorted(office.tick()) == ["each-agent planner 2026-03-03: 80", "each-agent writer 2026-03-03: 50"]
    office.spend("1.50", agent="writer")
    assert office.at(3, 3, 10).tick() == ["each-agent writer 2026-03-03: 80"]
    assert office.at(3, 3, 11).tick() == []

    office.at(3, 4, 9).spend("2.50", agent="writer")
    assert office.tick() == ["each-agent writer 2026-03-04: 50"], "a new day begins with nothing"


def test_a_jump_is_one_message(office: Office) -> None:
    office.at(3, 2, 9).spend("130", customer="acme", agent="a")
    assert office.tick() == ["acme 2026-03: 100", "each-agent a 2026-03-02: 100"]
    assert "50 %, 80 %" in office.room.messages[0].reason
    assert office.at(3, 2, 10).tick() == []
    marks = office.ledger.marks([utc(3, 1)])["acme", utc(3, 1), ""]
    assert {one.key.mark: one.said for one in marks} == {"actual:50": False, "actual:80": False, "actual:100": True}


def test_late_spans_are_charged_to_their_period(office: Office) -> None:
    office.edit(file("name: berlin, amount: 10, period: day, timezone: Europe/Berlin"))
    office.at(3, 2, 20).tick()
    assert office.at(3, 3, 8).tick() == []
    # 22:59 UTC is the last minute of the 2nd in Berlin, 23:00 the first of the 3rd.
    office.spend("5", at=utc(3, 2, 22, 59))
    office.spend("8", at=utc(3, 2, 23, 0))
    assert office.tick() == ["berlin 2026-03-02: 50", "berlin 2026-03-03: 80"]
    assert "has ended" in office.room.messages[0].reason
    office.spend("5", at=utc(3, 2, 22, 59))
    assert office.at(3, 3, 22).tick() == ["berlin 2026-03-02: 100"]
    office.spend("100", at=utc(3, 2, 22, 59))
    assert office.at(3, 4, 23).tick() == [], "two days later nobody needs to hear of it"


@pytest.mark.parametrize(
    ("zone", "begin", "hours"),
    [
        ("Europe/Berlin", utc(3, 28, 23), 23),
        ("Europe/Berlin", utc(10, 24, 22), 25),
        ("America/New_York", utc(3, 8, 5), 23),
        ("America/New_York", utc(11, 1, 4), 25),
        ("Australia/Lord_Howe", utc(4, 4, 13), 24.5),
        ("Africa/Cairo", utc(4, 23, 22), 23),
    ],
)
def test_days_on_which_clocks_change(office: Office, zone: str, begin: datetime, hours: float) -> None:
    office.edit(file(f"name: local, amount: 1000, period: day, timezone: {zone}, thresholds: [10]"))
    office.now = begin - timedelta(days=1)
    office.tick()
    end = begin + timedelta(hours=hours)
    moment = timedelta(microseconds=1)
    for at, cost in ((begin - moment, "1"), (begin, "200"), (end - moment, "30"), (end, "4")):
        office.spend(cost, at=at)
    office.now = end + timedelta(hours=1)
    assert len(office.tick()) == 1
    assert office.last.spent == 230


def test_a_leap_day(office: Office) -> None:
    office.edit(
        file("name: month, amount: 29, period: month, thresholds: [100]", "name: day, amount: 1, period: day, thresholds: [100]")
    )
    office.now = datetime(2028, 2, 27, tzinfo=UTC)
    office.tick()
    for day in range(1, 30):
        office.spend("1", at=datetime(2028, 2, day, 23, 59, 59, 999_999, tzinfo=UTC))
    office.now = datetime(2028, 3, 1, tzinfo=UTC)
    assert office.tick() == ["month 2028-02: 100", *(f"day 2028-02-{day}: 100" for day in (27, 28, 29))]


# Edits


def test_raising_the_amount_rearms_what_is_now_below(office: Office) -> None:
    office.edit(file(ACME))
    office.at(3, 2, 9).spend("85")
    assert office.tick() == ["acme 2026-03: 80"]
    office.edit(file("name: acme, amount: 160, period: month"))
    assert office.tick() == []
    office.spend("43")
    assert office.tick() == ["acme 2026-03: 80"]
    assert (office.last.amount, office.last.spent, office.last.key.revision) == (D(160), D(128), 2)


def test_lowering_the_amount_is_judged_at_once(office: Office) -> None:
    office.edit(file(ACME))
    office.at(3, 2, 9).spend("55")
    assert office.tick() == ["acme 2026-03: 50"]
    office.edit(file("name: acme, amount: 60, period: month"))
    assert office.tick() == ["acme 2026-03: 80"]
    office.restart()
    assert office.tick() == []


def test_an_edit_ends_no_watch_over_the_past(office: Office) -> None:
    """What had ended before an edit is judged as it was defined then."""
    office.edit(file(f"{ACME}, owners: [kim]"))
    office.at(3, 30, 12).spend("55")
    assert office.tick() == ["acme 2026-03: 50"]
    office.edit(file("name: acme, amount: 1000, period: month, owners: [lee]"))
    assert office.at(4, 2, 9).tick() == []
    office.spend("30", at=utc(3, 31, 23))
    assert office.at(4, 3, 9).tick() == ["acme 2026-03: 80"]
    assert (office.last.amount, office.last.spent, office.last.key.revision, office.last.owners) == (D(100), D(85), 1, ("lee",))
    office.restart()
    assert office.tick() == []
    assert [one.revision for one in _acme(office, utc(3, 1))] == [1, 1]


def test_an_edit_in_a_downtime_over_a_rollover(office: Office) -> None:
    """Of days and then of weeks."""
    office.edit(file("name: acme, amount: 10, period: day, thresholds: [100]"))
    office.at(3, 31, 12).tick()
    for day in (utc(3, 31, 23), utc(4, 1, 23)):
        office.spend("12", at=day)
    office.text = file("name: acme, amount: 30, period: week, thresholds: [100]")
    office.restart()
    assert office.at(4, 2, 9).tick() == ["acme 2026-03-31: 100", "acme 2026-04-01: 100"]
    office.spend("6")
    assert office.tick() == ["acme 2026-W14: 100"]


def test_a_day_that_becomes_the_months_first(office: Office) -> None:
    """Two periods that begin together: the one that counts is that of the new definition."""
    office.edit(file("name: acme, amount: 10, period: day, thresholds: [100]"))
    office.at(4, 1, 12).tick()
    office.edit(file("name: acme, amount: 100, period: month, thresholds: [20]"))
    office.spend("12")
    office.spend("12", at=utc(4, 2, 8))
    assert office.at(4, 2, 9).tick() == ["acme 2026-04: 20"]
    assert office.last.spent == 24


def test_an_edit_while_the_clock_is_ahead(office: Office) -> None:
    office.edit(file("name: acme, amount: 10, period: day"))
    office.at(3, 2, 9).spend("6")
    assert office.tick() == ["acme 2026-03-02: 50"]
    office.edit(file("name: acme, amount: 20, period: day"))
    assert office.at(5, 2, 9).tick() == []
    office.at(3, 3, 9).tick()
    office.spend("12", at=utc(3, 2, 23))
    assert office.tick() == ["acme 2026-03-02: 80"], "the day before is still judged"
    # The day on which that clock becomes right.
    office.spend("11", at=utc(5, 1, 12))
    assert office.at(5, 2, 8).tick() == ["acme 2026-05-01: 50"]
    assert office.at(5, 2, 10).tick() == []


def _acme(office: Office, start: datetime) -> list[Any]:
    return [one.key for one in office.ledger.marks([start])["acme", start, ""]]


def test_a_budget_that_is_taken_out_for_a_while(office: Office) -> None:
    office.edit(file(ACME))
    office.at(3, 2, 9).spend("55")
    assert office.tick() == ["acme 2026-03: 50"]
    office.edit(file("name: other, amount: 100000, period: month"))
    office.spend("30")
    assert office.at(3, 5, 9).tick() == []
    office.edit(file(ACME, "name: other, amount: 100000, period: month"))
    assert office.at(3, 6, 9).tick() == ["acme 2026-03: 80"]
    assert office.last.key.revision == 1


def test_a_bad_budget_keeps_out_none_but_itself(office: Office) -> None:
    office.edit(file("name: bad, amount: -1, period: month", ACME))
    office.at(3, 2, 9).spend("55")
    assert office.tick() == ["acme 2026-03: 50"]


# Corrections


@pytest.mark.parametrize(("cost", "entry"), [("-60", "void"), ("-6", "reprice"), ("6", "trueup"), ("6", "allocation")])
def test_a_correction_is_told_once(office: Office, cost: str, entry: str) -> None:
    office.edit(file(ACME))
    call = office.at(3, 2, 9).spend("60")
    assert office.tick() == ["acme 2026-03: 50"]
    office.correct(call, cost, entry)
    assert office.at(3, 2, 10).tick() == ["acme 2026-03: correction"]
    assert (office.last.kind, office.last.spent) == (Kind.CORRECTION, 60 + D(cost))
    office.correct(call, "-10")
    assert office.at(3, 2, 11).tick() == []
    office.restart()
    assert office.at(3, 2, 12).tick() == []


def test_a_correction_that_is_small(office: Office) -> None:
    office.edit(file(ACME))
    call = office.at(3, 2, 9).spend("60")
    office.tick()
    office.correct(call, "-3")
    assert office.at(3, 2, 10).tick() == [], "5 % isn't more than 5 %"
    office.correct(call, "-0.000000000001")
    assert office.at(3, 2, 11).tick() == ["acme 2026-03: correction"]


def test_a_value_that_vanishes_is_corrected(office: Office) -> None:
    office.at(3, 2, 9).spend("3", agent="writer")
    office.spend("3", agent="planner")
    assert len(office.tick()) == 2
    office.calls.forget()
    office.spend("3", agent="planner")
    assert office.at(3, 2, 10).tick() == ["each-agent writer 2026-03-02: correction"]
    assert office.last.spent == 0
    assert office.at(3, 2, 11).tick() == []


def test_calls_that_are_deleted_for_their_age_are_no_correction(office: Office) -> None:
    config = load_config(file(ACME), ENVIRON)
    office.evaluator = Evaluator(office.ledger, office.calls.ask, config, holder="office", author="test", kept=timedelta(days=40))
    office.at(3, 2, 9).spend("60")
    assert office.tick() == ["acme 2026-03: 50"]
    office.at(4, 9, 9).spend("30", at=utc(3, 31))
    assert office.tick() == ["acme 2026-03: 80"]
    office.calls.forget()
    assert office.at(4, 11, 9).tick() == []


def test_spend_that_falls_and_rises_is_no_news(office: Office) -> None:
    office.edit(file(ACME))
    call = office.at(3, 2, 9).spend("60")
    assert office.tick() == ["acme 2026-03: 50"]
    office.correct(call, "-60", "void")
    assert office.at(3, 2, 10).tick() == ["acme 2026-03: correction"]
    office.spend("60")
    assert office.at(3, 2, 11).tick() == []
    office.spend("20")
    assert office.at(3, 2, 12).tick() == ["acme 2026-03: 80"]


# Downtime, restarts, clocks


def test_a_rollover_in_downtime_is_caught_up_once(office: Office) -> None:
    office.edit(file("name: month, amount: 100, period: month", "name: day, amount: 10, period: day, thresholds: [100]"))
    office.at(3, 30, 12).tick()
    for day in (30, 31):
        office.spend("45", at=utc(3, day, 23))
    office.spend("45", at=utc(4, 1, 1))
    office.restart()
    assert office.at(4, 2, 9).tick() == ["month 2026-03: 80", "day 2026-03-30: 100", "day 2026-03-31: 100", "day 2026-04-01: 100"]
    assert office.tick() == []
    office.restart()
    assert office.at(4, 3, 9).tick() == []


def test_the_first_evaluation_looks_at_no_past(office: Office) -> None:
    office.spend("500", at=utc(2, 28, 12), customer="acme")
    assert office.at(3, 2, 9).tick() == []
    assert office.at(3, 2, 10).tick() == []


def test_a_clock_that_is_set_back_and_forth(office: Office) -> None:
    office.edit(file("name: day, amount: 10, period: day"))
    office.at(3, 2, 23).spend("6", at=utc(3, 2, 12))
    assert office.tick() == ["day 2026-03-02: 50"]
    for day, hour in ((3, 1), (2, 22), (4, 5), (1, 3), (3, 1), (2, 23)):
        assert office.at(3, day, hour).tick() == []
    office.spend("3", at=utc(3, 2, 22))
    assert office.at(3, 3, 1).tick() == ["day 2026-03-02: 80"]


@pytest.mark.parametrize("dies", ["before", "after"])
def test_an_evaluator_that_dies_while_it_tells(office: Office, dies: str, monkeypatch: pytest.MonkeyPatch) -> None:
    office.at(3, 2, 9).spend("60", customer="acme", agent="a")
    real = office.ledger.announce

    def announce(*args: Any, **more: Any) -> bool:
        if dies == "after":
            real(*args, **more)
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(office.ledger, "announce", announce)
        with pytest.raises(SystemExit):
            office.evaluator.tick(office.now)
    office.restart()
    assert sorted(office.tick()) == ["acme 2026-03: 50", "each-agent a 2026-03-02: 100"]
    office.restart()
    assert office.tick() == []


# What a message says


MONEY = ("0.000000000001", "33.333333333333", "12.000000000007", "7.1", "123456.123456789012")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
@pytest.mark.parametrize("each", [None, "customer", "tag:plan"])
def test_figures_are_those_of_sql(office: Office, zone: str, each: str | None) -> None:
    """Alert = the question behind it = the sum of the rows, to the last decimal."""
    more = f", each: {each}" if each else ""
    office.edit(
        file(
            f"name: sums, amount: 1, period: month, timezone: {zone}{more}",
            f"name: today, amount: 1, period: day, timezone: {zone}{more}",
        )
    )
    office.at(3, 20, 12).tick()
    entries = [
        Entry(at=utc(3, day, hour), cost=D(cost), customer=customer, tags={"plan": plan})
        for day, cost in zip((1, 7, 19, 20, 20), MONEY, strict=True)
        for hour in (0, 11)
        for customer, plan in (("acme", "it's"), ("globex", "free"))
    ]
    office.calls.enter(
        [*entries, Entry(at=utc(3, 20, 11), cost=D("-7.1"), entry="void", calls=-1, customer="acme", tags={"plan": "it's"})]
    )
    office.calls.enter([Entry(at=utc(3, 20, 11), cost=None, customer="acme", tags={"plan": "it's"})])
    assert len(office.tick()) == (4 if each else 2)
    for message in office.room.messages:
        assert message.period is not None
        rows = [
            one.cost
            for one in [*entries, Entry(at=utc(3, 20, 11), cost=D("-7.1"), customer="acme", tags={"plan": "it's"})]
            if message.period.start <= one.at < message.period.end
            and (each is None or message.key.value in {one.customer, one.tags["plan"]})
            and one.cost is not None
        ]
        assert message.spent == sum(rows, D(0))
        ((asked,),) = office.calls.client.query(message.sql).result_rows
        assert message.spent == asked
    if each is None and zone == "UTC":
        (month,) = [one for one in office.room.messages if one.key.subject == "sums"]
        query = spend_by([], _ns(utc(3, 1)), _ns(utc(4, 1)))
        by_api = office.calls.client.query(query.text, parameters=query.params)
        assert dict(zip(by_api.column_names, by_api.result_rows[0], strict=True))["cost_usd"] == month.spent


def _ns(at: datetime) -> int:
    return int(at.timestamp()) * 10**9


def test_what_has_no_price_is_said(office: Office) -> None:
    office.edit(file(ACME))
    office.at(3, 2, 9).spend("60")
    office.calls.enter([Entry(at=office.now - timedelta(seconds=1), cost=None)])
    office.tick()
    assert office.last.title == "acme: at least 60 % of 100.00 USD used this month"
    assert office.last.priced_share == D("0.5")


def test_calls_without_a_value_are_named(office: Office) -> None:
    office.at(3, 2, 9).spend("6")
    office.tick()
    assert office.last.title.startswith("each-agent (no agent): ")


# Quiet hours and silence


def test_quiet_hours_delay(office: Office) -> None:
    quiet = 'quiet_hours: {from: "22:00", until: "06:00", except: [100]}, timezone: Europe/Berlin'
    office.edit(file(f"{ACME}, {quiet}"))
    # 22:30 in Berlin.
    office.at(3, 2, 21, 30).spend("60")
    assert office.tick() == []
    assert office.at(3, 3, 4, 59).tick() == []
    assert office.at(3, 3, 5).tick() == ["acme 2026-03: 50"]
    office.at(3, 3, 22).spend("25")
    assert office.tick() == []
    office.spend("25")
    assert office.at(3, 3, 23).tick() == [], "the 80 % are told before the 100 %"
    assert office.at(3, 4, 5).tick() == ["acme 2026-03: 80", "acme 2026-03: 100"]


def test_a_silence(office: Office) -> None:
    office.edit(file(ACME, "name: other, amount: 100, period: month"))
    office.at(3, 2, 9).ledger.silences.silence("acme", None, until=utc(3, 2, 12), who="kim", why="known", now=office.now)
    office.spend("60")
    assert office.tick() == ["other 2026-03: 50"]
    assert office.at(3, 2, 12).tick() == [], "it counts as said"
    office.spend("25")
    assert office.tick() == ["acme 2026-03: 80", "other 2026-03: 80"]
    (status,) = office.ledger.deliveries.status()
    assert (status.sent, status.silenced) == (3, 1)


# Several evaluators


def evaluators(office: Office, url: str, count: int) -> Iterator[tuple[Ledger, Evaluator]]:
    lock = threading.Lock()

    def ask(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        # Replicas ask a server; here all of them ask one embedded engine.
        with lock:
            return office.calls.ask(sql, params)

    for number in range(count):
        ledger = Ledger(url, busy_s=60)
        yield ledger, Evaluator(ledger, ask, load_config(office.text, ENVIRON), holder=f"replica-{number}", author="test")


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
@pytest.mark.parametrize("apart", [timedelta(0), 2 * LEASE], ids=["one leads", "each takes the lead"])
def test_four_evaluators_say_each_key_once(office: Office, kind: str, apart: timedelta, tmp_path: Path) -> None:
    """Their clocks agree, or each believes that the lease of the others ran out."""
    (tmp_path / "replicas").mkdir()
    url = fresh_url(kind, tmp_path / "replicas")
    office.edit(
        file(
            "name: total, amount: 100, period: month, thresholds: [10, 20, 30, 40, 50, 60]",
            "name: of, amount: 10, period: day, each: agent",
        )
    )
    replicas = list(evaluators(office, url, 4))
    together = threading.Barrier(4)

    def evaluate(number: int, at: datetime) -> Ticked | None:
        together.wait()
        return replicas[number][1].tick(at + number * apart)

    with ThreadPoolExecutor(4) as pool:
        said = 0
        for turn in range(6):
            office.at(3, 2, 9 + turn).spend("10", agent=f"agent-{turn}")
            done = list(pool.map(evaluate, range(4), [office.now] * 4))
            said += sum(one.said for one in done if one is not None)
    outbox = Outbox(replicas[0][0], {"team": office.room})
    outbox.deliver_due(office.now + timedelta(days=1))
    told = [subject(one) + one.key.mark for one in office.room.messages]
    assert sorted(told) == sorted(
        [f"total 2026-03actual:{share}0" for share in range(1, 7)]
        + [f"of agent-{turn} 2026-03-02actual:100" for turn in range(6)]
    )
    assert said == len(told)
    for ledger, _ in replicas:
        ledger.close()


def test_a_lease_is_taken_over_from_the_dead(office: Office) -> None:
    office.edit(file(ACME))
    ((ledger, other),) = evaluators(office, office.url, 1)
    office.at(3, 2, 9).spend("60")
    assert office.tick() == ["acme 2026-03: 50"]
    office.spend("25")
    assert other.tick(office.now + LEASE - timedelta(seconds=1)) is None
    done = other.tick(office.now + LEASE)
    assert done is not None
    assert done.said == 1
    # The one that only slept has lost it.
    assert office.evaluator.tick(office.now + LEASE) is None
    ledger.close()


def test_an_evaluator_that_sleeps_in_its_tick_enters_nothing(office: Office) -> None:
    office.edit(file(ACME))
    ((ledger, other),) = evaluators(office, office.url, 1)
    office.at(3, 2, 9).spend("60")

    def slow(sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        answer = office.calls.ask(sql, params)
        if not taken:
            taken.append(other.tick(office.now + 2 * LEASE))
        return answer

    taken: list[Ticked | None] = []
    office.evaluator = Evaluator(office.ledger, slow, load_config(office.text, ENVIRON), holder="office", author="test")
    assert office.evaluator.tick(office.now) is None
    assert taken[0] is not None
    assert taken[0].said == 1
    assert office.evaluator.tick(office.now + 2 * LEASE) is None
    ledger.close()


def test_a_restart_on_the_same_machine_neednt_wait(office: Office) -> None:
    office.edit(file(ACME))
    office.at(3, 2, 9).spend("60")
    assert office.tick() == ["acme 2026-03: 50"]
    office.restart()
    office.spend("25")
    assert office.tick() == ["acme 2026-03: 80"]


# The scheduler


class Query:
    """An `ask` that can break, and be held up; it counts how often it is at work at once."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self._lock = ask, threading.Lock()
        self.broken = False
        self.asked = self.at_once = self.most_at_once = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        with self._lock:
            self.asked += 1
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            self.free.wait()
            if self.broken:
                raise ConnectionError("https://user:secret@clickhouse.example refused")
            return self._ask(sql, params)
        finally:
            with self._lock:
                self.at_once -= 1


@pytest.fixture
def running(office: Office) -> Iterator[tuple[Scheduler, Query, Evaluator]]:
    office.edit(file(ACME))
    office.at(3, 2, 9).spend("60")
    query = Query(office.calls.ask)
    evaluator = Evaluator(office.ledger, query, load_config(office.text, ENVIRON), holder="office", author="test")
    scheduler = Scheduler(evaluator, lambda: office.outbox, timedelta(milliseconds=20), clock=lambda: office.now)
    scheduler.start()
    yield scheduler, query, evaluator
    query.free.set()
    with suppress(SchedulerNotRunningError):
        scheduler.stop()


def until(condition: Callable[[], object], limit_s: float = 30) -> None:
    wait = threading.Event()
    for _ in range(int(limit_s / 0.01)):
        if condition():
            return
        wait.wait(0.01)
    raise AssertionError("it never came to that")


def test_a_query_that_breaks_is_told_once_and_recovers(
    running: tuple[Scheduler, Query, Evaluator], office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    scheduler, query, _ = running
    until(lambda: scheduler.pace.last)
    query.broken = True
    until(lambda: scheduler.pace.failures >= 3)
    pace = scheduler.pace
    assert (pace.failing_since, pace.last_error, pace.leading) == (office.now, "ConnectionError", True)
    assert [one.levelno for one in caplog.records].count(logging.ERROR) == 1
    assert "secret" not in str(pace)
    query.broken = False
    until(lambda: scheduler.pace.failing_since is None)
    assert (scheduler.pace.failures, scheduler.pace.last_error) == (0, None)
    office.outbox.deliver_due(office.now)
    assert [subject(one) for one in office.room.messages] == ["acme 2026-03"]


def test_slow_evaluations_do_not_pile_up(running: tuple[Scheduler, Query, Evaluator]) -> None:
    scheduler, query, _ = running
    until(lambda: scheduler.pace.last)
    query.free.clear()
    until(lambda: query.at_once)
    threading.Event().wait(0.5)  # 25 turns
    asked = query.asked
    query.free.set()
    scheduler.stop()
    assert query.most_at_once == 1
    assert query.asked - asked < 10


def test_a_configuration_that_is_taken_over_while_running(running: tuple[Scheduler, Query, Evaluator], office: Office) -> None:
    scheduler, _, evaluator = running
    until(lambda: scheduler.pace.last)
    evaluator.use(load_config(file("name: acme, amount: 65, period: month"), ENVIRON))
    until(lambda: sum(one.pending for one in office.ledger.deliveries.status()) == 2)


def test_nothing_secret_is_kept(office: Office) -> None:
    office.at(3, 2, 9).spend("60", customer="acme")
    office.tick()
    file_of = Path(office.url.removeprefix("sqlite:///"))
    kept = b"".join(one.read_bytes() for one in file_of.parent.glob(f"{file_of.name}*"))
    assert not re.search(rb"hooks\.slack|secret", kept)
