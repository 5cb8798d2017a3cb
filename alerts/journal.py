"""What was said, for people to look up: messages with what became of them, and which thresholds of a period are through."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from tallystick.alerts.database import Database
from tallystick.alerts.deliveries import OPEN, State
from tallystick.alerts.message_json import from_json
from tallystick.alerts.model import Message
from tallystick.alerts.tables import DELIVERIES, MARKS, MESSAGES


@dataclass(frozen=True)
class Outcome:
    """How a message's delivery to one channel stands, since when. next_at: when it is tried again; None once it is settled."""

    channel: str
    state: State
    attempts: int
    since: datetime
    next_at: datetime | None
    error: str | None


@dataclass(frozen=True)
class Entry:
    """A message. id: grows with time. message: None where a newer version wrote it."""

    id: int
    at: datetime
    subject: str
    value: str
    message: Message | None
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class Said:
    """A mark that stands: what isn't said again under this revision."""

    revision: int
    mark: str
    at: datetime


class Journal:
    """Reads only. Every method raises LedgerDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(
        self, limit: int, *, before: int | None = None, subject: str | None = None, value: str | None = None
    ) -> list[Entry]:
        """The newest first. before: only older ones than this id."""
        wanted = select(MESSAGES).order_by(MESSAGES.c.id.desc()).limit(limit)
        for column, given in ((MESSAGES.c.subject, subject), (MESSAGES.c.value, value)):
            if given is not None:
                wanted = wanted.where(column == given)
        if before is not None:
            wanted = wanted.where(MESSAGES.c.id < before)
        with self._database.read() as connection:
            messages = connection.execute(wanted).all()
            numbers = [row.id for row in messages]
            found = select(DELIVERIES).where(DELIVERIES.c.message_id.in_(numbers)).order_by(DELIVERIES.c.id)
            outcomes: defaultdict[int, list[Outcome]] = defaultdict(list)
            for row in connection.execute(found):
                state = State(row.state)
                next_at = row.next_at if state in OPEN else None
                told = Outcome(row.channel, state, row.attempts, row.since, next_at, row.error)
                outcomes[row.message_id].append(told)
        return [Entry(row.id, row.at, row.subject, row.value, _readable(row.body), tuple(outcomes[row.id])) for row in messages]

    def said(self, period_starts: Collection[datetime]) -> Mapping[tuple[str, datetime, str], tuple[Said, ...]]:
        """All marks of the periods that start then, by (subject, period_start, value), the oldest first."""
        m = MARKS.c
        wanted = select(m.subject, m.period_start, m.value, m.revision, m.mark, m.at).where(m.period_start.in_(period_starts))
        found: defaultdict[tuple[str, datetime, str], list[Said]] = defaultdict(list)
        with self._database.read() as connection:
            for subject, start, value, revision, mark, at in connection.execute(wanted.order_by(m.id)):
                found[subject, start, value].append(Said(revision, mark, at))
        return {of: tuple(some) for of, some in found.items()}


def _readable(body: str) -> Message | None:
    try:
        return from_json(body)
    except ValueError:
        return None
