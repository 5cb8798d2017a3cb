"""The same traffic on a measured engine: as many of them as its peak takes."""

from collections.abc import Callable
from decimal import Decimal
from typing import NamedTuple

from tallystick.estimate.traffic import Traffic
from tallystick.probes.money.fleet import Fleet, Need, fleet
from tallystick.probes.money.hourly_cost import EXACT, HOURS_A_MONTH
from tallystick.probes.money.measured_price import Bucket, MeasuredPrice


class Own(NamedTuple):
    """price: at full use. peak: the busiest time over the mean. headroom: of a capacity, what is planned with."""

    price: MeasuredPrice
    peak: Decimal
    headroom: Decimal

    def fleet(self, traffic: Traffic) -> Fleet:
        """What is written to a cache is computed as any other input."""
        calls, cached = traffic.calls_per_month, traffic.prompt * traffic.cache_share
        tokens: dict[Bucket, Decimal] = {
            "input": calls * (traffic.prompt - cached),
            "cache_read": calls * cached,
            "output": calls * traffic.completion,
        }
        hours = self.price.engine_hours({bucket: float(number) for bucket, number in tokens.items()})
        return fleet(Need(EXACT.divide(hours, HOURS_A_MONTH), self.peak, self.headroom))

    def usd_per_month(self) -> Callable[[Traffic], Decimal]:
        """Of the whole fleet."""
        return lambda traffic: self.fleet(traffic).engines * self.price.hour.usd_per_month
