"""What a token of one's own engine costs: an hour of it, over what it does in an hour. Pure. Definitions: docs/probes.md.

$/M of all tokens = $/h / (3600 × tokens/s) × 1e6, at the highest rate that meets the latency target, over the utilisation.
By bucket: each has a weight (probes/money/cost_split.py), prices are to each other as the weights are, and the measured mix comes to the hour.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal

from tallystick.probes.money.cost_split import Split
from tallystick.probes.money.hourly_cost import EXACT, HourlyCost

Bucket = Literal["input", "cache_read", "output"]
BUCKETS: Final[tuple[Bucket, ...]] = ("input", "cache_read", "output")

_UNIT: Final = Decimal("1e-18")
"""USD a million tokens: the ledger keeps 24 decimals a token."""
_MILLION: Final = 1_000_000
_HOUR: Final = 3600


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine did a second at one load. input_tokens_per_s: without what came from its cache.

    cached_tokens_per_s: None where the engine doesn't tell, and then the input is all of it. at: the load (`poisson 4/s`); target: the latency
    that was held there, in words, '' where none was asked for.
    """

    requests_per_s: float
    input_tokens_per_s: float
    cached_tokens_per_s: float | None
    output_tokens_per_s: float
    at: str
    target: str = ""

    @property
    def tokens_per_s(self) -> float:
        """Of all buckets."""
        return sum(self.rates().values())

    def rates(self) -> dict[Bucket, float]:
        """Tokens a second of each bucket."""
        return {
            "input": self.input_tokens_per_s,
            "cache_read": self.cached_tokens_per_s or 0.0,
            "output": self.output_tokens_per_s,
        }


@dataclass(frozen=True, slots=True)
class MeasuredPrice:
    """USD a million tokens by bucket. utilisation: of the capacity, as a share of 1; source: on whose word (`full`, `given`, `ledger`).

    best: the most that was observed at any latency.
    """

    hour: HourlyCost
    capacity: Capacity
    split: Split
    per_million: Mapping[Bucket, Decimal]
    utilisation: Decimal = Decimal(1)
    utilisation_source: str = "full"
    best: Capacity | None = None

    @property
    def all_tokens(self) -> Decimal:
        """USD a million tokens of the measured mix, whatever their bucket."""
        return _blended(self.hour, self.capacity, self.utilisation)

    @property
    def all_tokens_full(self) -> Decimal:
        """The same of an engine that is never idle."""
        return _blended(self.hour, self.capacity, Decimal(1))

    @property
    def all_tokens_best(self) -> Decimal | None:
        """The same at `best`, without regard to latency."""
        return _blended(self.hour, self.best, Decimal(1)) if self.best else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the price has to know."""
        found = [*self.hour.notes]
        if not self.capacity.target:
            found.append("no latency target was set: the price is at the highest load that was measured")
        if self.capacity.cached_tokens_per_s is None:
            found.append("the engine doesn't tell what came from its cache: input is all of it")
        return (*found, *self.split.notes)

    @property
    def definition(self) -> str:
        """How the price comes about, in one line; what the ledger keeps with it."""
        tokens = f"{self.capacity.tokens_per_s:,.1f} tokens/s at {self.capacity.at}"
        held = f" within {self.capacity.target}" if self.capacity.target else ""
        used = f", {self.utilisation:.1%} used ({self.utilisation_source})"
        return f"{self.hour.usd_per_hour.normalize():f} USD/h over {tokens}{held}{used}; by bucket: {self.split.how}"

    def cost(self, tokens: Mapping[Bucket, float | int]) -> Decimal:
        """USD of so many tokens of each bucket."""
        return _sum(self.per_million[bucket] * _decimal(tokens.get(bucket, 0)) for bucket in BUCKETS) / _MILLION

    def engine_hours(self, tokens: Mapping[Bucket, float | int]) -> Decimal:
        """For how long so many tokens keep one engine at its capacity busy: another mix than the measured one is converted by the split."""
        if not self.hour.usd_per_hour:
            raise ValueError("an hour costs nothing: work can't be told by its cost")
        return EXACT.divide(self.cost(tokens) * self.utilisation, self.hour.usd_per_hour)

    def at(self, utilisation: Decimal, source: str) -> "MeasuredPrice":
        """The same engine, used to that share. Raises ValueError for what isn't within (0, 1]."""
        return measured_price(self.hour, self.capacity, self.split, utilisation=utilisation, source=source, best=self.best)

    def as_json(self) -> dict[str, Any]:
        """Amounts of money are strings."""
        return {
            "usd_per_million": {bucket: f"{self.per_million[bucket]:f}" for bucket in BUCKETS},
            "usd_per_million_all": f"{self.all_tokens:f}",
            "usd_per_million_all_full": f"{self.all_tokens_full:f}",
            "usd_per_million_all_best": None if self.all_tokens_best is None else f"{self.all_tokens_best:f}",
            "utilisation": f"{self.utilisation:f}",
            "utilisation_source": self.utilisation_source,
            "hour": self.hour.as_json(),
            "capacity": _capacity_json(self.capacity),
            "best": _capacity_json(self.best) if self.best else None,
            "split": self.split.as_json(),
            "definition": self.definition,
            "notes": list(self.notes),
        }


