"""Budgets of the server as this process last heard of them, and what it has spent itself since. Pure: what is heard and the clock are passed in."""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from tallystick.collectors.calls.request import Request
from tallystick.collectors.guard.accounts import NONE_YET, Account, Accounts, Amount, Measure
from tallystick.collectors.guard.pricing import provider_of
from tallystick.schema.names import SCOPE_KEYS, TAG_PREFIX

_MEASURES: Final[Mapping[str, Measure]] = {"cost": "usd", "tokens": "tokens", "calls": "calls"}

_OWN_STEPS: Final = 600
"""Steps of what was spent since the server was heard of; further ones are put together, so that a server that is away costs no memory."""

_STEP_S: Final = 1.0

_MOST_VALUES: Final = 10_000
_IDLE_S: Final = 3_600.0
"""Of a budget for each customer, say: how many customers' accounts are kept, and for how long without a call."""

_PLAIN: Final = {key.removeprefix("tallystick."): key for key in SCOPE_KEYS}


@dataclass(frozen=True, slots=True)
class Standing:
    """A budget of the server in its present period."""

    name: str
    measure: Measure
    limit: Decimal
    scope: Mapping[str, frozenset[str]]
    """Dimension → the values that belong to it."""
    each: str | None
    """A budget for each value of this dimension."""
    ends: float
    """Of the period, seconds since 1970."""
    spent: Mapping[str, Decimal]
    """By value of `each`, or of ""."""
    at_most: Decimal
    """What any other value has spent at most: not all may be told."""

    def spent_by(self, value: str) -> Decimal:
        return self.spent.get(value, self.at_most)


@dataclass(frozen=True, slots=True)
class Heard:
    """What the server said."""

    standings: tuple[Standing, ...]
    until: float
    """Calls of this process that ended before are in it: seconds since 1970."""
    number: int
    """Rises with each."""
    by_name: Mapping[str, Standing]
    by_value: Mapping[str, Mapping[str, list[Standing]]]
    """Dimension → value → those that look at this value; so that of ten thousand budgets a call looks at its own."""
    others: tuple[Standing, ...]
    """That look at no value."""

    def named(self, name: str, request: Request) -> list[Standing]:
        """The budget `name`, or all (`*`) that the call counts towards."""
        if name != "*":
            one = self.by_name.get(name)
            return [one] if one is not None and counts(one, request, named=True) else []
        near = [*self.others]
        for dimension, by_value in self.by_value.items():
            near += by_value.get(_value(request, dimension) or "", ())
        return [one for one in near if counts(one, request, named=False)]


class NoAnswer(Exception):
    """The server, or what stands at its address, answered something else."""


def read(answer: bytes) -> tuple[Standing, ...]:
    """The standings in an answer of `GET /v1/guard`. Raises NoAnswer."""
    try:
        return tuple(_standing(one) for one in json.loads(answer)["budgets"])
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise NoAnswer(f"not an answer of /v1/guard: {type(error).__name__}") from None


def _standing(told: Mapping[str, Any]) -> Standing:
    limit = Decimal(told["limit"])
    spent = {
        str(one["value"]): max(Decimal(one["spent"]), limit) if one["exhausted"] else Decimal(one["spent"])
        for one in told["values"]
    }
    return Standing(
        str(told["name"]),
        _MEASURES[told["measure"]],
        limit,
        {str(name): frozenset(map(str, values)) for name, values in told["scope"].items()},
        told["each"],
        datetime.fromisoformat(told["period"]["end"]).timestamp(),
        spent,
        min(spent.values(), default=NONE_YET) if told["values_total"] > len(spent) else NONE_YET,
    )


