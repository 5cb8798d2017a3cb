"""A message with everything in it and one with as little as there may be: what templates are tried on, and what `alerts test` sends."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

from tallystick.alerts.model import Driver, Forecast, Key, Kind, Measure, Message, Outlier, Period
from tallystick.alerts.periods import PeriodSpec, Unit, period_at

START: Final = datetime(2026, 3, 1, tzinfo=UTC)
AT: Final = datetime(2026, 3, 22, 14, 3, tzinfo=UTC)

FULL: Final = Message(
    kind=Kind.THRESHOLD,
    key=Key("acme", 1, START, "", "actual:80"),
    title="acme: 80 % of 100.00 USD used this month",
    reason="Spend reached 80 % of the budget.",
    at=AT,
    severity="warning",
    measure=Measure.COST,
    amount=Decimal(100),
    spent=Decimal("80.4"),
    percent=Decimal("80.4"),
    period=Period(START, datetime(2026, 4, 1, tzinfo=UTC), "2026-03"),
    forecast=Forecast(Decimal("108.2"), Decimal("117.5"), Decimal("131.9")),
    burn=Decimal("1.16"),
    priced_share=Decimal("0.982"),
    scope={"customer": "acme"},
    owners=("ana@example.com", "platform team"),
    drivers=(
        Driver("feature", "summaries", Decimal("46.12"), Decimal("11.3"), Decimal("0.574")),
        Driver("agent", "researcher", Decimal("20.5"), Decimal(0), Decimal("0.255")),
        Driver("model", "gpt-5-mini", Decimal("9.78"), Decimal("12.01"), Decimal("0.122")),
        Driver("feature", "search", Decimal("0.0042"), None, Decimal("0.00005")),
    ),
    outliers=(
        Outlier("4bf92f3577b34da6a3ce929d0e0e4736", "gpt-5", 50_000, 2_000, Decimal("0.4175"), datetime(2026, 3, 22, 13, 58, 9, tzinfo=UTC)),
    ),
    links={"Spend by feature": "https://tallystick.example/?customer=acme&by=feature"},
    sql="SELECT feature, sum(cost_usd) AS cost\nFROM charges\nWHERE customer = 'acme' AND started_at >= '2026-03-01'\nGROUP BY feature",
)  # fmt: skip
SPARSE: Final = Message(
    kind=Kind.RULE,
    key=Key("no-data", 1, START, "", "no data"),
    title="no-data: nothing has arrived for 20 minutes",
    reason="No span has arrived since 13:43 UTC.",
    at=AT,
    severity="critical",
)


def trial(who: str, now: datetime) -> Message:
    """FULL as of now, and said to be no more than a test. It belongs to no budget's conversation or incident."""
    month = period_at(PeriodSpec(Unit.MONTH), now)
    return replace(
        FULL,
        kind=Kind.TEST,
        key=Key("test", 1, now, "", "test"),
        title=f"Test: {FULL.title}",
        reason=f"{who} tries this channel. Nothing has happened, all figures are made up.",
        severity="info",
        at=now,
        period=month,
    )
