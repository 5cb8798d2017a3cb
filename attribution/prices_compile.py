"""From a price, as genai-prices or the user states it, to dated rates that SQL applies. Pure."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from genai_prices.types import ModelInfo, PriceVariant, StartDateConstraint, TieredPrices, TimeOfDateConstraint

from tallystick.attribution.prices_file import OwnPrice, Rule, TierFactor, UserPrices
from tallystick.attribution.prices_names import provider_id

BUCKETS: Final = (
    "input",
    "cache_read",
    "cache_write_5m",
    "cache_write_1h",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
    "image_input",
    "request",
)
"""Order of the rates in table `prices`; schema/sql/cost.sql counts on it."""

PART_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "cache_read": ("input",),
    "cache_write_5m": ("cache_write", "input"),
    "cache_write_1h": ("cache_write", "input"),
    "reasoning": ("output",),
    "audio_input": ("input",),
    "audio_output": ("output",),
    "image_input": ("input",),
}
"""What a bucket is charged as when it has no price of its own: the nearest whole it is a part of (genai_prices.decompose)."""

METERED: Final[Mapping[str, str]] = {
    "input_mtok": "input",
    "cache_read_mtok": "cache_read",
    "cache_write_mtok": "cache_write",
    "cache_write_5m_mtok": "cache_write_5m",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_mtok": "output",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "input_image_mtok": "image_input",
    "requests_kcount": "request",
}
"""Price keys of genai-prices → buckets. Its other keys price what spans don't count (searches, hours of audio, pages)."""

PUBLISHED_FACTORS: Final[Mapping[tuple[str, str], tuple[str, Decimal, str]]] = {
    ("anthropic", "batch"): ("*", Decimal("0.5"), "https://docs.claude.com/en/docs/build-with-claude/batch-processing"),
    ("google", "batch"): ("gemini-*", Decimal("0.5"), "https://ai.google.dev/gemini-api/docs/optimization"),
    ("google", "flex"): ("gemini-*", Decimal("0.5"), "https://ai.google.dev/gemini-api/docs/optimization"),
    ("openai", "batch"): ("*", Decimal("0.5"), "https://platform.openai.com/docs/guides/batch"),
}
"""(provider, tier) → (models, factor of the base price, source), for tiers that genai-prices doesn't know."""

_LIST: Final = "genai-prices"
_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_UNIT: Final = Decimal("1e-24")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Target:
    """What is to be priced: a model of a provider at a service tier.

    `listed` is the entry of genai-prices, `url` where its prices are published, and `owner` the provider in whose list it stands
    if that is another's (Azure falls back to OpenAI). `own` are the positions of the user's and the measured prices for it, weakest first.
    """

    provider: str
    model: str
    tier: str
    owner: str = ""
    listed: ModelInfo | None = field(default=None, compare=False)
    url: str = ""
    own: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        parts = [f"{self.provider}/{self.model}", self.owner and f"as={self.owner}", self.tier and f"service_tier={self.tier}"]
        return ",".join([*filter(None, parts), *(f"own={at}" for at in self.own)])


@dataclass(frozen=True)
class Price:
    """What a target costs from `valid_from` until its next price.

    `rates` holds USD a token (`request`: USD a call), ten in the order of `BUCKETS` for each of `price_ids`. There is one for
    each span of the day (until `day_starts[0]`, from it on, …; seconds after midnight UTC) and, within it, each tier of input
    size (up to `above[0]` tokens, more, …). Without price ids, the price before this one ends.
    """

    price_key: str
    valid_from: datetime
    price_ids: tuple[str, ...]
    rates: tuple[Decimal, ...]
    above: tuple[int, ...]
    day_starts: tuple[int, ...]
    source: str
    url: str
    note: str

    def usd_per_million(self, price_id: str) -> dict[str, Decimal]:
        """Bucket → USD a million tokens (`request`: USD a call) of one of `price_ids`. Raises ValueError for any other."""
        first = self.price_ids.index(price_id) * len(BUCKETS)
        rates = zip(BUCKETS, self.rates[first : first + len(BUCKETS)], strict=True)
        return {bucket: (rate if bucket == "request" else rate.scaleb(6)).normalize() for bucket, rate in rates}


