"""Axes: where their ticks stand, and what is written at them."""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


class Axis(NamedTuple):
    """From `low` to `high`, both of which are ticks unless the axis is logarithmic."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def share(self, value: float) -> float:
        """How far along the axis a value stands: 0 at its low end, 1 at its high one, beyond where it is outside."""
        if self.log:
            return math.log(max(value, self.low / 1e6) / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def linear(values: Sequence[float], most: int = 6, zero: bool = True) -> Axis:
    """Round numbers around finite values, at most `most` + 1 of them; from 0 unless `zero` is false or a value is below it."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= max(abs(high), abs(low)) * 1e-9:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / most
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(one * scale for one in _STEPS if one * scale >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(first * step, last * step, tuple(number * step for number in range(first, last + 1)))


def logarithmic(values: Sequence[float]) -> Axis:
    """Decades around positive values, with 2 and 5 between where there are few; linear where they span less than a decade."""
    positive = [value for value in values if value > 0]
    if not positive or max(positive) / min(positive) < 10:
        return linear(values)
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))
    marks = (1, 2, 5) if last - first <= 2 else (1,)
    stride = 1 + (last - first) // 8
    ticks = tuple(
        mark * 10.0**decade for decade in range(first, last + 1, stride) for mark in marks if mark == 1 or decade < last
    )
    return Axis(10.0**first, 10.0**last, ticks, log=True)


def number(value: float) -> str:
    """Three digits and a suffix; never `1e+06`."""
    size = abs(value)
    for limit, factor, suffix in ((999.5e6, 1e9, "G"), (999.5e3, 1e6, "M"), (9999.5, 1e3, "k")):
        if size >= limit:
            return f"{_digits(value / factor)}{suffix}"
    return _digits(value)


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    shown = f"{value:,.{min(places, 12)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
