"""When an own engine is cheaper than an API, for given calls. Pure. Definitions: docs/probes.md.

V = what the API would charge for what one engine does in an hour at its capacity; u* = ($/h) / V: from that utilisation on the engine is cheaper,
never if u* > 1. No split of input and output is needed where the calls have the mix that was measured; another mix is converted by the split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from tallystick.probes.load.traffic_mix import Call, sampled
from tallystick.probes.money.fleet import (
    Demand,
    Fleet,
    Need,
    Step,
    always_from,
    demand_of,
    fleet,
    staircase,
    tokens_of,
    wins_from,
)
from tallystick.probes.money.hourly_cost import EXACT
from tallystick.probes.money.measured_price import BUCKETS, MeasuredPrice
from tallystick.probes.money.sensitivity import Case, Sides, cases

Winner = Literal["own", "api"]

HEADROOM: Final = Decimal("0.8")
"""Of the capacity, what is planned with: the rest is for bursts and for an engine that fails."""

_LITTLE: Final = 10_000_000
_MUCH: Final = 100_000_000
_UNIT: Final = Decimal("1e-6")
_MOST_CHANGED: Final = 2_000
"""Calls that are priced again with another cache share: of more, an even sample."""


class ApiModel(NamedTuple):
    """An API's model. price: USD of one call; None where there is none, and `note` says why, or what the price leaves out."""

    name: str
    price: Callable[[Call], Decimal] | None
    price_id: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Against:
    """One API model. usd: of the calls. value_usd_per_hour: V. utilisation: u*.

    wins_from, always_from: tokens a month from which on the fleet is cheaper somewhere, and everywhere; None: never.
    """

    model: ApiModel
    usd: Decimal | None
    usd_per_million: Decimal | None
    usd_per_month: Decimal | None
    value_usd_per_hour: Decimal | None
    utilisation: Decimal | None
    wins_from: Decimal | None
    always_from: Decimal | None
    winner: Winner | None
    verdict: str
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class BreakEven:
    """What the calls' traffic costs on an own fleet, and by each API. staircase: at other volumes of the same mix and day."""

    price: MeasuredPrice
    demand: Demand
    need: Need
    fleet: Fleet
    usd_per_month: Decimal
    against: tuple[Against, ...]
    staircase: tuple[Step, ...]
    rule_of_thumb: Winner | None
    """API under 10 million tokens a month, own engines over 100 million, None between: what the field says without looking."""
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Amounts of money and shares of work are strings."""
        return {
            "price": self.price.as_json(),
            "demand": _strings(self.demand._asdict()),
            "fleet": _strings(self.fleet._asdict()),
            "own_usd_per_month": f"{self.usd_per_month:f}",
            "against": [_against_json(one) for one in self.against],
            "staircase": [_strings(step._asdict()) for step in self.staircase],
            "rule_of_thumb": self.rule_of_thumb,
            "notes": list(self.notes),
        }


def breakeven(
    calls: Sequence[Call],
    price: MeasuredPrice,
    api: Sequence[ApiModel],
    *,
    counted: int | None = None,
    period_ns: tuple[int, int] | None = None,
    tokens_per_month: Decimal | None = None,
    headroom: Decimal = HEADROOM,
) -> BreakEven:
    """counted: how many the calls are a sample of. period_ns: in which these came; from the first call to the last unless given.

    tokens_per_month: another volume of the same mix.

    Raises ValueError for no calls, calls without tokens, a headroom outside (0, 1], and an hour that costs nothing.
    """
    if not 0 < headroom <= 1:
        raise ValueError(f"a headroom is more than 0 and at most 1, not {headroom:f}")
    full = price.at(Decimal(1), "full")
    demand = demand_of(calls, full, counted=counted, period_ns=period_ns, tokens_per_month=tokens_per_month)
    hour = price.hour.usd_per_month
    need = Need(demand.busy_engines, demand.peak, headroom)
    ours = fleet(need)
    usd_per_month = ours.engines * hour
    against = tuple(_against(model, calls, full, demand, need) for model in api)
    rates = {one.model.name: one.usd_per_million for one in against if one.usd_per_million is not None}
    return BreakEven(
        price,
        demand,
        need,
        ours,
        usd_per_month,
        against,
        staircase(demand, need, hour, rates),
        _rule(demand.tokens_per_month),
        tuple(_notes(full, demand, against)),
    )


def _against(model: ApiModel, calls: Sequence[Call], price: MeasuredPrice, demand: Demand, need: Need) -> Against:
    if model.price is None:
        return Against(model, None, None, None, None, None, None, None, None, f"{model.name} has no price: {model.note}", ())
    usd = sum(map(model.price, calls), Decimal(0))
    a_million = EXACT.divide(usd * 1_000_000, Decimal(demand.tokens))
    month = a_million * demand.tokens_per_month / 1_000_000
    value = EXACT.divide(usd, demand.engine_hours)
    utilisation = EXACT.divide(price.hour.usd_per_hour, value) if value else None
    hour = price.hour.usd_per_month
    first, always = wins_from(demand, need, hour, a_million), always_from(demand, need, hour, a_million)
    now = Sides(hour, need, month)
    return Against(
        model,
        usd,
        a_million,
        month,
        value,
        utilisation,
        first,
        always,
        "own" if now.own_wins else "api",
        _verdict(model.name, now, utilisation, first),
        cases(now, _with_cache(sampled(calls, _MOST_CHANGED), model.price, price, now)),
    )


def _with_cache(
    calls: Sequence[Call], charge: Callable[[Call], Decimal], price: MeasuredPrice, now: Sides
) -> Callable[[Decimal], Sides]:
    """How it would be if another share of each call's input came from a cache, on both sides."""
    usd, hours = sum(map(charge, calls), Decimal(0)), price.engine_hours(tokens_of(calls))

    def then(share: Decimal) -> Sides:
        changed = [_cached(call, share) for call in calls]
        api = EXACT.divide(now.api_usd * sum(map(charge, changed), Decimal(0)), usd) if usd else now.api_usd
        busy = EXACT.divide(now.need.busy_engines * price.engine_hours(tokens_of(changed)), hours)
        return now._replace(api_usd=api, need=now.need._replace(busy_engines=busy))

    return then