class Quote(NamedTuple):
    """A price at one moment: for each tier of input size (more than so many tokens; first -1) the rates of `BUCKETS`."""

    tiers: tuple[tuple[int, tuple[Decimal, ...]], ...]
    source: str
    tier: str
    notes: tuple[str, ...]


def history(target: Target, prices: UserPrices, known: Mapping[str, str], list_version: str) -> list[Price]:
    """All prices of a target, oldest first; empty if it never had one. `list_version` is that of genai-prices, `known` maps
    providers' names to ids (see `prices_names.provider_id`)."""
    sources = {_LIST: f"genai-prices@{list_version}", "file": f"file@{prices.version}"}
    found: list[Price] = []
    previous: object = None
    for moment in _boundaries(target, prices):
        days = [(start, quote(target, prices, known, at)) for start, at in _times_of_day(target.listed, moment)]
        if all(q == days[0][1] for _, q in days):
            days = days[:1]
        if days == previous or (not found and not any(q for _, q in days)):
            continue
        previous = days
        found.append(_price(target, moment, days, sources))
    return found


def own_prices(prices: UserPrices) -> tuple[OwnPrice, ...]:
    """The user's and, after them, the measured ones: `Target.own` are positions here."""
    return (*prices.models, *prices.measured)


def quote(target: Target, prices: UserPrices, known: Mapping[str, str], moment: datetime) -> Quote | None:
    """The price of a target at a moment: the user's, else the public list's, with discounts, tier factors and markups applied."""

    def holds(rule: Rule) -> bool:
        return (
            rule.valid_at(moment)
            and (rule.provider is None or provider_id(rule.provider, known) == target.provider)
            and (not rule.model or any(fnmatchcase(target.model.lower(), name.lower()) for name in rule.model))
        )

    stated = own_prices(prices)
    own = [price for at in target.own if (price := stated[at]).valid_at(moment)]
    for_tier = [price for price in own if price.service_tier and price.service_tier.lower() == target.tier]
    base = for_tier or [price for price in own if price.service_tier is None]
    if base:
        found, has_tier_price = _own_quote(base[-1]), bool(for_tier)
    else:
        listed, has_tier_price = _listed_quote(target, moment)
        if listed is None:
            return None
        found = listed
        for discount in filter(holds, prices.discounts):
            found = _times(found, 1 - discount.percent / 100, f"discount {discount.percent} %", discount.source)
    if target.tier:
        factor = next((f for f in reversed(prices.service_tiers) if holds(f) and f.service_tier.lower() == target.tier), None)
        found = found._replace(tier=f"service_tier={target.tier}") if has_tier_price else _at_factor(found, target, factor)
    for markup in filter(holds, prices.markups):
        found = _times(found, 1 + markup.percent / 100, f"markup {markup.percent} %", markup.source)
    return found


def _at_factor(found: Quote, target: Target, stated: TierFactor | None) -> Quote:
    """A base price at a service tier that has none of its own: times the user's factor, else the one that the provider publishes
    (unless genai-prices knows the tier, from a later day), else as it is. The price id says which."""
    models, published, url = PUBLISHED_FACTORS.get((target.provider, target.tier), ("", Decimal(1), ""))
    if stated:
        at, found = f"{stated.factor}", _times(found, stated.factor, f"service tier × {stated.factor}", stated.source)
    elif (
        models
        and found.source.startswith(_LIST)
        and not target.owner
        and not _variants(target)
        and fnmatchcase(target.model, models)
    ):
        at, found = f"{published}", _times(found, published, f"service tier × {published}, published at {url}", None)
    else:
        at = "base"
    return found._replace(tier=f"service_tier={target.tier},at={at}")


