"""Budgets that were made by API, not in the file: every change of them, with who and when. What is in force is the last one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import func, insert, select

from tallystick.alerts.database import Database
from tallystick.alerts.tables import DEFINITIONS

BUDGET: Final = "budget"


@dataclass(frozen=True)
class Definition:
    """One change. body: JSON; None: it was deleted."""

    id: int
    kind: str
    subject: str
    body: str | None
    author: str
    at: datetime


class Definitions:
    """Nothing is changed or deleted: a change is added. Every method raises LedgerDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, kind: str, subject: str, body: str, *, author: str, now: datetime) -> bool:
        """False, and nothing is added, where it is in force already."""
        return self._add(kind, subject, body, author, now)

    def delete(self, kind: str, subject: str, *, author: str, now: datetime) -> bool:
        """False where none is in force."""
        return self._add(kind, subject, None, author, now)

    def in_force(self, kind: str) -> list[Definition]:
        """By name."""
        newest = select(func.max(DEFINITIONS.c.id)).where(DEFINITIONS.c.kind == kind).group_by(DEFINITIONS.c.subject)
        found = self._read(DEFINITIONS.c.id.in_(newest), DEFINITIONS.c.body.is_not(None))
        return sorted(found, key=lambda one: one.subject)

    def changes(self, kind: str, subject: str) -> list[Definition]:
        """The oldest first."""
        return self._read(DEFINITIONS.c.kind == kind, DEFINITIONS.c.subject == subject)

    def version(self) -> tuple[int, int | None]:
        """What is another one after any change, by whichever replica."""
        with self._database.read() as connection:
            # The count as well: in PostgreSQL a smaller id may become visible after a larger one.
            count, newest = connection.execute(select(func.count(), func.max(DEFINITIONS.c.id))).one()
        return count, newest

    def _add(self, kind: str, subject: str, body: str | None, author: str, now: datetime) -> bool:
        of_this = (DEFINITIONS.c.kind == kind) & (DEFINITIONS.c.subject == subject)
        with self._database.write() as connection:
            last = connection.scalar(select(DEFINITIONS.c.body).where(of_this).order_by(DEFINITIONS.c.id.desc()).limit(1))
            if last == body:
                return False
            row = {"kind": kind, "subject": subject, "body": body, "author": author, "at": now}
            connection.execute(insert(DEFINITIONS), row)
        return True

    def _read(self, *which: Any) -> list[Definition]:
        with self._database.read() as connection:
            rows = connection.execute(select(DEFINITIONS).where(*which).order_by(DEFINITIONS.c.id))
            return [Definition(*row) for row in rows]
