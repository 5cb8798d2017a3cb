"""What happens to a call that guards hold: it is admitted with a reservation, answered otherwise, or stopped."""

import time
from decimal import Decimal
from typing import Final

from tallystick.collectors.calls.request import Refusal, Request, Ticket, Usage
from tallystick.collectors.failures import warn_once
from tallystick.collectors.guard.accounts import Account, Amount, Reservation
from tallystick.collectors.guard.desk import desk
from tallystick.collectors.guard.guards import Held, guard
from tallystick.collectors.guard.pricing import Rates, rates
from tallystick.collectors.guard.refusals import BudgetExceeded, Excess, Per
from tallystick.collectors.guard.worst_case import WorstCase, bounded, counted, taken

NOT_SENT: Final = frozenset({
    "ConnectError", "ConnectTimeout", "ConnectTimeoutError", "ConnectionRefusedError", "EndpointConnectionError", "NewConnectionError",
    "PoolTimeout", "gaierror",
})  # fmt: skip
"""Exceptions of HTTP libraries that say that nothing has reached the provider."""

_NOTHING: Final = Amount(Decimal(0), 0, 0)

_LONGEST_CHAIN: Final = 10


class Pass:
    """Of a call that was let through."""

    __slots__ = ("_rates", "_reservation", "_worst")

    def __init__(self, worst: WorstCase, rates: Rates | None, reservation: Reservation) -> None:
        self._worst = worst
        self._rates = rates
        self._reservation = reservation

    def settle(self, usage: Usage | None, error: BaseException | None) -> None:
        if isinstance(error, Refusal):
            actual = _NOTHING
        elif usage is None:
            # What isn't known is taken for the worst.
            actual = Amount(Decimal(0), 0) if _never_sent(error) else self._reservation.amount
        else:
            actual = taken(usage, self._worst, self._rates)
        desk.settle(self._reservation, actual)


def admitted(holding: list[guard], request: Request) -> Ticket:
    """With what it may take reserved. Raises a Refusal: BudgetExceeded, or what a fallback answers."""
    found = _tried(holding, request)
    if isinstance(found, Pass):
        return found
    stopping, excess = found
    passed: list[Pass] = []

    def instead(other: Request) -> bool:
        again = _tried(holding, other)
        if isinstance(again, Pass):
            passed.append(again)
        return bool(passed)

    stopping.stop(request, BudgetExceeded(excess), instead)
    return passed[0]


def _tried(holding: list[guard], request: Request) -> Pass | tuple[guard, Excess]:
    for one in holding:
        if one.budget and (closed := _closed(one, request)):
            return one, closed
    costs = rates(request) if any(one.counts_money for one in holding) else None
    rough = bounded(request)
    if costs is None:
        for one in holding:
            if (stopped := _unpriced(one, request)) is not None:
                return one, stopped
    held: list[Held] = []

    def find(now: float) -> list[Account]:
        held[:] = [each for one in holding for each in one.accounts(request, now)]
        return list({id(each.account): each.account for each in held}.values())

    amount = rough.amount(request, costs)
    if _over_call(holding, request, amount) is None:
        made = desk.reserve(find, amount, far=True)
        if isinstance(made, Reservation):
            return Pass(rough, costs, made)
    exact = counted(request)
    amount = exact.amount(request, costs)
    if (over := _over_call(holding, request, amount)) is not None:
        return over
    made = desk.reserve(find, amount)
    if isinstance(made, Reservation):
        return Pass(exact, costs, made)
    by = next(each for each in held if each.account is made.account)
    hints: dict[Per, str] = {
        "session": "Begin another session, or raise the limit.",
        "budget": "Raise the budget on the server, or wait for its next period.",
    }
    return by.guard, Excess(
        guard=repr(by.guard), per=by.per, measure=made.measure, limit=made.limit, spent=made.spent, reserved=made.reserved,
        wanted=amount.of(made.measure), model=request.model, scope=dict(request.scope), subject=by.subject, hint=hints[by.per],
    )  # fmt: skip


def _over_call(holding: list[guard], request: Request, amount: Amount) -> tuple[guard, Excess] | None:
    for one in holding:
        for measure, limit in one.per_call.items():
            wanted = amount.of(measure)
            if wanted is not None and wanted > limit:
                return one, Excess(
                    guard=repr(one), per="call", measure=measure, limit=limit, spent=None, reserved=None, wanted=wanted,
                    model=request.model, scope=dict(request.scope),
                    hint="Lower the request's limit of output tokens, shorten its input, or raise the limit.",
                )  # fmt: skip
    return None


def _unpriced(one: guard, request: Request) -> Excess | None:
    """Why a call without a price is stopped; it is counted where it isn't."""
    if not one.counts_money:
        return None
    if not one.refuses_unpriced:
        one.unpriced += 1
        warn_once("guard unpriced", f"{one!r}: {request.model!r} has no price, so its calls pass limits of money uncounted")
        return None
    limit = one.per_call.get("usd", one.per_session.get("usd"))
    return Excess(
        guard=repr(one), per="call", measure="usd", limit=limit, spent=None, reserved=None, wanted=None, model=request.model,
        scope=dict(request.scope), reason="no price", hint="Give it a price (docs/prices.md), or allow it with on_unknown='allow'.",
    )  # fmt: skip


def _closed(one: guard, request: Request) -> Excess | None:
    """Why a call is stopped while the server can't be asked, or doesn't know the budget."""
    server = one.server()
    missing = one.budget != "*" and server.budgets.heard is not None and one.budget not in server.budgets.heard.by_name
    if missing:
        warn_once(f"no budget {one.budget}", f"{one!r}: the server has no budget of this name that this process' key may see")
    if not one.closes or not (missing or server.poller.stale_s(time.time()) > one.stale_after_s):
        return None
    return Excess(
        guard=repr(one), per="budget", measure="usd", limit=None, spent=None, reserved=None, wanted=None, model=request.model,
        scope=dict(request.scope), reason="server unknown", subject=one.budget or "",
        hint=f"Look why ({server.poller.trouble or 'no such budget'}), or let calls go on with on_unreachable='open'.",
    )  # fmt: skip


def _never_sent(error: BaseException | None) -> bool:
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            return False
        if type(error).__name__ in NOT_SENT:
            return True
        error = error.__cause__ or error.__context__
    return False