def _listed_quote(target: Target, moment: datetime) -> tuple[Quote | None, bool]:
    """The public list's price, and whether it has one of its own for the service tier.

    An entry that prices nothing which spans count is no price, unless the model's name says that it is free.
    """
    model = target.listed
    if model is None:
        return None, False
    has_tier_price = any(v.constraint is None or v.constraint.active(moment) for v in _variants(target))
    price = model.get_prices(moment, _context(target.tier) if has_tier_price else None)
    stated = {bucket: vars(price)[key] for key, bucket in METERED.items() if vars(price).get(key) is not None}
    if not stated and not model.id.endswith(":free"):
        return None, has_tier_price
    tiered = [value for value in stated.values() if isinstance(value, TieredPrices)]
    starts = sorted({tier.start for value in tiered for tier in value.tiers})
    tiers = tuple((start, _rates({b: _at_size(v, start) for b, v in stated.items()})) for start in (-1, *starts))
    return Quote(tiers, _LIST, "", ()), has_tier_price


def _variants(target: Target) -> list[PriceVariant]:
    """What genai-prices knows of a target's service tier, at any time. Variants don't follow a model to another provider than its
    owner, as in genai_prices.ModelInfo.calc_price."""
    context = _context(target.tier)
    variants = target.listed.price_variants if target.listed and not target.owner else None
    return [v for v in variants or [] if all(context.get(name) == value for name, value in v.when.items())]


def _context(tier: str) -> dict[str, str]:
    """What genai-prices calls a service tier: `service_tier`, and for some providers `processing` or `speed`."""
    return (
        {"service_tier": tier} | ({"processing": tier} if tier == "batch" else {}) | ({"speed": tier} if tier == "fast" else {})
    )


def _at_size(price: Decimal | TieredPrices, above: int) -> Decimal:
    if isinstance(price, TieredPrices):
        return next((tier.price for tier in reversed(price.tiers) if tier.start <= above), price.base)
    return price


def _own_quote(price: OwnPrice) -> Quote:
    tiers = []
    stated: dict[str, Decimal] = {"request": price.per_request * 1000}
    for above, tokens in (
        (-1, price.per_million_tokens),
        *((tier.input_tokens, tier.per_million_tokens) for tier in price.above),
    ):
        stated = stated | tokens.stated()
        tiers.append((above, _rates(stated)))
    found = Quote(tuple(tiers), price.origin, "", (price.source,) if price.source else ())
    if price.currency != "USD":
        assert price.exchange_rate is not None
        found = _times(found, price.exchange_rate, f"{price.currency} at {price.exchange_rate} USD", None)
    if price.markup_percent:
        found = _times(found, 1 + price.markup_percent / 100, f"markup {price.markup_percent} %", None)
    return found


def _rates(stated: Mapping[str, Decimal]) -> tuple[Decimal, ...]:
    """Rates of all buckets, USD a token, from prices per million tokens and per thousand requests."""
    per_million = [
        next((stated[whole] for whole in (bucket, *PART_OF.get(bucket, ())) if whole in stated), Decimal(0)) for bucket in BUCKETS
    ]
    return tuple(
        price.scaleb(-3 if bucket == "request" else -6, _EXACT) for bucket, price in zip(BUCKETS, per_million, strict=True)
    )


def _times(found: Quote, factor: Decimal, note: str, source: str | None) -> Quote:
    """A quote multiplied; `source` is a string, maybe empty, if the factor comes from the user's file."""
    tiers = tuple((above, tuple(_EXACT.multiply(rate, factor) for rate in rates)) for above, rates in found.tiers)
    by_file = source is not None and found.source == _LIST
    notes = (*found.notes, f"{note} ({source})" if source else note)
    return found._replace(tiers=tiers, notes=notes, source=f"{_LIST}+file" if by_file else found.source)


