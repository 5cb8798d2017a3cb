"""`guard`: limits that calls are held to before they are sent."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Final, Literal

from tallystick.collectors.calls.request import Request
from tallystick.collectors.guard.accounts import Account, Accounts, Measure
from tallystick.collectors.guard.desk import desk
from tallystick.collectors.guard.keepers import Fallback, Keeper
from tallystick.collectors.guard.pricing import rates_of
from tallystick.collectors.guard.refusals import Per
from tallystick.collectors.guard.server import Watched, watched
from tallystick.schema.names import SCOPE_KEYS, SESSION

MOST_SESSIONS: Final = 10_000
SESSION_IDLE_S: Final = 86_400.0
"""How many sessions a guard remembers, and for how long after the last call. One that it has forgotten begins anew."""


@dataclass(frozen=True, slots=True)
class Held:
    """An account that a call is held against, and on whose behalf."""

    account: Account
    guard: "guard"
    per: Per
    subject: str
    """The session, or the budget and its value."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How much of a limit is left. Figures are in `measure`: USD, tokens or calls."""

    per: Per
    subject: str
    measure: Measure
    limit: Decimal
    spent: Decimal
    reserved: Decimal


class guard(Keeper):
    """Stops calls that wouldn't fit a limit, before they are sent: a context manager and a decorator, sync and async.

    `install()` holds all calls of the process to it instead. With scope values it holds only calls for them. What a call
    may take at most is reserved before it, and replaced by what it took after it, so that calls that run at the same time
    don't pass together. docs/guard.md has what that promises, and what it doesn't.

    max_usd_per_session, max_tokens_per_session: for each value of the scope's `session`; calls without one count
    together, for as long as the guard object lives. budget: a budget of the server by its name, or `*` for all that a
    call counts towards. on_unknown: what happens to a call of a model without a price, where money is limited.
    on_unreachable: whether calls go on (`open`) when the server hasn't told for `stale_after_s` how its budgets stand.
    wait_s: how long the first call waits for that. fallback: see `Fallback`; without one the call raises BudgetExceeded.

    Raises ValueError for limits that make no sense.
    """

    def __init__(
        self,
        *,
        customer: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        team: str | None = None,
        user: str | None = None,
        session: str | None = None,
        max_usd_per_call: Decimal | float | str | None = None,
        max_usd_per_session: Decimal | float | str | None = None,
        max_tokens_per_call: int | None = None,
        max_tokens_per_session: int | None = None,
        budget: str | None = None,
        on_unknown: Literal["allow", "refuse"] = "allow",
        on_unreachable: Literal["open", "closed"] = "open",
        stale_after_s: float = 60.0,
        wait_s: float = 0.0,
        fallback: Fallback | None = None,
    ) -> None:
        super().__init__(fallback)
        given = zip(SCOPE_KEYS, (customer, feature, agent, team, user, session), strict=True)
        self.scope: Mapping[str, str] = {key: str(value) for key, value in given if value is not None}
        self.per_call = _limits(max_usd_per_call, max_tokens_per_call, "call")
        self.per_session = _limits(max_usd_per_session, max_tokens_per_session, "session")
        if not (self.per_call or self.per_session or budget):
            raise ValueError("a guard needs a limit: max_usd_per_call, max_tokens_per_session, budget, …")
        if on_unknown not in ("allow", "refuse") or on_unreachable not in ("open", "closed"):
            raise ValueError("on_unknown is 'allow' or 'refuse', on_unreachable 'open' or 'closed'")
        self.budget = budget
        self.counts_money = bool(budget or "usd" in self.per_call or "usd" in self.per_session)
        if self.counts_money:
            # Better here than in the first call: it takes half a second.
            rates_of()
        self.refuses_unpriced = on_unknown == "refuse"
        self.closes = on_unreachable == "closed"
        self.stale_after_s = stale_after_s
        self.wait_s = wait_s
        self.unpriced = 0
        """Calls that passed a limit of money without a price."""
        self._outside = Account(self.per_session)
        self._sessions = Accounts(lambda _: Account(self.per_session), most=MOST_SESSIONS, idle_s=SESSION_IDLE_S)

    def __repr__(self) -> str:
        told = {key.removeprefix("tallystick."): value for key, value in self.scope.items()}
        told |= {f"max_{measure}_per_call": f"{limit}" for measure, limit in self.per_call.items()}
        told |= {f"max_{measure}_per_session": f"{limit}" for measure, limit in self.per_session.items()}
        told |= {"budget": self.budget} if self.budget else {}
        return f"guard({', '.join(f'{name}={value!r}' for name, value in told.items())})"

    def standings(self) -> list[Standing]:
        """Of every session that is remembered, and of every budget of the server that this process has used."""
        found: list[tuple[Per, str, Account]] = []

        def find(_: float) -> list[Account]:
            if self.per_session:
                found.append(("session", "", self._outside))
                found.extend(("session", name, account) for name, account in self._sessions.all())
            if self.budget:
                found.extend(("budget", name, account) for name, account in watched().budgets.used(self.budget))
            return [account for _, _, account in found]

        return [
            Standing(per, subject, measure, limit, copy.spent[measure], copy.reserved[measure])
            for copy, (per, subject, _) in zip(desk.look(find), found, strict=True)
            for measure, limit in copy.limits.items()
        ]

    def holds(self, request: Request) -> bool:
        """Whether a call is held to it."""
        return all(request.scope.get(key) == value for key, value in self.scope.items())

    def accounts(self, request: Request, now: float) -> Iterator[Held]:
        """What a call is held against. To be asked at the desk only."""
        if self.per_session:
            session = request.scope.get(SESSION)
            yield Held(self._sessions.of(session, now) if session else self._outside, self, "session", session or "")
        if self.budget:
            for standing, value, account in watched().budgets.held_against(self.budget, request, now):
                yield Held(account, self, "budget", f"{standing.name}: {value}" if value else standing.name)

    def server(self) -> Watched:
        """What it knows of the server's budgets; the first time it begins to ask."""
        found = watched()
        first = found.poller.since is None
        found.poller.start()
        if first and self.wait_s > 0:
            found.poller.wait(self.wait_s)
        return found


def _limits(usd: Decimal | float | str | None, tokens: int | None, per: str) -> Mapping[Measure, Decimal]:
    limits: dict[Measure, Decimal] = {}
    if usd is not None:
        limits["usd"] = _positive(usd, f"max_usd_per_{per}")
    if tokens is not None:
        limits["tokens"] = _positive(tokens, f"max_tokens_per_{per}")
    return limits


def _positive(value: Decimal | float | str, name: str) -> Decimal:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number < 0:
        raise ValueError(f"{name}={value!r} is no amount: write a number such as 0.5, from 0 up")
    return number
