"""What a period will have cost at its end, from what was spent in each step (a day; an hour, for periods of a day) so far and before.

    expected = spent so far + level · Σ usual of each step until the end · the part of it that lies ahead
    range    = expected ± t₀.₉ · σ · √(Σ usual² + (Σ usual)² · (1/n + 1/m)), and no less than what is spent

usual: the median of the steps of that weekday, or hour of the day, each cut at three times their lower median, once two weeks of days, or
two days of hours, are known. Before that all steps are alike, usual is 1, and `expected` is the run rate. level: the mean of step ÷ usual,
weighted by usual, over the n last steps (a week, or a day; of a run rate all). σ: the standard deviation of step ÷ usual over all m steps,
times √(m/(m−p)) for p usuals. The ratios are cut at three robust standard deviations (1.4826 times the median absolute deviation, Rousseeuw
and Croux 1993) above their median: one batch job isn't a trend.

Under the root stand the variance of new steps, and of a level and usuals that rest on n and m steps; t is Student's, for small n. About
80 of 100 ends lie within, as far as the future is like the past.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from statistics import median, median_low, pstdev
from typing import Final

from tallystick.alerts.model import Forecast, Period

_HOUR: Final = timedelta(hours=1)
_DAY: Final = timedelta(days=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ONE: Final = Decimal(1)
_TO_SIGMA: Final = Decimal("1.4826")
_PLACES: Final = Decimal("0.000001")


@dataclass(frozen=True)
class _Rhythm:
    """How steps of one size are looked at.

    least: complete steps before anything is said; a month waits for its third day, as Oracle's forecast does. shaped: steps that
    make a shape. recent: steps that the level of a shape rests on. kept: steps before the period that are worth reading.
    """

    step: timedelta
    slot: Callable[[datetime], int]
    least: int
    shaped: int
    recent: int
    kept: int


_DAYS: Final = _Rhythm(_DAY, datetime.weekday, least=2, shaped=14, recent=7, kept=28)
_HOURS: Final = _Rhythm(_HOUR, lambda at: at.hour, least=6, shaped=48, recent=24, kept=168)


def step_of(period: Period) -> timedelta:
    """An hour for periods of up to a day, which may have 25 hours; else a day."""
    return _rhythm(period).step


def history_from(period: Period) -> datetime:
    """Since when `forecast` makes use of steps."""
    rhythm = _rhythm(period)
    return period.start - rhythm.kept * rhythm.step


def forecast(period: Period, now: datetime, spent: Decimal, steps: Mapping[datetime, Decimal]) -> Forecast | None:
    """None before enough is known, and when the period is over.

    spent: in the period so far. steps: spend of each UTC day or hour (`step_of`) since `history_from`, by its start; one that is missing is 0,
    those before the first that isn't 0 are unknown, and the one that holds `now` isn't looked at. All in the budget's measure.
    """
    rhythm = _rhythm(period)
    past = _complete(rhythm, steps, now)
    if now >= period.end or len(past) < rhythm.least:
        return None
    usual = _usual(rhythm, past)

    def expect(at: datetime) -> Decimal:
        return _ONE if usual is None else usual.get(rhythm.slot(at), Decimal(0))

    latest = past if usual is None else past[-rhythm.recent :]
    known = [(spend / expect(at), expect(at)) for at, spend in past if expect(at) > 0]
    recent = _cut([(spend / expect(at), expect(at)) for at, spend in latest if expect(at) > 0])
    level = sum((ratio * weight for ratio, weight in recent), Decimal(0)) / sum(weight for _, weight in recent)
    ahead = [expect(at) * part for at, part in _ahead(rhythm.step, now, period.end)]
    expected = spent + max(Decimal(0), level * sum(ahead, Decimal(0)))

    fitted = 1 if usual is None else len(usual)
    sigma = pstdev(ratio for ratio, _ in _cut(known)) * (Decimal(len(past)) / (len(past) - fitted)).sqrt()
    uncertain = _ONE / len(latest) + (0 if usual is None else _ONE / len(past))
    variance = sum((one * one for one in ahead), Decimal(0)) + sum(ahead, Decimal(0)) ** 2 * uncertain
    reach = _student(len(latest) - 1) * sigma * variance.sqrt()
    low, high = max(spent, expected - reach), expected + reach
    return Forecast(low.quantize(_PLACES), expected.quantize(_PLACES), high.quantize(_PLACES))


def _rhythm(period: Period) -> _Rhythm:
    return _HOURS if period.end - period.start <= 25 * _HOUR else _DAYS


def _start(step: timedelta, at: datetime) -> datetime:
    return _EPOCH + (at - _EPOCH) // step * step


def _complete(rhythm: _Rhythm, steps: Mapping[datetime, Decimal], now: datetime) -> list[tuple[datetime, Decimal]]:
    """The steps that are over, oldest first, from the first that isn't 0."""
    end = _start(rhythm.step, now)
    first = min((at for at, spend in steps.items() if spend > 0), default=end)
    return [(at, steps.get(at, Decimal(0))) for at in (first + n * rhythm.step for n in range((end - first) // rhythm.step))]


def _usual(rhythm: _Rhythm, past: Sequence[tuple[datetime, Decimal]]) -> dict[int, Decimal] | None:
    """By weekday or hour; None where there is no shape to see yet."""
    if len(past) < rhythm.shaped:
        return None
    slots: dict[int, list[Decimal]] = {}
    for at, spend in past:
        slots.setdefault(rhythm.slot(at), []).append(spend)
    usual = {slot: median(min(value, 3 * median_low(values)) for value in values) for slot, values in slots.items()}
    return usual if any(usual[rhythm.slot(at)] > 0 for at, _ in past[-rhythm.recent :]) else None


def _cut(ratios: Sequence[tuple[Decimal, Decimal]]) -> list[tuple[Decimal, Decimal]]:
    """(ratio, weight), without the peaks of ratios."""
    middle = median(ratio for ratio, _ in ratios)
    deviation = _TO_SIGMA * median(abs(ratio - middle) for ratio, _ in ratios)
    return [(min(ratio, middle + 3 * deviation) if deviation else ratio, weight) for ratio, weight in ratios]


def _ahead(step: timedelta, now: datetime, end: datetime) -> list[tuple[datetime, Decimal]]:
    """The steps from now until the end, with the part of each that lies between."""
    parts = []
    at = _start(step, now)
    while at < end:
        part = min(at + step, end) - max(at, now)
        parts.append((at, Decimal(part // timedelta(microseconds=1)) / (step // timedelta(microseconds=1))))
        at += step
    return parts


def _student(freedom: int) -> Decimal:
    """The 0.9 quantile of Student's t, by its Cornish-Fisher expansion around the normal's (Abramowitz and Stegun 26.7.5)."""
    z, n = 1.2815515655, freedom
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return Decimal(str(z + first / n + second / n**2 + third / n**3))
