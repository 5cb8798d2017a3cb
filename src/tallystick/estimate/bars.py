"""Bars for a terminal."""

from decimal import Decimal
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


def bar(value: Decimal, most: Decimal, width: int = 32) -> str:
    """From 0; what is anything at all is seen."""
    if most <= 0 or value <= 0:
        return ""
    eighths = max(1, round(value / most * width * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def span(low: Decimal, high: Decimal, base: Decimal, most: Decimal, width: int = 40) -> str:
    """From the lower to the higher of two values on a line from 0 to `most`, with a mark at `base`."""
    if most <= 0:
        return ""

    def at(value: Decimal) -> int:
        return min(width - 1, max(0, int(value / most * (width - 1))))

    first, last = sorted((at(low), at(high)))
    cells = ["━" if first <= place <= last else "·" for place in range(width)]
    cells[at(base)] = "┃"
    return "".join(cells)
