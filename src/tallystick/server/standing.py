"""Where budgets stand now: read from the ledgers, as an evaluation would read them, and changing nothing."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import Any, Final, Literal

from pydantic import BaseModel

from tallystick.alerts.channels.webhook import Exact, ForecastBody, PeriodBody
from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.figures import HUGE
from tallystick.alerts.forecast import forecast
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.model import Measure, Spend
from tallystick.alerts.periods import period_at
from tallystick.alerts.spend import Ask, Wanted, history, spends
from tallystick.server.alerts import InForce

_PLACES: Final = Decimal("0.0001")


class SaidThreshold(BaseModel):
    """A threshold that this revision won't say again in the period: `actual:80`, `forecast:100`."""

    threshold: str
    at: datetime


class ValueStanding(BaseModel):
    """One value of what the budget is for each of, or "" of one for all. percent: of the limit, 0 to 100 and beyond, rounded down."""

    value: str
    spent: Exact
    percent: Exact
    forecast: ForecastBody | None
    priced_share: Exact | None
    said: list[SaidThreshold]


class BudgetStanding(BaseModel):
    """A budget and how it stands in the present period. limit, spent, forecast: in USD, tokens or calls, as `measure` says.

    revision: None until it has been evaluated. values: those who spent most; `values_total` is how many there are. forecast: None where it is
    too soon for one, and in the list of all budgets for those with `each`.
    """

    name: str
    source: Literal["file", "api"]
    revision: int | None
    since: datetime | None
    author: str | None
    measure: Measure
    limit: Exact
    period: PeriodBody
    values: list[ValueStanding]
    values_total: int
    definition: dict[str, Any]


def standings(
    in_force: InForce, budgets: Sequence[Budget], ledger: Ledger, ask: Ask, now: datetime, *, most: int, foresee_each: bool
) -> list[BudgetStanding]:
    """most: values of a budget. foresee_each: also forecast for each value. Raises LedgerDown, and what `ask` raises."""
    periods = {budget.name: period_at(budget.periods, now) for budget in budgets}
    wanted = [Wanted(one.name, periods[one.name], one.scope, one.each, one.measure) for one in budgets]
    found = spends(ask, wanted, full=True)
    steps = history(ask, [one for one in wanted if foresee_each or one.each is None])
    said = ledger.journal.said({period.start for period in periods.values()})
    revisions = ledger.latest()

    def value_of(budget: Budget, spend: Spend) -> ValueStanding:
        period, revision = periods[budget.name], revisions.get(budget.name)
        key = (budget.name, period.start)
        spent = spend.of(budget.measure)
        foreseen = forecast(period, now, spent, steps[key].get(spend.value, {})) if key in steps else None
        order = {one.key: place for place, one in enumerate(budget.thresholds)}
        number = revision.number if revision else None
        own = [one for one in said.get((*key, spend.value), ()) if one.revision == number and one.mark in order]
        return ValueStanding(
            value=spend.value,
            spent=spent,
            percent=_percent(spent / budget.limit * 100),
            forecast=ForecastBody.model_validate(foreseen) if foreseen else None,
            priced_share=spend.priced_share,
            said=[SaidThreshold(threshold=one.mark, at=one.at) for one in sorted(own, key=lambda one: order[one.mark])],
        )

    told = []
    for budget, one in zip(budgets, wanted, strict=True):
        revision = revisions.get(budget.name)
        values = sorted(found[one.key], key=lambda spend: (-spend.of(budget.measure), spend.value))
        told.append(
            BudgetStanding(
                name=budget.name,
                source="file" if budget.name in in_force.file.declared.names else "api",
                revision=revision.number if revision else None,
                since=revision.at if revision else None,
                author=revision.author if revision else None,
                measure=budget.measure,
                limit=budget.limit,
                period=PeriodBody.model_validate(one.period),
                values=[value_of(budget, spend) for spend in values[:most]],
                values_total=len(values),
                definition=definition(budget),
            )
        )
    return told


def definition(budget: Budget) -> dict[str, Any]:
    """As JSON, with all defaults; it can be sent back as it is."""
    told: dict[str, Any] = json.loads(budget.model_dump_json(by_alias=True))
    return told


def _percent(exact: Decimal) -> Decimal:
    return exact if abs(exact) >= HUGE else exact.quantize(_PLACES, ROUND_DOWN).normalize()
