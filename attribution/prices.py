"""The price book: what a model call costs, and on what authority. How prices are found: docs/prices.md."""

import hashlib
from collections.abc import Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib.metadata import version
from typing import Final, NamedTuple

from genai_prices.data import providers as bundled_providers
from genai_prices.types import ClauseAnd, ClauseEquals, ClauseOr, ClauseRegex, MatchLogic, ModelInfo

from tallystick.attribution.prices_compile import Price, Target, history, own_prices
from tallystick.attribution.prices_file import MeasuredPrice, OwnPrice, UserPrices
from tallystick.attribution.prices_names import (
    OPEN_WEIGHTS,
    VAGUE,
    Reading,
    collapsed,
    is_bedrock_id,
    plain,
    provider_id,
    readings,
    service_tier,
    undated,
)
from tallystick.schema.models import Seen

_RULES: Final = 1
"""Raised whenever the way in which prices are found or compiled changes, so that rows of the older way are not used any more."""


class PriceRow(NamedTuple):
    """A row of table `prices`, in the order of its columns; see schema/migrations/0002_prices.sql."""

    book: str
    provider: str
    request_model: str
    response_model: str
    service_tier: str
    valid_from: datetime
    price_ids: tuple[str, ...]
    rates: tuple[Decimal, ...]
    above: tuple[int, ...]
    day_starts: tuple[int, ...]
    price_key: str
    source: str
    url: str
    note: str


