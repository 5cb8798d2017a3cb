"""Who evaluates, where several replicas run: a lease with a number that only grows, so that one that slept is told so when it writes."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, select, update

from tallystick.alerts.database import Database, LedgerError
from tallystick.alerts.tables import LEASES, insert_new

EVALUATOR = "evaluator"
"""The lease of whoever decides what is said."""

SKEW = timedelta(minutes=1)
"""How far clocks may differ. What was written later than this from now was written before a clock was set back."""


class Fenced(LedgerError):
    """Another replica has taken the lease since: stop, and acquire it again."""


@dataclass(frozen=True)
class Fence:
    """A lease that was taken. number: grows by one with every holder."""

    name: str
    number: int


class Leases:
    """Taken, kept and given back. The clock is the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, holder: str, ttl: timedelta, now: datetime) -> Fence | None:
        """None while another holder has it. The same holder gets it anew: what it held before is fenced off. Raises LedgerDown."""
        with self._database.write() as connection:
            free = {"name": name, "number": 0, "holder": "", "since": now, "until": now}
            connection.execute(insert_new(connection, LEASES).values(free))
            present = connection.execute(select(LEASES).where(LEASES.c.name == name).with_for_update()).one()
            if present.holder != holder and present.since - SKEW <= now < present.until:
                return None
            taken = {"number": present.number + 1, "holder": holder, "since": now, "until": now + ttl}
            connection.execute(update(LEASES).where(LEASES.c.name == name).values(taken))
            return Fence(name, present.number + 1)

    def renew(self, fence: Fence, ttl: timedelta, now: datetime) -> bool:
        """For another ttl from now, also where it ran out and nobody took it. False: it is another's, or was released."""
        return self._put(fence, now, now + ttl)

    def release(self, fence: Fence, now: datetime) -> None:
        """Others may take it at once. Nothing happens where it is another's already."""
        self._put(fence, now, now, holder="")

    def _put(self, fence: Fence, since: datetime, until: datetime, **more: str) -> bool:
        with self._database.write() as connection:
            own = (LEASES.c.name == fence.name) & (LEASES.c.number == fence.number) & (LEASES.c.holder != "")
            return connection.execute(update(LEASES).where(own).values(since=since, until=until, **more)).rowcount == 1


def check(connection: Connection, fence: Fence) -> None:
    """Nobody takes the lease before this transaction ends. Raises Fenced where somebody has."""
    number = connection.scalar(select(LEASES.c.number).where(LEASES.c.name == fence.name).with_for_update(read=True))
    if number != fence.number:
        raise Fenced(f"the lease {fence.name} is another's: it has number {number}, this one is {fence.number}")