class NoPrice(ValueError):
    """A run that no price can be taken from; the message says why."""


def measured_price(
    hour: HourlyCost,
    capacity: Capacity,
    split: Split,
    *,
    utilisation: Decimal = Decimal(1),
    source: str = "full",
    best: Capacity | None = None,
) -> MeasuredPrice:
    """The mix of `capacity`, at that share of it, comes to `hour` exactly. Raises NoPrice."""
    if not 0 < utilisation <= 1:
        raise NoPrice(f"a utilisation is more than 0 and at most 1, not {utilisation:f}")
    if capacity.tokens_per_s <= 0:
        raise NoPrice(f"no tokens came at {capacity.at}")
    weights: Mapping[Bucket, Decimal] = dict(zip(BUCKETS, split.weights, strict=True))
    rates = {bucket: _decimal(rate) for bucket, rate in capacity.rates().items()}
    work = _sum(weights[bucket] * rates[bucket] for bucket in BUCKETS) * _HOUR
    if work <= 0:
        raise NoPrice("the tokens that were measured have no weight")
    a_weight = EXACT.divide(hour.usd_per_hour * _MILLION, work * utilisation)
    prices: dict[Bucket, Decimal] = {bucket: (a_weight * weights[bucket]).quantize(_UNIT, context=EXACT) for bucket in BUCKETS}
    return MeasuredPrice(hour, capacity, split, prices, utilisation, source, best)


def observed_utilisation(price: MeasuredPrice, tokens: Mapping[Bucket, int], hours: Decimal, engines: int = 1) -> Decimal:
    """The share of so many engines' hours that so many tokens kept busy. More than 1: they did more than was measured."""
    return EXACT.divide(price.engine_hours(tokens), hours * engines)


def _blended(hour: HourlyCost, capacity: Capacity, utilisation: Decimal) -> Decimal:
    tokens_per_s = _sum(map(_decimal, capacity.rates().values()))
    a_million = EXACT.divide(hour.usd_per_hour * _MILLION, tokens_per_s * _HOUR * utilisation)
    return a_million.quantize(_UNIT, context=EXACT)


def _capacity_json(capacity: Capacity) -> dict[str, Any]:
    return {name: getattr(capacity, name) for name in Capacity.__slots__} | {"tokens_per_s": capacity.tokens_per_s}


def _decimal(value: float) -> Decimal:
    return Decimal(str(value))


def _sum(parts: Iterable[Decimal]) -> Decimal:
    return sum(parts, Decimal(0))
