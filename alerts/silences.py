"""Who doesn't want to hear of what, until when; and who has seen it. Nothing is deleted: it is the record of who did."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import insert, select, update

from tallystick.alerts.database import Database
from tallystick.alerts.model import Key
from tallystick.alerts.tables import ACKNOWLEDGEMENTS, SILENCES


@dataclass(frozen=True)
class Silence:
    """value None: all values of the subject. ended_at, ended_by: who lifted it before its time."""

    id: int
    subject: str
    value: str | None
    at: datetime
    until: datetime
    who: str
    why: str
    ended_at: datetime | None = None
    ended_by: str | None = None

    def covers(self, key: Key) -> bool:
        return self.subject == key.subject and self.value in {None, key.value}


@dataclass(frozen=True)
class Acknowledgement:
    """Somebody has it in hand, for one value in one period. until None: for the rest of it."""

    id: int
    subject: str
    value: str
    period_start: datetime
    at: datetime
    until: datetime | None
    who: str
    why: str


class Silences:
    """Every method raises LedgerDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def silence(self, subject: str, value: str | None, *, until: datetime, who: str, why: str, now: datetime) -> Silence:
        """Raises ValueError where `until` is over."""
        if until <= now:
            raise ValueError(f"a silence until {until.isoformat()} is over already")
        values = {"subject": subject, "value": value, "at": now, "until": until, "who": who, "why": why}
        with self._database.write() as connection:
            number = connection.execute(insert(SILENCES).returning(SILENCES.c.id), values).scalar_one()
        return Silence(number, subject, value, now, until, who, why)

    def lift(self, number: int, who: str, now: datetime) -> bool:
        """End one before its time; False where there is none, or it was lifted before."""
        standing = (SILENCES.c.id == number) & SILENCES.c.ended_at.is_(None)
        with self._database.write() as connection:
            return connection.execute(update(SILENCES).where(standing).values(ended_at=now, ended_by=who)).rowcount == 1

    def silences(self) -> list[Silence]:
        """All there were, the newest first."""
        with self._database.read() as connection:
            return [Silence(*row) for row in connection.execute(select(SILENCES).order_by(SILENCES.c.id.desc()))]

    def active_silences(self, now: datetime) -> list[Silence]:
        standing = select(SILENCES).where(SILENCES.c.until > now, SILENCES.c.ended_at.is_(None)).order_by(SILENCES.c.id)
        with self._database.read() as connection:
            return [Silence(*row) for row in connection.execute(standing)]

    def acknowledge(self, key: Key, *, who: str, why: str, now: datetime, until: datetime | None = None) -> Acknowledgement:
        """For the key's subject, value and period, whatever its mark and revision."""
        values = {
            "subject": key.subject, "value": key.value, "period_start": key.period_start, "at": now, "until": until, "who": who, "why": why,
        }  # fmt: skip
        with self._database.write() as connection:
            number = connection.execute(insert(ACKNOWLEDGEMENTS).returning(ACKNOWLEDGEMENTS.c.id), values).scalar_one()
        return Acknowledgement(number, key.subject, key.value, key.period_start, now, until, who, why)

    def acknowledgements(self, subject: str | None = None) -> list[Acknowledgement]:
        """The newest first."""
        found = select(ACKNOWLEDGEMENTS).order_by(ACKNOWLEDGEMENTS.c.id.desc())
        if subject is not None:
            found = found.where(ACKNOWLEDGEMENTS.c.subject == subject)
        with self._database.read() as connection:
            return [Acknowledgement(*row) for row in connection.execute(found)]
