"""How budgets stand, for services that hold their calls to them: `GET /v1/guard`. A service's key sees nothing of others."""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple

import anyio
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from tallystick.alerts.channels.webhook import Exact, PeriodBody
from tallystick.alerts.config_budgets import Budget, fingerprint
from tallystick.alerts.model import Measure, Period, Spend
from tallystick.alerts.periods import period_at
from tallystick.alerts.spend import Ask, Wanted, spends
from tallystick.server.alerts import Alerts
from tallystick.server.auth import DEFAULT_TENANT, Door
from tallystick.server.ledger_state import LedgerState, etag, unchanged
from tallystick.server.operators import senders_only
from tallystick.server.pages import IfNoneMatch, headers

MOST_VALUES: Final = 10_000
"""Values of a budget with `each` that are told: those that spent most."""

FRESH_S: Final = 1.0
"""For how long an answer is given again: a hundred processes of a service cost one question."""

_TENANTS: Final = 1_000
_NOTHING: Final = Decimal(0)
_ASKING: Final = 2
"""Questions to the ledger at one time; further ones wait."""


class GuardValue(BaseModel):
    """A value of what the budget is for each of, or "". exhausted: nothing is left of the limit, whoever spent it."""

    value: str = Field(examples=["acme"])
    spent: Exact = Field(examples=["41.25"])
    exhausted: bool


class GuardBudget(BaseModel):
    """A budget in its present period. limit, spent: in USD, tokens or calls, as `measure` says. scope: without the key's tenant.

    values: those that spent most; `values_total` is how many there are. A tenant's key is told what its own calls spent.
    """

    name: str = Field(examples=["acme"])
    measure: Measure
    limit: Exact = Field(examples=["100"])
    period: PeriodBody
    scope: dict[str, list[str]] = Field(examples=[{"customer": ["acme"]}])
    each: str | None = Field(examples=[None])
    values: list[GuardValue]
    values_total: int


class GuardAnswer(BaseModel):
    """The budgets that calls sent with this key count towards."""

    budgets: list[GuardBudget]


class _Kept(NamedTuple):
    at: float
    question: str
    """Of which ledger, about which budgets."""
    tag: str
    body: bytes


class _Whose(NamedTuple):
    tenant: str
    sees_all: bool
    """Whether what others spent may be told."""


def router(alerts: Alerts, door: Door, state: LedgerState) -> APIRouter:
    """Route /v1/guard."""
    routes = APIRouter(tags=["budgets"], **senders_only(door))
    asking = anyio.CapacityLimiter(_ASKING)
    kept: OrderedDict[_Whose, _Kept] = OrderedDict()
    lock = threading.Lock()

    def looked(whose: _Whose) -> _Kept:
        with lock:
            found = kept.get(whose)
        now = time.monotonic()
        if found is not None and now - found.at < FRESH_S:
            return found
        at = datetime.now(UTC)
        budgets = [one for one in alerts.in_force().config.budgets if whose.tenant in one.scope.get("tenant", (whose.tenant,))]
        periods = [period_at(one.periods, at) for one in budgets]
        asked = [[one.name, fingerprint(one), period.start.isoformat()] for one, period in zip(budgets, periods, strict=True)]
        # The ledger's state before the question is asked, as LedgerState says.
        question = etag(None, state.of(None), asked)
        if found is not None and found.question == question:
            made = found._replace(at=now)
        else:
            body = GuardAnswer(budgets=standings(alerts.ask, budgets, periods, *whose)).model_dump_json()
            # By what it says: it doesn't change with what others do.
            made = _Kept(now, question, etag(whose.tenant, "", body), body.encode())
        with lock:
            kept[whose] = made
            kept.move_to_end(whose)
            if len(kept) > _TENANTS:
                kept.popitem(last=False)
        return made

    @routes.get(
        "/v1/guard",
        summary="How the budgets stand that calls sent with this key count towards",
        response_model=GuardAnswer,
        responses={304: {"description": "The answer that the client has still holds."}},
    )
    async def guard(request: Request, if_none_match: IfNoneMatch = None) -> Response:
        """For `tallystick.guard(budget=…)`. `Age` says for how many seconds the answer has stood."""
        key = door.key(request.headers.get("authorization"))
        whose = _Whose(DEFAULT_TENANT, True) if key is None else _Whose(key.tenant, key.operator)
        found = await anyio.to_thread.run_sync(looked, whose, limiter=asking)
        sent = headers(found.tag) | {"Age": str(math.ceil(time.monotonic() - found.at))}
        if unchanged(if_none_match, found.tag):
            return Response(status_code=304, headers=sent)
        return Response(found.body, media_type="application/json", headers=sent)

    return routes


def standings(ask: Ask, budgets: Sequence[Budget], periods: Sequence[Period], tenant: str, sees_all: bool) -> list[GuardBudget]:
    """Raises what `ask` raises."""
    wanted = [Wanted(one.name, period, one.scope, one.each, one.measure) for one, period in zip(budgets, periods, strict=True)]
    whole = spends(ask, wanted)
    own = spends(ask, [_only(one, tenant) for one in wanted if not sees_all and one.scope.get("tenant") != (tenant,)])
    told = []
    for budget, one in zip(budgets, wanted, strict=True):
        spent = _figures(whole[one.key], budget.measure)
        seen = _figures(own[one.key], budget.measure) if one.key in own else spent
        each = budget.each
        if each == "tenant":
            # A service doesn't know its tenant, which is its key's.
            each, spent, seen = None, {"": spent.get(tenant, _NOTHING)}, {"": seen.get(tenant, _NOTHING)}
        values = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
        told.append(
            GuardBudget(
                name=budget.name,
                measure=budget.measure,
                limit=budget.limit,
                period=PeriodBody.model_validate(one.period),
                scope={name: list(of) for name, of in budget.scope.items() if name != "tenant"},
                each=each,
                values=[
                    GuardValue(value=value, spent=much, exhausted=spent.get(value, _NOTHING) >= budget.limit)
                    for value, much in values[:MOST_VALUES]
                ],
                values_total=len(values),
            )
        )
    return told


def _only(wanted: Wanted, tenant: str) -> Wanted:
    return Wanted(wanted.budget, wanted.period, {**wanted.scope, "tenant": (tenant,)}, wanted.each, wanted.measure)


def _figures(found: Sequence[Spend], measure: Measure) -> Mapping[str, Decimal]:
    return {one.value: one.of(measure) for one in found}