def _cached(call: Call, share: Decimal) -> Call:
    cached = int(call.input_tokens * share)
    return call._replace(cached_tokens=cached, written_tokens=min(call.written_tokens, call.input_tokens - cached))


def _verdict(name: str, now: Sides, utilisation: Decimal | None, first: Decimal | None) -> str:
    own, api = now.own_usd, now.api_usd
    if now.own_wins:
        return f"own engines are cheaper than {name}: {own:,.2f} against {api:,.2f} USD a month"
    if utilisation is None or utilisation > 1:
        return f"{name} is cheaper at any volume: an engine that is never idle costs more than what the API charges for its work"
    if first is None:
        most = now.need.headroom / now.need.peak
        return (
            f"{name} is cheaper at any volume: engines would have to be {utilisation:.0%} busy,"
            f" and with these peaks and this headroom they are {most:.0%} at most"
        )
    return f"{name} is cheaper: {api:,.2f} against {own:,.2f} USD a month; own engines can be from {first / 1_000_000:,.0f} million tokens a month on"


def _rule(tokens_per_month: Decimal) -> Winner | None:
    return "api" if tokens_per_month < _LITTLE else "own" if tokens_per_month > _MUCH else None


def _notes(price: MeasuredPrice, demand: Demand, against: Sequence[Against]) -> Iterator[str]:
    yield "whether the models answer equally well isn't judged: this is about money alone"
    measured = price.capacity.rates()
    shares = {bucket: measured[bucket] / price.capacity.tokens_per_s for bucket in BUCKETS}
    if any(abs(shares[bucket] - demand.by_bucket[bucket] / demand.tokens) > 0.05 for bucket in BUCKETS):
        said = ", ".join(
            f"{bucket} {demand.by_bucket[bucket] / demand.tokens:.0%} (measured {shares[bucket]:.0%})" for bucket in BUCKETS
        )
        yield f"the calls have another mix than the run: {said}; converted by the price's split ({price.split.method})"
    if demand.bin_s is None:
        yield "over the day: not known, the calls span less than an hour; the fleet is for an even load"
    elif demand.hours < 24:
        yield (
            f"over the day: not known, the calls span {demand.hours:.1f} hours; the peak is that of {demand.bin_s / 60:.0f} minutes among them"
        )
    rule = _rule(demand.tokens_per_month)
    if rule is not None:
        for one in against:
            if one.winner is not None and one.winner != rule:
                said = "an API" if rule == "api" else "own engines"
                yield f"the rule of thumb says {said} at this volume; against {one.model.name} the figures say otherwise"
    yield from (f"{one.model.name}: {one.model.note}" for one in against if one.model.note and one.usd is not None)


def _against_json(one: Against) -> dict[str, Any]:
    figures = ("usd", "usd_per_million", "usd_per_month", "value_usd_per_hour", "utilisation", "wins_from", "always_from")
    return {
        "model": one.model.name, "price_id": one.model.price_id, "note": one.model.note,
        **_strings({name: getattr(one, name) for name in figures}),
        "winner": one.winner, "verdict": one.verdict, "cases": [_strings(case._asdict()) for case in one.cases],
    }  # fmt: skip


def _strings(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return f"{value.quantize(_UNIT, context=EXACT):f}"
        case Mapping():
            return {name: _plain(one) for name, one in value.items()}
        case _:
            return value
