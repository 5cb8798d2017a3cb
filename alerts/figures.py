"""How figures are written in messages, the same in every channel: pure, rounded so that nothing is told that isn't so."""

import unicodedata
from datetime import timedelta
from decimal import ROUND_DOWN, Decimal

from tallystick.alerts.model import Measure

UNITS = {Measure.COST: ("USD", "USD"), Measure.TOKENS: ("token", "tokens"), Measure.CALLS: ("call", "calls")}
LEDGER_PLACES = 12
HUGE = Decimal("1e15")
BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def amount(value: Decimal, measure: Measure = Measure.COST) -> str:
    """`1,234.50 USD`, `0.0042 USD`, `1,234,567 tokens`, `1 call`."""
    one, many = UNITS[measure]
    return f"{number(value, measure)} {one if value == 1 else many}"


def number(value: Decimal, measure: Measure = Measure.COST) -> str:
    """`amount` without its unit. Below 1 USD the first two digits that aren't 0."""
    if measure is Measure.COST:
        return _money(value)
    return f"{value:,.0f}" if abs(value) < HUGE else f"{value:.2E}"


def percent(value: Decimal) -> str:
    """80 → `80 %`, rounded towards zero: what is told as 100 % has been reached. `< 0.1 %` for less than that."""
    if abs(value) >= HUGE:
        return f"{value:.2E} %"
    if 0 < abs(value) < Decimal("0.1"):
        return f"{'-' if value < 0 else ''}< 0.1 %"
    places = Decimal("0.1") if abs(value) < 100 else Decimal(1)
    return f"{_plain(value.quantize(places, ROUND_DOWN)):,f} %"


def share(value: Decimal) -> str:
    """0.923 → `92.3 %`."""
    return percent(value * 100)


def times(value: Decimal) -> str:
    """`1.6`, `12`, `0.04`: two digits."""
    if abs(value) >= HUGE or (value and abs(value) < Decimal("0.001")):
        return f"{value:.1E}"
    places = 0 if abs(value) >= 10 else 1 if abs(value) >= 1 else 2
    return f"{_plain(Decimal(f'{value:.{places}f}')):,f}"


def duration(value: timedelta) -> str:
    """In the largest unit of which there are at least two, rounded down: `9 days`, `36 hours`, `2 minutes`, `less than a minute`."""
    minutes = int(value.total_seconds() // 60)
    for unit, length in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= 2 * length:
            return f"{minutes // length:,} {unit}s"
    return "1 minute" if minutes == 1 else "less than a minute"


def clean(text: str) -> str:
    """Without control characters, line breaks, lone surrogates, and what turns the direction of writing."""
    return "".join(" " if unicodedata.category(c) in {"Cc", "Zl", "Zp", "Cs"} else c for c in text if c not in BIDI)


def line(text: str, most: int) -> str:
    """`clean`, with single blanks, in at most this many characters."""
    told = " ".join(clean(text[: 4 * most]).split())
    return told if len(told) <= most else told[: most - 1].rstrip() + "…"


def _money(value: Decimal) -> str:
    if abs(value) >= HUGE:
        return f"{value:.2E}"
    places = 2
    if value and abs(value) < 1:
        places = min(max(2, 1 - value.adjusted()), LEDGER_PLACES)
    whole, _, part = f"{value:,.{places}f}".partition(".")
    told = f"{whole}.{part[:2]}{part[2:].rstrip('0')}"
    return told.removeprefix("-") if not told.strip("-0.") else told


def _plain(value: Decimal) -> Decimal:
    """Without trailing zeros behind the point, and without an exponent."""
    return value.to_integral_value() if value == value.to_integral_value() else value.normalize()
