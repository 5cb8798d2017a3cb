"""A year of evaluations and deliveries with faults, on the real evaluator, ledger and outbox. The clock, the spend and the faults are made up."""

import random
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from sqlalchemy import Connection
from year_people import CHANNELS, People, kind_of, per_day
from year_reckoning import Attempt, InForce, Of, Reckoning
from year_spend import Book, calls

from tallystick.alerts import tick
from tallystick.alerts.channels import Refused, Retry, Sent
from tallystick.alerts.config import Config
from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.database import Database, LedgerDown
from tallystick.alerts.deliveries import Delivery, State
from tallystick.alerts.forecast import forecast
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.message_json import from_json
from tallystick.alerts.model import Forecast, Message, Period
from tallystick.alerts.outbox import Outbox
from tallystick.alerts.spend import Ask
from tallystick.alerts.tick import Evaluator, Ticked

S, M, H, D = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))
KEPT = 190 * D
"""Longer than two quarters: what nobody judges any more is forgotten by the simulation."""


class Killed(BaseException):
    """The process is gone. No `except Exception` sees it."""


@dataclass(frozen=True)
class Fault:
    """What happens at the evaluation's or delivery's transaction of this number, from 1, `before` it, `inside` or `after` it."""

    number: int
    stage: str
    what: str


@dataclass
class Post:
    """Where messages go: a channel of every replica, and what arrived there."""

    name: str
    year: "Year"
    interval_s: float = 0.0
    got: Counter[int] = field(default_factory=Counter)
    """How often each delivery arrived, by its id."""
    cut_off: set[int] = field(default_factory=set)
    """Sent by a process that was killed before it had written that down."""

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        del message, thread
        chance, year, number = self.year.chance, self.year, int(delivery_id, 16)
        if self.name == "revoked" and year.gone:
            raise Refused("410: the webhook was revoked")
        drawn = chance.random() if year.faulty else 1
        year.note("answers", {0.06: "429", 0.12: "500", 0.16: "timeout"}, drawn)
        if drawn < 0.06:
            raise Retry("429", after_s=chance.choice([1.0, 30.0, 3600.0]))
        if drawn < 0.16:
            raise Retry("500" if drawn < 0.12 else "timeout")
        if drawn < 0.18:
            year.faults["sender killed before the send"] += 1
            raise Killed
        self.got[number] += 1
        if drawn < 0.21:
            year.faults["sender killed after the send"] += 1
            self.cut_off.add(number)
            raise Killed
        return Sent()


class Replica:
    """A process: its evaluator, ledger and outbox. Dies and is started again under a name of its own."""

    def __init__(self, year: "Year", number: int) -> None:
        self._year, self._number, self._starts = year, number, 0
        self.start()

    def start(self) -> None:
        year = self._year
        year.armed = False
        if self._starts:
            self.ledger.close()
        self._starts += 1
        self.ledger: Ledger = Ledger(year.url, busy_s=0.1)
        # On the same machine, or elsewhere.
        holder = f"replica-{self._number}:{self._starts if year.chance.random() < 0.5 else 0}"
        self.evaluator = Evaluator(self.ledger, year.ask, year.config, holder=holder, author="year")
        self.outbox = Outbox(self.ledger, year.posts, sleep=lambda _: None)
        year.armed = True


