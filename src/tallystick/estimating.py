"""What a call would cost, before it is made: by the rules by which the ledger prices it afterwards."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tallystick.collectors.failures import warn_once
from tallystick.collectors.tokens import Count, count_messages
from tallystick.schema.models import Seen

if TYPE_CHECKING:
    from tallystick.attribution.prices import PriceBook, PriceRow

_EXACT: Final = Context(prec=60)
_LEDGER: Final = Decimal("1e-12")


@dataclass(frozen=True, slots=True)
class Rates:
    """What a model costs at one moment: USD a token of each bucket, `request` USD a call."""

    price_id: str
    """As the ledger's `price_id`; `tallystick prices show` explains it."""
    input: Decimal
    cache_read: Decimal
    cache_write_5m: Decimal
    cache_write_1h: Decimal
    output: Decimal
    reasoning: Decimal
    audio_input: Decimal
    audio_output: Decimal
    image_input: Decimal
    request: Decimal
    larger: tuple[tuple[int, "Rates"], ...] = ()
    """(size, rates of a call whose whole input is more than so many tokens), ascending."""

    def of_size(self, input_total: int) -> "Rates":
        """The rates of a call by its whole input, what is read from the cache and written to it included."""
        return next((rates for size, rates in reversed(self.larger) if input_total > size), self)

    def cost(
        self,
        *,
        input_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_5m_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        output_tokens: int = 0,
        reasoning_tokens: int = 0,
        audio_input_tokens: int = 0,
        audio_output_tokens: int = 0,
        image_input_tokens: int = 0,
    ) -> Decimal:
        """USD of a call, of 12 decimals, for tokens in the ledger's buckets: cached input isn't in `input_tokens`, reasoning is in
        `output_tokens`, audio and images are in their direction's. The formula of schema/sql/cost.sql."""
        found = self.of_size(input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens)
        spoken = max(output_tokens - reasoning_tokens, 0)
        typed = max(input_tokens - audio_input_tokens, 0)
        parts = (
            (max(typed - image_input_tokens, 0), found.input),
            (cache_read_tokens, found.cache_read),
            (cache_write_5m_tokens, found.cache_write_5m),
            (cache_write_1h_tokens, found.cache_write_1h),
            (max(spoken - audio_output_tokens, 0), found.output),
            (min(reasoning_tokens, output_tokens), found.reasoning),
            (min(audio_input_tokens, input_tokens), found.audio_input),
            (min(audio_output_tokens, spoken), found.audio_output),
            (min(image_input_tokens, typed), found.image_input),
            (1, found.request),
        )
        total = Decimal()
        for tokens, rate in parts:
            if tokens:
                total = _EXACT.add(total, _EXACT.multiply(rate, tokens))
        return total.quantize(_LEDGER, ROUND_HALF_UP, _EXACT)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a call is expected to cost."""

    input_tokens: int
    """Whole, the cached included."""
    max_output_tokens: int | None
    low_usd: Decimal | None
    """Were nothing answered. None without a price."""
    high_usd: Decimal | None
    """With an answer of `max_output_tokens`. None without these, or without a price."""
    counted: Count
    """How the input was counted, and how well."""
    price: Rates | None = field(repr=False)
    unpriced_reason: str
    """Why there is no price, '' if there is one."""


def estimate_cost(
    model: str,
    messages: object,
    max_output_tokens: int | None = None,
    *,
    tools: object = None,
    system: object = None,
    provider: str | None = None,
    cached_tokens: int = 0,
    at: datetime | None = None,
) -> Estimate:
    """The cost of a request to `model` (messages, tools and system as `count_tokens` takes them), at `at` (default: now).

    cached_tokens: how many of the input the provider's cache is expected to hold. The price is the user's, of the file that
    TALLYSTICK_CONFIG names, else the public list's. A model without a price has no cost; it isn't 0.
    """
    if max_output_tokens is not None and max_output_tokens < 0:
        raise ValueError(f"max_output_tokens is negative: {max_output_tokens}")
    if cached_tokens < 0:
        raise ValueError(f"cached_tokens is negative: {cached_tokens}")
    counted = count_messages(model, messages, tools, system)
    read = min(cached_tokens, counted.tokens)
    found = rates(model, provider, at)
    if found is None:
        return Estimate(counted.tokens, max_output_tokens, None, None, counted, None, _unpriced(model, provider))
    low = found.cost(input_tokens=counted.tokens - read, cache_read_tokens=read)
    high = None
    if max_output_tokens is not None:
        high = found.cost(input_tokens=counted.tokens - read, cache_read_tokens=read, output_tokens=max_output_tokens)
    return Estimate(counted.tokens, max_output_tokens, low, high, counted, found, "")


def rates(model: str, provider: str | None = None, at: datetime | None = None, service_tier: str = "") -> Rates | None:
    """What `model` costs at `at` (default: now; without a time zone it is UTC), as the ledger would find it; None without a price.

    The first call of a process reads the price list, which takes half a second; the first of a model half a millisecond.
    """
    return _present(_rows(model, provider or "", service_tier), at)


def rates_in(book: "PriceBook", model: str, provider: str | None = None, at: datetime | None = None) -> Rates | None:
    """As `rates`, by a price book that is at hand, at the base price."""
    return _present(book.rows([Seen(provider or "", model, "", "")]), at)


def _present(rows: "Sequence[PriceRow]", at: datetime | None) -> Rates | None:
    moment = datetime.now(UTC) if at is None else at if at.tzinfo else at.replace(tzinfo=UTC)
    row = next((row for row in reversed(rows) if row.valid_from <= moment), None)
    if row is None or not row.price_ids:
        return None
    utc = moment.astimezone(UTC)
    second = utc.hour * 3600 + utc.minute * 60 + utc.second
    return _compiled(row)[sum(start <= second for start in row.day_starts)]


@lru_cache(maxsize=1024)
def _rows(model: str, provider: str, service_tier: str) -> "list[PriceRow]":
    book = _book()
    return book.rows([Seen(provider, model, "", service_tier)]) if book else []


@lru_cache(maxsize=4096)
def _compiled(row: "PriceRow") -> list[Rates]:
    """The rates of each span of the day."""
    from tallystick.attribution.prices_compile import BUCKETS

    def rates_of(at: int, larger: tuple[tuple[int, Rates], ...] = ()) -> Rates:
        values = row.rates[at * len(BUCKETS) : (at + 1) * len(BUCKETS)]
        return Rates(row.price_ids[at], larger=larger, **dict(zip(BUCKETS, values, strict=True)))

    width = len(row.above) + 1
    return [
        rates_of(first, tuple((size, rates_of(first + tier)) for tier, size in enumerate(row.above, 1)))
        for first in range(0, len(row.price_ids), width)
    ]


@cache
def _book() -> "PriceBook | None":
    try:
        from tallystick.attribution.prices import PriceBook
    except ImportError as error:
        warn_once("prices", f"no cost can be estimated: {error}. Install prices: pip install 'tallystick[tokens]'")
        return None
    path = os.environ.get("TALLYSTICK_CONFIG", "").strip()
    if path:
        from tallystick.attribution.prices_file import PriceFileError, load_prices_file

        try:
            return PriceBook(load_prices_file(Path(path)))
        except (PriceFileError, OSError, ImportError) as error:
            missing = " (pip install pyyaml)" if isinstance(error, ImportError) else ""
            warn_once("own prices", f"prices of TALLYSTICK_CONFIG aren't used, the public list is: {error}{missing}")
    return PriceBook()


def _unpriced(model: str, provider: str | None) -> str:
    if _book() is None:
        return "no price list is installed: pip install 'tallystick[tokens]'"
    whose = f" of provider {provider!r}" if provider else ""
    return f"no price is known for model {model!r}{whose}: state it in the file that TALLYSTICK_CONFIG names (docs/prices.md)"
