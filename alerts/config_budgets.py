"""Budgets of the configuration. Reference: docs/budgets.md."""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from functools import cached_property
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, PlainValidator, ValidationInfo, field_validator

from tallystick.alerts.config_fields import (
    Dimension,
    Name,
    Names,
    Number,
    Part,
    Positive,
    QuietHours,
    Scope,
    Share,
    ThresholdField,
    Zone,
    threshold,
)
from tallystick.alerts.model import Basis, Measure, Threshold
from tallystick.alerts.periods import PeriodSpec, Unit

DEFAULT: Final = "default"
"""Key of `notify` for the channels of all that has none of its own."""

_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")


def _period(value: object) -> PeriodSpec:
    """The calendar's part of a spec: time zone and week start are fields of their own."""
    match value:
        case PeriodSpec():
            return value
        case str() if value in set(Unit):
            return PeriodSpec(Unit(value))
        case {"every": str(every), "start": str() | date() as start, **rest} if not rest:
            found = re.fullmatch(r"([1-9]\d{0,2})\s+(day|week|month)s?", every.strip())
            try:
                begin = start if isinstance(start, date) else date.fromisoformat(start.strip())
            except ValueError:
                begin = date.min
            if found and 1970 <= begin.year <= 2100:
                return PeriodSpec(Unit(found[2]), every=int(found[1]), start=begin)
    raise ValueError(
        "write hour, day, week, month, quarter, or days, weeks or months from a date: `{every: 2 weeks, start: 2026-01-05}`"
    )


def _period_text(spec: PeriodSpec) -> str | dict[str, str]:
    return {"every": f"{spec.every} {spec.unit}s", "start": spec.start.isoformat()} if spec.start else str(spec.unit)


def _routes(value: object) -> object:
    """`notify` as a mapping, whichever way it was written."""
    if isinstance(value, str | list | tuple):
        return {DEFAULT: value}
    if isinstance(value, Mapping):
        return {key if key == DEFAULT else threshold(key).key: channels for key, channels in value.items()}
    raise ValueError("write channels, `[team]`, or thresholds with theirs, `{default: [team], 100: [team, oncall]}`")


