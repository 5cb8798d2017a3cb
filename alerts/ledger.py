"""The alert ledger: what was said, what stands as said, and what is to be delivered. One intent for each key, whoever races, restarts or sleeps."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from sqlalchemy import delete, func, select, true, tuple_, update

from tallystick.alerts import deliveries, lease
from tallystick.alerts.database import Database
from tallystick.alerts.definitions import Definitions
from tallystick.alerts.journal import Journal
from tallystick.alerts.lease import EVALUATOR, Fence
from tallystick.alerts.model import Key, Mark, Message
from tallystick.alerts.silences import Silence, Silences
from tallystick.alerts.tables import DELIVERIES, MARKS, MESSAGES, REVISIONS, TICKS, insert_new


@dataclass(frozen=True)
class Revision:
    """A budget or rule as it was defined from `at` on. number: from 1; definition: JSON."""

    subject: str
    number: int
    fingerprint: str
    definition: str
    author: str
    at: datetime


@dataclass(frozen=True)
class Tick:
    """The last evaluation that was finished, by whichever replica."""

    at: datetime
    duration: timedelta


class Ledger:
    """One database, from any thread. `deliveries`, `leases`, `silences`, `definitions` and `journal` are its other parts.

    url: see `Database`, which also tells what opening raises. Every method raises LedgerDown.
    """

    def __init__(self, url: str, *, busy_s: float = 10.0) -> None:
        self._database = Database(url, busy_s=busy_s)
        self.deliveries = deliveries.Deliveries(self._database)
        self.leases = lease.Leases(self._database)
        self.silences = Silences(self._database)
        self.definitions = Definitions(self._database)
        self.journal = Journal(self._database)
        self._last_read: tuple[object, Mapping[tuple[str, datetime, str], tuple[Mark, ...]]] = (None, {})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._database.close()

    def revise(self, subject: str, fingerprint: str, definition: str, now: datetime, author: str) -> int:
        """The number of the present revision: a new one, unless its fingerprint is the last one's. Going back to an older definition is new, too."""
        while (last := self.latest().get(subject)) is None or last.fingerprint != fingerprint:
            number = last.number + 1 if last else 1
            new = {
                "subject": subject, "revision": number, "fingerprint": fingerprint, "definition": definition, "author": author, "at": now,
            }  # fmt: skip
            with self._database.write() as connection:
                entered = connection.scalar(insert_new(connection, REVISIONS).values(new).returning(REVISIONS.c.revision))
            if entered == number:
                return number
            # Another process was faster: look at its revision.
        return last.number

    def latest(self) -> dict[str, Revision]:
        """The present revision of every subject there ever was."""
        newest = select(REVISIONS.c.subject, func.max(REVISIONS.c.revision)).group_by(REVISIONS.c.subject)
        return {found.subject: found for found in self._revisions(tuple_(REVISIONS.c.subject, REVISIONS.c.revision).in_(newest))}

    def history(self, subject: str) -> list[Revision]:
        """The oldest first."""
        return self._revisions(REVISIONS.c.subject == subject)

    def histories(self) -> dict[str, list[Revision]]:
        """The same of every subject there ever was."""
        found: dict[str, list[Revision]] = {}
        for one in self._revisions(true()):
            found.setdefault(one.subject, []).append(one)
        return found

    def _revisions(self, which: Any) -> list[Revision]:
        with self._database.read() as connection:
            return [Revision(*row) for row in connection.execute(select(REVISIONS).where(which).order_by(REVISIONS.c.revision))]

    def announce(
        self,
        marks: Collection[Mark],
        message: Message,
        channels: Collection[str],
        *,
        now: datetime,
        fence: Fence,
        not_before: datetime | None = None,
        silence: Silence | None = None,
    ) -> bool:
        """Enter all marks, the message, and a delivery for each channel: all or nothing.

        False, and nothing entered, where one of the said marks stands already: somebody else has said it. Raises Fenced, and ValueError unless the
        message's key is one of the said marks. not_before: the end of quiet hours. silence: the one that covers it; it counts as said.
        """
        said = {mark.key for mark in marks if mark.said}
        if message.key not in said:
            raise ValueError(f"the message is about {message.key}, which isn't among the marks that are said")
        with self._database.write() as connection:
            lease.check(connection, fence)
            entered = connection.execute(insert_new(connection, MARKS).values(_rows(marks)).returning(*_KEY))
            if not said <= {Key(subject, revision, start, value, mark) for start, subject, value, revision, mark in entered}:
                connection.rollback()
                return False
            deliveries.add(connection, message, channels, now=now, not_before=not_before, silence=silence)
        return True

    def carry(self, marks: Collection[Mark], *, fence: Fence) -> None:
        """Enter marks that stand as said without a message; those that stand already stay as they are. Raises Fenced."""
        if any(mark.said for mark in marks):
            raise ValueError("a mark that is said needs its message: announce it")
        with self._database.write() as connection:
            lease.check(connection, fence)
            if marks:
                connection.execute(insert_new(connection, MARKS), _rows(marks))

    def marks(self, period_starts: Collection[datetime]) -> Mapping[tuple[str, datetime, str], tuple[Mark, ...]]:
        """All marks of the periods that start then, of all subjects and revisions, by (subject, period_start, value): one query for a tick.

        They are read again only where some were added or deleted since the last call, which asked for the same periods: most ticks change nothing.
        """
        starts = frozenset(period_starts)
        of_these = MARKS.c.period_start.in_(starts)
        with self._database.read() as connection:
            # Marks never change, and an id isn't used twice.
            count, newest = connection.execute(select(func.count(), func.max(MARKS.c.id)).where(of_these)).one()
            version = (starts, count, newest)
            known, marks = self._last_read
            if known == version:
                return marks
            found: dict[tuple[str, datetime, str], list[Mark]] = {}
            rows = connection.execute(select(*_KEY, *_REST).where(of_these))
            for start, subject, value, revision, mark, amount, spent, corrections, at, said in rows:
                key = Key(subject, revision, start, value, mark)
                found.setdefault((subject, start, value), []).append(Mark(key, amount, spent, corrections, at, said))
        marks = {of: tuple(some) for of, some in found.items()}
        self._last_read = (version, marks)
        return marks

    def standing(self, subjects: Collection[str], *, over: str) -> Mapping[str, tuple[Mark, ...]]:
        """By subject, what was said and isn't over: no mark of the same key ends it, whose name is the mark's and `over`."""
        end = MARKS.alias()
        ended = (
            select(end.c.id)
            .where(
                end.c.subject == MARKS.c.subject,
                end.c.revision == MARKS.c.revision,
                end.c.period_start == MARKS.c.period_start,
                end.c.value == MARKS.c.value,
                end.c.mark == MARKS.c.mark + over,
            )
            .exists()
        )
        of_these = MARKS.c.subject.in_(subjects) & ~MARKS.c.mark.endswith(over, autoescape=True) & ~ended
        found: dict[str, list[Mark]] = {}
        with self._database.read() as connection:
            for row in connection.execute(select(*_KEY, *_REST).where(of_these).order_by(MARKS.c.id)):
                start, subject, value, revision, mark, *rest = row
                found.setdefault(subject, []).append(Mark(Key(subject, revision, start, value, mark), *rest))
        return {subject: tuple(some) for subject, some in found.items()}

    def ticked(self, now: datetime, duration: timedelta, fence: Fence) -> None:
        """An evaluation is finished. Raises Fenced."""
        values = {"at": now, "duration_us": duration // timedelta(microseconds=1), "fence": fence.number}
        with self._database.write() as connection:
            lease.check(connection, fence)
            connection.execute(insert_new(connection, TICKS).values(name=fence.name, **values))
            connection.execute(update(TICKS).where(TICKS.c.name == fence.name).values(values))

    def last_tick(self, name: str = EVALUATOR) -> Tick | None:
        """The one that was entered last, also where a clock has been set back since: what came after it is to be caught up."""
        with self._database.read() as connection:
            row = connection.execute(select(TICKS.c.at, TICKS.c.duration_us).where(TICKS.c.name == name)).one_or_none()
        return None if row is None else Tick(row.at, timedelta(microseconds=row.duration_us))

    def prune(self, before: datetime) -> int:
        """Delete what was settled or marked before then; how many rows. Open deliveries stay, and each subject's marks of its last two periods.

        Let `before` be older than the longest period, or a conversation loses its thread.
        """
        periods = select(
            MARKS.c.subject,
            MARKS.c.period_start,
            func.dense_rank().over(partition_by=MARKS.c.subject, order_by=MARKS.c.period_start.desc()).label("age"),
        ).subquery()
        over = select(periods.c.subject, periods.c.period_start).where(periods.c.age > 2)
        told = select(DELIVERIES.c.id).where(DELIVERIES.c.message_id == MESSAGES.c.id).exists()
        with self._database.write() as connection:
            gone = (
                delete(DELIVERIES).where(DELIVERIES.c.settled_at < before),
                delete(MESSAGES).where(MESSAGES.c.at < before, ~told),
                delete(MARKS).where(MARKS.c.at < before, tuple_(MARKS.c.subject, MARKS.c.period_start).in_(over)),
            )
            return sum(connection.execute(statement).rowcount for statement in gone)


_KEY = (MARKS.c.period_start, MARKS.c.subject, MARKS.c.value, MARKS.c.revision, MARKS.c.mark)
_REST = (MARKS.c.amount, MARKS.c.spent, MARKS.c.corrections, MARKS.c.at, MARKS.c.said)


def _rows(marks: Iterable[Mark]) -> list[dict[str, Any]]:
    """In the order of keys, so that two writers wait for each other in one direction only."""
    rows = [asdict(mark) for mark in sorted(marks, key=lambda mark: mark.key)]
    return [row.pop("key") | row for row in rows]
