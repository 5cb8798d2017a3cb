"""What the parts of alerts hand to each other: plain, frozen, without I/O. Money is Decimal in USD, times are aware datetimes in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum


class Measure(StrEnum):
    """What an amount counts."""

    COST = "cost"
    TOKENS = "tokens"
    CALLS = "calls"


class Basis(StrEnum):
    """What a threshold is compared with."""

    ACTUAL = "actual"
    FORECAST = "forecast"


@dataclass(frozen=True, order=True)
class Threshold:
    """A share of a budget's amount, in percent, of what has been spent or of what will have been by the period's end."""

    percent: Decimal
    basis: Basis = Basis.ACTUAL

    @property
    def key(self) -> str:
        """`actual:80`, the same however the number was written."""
        return f"{self.basis}:{self.percent.normalize():f}"


@dataclass(frozen=True)
class Period:
    """From `start` until before `end`, both UTC; `label` is how people name it in the budget's own time zone: `2026-03`, `2026-W12`, `2026-03-29`."""

    start: datetime
    end: datetime
    label: str


@dataclass(frozen=True)
class Spend:
    """What the ledger holds of one budget's scope value in one period, read at a tick.

    corrections: the part of `cost` that reprice, trueup and allocation entries make up. cost is 0 where nothing is priced: `priced_share` says so.
    Counts are None where nobody asked for them.
    """

    value: str
    cost: Decimal
    corrections: Decimal
    tokens: int | None = None
    priced_tokens: int | None = None
    calls: int | None = None
    priced_calls: int | None = None

    @property
    def priced_share(self) -> Decimal | None:
        """Share of the tokens that have a price, 0 to 1; None where there are no tokens."""
        return Decimal(self.priced_tokens) / self.tokens if self.tokens and self.priced_tokens is not None else None

    def of(self, measure: Measure) -> Decimal:
        """The figure that a budget of this measure is compared with. Raises ValueError if it wasn't asked for."""
        figure = {Measure.COST: self.cost, Measure.TOKENS: self.tokens, Measure.CALLS: self.calls}[measure]
        if figure is None:
            raise ValueError(f"{measure} weren't asked for")
        return Decimal(figure)


@dataclass(frozen=True)
class Forecast:
    """What the period will have cost at its end, with an interval that holds it in about 80 % of cases; in the budget's measure."""

    low: Decimal
    expected: Decimal
    high: Decimal


class Kind(StrEnum):
    """What a message is about."""

    THRESHOLD = "threshold"
    CORRECTION = "correction"
    RULE = "rule"
    RESOLVED = "resolved"
    TEST = "test"


@dataclass(frozen=True, order=True)
class Key:
    """What is said once. `subject` is a budget's or a rule's name, `mark` a threshold's key, `correction`, or what a rule found."""

    subject: str
    revision: int
    period_start: datetime
    value: str
    mark: str


@dataclass(frozen=True)
class Mark:
    """That a key has been said (`said`), or stands as said without a message of its own: passed in a jump, or carried over from an older revision."""

    key: Key
    amount: Decimal
    spent: Decimal
    corrections: Decimal
    at: datetime
    said: bool


@dataclass(frozen=True)
class Driver:
    """One cause of a budget's spend: a value of a dimension, beside the same stretch of the last period. share: of the budget's spend, 0 to 1."""

    dimension: str
    value: str
    spent: Decimal
    before: Decimal | None
    share: Decimal


@dataclass(frozen=True)
class Outlier:
    """A request far beyond what is usual in this scope."""

    trace_id: str
    model: str
    tokens: int
    usual_tokens: int
    cost: Decimal | None
    started_at: datetime


@dataclass(frozen=True)
class Message:
    """All that a channel may tell, before it is laid out. What isn't known is None and isn't told."""

    kind: Kind
    key: Key
    title: str
    """One line: `acme: 80 % of 100.00 USD used this month`."""
    reason: str
    """Why this is said now, in a sentence."""
    at: datetime
    severity: str
    """`info`, `warning` or `critical`."""
    measure: Measure = Measure.COST
    amount: Decimal | None = None
    spent: Decimal | None = None
    percent: Decimal | None = None
    period: Period | None = None
    forecast: Forecast | None = None
    burn: Decimal | None = None
    """Spend so far over what a straight line to the amount would have had by now; 1 is on plan."""
    priced_share: Decimal | None = None
    scope: Mapping[str, str] = field(default_factory=dict)
    owners: tuple[str, ...] = ()
    drivers: tuple[Driver, ...] = ()
    outliers: tuple[Outlier, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    """Label → URL."""
    sql: str = ""
    """The question behind the figure, as it can be pasted into `tallystick sql`."""