class Year:
    """From `start` until `end`; the same for the same seed.

    a_day: calls. step: between two evaluations, more or less. faulty: whether anything goes wrong. real: a ledger's answers, which `enter` fills;
    None: the figures are added up here. months: called when each begins.
    """

    def __init__(
        self,
        data: Path,
        start: datetime,
        end: datetime,
        *,
        seed: int = 1,
        a_day: int = 70,
        step: timedelta = H,
        faulty: bool = True,
        real: Ask | None = None,
        enter: Callable[[Sequence[Any]], object] = lambda _: None,
        months: Callable[[datetime], object] = lambda _: None,
    ) -> None:
        self.chance, self.start, self.end, self.step = random.Random(seed), start, end, step
        self.faulty, self.real, self._enter, self._months = faulty, real, enter, months
        self.url, self._file = f"sqlite:///{data / 'alerts.db'}", data / "alerts.db"
        self.faults: Counter[str] = Counter()
        self.gone = False
        self.armed = True
        """Whether faults may strike; people's own doings are spared."""
        self.book = Book()
        self.ticks = 0
        self._arrivals = calls(self.chance, start - 3 * D, end, a_day)
        self._fault: Fault | None = None
        self._transactions = 0
        self._down = 0
        self._broken = False
        self._heard_of = 0
        self._defined: defaultdict[str, list[tuple[Budget, int, datetime]]] = defaultdict(list)
        self._restart = False
        self._overtaker: tuple[Replica, datetime] | None = None
        self._attempts: list[tuple[datetime, Ticked | None]] = []
        self._people = People(self.chance, per_day(self._arrivals, (end - start) / D + 3))
        self.posts = {name: Post(name, self) for name in CHANNELS}
        self.reckoning = Reckoning(self.book.spend, self.book.steps, _foresee, kind_of)
        for name in self._people.budgets:
            self.reckoning.counts[kind_of(name)].budgets += 1

    # What happens

    def run(self) -> None:
        with _patched(self):
            self.replicas = [Replica(self, number) for number in range(3)]
            try:
                self._live()
                self._settle()
            finally:
                for replica in self.replicas:
                    replica.ledger.close()

    def _live(self) -> None:
        at, arrived, month = self.start, 0, self.start.month
        stretches = self._stretches()
        while at < self.end:
            new = []
            while arrived < len(self._arrivals) and self._arrivals[arrived].when <= at:
                new.append(self._arrivals[arrived].entry)
                arrived += 1
            for entry in new:
                self.book.enter(entry)
            self._enter(new)
            in_force = {what: amount for what, begin, end, amount in stretches if begin <= at < end}
            if self.faulty and self.chance.random() < 0.04:
                self._edit()
            if "downtime" in in_force:
                self._restart = True
            else:
                self._turn(at + in_force.get("clock", timedelta()), in_force.keys())
            if at.month != month:
                month = at.month
                self._arrivals, arrived = self._arrivals[arrived:], 0
                self.book.forget(at - KEPT)
                self.reckoning.forget(at - KEPT)
                self._months(at)
            at += self.step * self.chance.uniform(0.3, 1.7)

    def _turn(self, now: datetime, in_force: Any) -> None:
        """One evaluation by each replica, in any order, and deliveries."""
        if self._restart:
            for replica in self.replicas:
                replica.start()
            self._restart = False
        self.gone = "revoked" in in_force
        self._broken = "query broken" in in_force
        self._down = 10**9 if "ledger down" in in_force else 0
        chance = self.chance
        self._silence(now)
        order = chance.sample(self.replicas, chance.choice((1, 1, 1, 2, 3)))
        for replica in order:
            # Their clocks differ a little.
            self._evaluate(replica, now + timedelta(seconds=chance.uniform(-20, 20)), faulty=self.faulty)
            self._hear()
        for replica in chance.sample(self.replicas, chance.choice((0, 0, 0, 1, 1, 2))):
            self._deliver(replica, now)
        self._down = 0

    def _evaluate(self, replica: Replica, now: datetime, *, faulty: bool = False) -> None:
        self.ticks += 1
        self._transactions, self._fault = 0, None
        drawn = self.chance.random() if faulty else 1.0
        number, stage = self.chance.randint(1, 12), self.chance.choice(("before", "inside", "after"))
        if drawn < 0.05:
            self._fault = Fault(number, stage, "evaluator killed")
        elif drawn < 0.07 and stage != "inside":
            self._fault = Fault(number, stage, "evaluator overtaken in its tick")
            self._overtaker = next(one for one in self.replicas if one is not replica), now + 2 * M
        elif drawn < 0.08:
            self._fault = Fault(number, stage, "ledger lost in a tick")
        place = len(self._attempts)
        self._attempts.append((now, None))
        try:
            done = replica.evaluator.tick(now)
            if done is not None:
                # It wrote after whoever overtook it before it had the lease.
                self._attempts.pop(place)
                self._attempts.append((now, done))
        except Killed:
            replica.start()
        except (LedgerDown, QueryBroken):
            pass
        finally:
            self._fault = None
            if self._down < 10**6:
                self._down = 0

    def _deliver(self, replica: Replica, now: datetime) -> None:
        self._transactions = 0
        if self.faulty and self.chance.random() < 0.01:
            self._fault = Fault(self.chance.randint(1, 9), self.chance.choice(("before", "inside")), "ledger lost in a delivery")
        try:
            replica.outbox.deliver_due(now)
        except Killed:
            replica.start()
        except LedgerDown:
            pass
        finally:
            self._fault = None
            if self._down < 10**6:
                self._down = 0

    def _settle(self) -> None:
        """Quiet days at the end: what is open is delivered."""
        self.faulty, self.gone = False, False
        at = self.end
        while any(one.pending or one.sending for one in self.replicas[0].ledger.deliveries.status()):
            at += H
            self._turn(at, ())

    # What goes wrong

    def reach(self, stage: str) -> None:
        """A transaction of the ledger comes to this stage: the faults' moment."""
        if not self.armed:
            return
        if stage == "before":
            self._transactions += 1
            if self._down:
                self._down -= 1
                raise LedgerDown("the alert ledger can't be used now: simulated")
        fault = self._fault
        if fault is None or (fault.number, fault.stage) != (self._transactions, stage):
            return
        self._fault = None
        self.faults[fault.what] += 1
        match fault.what:
            case "evaluator killed":
                raise Killed
            case "evaluator overtaken in its tick" if self._overtaker:
                self._evaluate(*self._overtaker)
            case _:
                self._down = self.chance.randint(1, 6)
                raise LedgerDown("the alert ledger can't be used now: simulated")

    def ask(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        if self._broken:
            raise QueryBroken
        return self.real(sql, params) if self.real else ()

    def note(self, what: str, until: Mapping[float, str], drawn: float) -> None:
        for limit, name in until.items():
            if drawn < limit:
                self.faults[f"{what} {name}"] += 1
                return

    def _stretches(self) -> list[tuple[str, datetime, datetime, Any]]:
        """(what, from, until, how much) of what lasts: downtimes, some of them over a rollover, wrong clocks, a ledger or a query that fails."""
        if not self.faulty:
            return []
        chance, days = self.chance, (self.end - self.start) / D
        found: list[tuple[str, datetime, datetime, Any]] = []

        def add(what: str, a_year: int, hours: Sequence[float], amounts: Sequence[Any] = (None,)) -> None:
            for _ in range(max(1, round(a_year * days / 366))):
                begin = self.start + chance.random() * (self.end - self.start)
                if what == "downtime" and chance.random() < 0.5:
                    # Over a midnight of the month's end, in one zone or another.
                    begin = (begin.replace(day=1) + 32 * D).replace(day=1, hour=0, minute=0) - timedelta(
                        hours=chance.uniform(0, 12)
                    )
                found.append((what, begin, begin + timedelta(hours=chance.choice(hours)), chance.choice(amounts)))
                self.faults[what] += 1

        add("downtime", 40, (0.7, 3, 8, 14, 30, 80))
        add("clock", 24, (0.6, 2, 6, 30), (-D, -3 * H, -H, -10 * M, 10 * M, H, 3 * H, 26 * H, 4 * D, 35 * D))
        add("ledger down", 12, (0.6, 2, 9))
        add("query broken", 12, (0.6, 2, 9))
        add("revoked", 2, (100,))
        return found

    @property
    def config(self) -> Config:
        return self._people.config

    def _edit(self) -> None:
        if (done := self._people.edit()) is not None:
            self.faults[f"edits: {done}"] += 1
            for replica in self.replicas:
                replica.evaluator.use(self.config)

    def _silence(self, now: datetime) -> None:
        if self.faulty and not self._down and self.chance.random() < 0.002:
            name = self.chance.choice(sorted(self._people.budgets))
            until = now + self.chance.choice([H, D])
            self.replicas[0].ledger.silences.silence(name, None, until=until, who="kim", why="known", now=now)
            self.faults["silences"] += 1

    # What came of it

    def _hear(self) -> None:
        """What was entered since, read from the ledger's file."""
        attempts, self._attempts = self._attempts, []
        with sqlite3.connect(self._file) as file:
            rows = file.execute("SELECT id, body FROM alert_messages WHERE id > ? ORDER BY id", (self._heard_of,)).fetchall()
            finished = file.execute("SELECT at FROM alert_ticks").fetchone()
            newest = "SELECT subject, max(revision), at FROM alert_revisions GROUP BY subject"
            revisions = {subject: (number, datetime.fromisoformat(at)) for subject, number, at in file.execute(newest)}
            told = []
            for now, done in attempts:
                whole = done is not None or (finished is not None and datetime.fromisoformat(finished[0]) == now)
                marks = "SELECT DISTINCT subject, period_start, value FROM alert_marks WHERE at = ?"
                text = now.astimezone(UTC).isoformat(" ", "microseconds")
                entered = frozenset() if whole else frozenset[Of](
                    (subject, datetime.fromisoformat(start), value.replace("\\\\", "\\"))
                    for subject, start, value in file.execute(marks, (text,))
                )  # fmt: skip
                told.append(Attempt(now, whole, entered))
        # Whoever finished last, wrote last.
        told.sort(key=lambda one: finished is not None and one.now == datetime.fromisoformat(finished[0]))
        self._heard_of = rows[-1][0] if rows else self._heard_of
        in_force = []
        for budget in self.config.budgets:
            past = self._defined[budget.name]
            if budget.name in revisions and (not past or past[-1][1] != revisions[budget.name][0]):
                past.append((budget, *revisions[budget.name]))
            for (defined, number, at), after in zip(past, [*past[1:], None], strict=True):
                # What isn't judged changes without a revision.
                as_of = defined if after else budget
                in_force.append(InForce(as_of, number, at, after[2] if after else None, past[-1][2]))
        self.reckoning.hear(in_force, told, [from_json(body) for _, body in rows])

    def outcome(self) -> "Outcome":
        """Of everything that was to be delivered."""
        found = Outcome()
        joined = "SELECT body, channel, state FROM alert_deliveries JOIN alert_messages ON alert_messages.id = message_id"
        with sqlite3.connect(self._file) as file:
            for body, channel, state in file.execute(joined):
                number = int(Delivery(0, channel, 1, from_json(body), None).id, 16)
                post = self.posts[channel]
                found.entered += 1
                found.silenced += state == State.SILENCED
                found.refused += state == State.REFUSED
                found.delivered += post.got[number] > 0
                found.lost += not post.got[number] and state not in {State.SILENCED, State.REFUSED}
                found.again_after_a_kill += post.got[number] > 1 and number in post.cut_off
                found.again += post.got[number] > 1 and number not in post.cut_off
        return found


@dataclass
class Outcome:
    """Messages, counted for each of their channels. again: delivered more than once although no sender was killed."""

    entered: int = 0
    delivered: int = 0
    again_after_a_kill: int = 0
    again: int = 0
    silenced: int = 0
    refused: int = 0
    lost: int = 0


class QueryBroken(Exception):
    """ClickHouse doesn't answer."""


@lru_cache(maxsize=512)
def _forecast(period: Period, now: datetime, spent: Decimal, steps: tuple[tuple[datetime, Decimal], ...]) -> Forecast | None:
    return forecast(period, now, spent, dict(steps))


def _foresee(period: Period, now: datetime, spent: Decimal, steps: Mapping[datetime, Decimal]) -> Forecast | None:
    """The real one; the evaluator and the reckoning ask for the same."""
    return _forecast(period, now, spent, tuple(sorted(steps.items())))


@contextmanager
def _patched(year: Year) -> Iterator[None]:
    """Every transaction of the ledger is a moment for a fault."""

    def watched(real: Callable[[Database], AbstractContextManager[Connection]]) -> Any:
        @contextmanager
        def transaction(database: Database) -> Iterator[Connection]:
            year.reach("before")
            with real(database) as connection:
                yield connection
                year.reach("inside")
            year.reach("after")

        return transaction

    stand_in = {"spends": year.book.spends, "history": year.book.history, "details": year.book.details}
    replaced: dict[str, Any] = {"forecast": _foresee, **({} if year.real else stand_in)}
    with (
        patch.object(Database, "read", watched(Database.read)),
        patch.object(Database, "write", watched(Database.write)),
        patch.multiple(tick, **replaced),
    ):
        yield
