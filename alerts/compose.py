"""The message for an announcement: pure, from what the decision and the queries found."""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Final

from tallystick.alerts import figures
from tallystick.alerts.config_budgets import Budget
from tallystick.alerts.decide import Announcement
from tallystick.alerts.drivers import Details
from tallystick.alerts.model import Basis, Forecast, Kind, Measure, Message, Period, Spend, Threshold
from tallystick.alerts.periods import Unit

_WARNING, _CRITICAL = Decimal(80), Decimal(100)

_THIS: Final = {
    Unit.HOUR: "this hour", Unit.DAY: "today", Unit.WEEK: "this week", Unit.MONTH: "this month", Unit.QUARTER: "this quarter",
}  # fmt: skip


def budget_message(
    budget: Budget,
    period: Period,
    spend: Spend,
    say: Announcement,
    now: datetime,
    *,
    forecast: Forecast | None,
    details: Details | None,
    links: Mapping[str, str],
    sql: str,
) -> Message:
    """What is told of a budget's threshold or correction. forecast: told where it is known, whatever the threshold is of. details: None where unknown."""
    spent = spend.of(budget.measure)
    percent = spent / budget.limit * 100
    # Spend may have gone on since the decision: the figure is what was decided on, its coverage what it is now.
    priced_share = details.spend.priced_share if details else None
    return Message(
        kind=say.kind,
        key=say.key,
        title=_title(budget, period, spend, say, now, partly=priced_share is not None and priced_share < 1),
        reason=_reason(budget, period, say, now, spent),
        at=now,
        severity=_severity(say),
        measure=budget.measure,
        amount=budget.limit,
        spent=spent,
        percent=percent,
        period=period,
        forecast=forecast,
        burn=_burn(budget.limit, spent, period, now),
        priced_share=priced_share,
        scope=_scope(budget, spend.value),
        owners=budget.owners,
        drivers=details.drivers if details else (),
        outliers=details.outliers if details else (),
        links=links,
        sql=sql,
    )


def subject(name: str, value: str) -> str:
    """`each-agent (support)`, as titles name a budget or rule."""
    return f"{name} ({value})" if value else name


def _title(budget: Budget, period: Period, spend: Spend, say: Announcement, now: datetime, *, partly: bool) -> str:
    who = subject(budget.name, spend.value or (f"no {budget.each}" if budget.each else ""))
    limit = figures.amount(budget.limit, budget.measure)
    when = _when(budget, period, now)
    if say.kind is Kind.CORRECTION:
        announced, now_spent = say.announced or Decimal(0), spend.of(budget.measure)
        told, was = (figures.number(one, budget.measure) for one in (now_spent, announced))
        return f"{who}: corrected to {told} of {limit} {when}, {was} had been announced"
    assert say.threshold is not None
    if say.threshold.basis is Basis.FORECAST:
        return f"{who}: on the way to {figures.percent(say.threshold.percent)} of {limit} {when}"
    # Where not everything is priced, the true share is larger.
    least = "at least " if budget.measure is Measure.COST and partly else ""
    percent = spend.of(budget.measure) / budget.limit * 100
    return f"{who}: {least}{figures.percent(percent)} of {limit} used {when}"


def _when(budget: Budget, period: Period, now: datetime) -> str:
    this = _THIS.get(budget.period.unit) if budget.period.every == 1 and budget.period.start is None else None
    return this if this and now < period.end else f"in {period.label}"


def _reason(budget: Budget, period: Period, say: Announcement, now: datetime, spent: Decimal) -> str:
    if say.kind is Kind.CORRECTION:
        return f"Corrections in the ledger changed a total that was announced by more than {figures.percent(budget.correction_percent)}."
    assert say.threshold is not None
    line = budget.limit * say.threshold.percent / 100
    reached = f"{_threshold(say.threshold)} is {figures.amount(line, budget.measure)}"
    what = "At this pace the period ends above a threshold" if say.threshold.basis is Basis.FORECAST else "A threshold is reached"
    text = f"{what}: {reached}."
    if say.passed:
        text += f" Passed with it: {', '.join(_threshold(one) for one in sorted(say.passed))}."
    if now >= period.end:
        text += " The period has ended: its last spans came late, or nobody looked in time."
    return text


def _threshold(one: Threshold) -> str:
    return f"{figures.percent(one.percent)}{' forecast' if one.basis is Basis.FORECAST else ''}"


def _severity(say: Announcement) -> str:
    if say.threshold is None:
        return "info"
    if say.threshold.basis is Basis.ACTUAL and say.threshold.percent >= _CRITICAL:
        return "critical"
    return "warning" if say.threshold.percent >= _WARNING else "info"


def _burn(limit: Decimal, spent: Decimal, period: Period, now: datetime) -> Decimal | None:
    """None once the period is over: there is no plan left to keep."""
    passed = now - period.start
    if not period.start < now < period.end:
        return None
    return spent / (limit * Decimal(passed.total_seconds()) / Decimal((period.end - period.start).total_seconds()))


def _scope(budget: Budget, value: str) -> dict[str, str]:
    scope = {dimension: ", ".join(values) for dimension, values in budget.scope.items()}
    return scope | ({budget.each: value} if budget.each else {})