class BudgetAccount(Account):
    """What the server says was spent, and on top of it what ended here since. One measure."""

    __slots__ = ("_ends", "_heard", "_own", "_told")

    def __init__(self, measure: Measure, limit: Decimal) -> None:
        super().__init__({measure: limit})
        self._told = NONE_YET
        self._own: deque[tuple[float, Decimal]] = deque()
        """(when, how much), the oldest first."""
        self._ends = float("inf")
        self._heard = 0

    def refresh(self, standing: Standing, value: str, heard: Heard, now: float) -> None:
        """To be called before it is looked at."""
        if heard.number != self._heard:
            self._heard = heard.number
            self._told, self._ends = standing.spent_by(value), standing.ends
            self.limits = {standing.measure: standing.limit}
            self._since(heard.until)
        if now >= self._ends:
            # A period has begun of which the server hasn't told yet.
            self._told = NONE_YET
            self._since(self._ends)
            self._ends = float("inf")
        self._total(standing.measure)

    def spend(self, amount: Amount, now: float) -> None:
        for measure in self.limits:
            more = amount.of(measure)
            if more:
                self._add(more, now)
                self._total(measure)

    def take_back(self, amount: Amount, now: float) -> None:
        # What was put down for a reservation that expired is gone with the next word from the server, which knows nothing of it.
        for measure in self.limits:
            less = amount.of(measure) or NONE_YET
            for place, (at, much) in enumerate(self._own):
                if less and much >= less:
                    self._own[place] = (at, much - less)
                    break
            self._total(measure)

    def _add(self, more: Decimal, now: float) -> None:
        own = self._own
        if own and now - own[-1][0] < _STEP_S / 2:
            # Later than it was: kept rather too long than too short.
            own[-1] = (now, own[-1][1] + more)
        else:
            own.append((now, more))
        if len(own) > _OWN_STEPS:
            _, oldest = own.popleft()
            own[0] = (own[0][0], own[0][1] + oldest)

    def _since(self, until: float) -> None:
        while self._own and self._own[0][0] <= until:
            self._own.popleft()

    def _total(self, measure: Measure) -> None:
        self.spent = {measure: self._told + sum((much for _, much in self._own), NONE_YET)}


class Budgets:
    """Accounts of the server's budgets in this process."""

    def __init__(self) -> None:
        self.heard: Heard | None = None
        self._accounts: dict[tuple[str, Measure], Accounts[BudgetAccount]] = {}

    def hear(self, standings: tuple[Standing, ...] | None, until: float) -> None:
        """An answer; None where the last one still holds."""
        before = self.heard
        if standings is None:
            standings = before.standings if before else ()
        by_value: dict[str, dict[str, list[Standing]]] = {}
        others = []
        for one in standings:
            dimension = next((name for name in one.scope if name in _PLAIN or name.startswith("tag:")), None)
            if dimension is None:
                others.append(one)
            else:
                for value in one.scope[dimension]:
                    by_value.setdefault(dimension, {}).setdefault(value, []).append(one)
        number = before.number + 1 if before else 1
        self.heard = Heard(standings, until, number, {one.name: one for one in standings}, by_value, tuple(others))

    def held_against(self, name: str, request: Request, now: float) -> "list[tuple[Standing, str, Account]]":
        """Of the budget `name`, or of all (`*`) that the call counts towards: the standing, the value of `each`, and the account as it stands."""
        heard = self.heard
        if heard is None:
            return []
        found: list[tuple[Standing, str, Account]] = []
        for standing in heard.named(name, request):
            value = "" if standing.each is None else _value(request, standing.each) or ""
            account = self._of(standing).of(value, now)
            account.refresh(standing, value, heard, now)
            found.append((standing, value, account))
        return found

    def used(self, name: str) -> list[tuple[str, Account]]:
        """Accounts that calls were held against, by the budget's name and the value of `each`; `name` as in `held_against`."""
        return [
            (f"{budget}: {value}" if value else budget, account)
            for (budget, _), accounts in self._accounts.items()
            if name in ("*", budget)
            for value, account in accounts.all()
        ]

    def _of(self, standing: Standing) -> Accounts[BudgetAccount]:
        key = (standing.name, standing.measure)
        if key not in self._accounts:
            self._forget()
            self._accounts[key] = Accounts(_maker(standing), most=_MOST_VALUES, idle_s=_IDLE_S)
        return self._accounts[key]

    def _forget(self) -> None:
        """Budgets that the server no longer has."""
        known = {(one.name, one.measure) for one in self.heard.standings} if self.heard else set()
        for gone in self._accounts.keys() - known:
            del self._accounts[gone]


def _maker(standing: Standing) -> Callable[[str], BudgetAccount]:
    return lambda _: BudgetAccount(standing.measure, standing.limit)


def counts(standing: Standing, request: Request, *, named: bool) -> bool:
    """Whether a call counts towards a budget. Where a dimension isn't known before the call is answered, it does if `named`."""
    if standing.each is not None and _value(request, standing.each) is None:
        return False
    for dimension, values in standing.scope.items():
        value = _value(request, dimension)
        if value is None:
            if not named:
                return False
        elif value not in values and not (dimension == "model" and any(one.startswith(value) for one in values)):
            return False
    return True


def _value(request: Request, dimension: str) -> str | None:
    """Of the call in a dimension of the ledger; None where it isn't known yet."""
    if dimension in _PLAIN:
        return request.scope.get(_PLAIN[dimension], "")
    if dimension.startswith("tag:"):
        return request.scope.get(TAG_PREFIX + dimension.removeprefix("tag:"), "")
    if dimension in ("model", "request_model"):
        return request.model
    if dimension == "provider":
        return provider_of(request)
    return None
