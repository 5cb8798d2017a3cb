"""An hour unlike the same hour of the week in the weeks before.

    unusual  |y - m| >= sensitivity · max((1 + 6/n) · 1.4826 · MAD, least)

y is the hour's figure. m is the median of it in the weeks before, at the same weekday and hour in the rule's time zone, and in the hours on
either side. The median absolute deviation, times 1.4826, is a normal distribution's standard deviation (Rousseeuw and Croux 1993);
neither is moved by a few odd hours. It is taken of these hours or, where that is more, of the n hours of all weekdays, each from the
median of its own: twelve hours alone often come out too calm by chance. 6/n makes up for that where there are few.

Spend and tokens a call vary in proportion, so y is their logarithm, and `least` is ln(2)/4: at a sensitivity of 4, less than twice or more than
half the usual is never unusual. Shares are taken as they are, and `least` is the standard deviation of a share of as many calls, or 0.01.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from statistics import median
from typing import Final
from zoneinfo import ZoneInfo

from tallystick.alerts.config_rules import AnomalyRule, Figure
from tallystick.alerts.rules.finding import EPOCH, Finding, scope_sql, value_sql
from tallystick.alerts.spend import Ask
from tallystick.alerts.spend_sql import TOKENS, Bound, at, during, filled, floor

LATE: Final = timedelta(minutes=5)
"""An hour is looked at when it has been over for so long: spans arrive when their call ends."""
_HOUR: Final = timedelta(hours=1)
_LEAST_LOG: Final = math.log(2) / 4
_LEAST_SHARE: Final = 0.01
_LEAST_HOURS: Final = 6
"""Of history, without which nothing is unusual."""
_NAMES: Final = {
    Figure.SPEND: ("spend", "USD"),
    Figure.TOKENS_PER_CALL: ("tokens a call", "tokens"),
    Figure.ERROR_SHARE: ("share of errors", "%"),
    Figure.CACHE_HIT_SHARE: ("share of input tokens read from a cache", "%"),
}


@dataclass(frozen=True)
class Hour:
    """What an hour held. input: all input tokens, of which `cached` were read from the provider's cache."""

    cost: Decimal
    tokens: int
    calls: int
    errors: int
    cached: int
    input: int


@dataclass(frozen=True)
class Hours:
    """The hour in question and those it is compared with.

    before: for the same weekday, then for the six other days, the hours of the weeks before, oldest first; None: nothing happened in it.
    """

    value: str
    start: datetime
    hour: Hour | None
    before: tuple[tuple[Hour | None, ...], ...]


def hour_in_question(now: datetime) -> datetime:
    """The last hour that is over."""
    return floor(now - LATE, _HOUR) - _HOUR


def hours_before(rule: AnomalyRule, start: datetime) -> list[list[datetime]]:
    """As `Hours.before` has them: by the clock on the wall, whatever it did in between."""
    zone = ZoneInfo(rule.timezone)
    wall = start.astimezone(zone).replace(tzinfo=None)
    days = (
        [
            wall - timedelta(days=day, weeks=week) + side * _HOUR
            for week in range(rule.weeks - (day > 0), -(day > 0), -1)
            for side in (-1, 0, 1)
        ]
        for day in range(7)
    )
    return [[floor(EPOCH + (hour.replace(tzinfo=zone) - EPOCH), _HOUR) for hour in hours] for hours in days]


def figures(ask: Ask, rule: AnomalyRule, now: datetime) -> list[Hours]:
    """Of every value that had any entry in one of the hours."""
    start = hour_in_question(now)
    before = hours_before(rule, start)
    wanted = sorted({start, *(hour for hours in before for hour in hours)})
    bind = Bound()
    text = filled(
        "hours",
        value=value_sql(rule, bind),
        tokens=TOKENS,
        hours=bind([int(hour.timestamp()) for hour in wanted], "Array(UInt32)"),
        within=during(wanted[0], wanted[-1] + _HOUR, bind),
        scope=scope_sql(rule, bind),
    )
    known: dict[str, dict[datetime, Hour]] = {}
    for value, hour, cost, *counts in ask(text, bind.params):
        known.setdefault(value, {})[at(hour)] = Hour(Decimal(cost or 0), *map(int, counts))
    return [
        Hours(value, start, of.get(start), tuple(tuple(of.get(hour) for hour in hours) for hours in before))
        for value, of in known.items()
    ]


