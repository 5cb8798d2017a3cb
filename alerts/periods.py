"""Which period of a budget holds an instant. Boundaries are midnights (or full hours) of the budget's time zone, as instants in UTC.

A day is as long as the zone makes it: 23, 24 or 25 hours, or nothing at all where a zone left out a date. A day begins with its
first instant, where its midnight is skipped; with the first of two, where its midnight comes twice.
"""

from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from tallystick.alerts.model import Period

CATCH_UP: Final = 100
"""The most periods that one tick judges for a budget; of more, the newest."""

_EPOCH: Final = date(1970, 1, 1)
_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)


class Unit(StrEnum):
    """What periods are made of."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"


@dataclass(frozen=True)
class PeriodSpec:
    """Every `every` units, counted from `start`; without a start the calendar's own hours, days, weeks, months and quarters.

    week_starts: 0 is Monday. With a start, weeks begin on its weekday and months on its day of the month, or on the month's last
    day where the month is shorter. Hours and quarters have no start: three months from a start are a quarter.
    """

    unit: Unit
    timezone: str = "UTC"
    week_starts: int = 0
    every: int = 1
    start: date | None = None


def period_at(spec: PeriodSpec, now: datetime) -> Period:
    """The period that holds `now`, an aware datetime. Raises ZoneInfoNotFoundError."""
    now = now.astimezone(UTC)
    zone = ZoneInfo(spec.timezone)
    if spec.unit is Unit.HOUR:
        return _hour(zone, now)
    day = now.astimezone(zone).date()
    first = _first_day(spec, day)
    # A clock that is set back over midnight shows the old date again after the new one has begun: instants decide, not dates.
    while (end := _midnight(zone, following := _next_first_day(spec, first))) <= now:
        first = following
    return Period(_midnight(zone, first), end, _label(spec, first, following))


def previous(spec: PeriodSpec, period: Period) -> Period:
    """The period that ends where `period` starts."""
    return period_at(spec, period.start - timedelta(microseconds=1))


def since(
    spec: PeriodSpec, last_tick: datetime | None, now: datetime, *, in_force: datetime | None = None, limit: int = CATCH_UP
) -> list[Period]:
    """What a tick at `now` judges, oldest first: the current period, the one before, and all that the last tick hadn't seen the end of.

    last_tick: None if there was none: then only the current period. in_force: since when the budget holds as it is; what had ended
    by then isn't judged by it.
    """
    periods = [period_at(spec, now)]
    if last_tick is None:
        return periods
    while len(periods) < limit:
        older = previous(spec, periods[0])
        known = in_force is None or older.end > in_force
        if not known or (len(periods) > 1 and older.end <= last_tick):
            break
        periods.insert(0, older)
    return periods


def _hour(zone: ZoneInfo, now: datetime) -> Period:
    """From full hour to full hour of the zone's clock; a change of the clock ends one and begins one, so an hour may come twice."""
    offset = _offset(zone, now)
    local = (now + offset).replace(minute=0, second=0, microsecond=0)
    start, end = local - offset, local + _HOUR - offset
    if _offset(zone, start) != offset:
        start = _change(zone, start, now)
    if _offset(zone, end - timedelta(seconds=1)) != offset:
        end = _change(zone, now, end)
    wall = local.replace(tzinfo=None)
    label = f"{wall:%Y-%m-%d %H:%M}"
    twice = wall.replace(tzinfo=zone, fold=0).utcoffset() != wall.replace(tzinfo=zone, fold=1).utcoffset()
    if twice or (start + offset).minute:
        label = f"{start.astimezone(zone):%Y-%m-%d %H:%M %Z}"
    return Period(start, end, label)


def _offset(zone: ZoneInfo, instant: datetime) -> timedelta:
    return instant.astimezone(zone).utcoffset() or timedelta()


@lru_cache(maxsize=10_000)
def _midnight(zone: ZoneInfo, day: date) -> datetime:
    """The first instant of a date, in UTC; of a date that was left out, the first of the next.

    Midnights that are skipped are read by the offset before (PEP 495), which gives the instant of the change: since 1970 no zone has
    skipped one from before it.
    """
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """The first second at which the zone's offset isn't what it is at `before`; it changes once in (before, after]."""
    offset = _offset(zone, before)
    low, high = before.replace(microsecond=0), after
    while high - low > timedelta(seconds=1):
        middle = (low + (high - low) / 2).replace(microsecond=0)
        if _offset(zone, middle) == offset:
            low = middle
        else:
            high = middle
    return low + timedelta(seconds=1)


def _first_day(spec: PeriodSpec, day: date) -> date:
    """The first date of the period that the date belongs to."""
    start = spec.start or _natural_start(spec)
    if (months := _months(spec)) is None:
        length = _days(spec)
        return start + timedelta(days=(day - start).days // length * length)
    steps = (_month_number(day) - _month_number(start)) // months
    first = _month_later(start, steps * months)
    return first if first <= day else _month_later(start, (steps - 1) * months)


def _next_first_day(spec: PeriodSpec, first: date) -> date:
    start = spec.start or _natural_start(spec)
    if (months := _months(spec)) is None:
        return first + timedelta(days=_days(spec))
    return _month_later(start, _month_number(first) - _month_number(start) + months)


def _natural_start(spec: PeriodSpec) -> date:
    # 1970-01-01 was a Thursday.
    return _EPOCH + timedelta(days=(spec.week_starts - 3) % 7) if spec.unit is Unit.WEEK else _EPOCH


def _days(spec: PeriodSpec) -> int:
    return spec.every * (7 if spec.unit is Unit.WEEK else 1)


def _months(spec: PeriodSpec) -> int | None:
    return {Unit.MONTH: spec.every, Unit.QUARTER: spec.every * 3}.get(spec.unit)


def _month_number(day: date) -> int:
    return day.year * 12 + day.month - 1


def _month_later(start: date, months: int) -> date:
    year, month = divmod(_month_number(start) + months, 12)
    return date(year, month + 1, min(start.day, monthrange(year, month + 1)[1]))


def _label(spec: PeriodSpec, first: date, following: date) -> str:
    if spec.start is None and spec.every == 1:
        if natural := _LABELS.get(spec.unit):
            return natural(first)
        if spec.unit is Unit.WEEK and spec.week_starts == 0:
            return f"{first:%G-W%V}"
    last = following - _DAY
    return f"{first}" if last == first else f"{first} to {last}"


_LABELS: Final[dict[Unit, Callable[[date], str]]] = {
    Unit.DAY: date.isoformat,
    Unit.MONTH: lambda first: f"{first:%Y-%m}",
    Unit.QUARTER: lambda first: f"{first.year}-Q{(first.month + 2) // 3}",
}
