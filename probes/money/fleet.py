"""How many engines a demand takes: ceil(peak / (capacity × headroom)), and at which volumes that is cheaper than an API. Pure."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.money.hourly_cost import EXACT, HOURS_A_MONTH
from tallystick.probes.money.measured_price import BUCKETS, Bucket, MeasuredPrice

_VOLUMES: Final = (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000)
"""Million tokens a month."""

_HOUR_S: Final = 3600
_MINUTES_5: Final = 300
_MOST_TOKENS: Final = Decimal("1e24")


class Demand(NamedTuple):
    """What calls ask for. calls, tokens: that were looked at; counted: calls that they stand for, in so many `hours`.

    engine_hours: for how long one engine at its capacity is busy with those that were looked at.

    busy_engines: how many on average over a month of `tokens_per_month`. peak: the busiest `bin_s` seconds over the mean, 1 where bin_s is None.
    """

    calls: int
    counted: int
    tokens: int
    by_bucket: Mapping[Bucket, int]
    hours: Decimal
    engine_hours: Decimal
    tokens_per_month: Decimal
    busy_engines: Decimal
    peak: Decimal
    bin_s: int | None


class Need(NamedTuple):
    """headroom: the share of the capacity that is planned with."""

    busy_engines: Decimal
    peak: Decimal
    headroom: Decimal

    @property
    def engines(self) -> Decimal:
        """Before it is rounded up."""
        return EXACT.divide(self.busy_engines * self.peak, self.headroom)


class Fleet(NamedTuple):
    """utilisation: of all engines, over the month."""

    engines: int
    utilisation: Decimal


class Step(NamedTuple):
    """A volume, what it takes and what it costs. api_usd: by API model."""

    tokens_per_month: Decimal
    engines: int
    utilisation: Decimal
    own_usd: Decimal
    api_usd: Mapping[str, Decimal]


def demand_of(
    calls: Sequence[Call],
    price: MeasuredPrice,
    *,
    counted: int | None = None,
    period_ns: tuple[int, int] | None = None,
    tokens_per_month: Decimal | None = None,
) -> Demand:
    """price: at full use. The others: as `breakeven` takes them. Raises ValueError."""
    if not calls:
        raise ValueError("there are no calls to go by")
    by_bucket = tokens_of(calls)
    tokens = sum(by_bucket.values())
    if not tokens:
        raise ValueError("the calls have no tokens")
    times = [call.at_ns for call in calls]
    since, until = period_ns or (min(times), max(times))
    hours = EXACT.divide(Decimal(until - since), Decimal(_HOUR_S * 10**9))
    if hours <= 0 and tokens_per_month is None:
        raise ValueError("all calls are of one moment: say how many tokens a month they stand for")
    stand_for = len(calls) if counted is None else counted
    whole = EXACT.divide(Decimal(tokens * stand_for), Decimal(len(calls)))
    month = EXACT.divide(whole * HOURS_A_MONTH, hours) if tokens_per_month is None else tokens_per_month
    engine_hours = price.engine_hours(by_bucket)
    busy = EXACT.divide(engine_hours * month, tokens * HOURS_A_MONTH)
    bin_s = _HOUR_S if hours >= 24 else _MINUTES_5 if hours >= Decimal("0.9") else None
    peak = _peak(calls, price, since, until, bin_s) if bin_s else Decimal(1)
    return Demand(len(calls), stand_for, tokens, by_bucket, hours, engine_hours, month, busy, peak, bin_s)


def tokens_of(calls: Sequence[Call]) -> dict[Bucket, int]:
    """Tokens of all calls by an engine's buckets: what is written to a cache has been computed as any other input."""
    cached = sum(call.cached_tokens for call in calls)
    return {
        "input": sum(call.input_tokens for call in calls) - cached,
        "cache_read": cached,
        "output": sum(call.output_tokens for call in calls),
    }


def fleet(need: Need) -> Fleet:
    """At least one engine."""
    # Prices are rounded, and work is told by them: 15.0000000001 engines are 15.
    engines = max(1, math.ceil(round(need.engines, 9)))
    return Fleet(engines, EXACT.divide(need.busy_engines, Decimal(engines)))


def staircase(demand: Demand, need: Need, engine_usd: Decimal, api: Mapping[str, Decimal]) -> tuple[Step, ...]:
    """Over round volumes and the present one. engine_usd: of one engine and month; api: USD a million tokens."""
    volumes = sorted({Decimal(one * 1_000_000) for one in _VOLUMES} | {demand.tokens_per_month})
    steps = []
    for volume in volumes:
        busy = EXACT.divide(need.busy_engines * volume, demand.tokens_per_month)
        there = fleet(need._replace(busy_engines=busy))
        costs = {name: rate * volume / 1_000_000 for name, rate in api.items()}
        steps.append(Step(volume, there.engines, there.utilisation, there.engines * engine_usd, costs))
    return tuple(steps)


def wins_from(demand: Demand, need: Need, engine_usd: Decimal, api_per_million: Decimal) -> Decimal | None:
    """The least tokens a month at which engines are no dearer: what the API charges one engine's month for, if one engine carries it."""
    if api_per_million <= 0:
        return None
    first = EXACT.divide(engine_usd * 1_000_000, api_per_million)
    carried = _carried(demand, need)
    return first if first <= carried else None


def always_from(demand: Demand, need: Need, engine_usd: Decimal, api_per_million: Decimal) -> Decimal | None:
    """From where on they never are dearer again. After each engine that is added they are, until there are enough that one more matters little.

    With n engines the API's bill reaches n × engine_usd at n × first; the step to n + 1 comes at n × carried. It loses nothing if
    (n + 1) × first ≤ n × carried.
    """
    first = wins_from(demand, need, engine_usd, api_per_million)
    if first is None:
        return None
    spare = EXACT.divide(_carried(demand, need), first) - 1
    if spare <= 0:
        return None
    return max(1, math.ceil(EXACT.divide(Decimal(1), spare))) * first


def _carried(demand: Demand, need: Need) -> Decimal:
    """Tokens a month that one engine carries, with this peak and headroom."""
    return EXACT.divide(demand.tokens_per_month, need.engines) if need.engines else _MOST_TOKENS


def _peak(calls: Sequence[Call], price: MeasuredPrice, since: int, until: int, bin_s: int) -> Decimal:
    """The most work of a bin over the mean of all, those without calls among them."""
    work: dict[int, float] = defaultdict(float)
    weights = {bucket: float(price.per_million[bucket]) for bucket in BUCKETS}
    for call in calls:
        uncached = call.input_tokens - call.cached_tokens
        work[(call.at_ns - since) // (bin_s * 10**9)] += (
            uncached * weights["input"] + call.cached_tokens * weights["cache_read"] + call.output_tokens * weights["output"]
        )
    bins = max((until - since) / (bin_s * 10**9), 1.0)
    whole = sum(work.values())
    return max(Decimal(1), Decimal(str(max(work.values()) * bins / whole))) if whole else Decimal(1)
