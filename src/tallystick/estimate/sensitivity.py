"""How much of an estimate hangs on which of its inputs: each one lower and higher, the others as they are. Pure."""

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from tallystick.estimate.traffic import Traffic

_INPUTS: Final = {
    "users": "users",
    "calls_per_user_day": "calls a user and day",
    "prompt": "prompt tokens",
    "completion": "completion tokens",
    "cache_share": "cache share",
}
_POINTS: Final = Decimal("0.2")
"""By which the cache share goes down and up: it is a share already."""


class Swing(NamedTuple):
    """An input at a lower and a higher value, and USD a month there."""

    input: str
    low: Decimal
    high: Decimal
    usd_low: Decimal
    usd_high: Decimal

    @property
    def range_usd(self) -> Decimal:
        """From the one to the other."""
        return abs(self.usd_high - self.usd_low)


def tornado(traffic: Traffic, usd_per_month: Callable[[Traffic], Decimal], swing: Decimal) -> list[Swing]:
    """swing: as a share, 0.5 is half and one and a half times. What matters most comes first."""
    found = []
    for name, title in _INPUTS.items():
        value: Decimal = getattr(traffic, name)
        if name == "cache_share":
            low, high = max(value - _POINTS, Decimal(0)), min(value + _POINTS, Decimal(1))
        else:
            low, high = value * (1 - swing), value * (1 + swing)
        at = [usd_per_month(traffic._replace(**{name: one})) for one in (low, high)]
        found.append(Swing(title, low, high, at[0], at[1]))
    return sorted(found, key=lambda one: -one.range_usd)


def months(usd_per_month: Callable[[Traffic], Decimal], traffic: Traffic, growth: Decimal, count: int) -> Sequence[Decimal]:
    """USD of each month, if users grow by this share from one to the next."""
    return [usd_per_month(traffic._replace(users=traffic.users * (1 + growth) ** at)) for at in range(count)]