class PriceBook:
    """Prices of the user's file, of probes and of the installed genai-prices, in this order. Immutable; safe to share between threads."""

    def __init__(self, user: UserPrices | None = None) -> None:
        self._user = user or UserPrices()
        self._own = own_prices(self._user)
        self._providers = {provider.id: provider for provider in bundled_providers}
        self._list_version = version("genai-prices")
        known = {collapsed(id_): id_ for id_ in self._providers}
        self._known = known | {collapsed(seen): provider_id(meant, known) for seen, meant in self._user.providers.items()}
        identity = f"{_RULES} genai-prices {self._list_version} {self._user.version}"
        # Ids of books without measured prices are what they always were.
        identity += "".join(f" {price.run} {price.model_dump_json(by_alias=True)}" for price in self._user.measured)
        self.id: Final = hashlib.sha256(identity.encode()).hexdigest()[:12]

    def resolve(self, seen: Seen) -> str | None:
        """The price key of a model as seen, None if it has no price at any time."""
        target = self._target(seen)
        return target.key if target and self._history(target) else None

    def rows(self, seen: Iterable[Seen]) -> list[PriceRow]:
        """The complete price history of each model as seen, to be inserted in one go; nothing for those without a price."""
        return [
            PriceRow(
                self.id,
                *model,
                price.valid_from,
                price.price_ids,
                price.rates,
                price.above,
                price.day_starts,
                price.price_key,
                price.source,
                price.url,
                price.note,
            )
            for model in dict.fromkeys(seen)
            if (target := self._target(model))
            for price in self._history(target)
        ]

    def listing(self, now: datetime) -> Iterator[Price]:
        """The price at `now` of every model that has one, at the standard service tier: the user's first, then measured ones, then genai-prices'."""
        models = [(price.provider or "", name) for price in self._own for name in price.model]
        models += [(provider.id, model.id) for provider in self._providers.values() for model in provider.models]
        targets = {t.key: t for provider, model in models if (t := self._read(provider_id(provider, self._known), model, ""))}
        for target in targets.values():
            price = next((price for price in reversed(self._history(target)) if price.valid_from <= now), None)
            if price is not None and price.price_ids:
                yield price

    def find(self, price_id: str) -> Price | None:
        """The price that an id of this book stands for. Ids of other books: schema/sql/price_by_id.sql."""
        _, provider, model, *rest = [*price_id.split(","), "", ""]
        tier = next((part.partition("=")[2] for part in rest if part.startswith("service_tier=")), "")
        target = self._read(provider_id(provider, self._known), model, tier)
        return next((price for price in self._history(target) if price_id in price.price_ids), None) if target else None

    def _history(self, target: Target) -> list[Price]:
        return history(target, self._user, self._known, self._list_version)

    def _target(self, seen: Seen) -> Target | None:
        provider, tier = provider_id(seen.provider, self._known), service_tier(seen.service_tier)
        models = [seen.response_model, seen.request_model]
        # Bedrock answers with the bare name of a model; only the request names the inference profile, which sets the price.
        if is_bedrock_id(seen.request_model) and (provider in VAGUE or provider == "aws"):
            models.reverse()
        targets = [target for model in models if model and (target := self._read(provider, model, tier))]
        # A name that only the user prices (a deployment, a fine-tune) is meant, whatever public model answers under it.
        return next((target for target in targets if target.own and target.listed is None), targets[0] if targets else None)

    def _read(self, provider: str, model: str, tier: str) -> Target | None:
        """The target that one model name stands for: as it is, else without its date."""
        name = model.strip().lower()
        names = [name, shorter] if (shorter := undated(name)) else [name]
        ways = [way for form in names for way in readings(provider, form, self._known)]
        ways += [Reading(family, form, stated=False) for form in names if provider in VAGUE and (family := self._family(form))]
        target = next((found for way in ways if (found := self._listed(way, tier))), None)
        aliases = [*names, *(way.model for way in ways), *([target.model.lower()] if target else [])]
        billing = {provider, target.provider} if target else {provider}
        # What comes last holds: a file's price before a measured one.
        places = (*range(len(self._user.models), len(self._own)), *range(len(self._user.models)))
        own = tuple(
            at
            for at in places
            if self._bills(price := self._own[at], provider, billing, target) and any(_fits(alias, price) for alias in aliases)
        )
        if target:
            return Target(target.provider, target.model, tier, target.owner, target.listed, target.url, own)
        if own:
            last = self._own[own[-1]]
            alias = next(alias for alias in aliases if _fits(alias, last))
            return Target(provider_id(last.provider or provider, self._known) or "any", plain(alias), tier, own=own)
        return None

    def _bills(self, price: OwnPrice, provider: str, billing: set[str], target: Target | None) -> bool:
        """Whether a price is for calls of this provider, which may be named by its protocol or software only."""
        if price.provider is None or provider_id(price.provider, self._known) in billing:
            return True
        unlisted = target is None and (provider in VAGUE or provider not in self._providers)
        return unlisted and isinstance(price, MeasuredPrice)

    def _family(self, model: str) -> str | None:
        """The vendor whose naming a model follows, by genai-prices."""
        return next((p.id for p in self._providers.values() if p.model_match is not None and p.model_match.is_match(model)), None)

    def _listed(self, way: Reading, tier: str) -> Target | None:
        provider = self._providers.get(way.provider)
        if provider is None:
            return None
        lists = [provider, *(self._providers[fallback] for fallback in provider.fallback_model_providers or [])]
        model = provider.find_model(way.model, all_providers=bundled_providers) or next(
            (model for source in lists for model in source.models if way.stated and model.id.lower() == way.model), None
        )
        if model is None:
            return None
        # Weights that anyone may serve have the vendor's price only if the vendor is known to have served them.
        open_weights = way.provider in OPEN_WEIGHTS or model.id.startswith("gpt-oss")
        if not way.stated and open_weights and (model.id.startswith("gpt-oss") or not _names_exactly(model, way.model)):
            return None
        owner = next(source for source in lists if any(model is listed for listed in source.models))
        return Target(
            provider.id,
            model.id,
            tier,
            owner="" if owner is provider else owner.id,
            listed=model,
            url=next(iter(owner.pricing_urls or []), ""),
        )


def _fits(name: str, price: OwnPrice) -> bool:
    return any(fnmatchcase(name, pattern.lower()) for pattern in price.model)


def _names_exactly(model: ModelInfo, name: str) -> bool:
    return name == model.id.lower() or _is_literal(model.match, name)


def _is_literal(match: MatchLogic, name: str) -> bool:
    """Whether a clause that names models one by one, not by how they begin or what they contain, matches."""
    if isinstance(match, ClauseOr):
        return any(_is_literal(clause, name) for clause in match.or_)
    if isinstance(match, ClauseAnd):
        return match.is_match(name) and any(_is_literal(clause, name) for clause in match.and_)
    return isinstance(match, (ClauseEquals, ClauseRegex)) and match.is_match(name)
