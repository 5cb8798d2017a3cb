"""Why an invoice and the ledger differ about a model's day. Pure; the parts of a difference add up to it, to the last decimal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal
from typing import Final, Literal, NamedTuple

Kind = Literal[
    "trued_up",
    "other_item",
    "not_billed",
    "unpriced",
    "cache",
    "unmetered",
    "overmetered",
    "day_boundary",
    "price",
    "rounding",
    "unexplained",
]

MEANING: Final[Mapping[Kind, str]] = {
    "trued_up": "what earlier true-ups took into the ledger",
    "other_item": "no use of a model: tax, credit, search …",
    "not_billed": "calls of a model that the invoice doesn't name",
    "unpriced": "calls without a price in the ledger, at the invoice's rates",
    "cache": "tokens that the invoice has in another bucket (from cache, into cache) than the ledger, at the ledger's rates",
    "unmetered": "tokens of the invoice that the ledger lacks, at the ledger's rates",
    "overmetered": "tokens of the ledger that the invoice lacks, at the ledger's rates",
    "day_boundary": "calls around midnight that the provider counts to the neighbouring day",
    "price": "the same tokens at another rate",
    "rounding": "the invoice's decimals",
    "unexplained": "what is left",
}

_PLACES: Final = Decimal("1e-12")
_READ: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
_MILLION: Final = 1_000_000
_SAME_RATE: Final = Decimal("0.0005")
"""Rates that differ by less, relatively, are told as one."""


class Part(NamedTuple):
    """A part of a difference. text: figures behind it, '' where there are none."""

    kind: Kind
    usd: Decimal
    text: str = ""


@dataclass(frozen=True)
class Metered:
    """What the ledger has of a model's day. cost_usd: of calls and their corrections, None where nothing is priced.

    tokens: of priced calls, by bucket; unpriced: of the others. rates: USD a token by bucket, such that tokens at them are cost_usd.
    early_usd, late_usd: cost of calls in the first and last minutes of the day.
    """

    calls: int = 0
    priced_calls: int = 0
    tokens: Mapping[str, int] = field(default_factory=dict)
    unpriced: Mapping[str, int] = field(default_factory=dict)
    cost_usd: Decimal | None = None
    trued_up_usd: Decimal = Decimal(0)
    rates: Mapping[str, Decimal] = field(default_factory=dict)
    early_usd: Decimal = Decimal(0)
    late_usd: Decimal = Decimal(0)

    @property
    def total_usd(self) -> Decimal:
        return (self.cost_usd or Decimal(0)) + self.trued_up_usd


@dataclass(frozen=True)
class Billed:
    """What the invoice has of it. tokens, cost_usd: None where it doesn't say; costs: by bucket, as far as it says.

    half_units: how far cost_usd can be from its exact value by rounding, USD. no_use: whether it is no use of a model.
    """

    tokens: Mapping[str, int] | None = None
    cost_usd: Decimal | None = None
    costs: Mapping[str, Decimal] = field(default_factory=dict)
    half_units: Decimal = Decimal(0)
    no_use: bool = False


def explain(days: Mapping[date, tuple[Metered, Billed | None]]) -> dict[date, list[Part]]:
    """The parts of each day's difference, invoice minus ledger, of one model; days whose invoice states no cost have none.

    A day that the invoice doesn't name (None) costs nothing there. What moves over midnight is taken out of opposite differences
    of neighbouring days, and is no more than what the ledger has within ten minutes of it.
    """
    found = {day: _parts(*pair) for day, pair in days.items() if pair[1] is None or pair[1].cost_usd is not None}
    for day in sorted(found):
        after = day + timedelta(days=1)
        if after in found:
            _move(found[day], found[after], days[day][0], days[after][0])
    return {day: [part for part in parts.values() if part.usd] for day, parts in found.items()}


def _parts(metered: Metered, billed: Billed | None) -> dict[Kind, Part]:
    parts: dict[Kind, Part] = {}
    paid = Decimal(0) if billed is None or billed.cost_usd is None else billed.cost_usd
    left = paid - metered.total_usd

    def take(kind: Kind, usd: Decimal, text: str = "") -> None:
        nonlocal left
        usd = usd.quantize(_PLACES)
        parts[kind] = Part(kind, usd, text)
        left -= usd

    take("trued_up", -metered.trued_up_usd)
    if billed is None:
        take("not_billed", left, f"{metered.calls:,} calls")
        return parts
    if billed.no_use:
        take("other_item", left)
        return parts
    if not metered.calls:
        take("unmetered", left, f"{sum(billed.tokens.values()):,} tokens, no calls" if billed.tokens else "no calls")
        return parts
    bound = billed.half_units + metered.calls * _PLACES / 2
    if billed.tokens is None:
        if metered.cost_usd is None:
            take("unpriced", left, f"{metered.calls:,} calls")
        take("rounding" if abs(left) <= bound else "unexplained", left)
        return parts
    rest = dict(billed.tokens)
    if any(metered.unpriced.values()):
        rates = _billed_rates(billed)
        taken = {bucket: min(count, rest.get(bucket, 0)) for bucket, count in metered.unpriced.items()}
        take("unpriced", _value(taken, rates), f"{metered.calls - metered.priced_calls:,} calls, {sum(taken.values()):,} tokens")
        rest = {bucket: count - taken.get(bucket, 0) for bucket, count in rest.items()}
    if metered.rates:
        more = {bucket: rest.get(bucket, 0) - metered.tokens.get(bucket, 0) for bucket in {*rest, *metered.tokens}}
        moved, moved_usd = _moved(more, metered.rates)
        take("cache", moved_usd, f"{moved:,} tokens")
        number = sum(more.values())
        usd = _value(more, metered.rates) - parts["cache"].usd
        take("unmetered" if usd > 0 else "overmetered", usd, f"{number:+,} tokens")
        take("rounding" if abs(left) <= bound else "price", left, _rates(billed, metered.rates))
    else:
        take("rounding" if abs(left) <= bound else "unexplained", left)
    return parts


def _moved(more: Mapping[str, int], rates: Mapping[str, Decimal]) -> tuple[int, Decimal]:
    """Tokens that one side read in other buckets than the other: how many, and what that makes at `rates`."""
    up = {bucket: more[bucket] for bucket in _READ if more.get(bucket, 0) > 0}
    down = {bucket: -more[bucket] for bucket in _READ if more.get(bucket, 0) < 0}
    number = min(sum(up.values()), sum(down.values()))
    if not number:
        return 0, Decimal(0)
    gained, lost = _value(up, rates) / sum(up.values()), _value(down, rates) / sum(down.values())
    return number, number * (gained - lost)


def _move(first: dict[Kind, Part], second: dict[Kind, Part], day: Metered, after: Metered) -> None:
    """Take out of both days what moved over the midnight between them."""
    for one in ("unmetered", "overmetered", "unexplained"):
        for other in ("unmetered", "overmetered", "unexplained"):
            here, there = first.get(one), second.get(other)
            if here is None or there is None or here.usd * there.usd >= 0 or (one == "unexplained") != (other == "unexplained"):
                continue
            # Less billed on the first day: its last calls went to the second. More: the second's first calls came to the first.
            most = day.late_usd if here.usd < 0 else after.early_usd
            size = min(abs(here.usd), abs(there.usd), max(most, Decimal(0))).quantize(_PLACES)
            if size:
                size = size.copy_sign(here.usd)
                for parts, part, usd in ((first, here, size), (second, there, -size)):
                    parts[part.kind] = part._replace(usd=part.usd - usd)
                    held = parts.get("day_boundary", Part("day_boundary", Decimal(0)))
                    parts["day_boundary"] = held._replace(usd=held.usd + usd)


def _value(tokens: Mapping[str, int], rates: Mapping[str, Decimal]) -> Decimal:
    """Tokens at rates; a bucket without one at their mean."""
    mean = sum(rates.values(), Decimal(0)) / len(rates) if rates else Decimal(0)
    return sum((count * rates.get(bucket, mean) for bucket, count in tokens.items()), Decimal(0))


def _billed_rates(billed: Billed) -> dict[str, Decimal]:
    """USD a token on the invoice, by bucket; where it doesn't state costs by bucket, one rate for all."""
    counts = billed.tokens or {}
    every, paid = sum(counts.values()), billed.cost_usd or Decimal(0)
    return {
        bucket: billed.costs[bucket] / count if bucket in billed.costs else paid / every
        for bucket, count in counts.items()
        if count
    }


def _rates(billed: Billed, rates: Mapping[str, Decimal]) -> str:
    """`input 2.25 instead of 2.5 USD per million tokens`: the invoice's rates that aren't the ledger's."""
    counts = {bucket: count for bucket, count in (billed.tokens or {}).items() if count}
    if not counts or billed.cost_usd is None:
        return ""
    if not all(bucket in billed.costs for bucket in counts):
        every = sum(counts.values())
        told = [f"{_rate(billed.cost_usd / every)} instead of {_rate(_value(counts, rates) / every)}"]
    else:
        theirs = _billed_rates(billed)
        pairs = [(bucket, theirs[bucket], _value({bucket: 1}, rates)) for bucket in counts]
        told = [
            f"{bucket} {_rate(their)} instead of {_rate(ours)}"
            for bucket, their, ours in pairs
            if abs(their - ours) > ours * _SAME_RATE
        ]
    return f"{', '.join(told)} USD per million tokens" if told else ""


def _rate(usd: Decimal) -> str:
    return f"{(usd * _MILLION).quantize(Decimal('0.0001')).normalize():f}"