def judge(rule: AnomalyRule, hours: Hours, now: datetime) -> Finding | None:
    """More errors or fewer cache hits than usual are found, not the other way round; of the others both."""
    hour, alike = hours.hour, _since_first(hours.before[0])
    cost = hour.cost if hour else Decimal(0)
    usual_cost = Decimal(median([one.cost if one else Decimal(0) for one in alike])) if alike else Decimal(0)
    if max(cost, usual_cost) < rule.floor:
        return None
    observed, past = _figure(rule.figure, hour, rule.floor), _figures(rule, alike)
    if observed is None or len(past) < _LEAST_HOURS:
        return None
    middle = median(past)
    everywhere = [one for day in hours.before for one in _deviations(_figures(rule, _since_first(day)))]
    spread = 1.4826 * max(median(_deviations(past)), median(everywhere)) * (1 + 6 / len(everywhere))
    unusual = float(rule.sensitivity) * max(spread, _least(rule.figure, middle, hour))
    if abs(observed - middle) < unusual or (rule.figure is Figure.SPEND and abs(cost - usual_cost) < rule.floor):
        return None
    high = observed > middle
    if (rule.figure is Figure.ERROR_SHARE and not high) or (rule.figure is Figure.CACHE_HIT_SHARE and high):
        return None
    told, usual = (_told(rule.figure, one, rule.floor) for one in (observed, middle))
    name, unit = _NAMES[rule.figure]
    reason = (
        f"The {name} of {hours.start:%Y-%m-%d %H:%M} UTC came to {told} {unit}; in {len(past)} like hours before, {usual} {unit} "
        f"{'were' if unit == 'tokens' else 'was'} usual."
    )
    return Finding(hours.value, f"{rule.figure}:{'high' if high else 'low'}", hours.start, reason, told, usual)


def _since_first(before: Sequence[Hour | None]) -> Sequence[Hour | None]:
    """A value that didn't exist yet spent not nothing, but nothing that is known."""
    return next((before[index:] for index, one in enumerate(before) if one), ())


def _figures(rule: AnomalyRule, hours: Sequence[Hour | None]) -> list[float]:
    return [figure for one in hours if (figure := _figure(rule.figure, one, rule.floor)) is not None]


def _deviations(figures: Sequence[float]) -> list[float]:
    middle = median(figures) if figures else 0.0
    return [abs(one - middle) for one in figures]


def _figure(figure: Figure, hour: Hour | None, floor_usd: Decimal) -> float | None:
    """In the scale in which it varies evenly; None where there is nothing to divide by."""
    match figure:
        case Figure.SPEND:
            return math.log(max(hour.cost if hour else Decimal(0), Decimal(0)) + _shift(floor_usd))
        case Figure.TOKENS_PER_CALL if hour and hour.calls > 0:
            return math.log(max(hour.tokens, 0) / hour.calls + 1)
        case Figure.ERROR_SHARE if hour and hour.calls > 0:
            return hour.errors / hour.calls
        case Figure.CACHE_HIT_SHARE if hour and hour.input > 0:
            return hour.cached / hour.input
    return None


def _shift(floor_usd: Decimal) -> Decimal:
    """Keeps zero finite, and cents among dollars alike."""
    return max(floor_usd, Decimal("0.01"))


def _told(figure: Figure, scaled: float, floor_usd: Decimal) -> Decimal:
    """Back from that scale, to be read."""
    match figure:
        case Figure.SPEND:
            return Decimal(max(0.0, math.exp(scaled) - float(_shift(floor_usd)))).quantize(Decimal("0.01"))
        case Figure.TOKENS_PER_CALL:
            return Decimal(math.exp(scaled) - 1).quantize(Decimal(1))
    return Decimal(100 * scaled).quantize(Decimal("0.1"))


def _least(figure: Figure, middle: float, hour: Hour | None) -> float:
    """Below this no deviation counts as one standard deviation."""
    if figure in {Figure.SPEND, Figure.TOKENS_PER_CALL}:
        return _LEAST_LOG
    calls = hour.calls if hour else 0
    # One more of each: no error so far doesn't mean that there can't be one.
    likely = (middle * calls + 1) / (calls + 2)
    return max(_LEAST_SHARE, math.sqrt(likely * (1 - likely) / max(calls, 1)))