def _boundaries(target: Target, prices: UserPrices) -> Iterator[datetime]:
    """Moments at which the price can change, from the beginning of time as a ledger knows it."""
    moments, own = {_EPOCH}, own_prices(prices)
    for constraint in _constraints(target.listed):
        if isinstance(constraint, StartDateConstraint):
            moments.add(datetime.combine(constraint.start_date, time(), UTC))
    rules = itertools.chain((own[at] for at in target.own), prices.discounts, prices.markups, prices.service_tiers)
    moments.update(moment for rule in rules for moment in (rule.from_, rule.until) if moment is not None)
    return iter(sorted(moments))


def _constraints(model: ModelInfo | None) -> list[StartDateConstraint | TimeOfDateConstraint | None]:
    if model is None:
        return []
    conditions = model.prices if isinstance(model.prices, list) else []
    return [price.constraint for price in conditions] + [variant.constraint for variant in model.price_variants or []]


def _times_of_day(model: ModelInfo | None, moment: datetime) -> list[tuple[int, datetime]]:
    """For each span of the day with a price of its own: when it starts, in seconds after midnight UTC, and a time in it, not
    before `moment`."""
    starts = {0}
    for constraint in _constraints(model):
        if isinstance(constraint, TimeOfDateConstraint):
            for edge in (constraint.start_time, constraint.end_time):
                edge_utc = datetime.combine(_EPOCH, edge if edge.tzinfo else edge.replace(tzinfo=UTC))
                starts.add(int((edge_utc - _EPOCH).total_seconds()) % 86_400)
    midnight = datetime.combine(moment, time(), UTC)
    ordered = sorted(starts)
    times = []
    for start, end in zip(ordered, [*ordered[1:], 86_400], strict=True):
        at = max(midnight + timedelta(seconds=start), moment)
        times.append((start, at if at < midnight + timedelta(seconds=end) else midnight + timedelta(days=1, seconds=start)))
    return times


def _price(target: Target, moment: datetime, days: list[tuple[int, Quote | None]], sources: Mapping[str, str]) -> Price:
    # A price that is missing for a part of the day can't be told from one that is missing: then there is none.
    stated = [(start, q) for start, q in days if q] if all(q for _, q in days) else []
    above = sorted({start for _, q in stated for start, _ in q.tiers if start >= 0})
    ids: list[str] = []
    rates: list[Decimal] = []
    for start, q in stated:
        for size in (-1, *above):
            utc = f"utc={start // 3600:02}:{start // 60 % 60:02}" if len(days) > 1 else ""
            within = [utc, f"above={size}" if size >= 0 else ""]
            ids.append(_price_id(target, moment, q, _source(q, sources), within))
            applicable = next(r for at, r in reversed(q.tiers) if at <= size)
            rates.extend(rate.quantize(_UNIT, context=_EXACT) for rate in applicable)
    return Price(
        price_key=target.key,
        valid_from=moment,
        price_ids=tuple(ids),
        rates=tuple(rates),
        above=tuple(above),
        day_starts=tuple(start for start, _ in stated[1:]),
        source=_source(stated[0][1], sources) if stated else "",
        url=target.url if stated and stated[0][1].source.startswith(_LIST) else "",
        note="; ".join(stated[0][1].notes) if stated else "no price from here on",
    )


def _source(found: Quote, sources: Mapping[str, str]) -> str:
    return "+".join(sources.get(part, part) for part in found.source.split("+"))


def _price_id(target: Target, moment: datetime, found: Quote, source: str, within: list[str]) -> str:
    since = moment.isoformat().removesuffix("T00:00:00+00:00").replace("+00:00", "Z") if moment > _EPOCH else "always"
    owner = f"as={target.owner}" if target.owner else ""
    return ",".join(filter(None, [source, target.provider, target.model, owner, f"from={since}", found.tier, *within]))
