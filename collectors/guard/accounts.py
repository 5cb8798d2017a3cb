"""Limits, what was spent of them and what is reserved: arithmetic alone. Nothing here waits; the clock is passed in."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Generic, Literal, TypeVar

Measure = Literal["usd", "tokens", "calls"]

NONE_YET: Final = Decimal(0)


@dataclass(frozen=True, slots=True)
class Amount:
    """What a call takes, or may take."""

    usd: Decimal | None
    """None where the model has no price."""
    tokens: int
    """Of all buckets: input, cache and output."""
    calls: int = 1

    def of(self, measure: Measure) -> Decimal | None:
        if measure == "usd":
            return self.usd
        return Decimal(self.tokens if measure == "tokens" else self.calls)


class Account:
    """What calls have spent and reserved of limits. Money is in USD."""

    __slots__ = ("limits", "reserved", "spent", "used_at")

    limits: Mapping[Measure, Decimal]
    spent: dict[Measure, Decimal]
    reserved: dict[Measure, Decimal]
    used_at: float
    """Seconds since 1970."""

    def __init__(self, limits: Mapping[Measure, Decimal]) -> None:
        self.limits = limits
        self.spent = dict.fromkeys(limits, NONE_YET)
        self.reserved = dict.fromkeys(limits, NONE_YET)
        self.used_at = 0.0

    def exceeded(self, wanted: Amount) -> Measure | None:
        """The limit that wouldn't hold with `wanted`; None if all would. What has no price isn't held against money."""
        for measure, limit in self.limits.items():
            more = wanted.of(measure)
            if more is not None and self.spent[measure] + self.reserved[measure] + more > limit:
                return measure
        return None

    def reserve(self, amount: Amount) -> None:
        _add(self.reserved, amount, 1)

    def release(self, amount: Amount) -> None:
        _add(self.reserved, amount, -1)

    def spend(self, amount: Amount, now: float) -> None:
        """now: seconds since 1970."""
        _add(self.spent, amount, 1)

    def take_back(self, amount: Amount, now: float) -> None:
        """Of what was spent."""
        _add(self.spent, amount, -1)

    @property
    def idle(self) -> bool:
        """Whether nothing is reserved."""
        return not any(self.reserved.values())


_Account = TypeVar("_Account", bound=Account)


def _add(to: dict[Measure, Decimal], amount: Amount, sign: Literal[1, -1]) -> None:
    for measure in to:
        more = amount.of(measure)
        if more is not None:
            to[measure] += sign * more


@dataclass(slots=True, eq=False)
class Reservation:
    """What one call may take of each of `accounts`, until it is known what it took."""

    accounts: tuple[Account, ...]
    amount: Amount
    expires: float
    """Seconds since 1970."""
    state: Literal["open", "settled", "expired", "forgotten"] = field(default="open")


class Reservations:
    """All that are open. One that is never settled counts as spent in full once it expires; should it be settled later, that is put right."""

    def __init__(self, life_s: float) -> None:
        self._life_s = life_s
        self._open: OrderedDict[Reservation, None] = OrderedDict()
        """The oldest first."""
        self.expired = 0
        """How many ever did."""

    def __len__(self) -> int:
        return len(self._open)

    def open(self, accounts: tuple[Account, ...], amount: Amount, now: float) -> Reservation:
        """Reserves without looking at limits: see `Account.exceeded`."""
        made = Reservation(accounts, amount, now + self._life_s)
        for account in accounts:
            account.reserve(amount)
            account.used_at = now
        self._open[made] = None
        return made

    def settle(self, settled: Reservation, actual: Amount, now: float) -> None:
        """The first time; again it does nothing."""
        if settled.state == "settled":
            return
        for account in settled.accounts:
            if settled.state == "open":
                account.release(settled.amount)
            elif settled.state == "expired":
                account.take_back(settled.amount, now)
            account.spend(actual, now)
            account.used_at = now
        self._open.pop(settled, None)
        settled.state = "settled"

    def expire(self, now: float) -> None:
        """Those whose time is over."""
        while self._open:
            first = next(iter(self._open))
            if first.expires > now:
                return
            del self._open[first]
            first.state = "expired"
            self.expired += 1
            for account in first.accounts:
                account.release(first.amount)
                account.spend(first.amount, now)

    def forget(self) -> None:
        """Releases all, as in a forked child: they are its parent's to settle."""
        for one in self._open:
            one.state = "forgotten"
            for account in one.accounts:
                account.release(one.amount)
        self._open.clear()


class Accounts(Generic[_Account]):
    """Accounts by name: the `most` that were used last, until they haven't been used for `idle_s`. Those with reservations stay."""

    def __init__(self, make: Callable[[str], _Account], *, most: int, idle_s: float) -> None:
        self._make, self._most, self._idle_s = make, most, idle_s
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        """Used last stands last."""

    def __len__(self) -> int:
        return len(self._accounts)

    def of(self, name: str, now: float) -> _Account:
        """A new one where there is none yet, or none any more."""
        found = self._accounts.get(name)
        if found is None or (found.idle and now - found.used_at > self._idle_s):
            found = self._accounts[name] = self._make(name)
        found.used_at = now
        self._accounts.move_to_end(name)
        self._forget(now)
        return found

    def all(self) -> list[tuple[str, _Account]]:
        return list(self._accounts.items())

    def _forget(self, now: float) -> None:
        # Two at most, so that no call pays for many: one comes with a call, so the number goes down.
        for _ in range(2):
            name, oldest = next(iter(self._accounts.items()))
            if not oldest.idle:
                self._accounts.move_to_end(name)
            elif len(self._accounts) > self._most or now - oldest.used_at > self._idle_s:
                del self._accounts[name]
            else:
                return
