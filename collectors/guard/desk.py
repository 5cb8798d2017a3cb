"""The one place where reservations are made and settled, whatever thread or task asks."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from tallystick.collectors.forks import at_fork
from tallystick.collectors.guard.accounts import Account, Amount, Measure, Reservation, Reservations

RESERVED_S: Final = 900.0
"""How long a call may take before what was reserved for it counts as spent: longer than the longest default limit of a client library (600 s)."""

FAR: Final = 20
"""A call is far below a limit while so many of its kind would fit: then it needn't be counted exactly."""

Find = Callable[[float], Sequence[Account]]
"""The accounts that a call at that time, seconds since 1970, is held against."""


@dataclass(frozen=True, slots=True)
class Short:
    """An account that hadn't enough left, as it stood then."""

    account: Account
    measure: Measure
    limit: Decimal
    spent: Decimal
    reserved: Decimal


class Desk:
    """Checks and reserves in one step, so that of calls that come together no more pass than fit."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """clock: seconds since 1970."""
        self._clock = clock
        self._reservations = Reservations(RESERVED_S)
        self._ended: deque[tuple[Reservation, Amount, float]] = deque()
        self._lock = threading.Lock()
        at_fork(in_child=self._forked)

    @property
    def expired(self) -> int:
        """Reservations that were never settled in time."""
        return self._reservations.expired

    def reserve(self, find: Find, wanted: Amount, *, far: bool = False) -> Reservation | Short:
        """A reservation of `wanted` on all accounts, or of nothing. far: only if `FAR` such calls would fit."""
        with self._lock:
            now = self._up_to_date()
            accounts = tuple(find(now))
            much = Amount(wanted.usd and wanted.usd * FAR, wanted.tokens * FAR) if far else wanted
            for account in accounts:
                if (measure := account.exceeded(much)) is not None:
                    return Short(account, measure, account.limits[measure], account.spent[measure], account.reserved[measure])
            return self._reservations.open(accounts, wanted, now)

    def settle(self, reservation: Reservation, actual: Amount) -> None:
        """Never waits: streams are ended by the garbage collector too, also inside of `reserve`, which then does it before it looks next."""
        self._ended.append((reservation, actual, self._clock()))
        if self._lock.acquire(blocking=False):
            try:
                self._settle_ended()
            finally:
                self._lock.release()

    def look(self, find: Find) -> list[Account]:
        """Copies of accounts as they stand."""
        with self._lock:
            return [_copy(account) for account in find(self._up_to_date())]

    def _up_to_date(self) -> float:
        """The time, with everything done that was to be done by then."""
        self._settle_ended()
        now = self._clock()
        self._reservations.expire(now)
        return now

    def _settle_ended(self) -> None:
        while self._ended:
            self._reservations.settle(*self._ended.popleft())

    def _forked(self) -> None:
        # Another thread may have held the lock, and what is under way in the parent isn't the child's.
        self._lock = threading.Lock()
        self._ended.clear()
        self._reservations.forget()


def _copy(account: Account) -> Account:
    made = Account(account.limits)
    made.spent, made.reserved, made.used_at = dict(account.spent), dict(account.reserved), account.used_at
    return made


desk: Final = Desk()
"""Of this process: an account may be held against by several guards."""