class Budget(Part):
    """An amount for a period, and who hears of it when."""

    name: Name
    measure: Measure = Measure.COST
    amount: Positive
    """In `currency`, or tokens, or calls."""
    currency: Annotated[str, Field(pattern="^[A-Z]{3}$")] = "USD"
    exchange_rate: Positive | None = None
    """The price of one `currency` in USD."""
    period: Annotated[PeriodSpec, PlainValidator(_period), PlainSerializer(_period_text)]
    timezone: Zone = "UTC"
    week_starts: Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"] = "monday"
    scope: Scope = Field(default_factory=dict)
    each: Dimension | None = None
    """One budget for each value of this dimension."""
    thresholds: tuple[ThresholdField, ...] = (Threshold(Decimal(50)), Threshold(Decimal(80)), Threshold(Decimal(100)))
    minimum: Annotated[Number, Field(ge=0)] = Decimal(0)
    """Nothing is said while less than this is spent; in the amount's unit."""
    correction_percent: Share = Decimal(5)
    """A total that was announced and then changes by more than this share of it is announced again, once."""
    notify: Annotated[dict[str, Names], BeforeValidator(_routes)]
    """Channels by a threshold's key, or `default`."""
    quiet_hours: QuietHours | None = None
    owners: Names = ()

    @field_validator("currency")
    @classmethod
    def _of_money(cls, currency: str, info: ValidationInfo) -> str:
        measure = info.data.get("measure", Measure.COST)
        if currency != "USD" and measure is not Measure.COST:
            raise ValueError(f"{measure} have no currency: leave it out")
        return currency

    @field_validator("exchange_rate")
    @classmethod
    def _convertible(cls, rate: Decimal | None, info: ValidationInfo) -> Decimal | None:
        currency = info.data.get("currency")
        if currency is None:
            return rate
        if currency != "USD" and rate is None:
            raise ValueError(f"is missing: add `exchange_rate`, the price of one {currency} in USD")
        if currency == "USD" and rate is not None and rate != 1:
            raise ValueError("the amount is in USD already: name its `currency`, or leave the rate out")
        return rate

    @field_validator("week_starts")
    @classmethod
    def _starts_once(cls, day: str, info: ValidationInfo) -> str:
        period = info.data.get("period")
        if day != "monday" and period is not None and (period.unit is not Unit.WEEK or period.start):
            raise ValueError(
                "only `period: week` has it" if not period.start else "the weekday of the period's `start` says it already"
            )
        return day

    @field_validator("each")
    @classmethod
    def _not_fixed(cls, each: str | None, info: ValidationInfo) -> str | None:
        if each is not None and len(info.data.get("scope", {}).get(each, ())) == 1:
            raise ValueError(f"`scope` fixes {each} to one value already: take it out of one of them")
        return each

    @field_validator("thresholds")
    @classmethod
    def _in_order(cls, thresholds: tuple[Threshold, ...]) -> tuple[Threshold, ...]:
        if not thresholds:
            raise ValueError("write at least one")
        for basis in Basis:
            percents = [one.percent for one in thresholds if one.basis is basis]
            if percents != sorted(set(percents)):
                right = ", ".join(f"{percent.normalize():f}" for percent in sorted(set(percents)))
                raise ValueError(f"must ascend, each once: [{right}]")
        return thresholds

    @field_validator("notify")
    @classmethod
    def _heard(cls, notify: dict[str, tuple[str, ...]], info: ValidationInfo) -> dict[str, tuple[str, ...]]:
        if "thresholds" not in info.data:
            return notify
        keys = [one.key for one in info.data["thresholds"]]
        if unknown := sorted(notify.keys() - {DEFAULT, *keys}):
            raise ValueError(f"{_plain(unknown)} is no threshold of this budget: it has {_plain(keys)}")
        if DEFAULT not in notify and (unheard := [key for key in keys if key not in notify]):
            raise ValueError(f"nobody would hear of {_plain(unheard)}: name its channels, or `default`")
        return notify

    @field_validator("quiet_hours")
    @classmethod
    def _excepts_what_is(cls, quiet: QuietHours | None, info: ValidationInfo) -> QuietHours | None:
        if (
            quiet
            and "thresholds" in info.data
            and (unknown := [o.key for o in quiet.except_ if o not in info.data["thresholds"]])
        ):
            raise ValueError(f"`except`: {_plain(unknown)} is no threshold of this budget")
        return quiet

    @cached_property
    def limit(self) -> Decimal:
        """The amount in what spend is counted in: USD, tokens or calls."""
        return self.amount * (self.exchange_rate or 1)

    @cached_property
    def floor(self) -> Decimal:
        """The minimum, in the same."""
        return self.minimum * (self.exchange_rate or 1)

    @cached_property
    def lines(self) -> tuple[tuple[Threshold, Decimal], ...]:
        """Thresholds with what they come to, in the same."""
        return tuple((one, self.limit * one.percent / 100) for one in self.thresholds)

    @cached_property
    def foresees(self) -> bool:
        """Whether a threshold is of the forecast."""
        return any(one.basis is Basis.FORECAST for one in self.thresholds)

    @cached_property
    def periods(self) -> PeriodSpec:
        """What `periods.period_at` takes."""
        natural = self.period
        return PeriodSpec(natural.unit, self.timezone, _WEEKDAYS.index(self.week_starts), natural.every, natural.start)

    def channels_for(self, mark: str) -> tuple[str, ...]:
        """Who hears of a threshold, by its key; of anything else, such as a correction, all who may have heard of the budget."""
        if mark in self.notify or any(one.key == mark for one in self.thresholds):
            return self.notify.get(mark, self.notify.get(DEFAULT, ()))
        return tuple(dict.fromkeys(channel for channels in self.notify.values() for channel in channels))


def fingerprint(budget: Budget) -> str:
    """Sixteen hex digits that change with what is judged, and only with it: another one is another revision of the budget.

    Not part of it: the name, owners, channels, quiet hours, the minimum and the share that makes a correction.
    """
    periods = budget.periods
    meaning = {
        "measure": budget.measure,
        "lines": {one.key: f"{line.normalize():f}" for one, line in budget.lines},
        "periods": [periods.unit, periods.timezone, periods.week_starts, periods.every, str(periods.start)],
        "scope": budget.scope,
        "each": budget.each,
    }
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()[:16]


def _plain(keys: list[str]) -> str:
    return ", ".join(key.removeprefix("actual:").replace(":", " ") for key in keys)
