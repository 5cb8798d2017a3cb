"""What calls would cost by an API: each priced as the ledger prices it, tiers of input size and cache rates among it."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Final

from genai_prices.data import providers

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import UserPrices, load_prices_file
from tallystick.estimating import Rates, rates_in
from tallystick.probes.breakeven import ApiModel
from tallystick.probes.traffic_mix import Call

_MILLION: Final = 1_000_000


def book_of(config: Path | None) -> PriceBook:
    """The public list under the file's prices. Raises PriceFileError, OSError."""
    return PriceBook(load_prices_file(config) if config else UserPrices())


def api_models(names: Iterable[str], book: PriceBook, at: datetime, calls: Sequence[Call] = ()) -> list[ApiModel]:
    """`PROVIDER/MODEL`, or a model's name alone, each once. calls: those that are to be priced; what of them its price leaves out is noted.

    A price that depends on the hour of the day is that of `at` for all of them.
    """
    return [_api_model(name, book, at, calls) for name in dict.fromkeys(names)]


def rates_of(name: str, book: PriceBook, at: datetime) -> Rates | None:
    """Of `PROVIDER/MODEL`, or of a model's name alone."""
    provider, slash, model = name.partition("/")
    found = rates_in(book, model, provider, at) if slash else None
    return found or rates_in(book, name, None, at)


def meant(name: str) -> str:
    """What to do about a name that has no price."""
    listed = {f"{provider.id}/{model.id}" for provider in providers for model in provider.models}
    close = get_close_matches(name, listed, 1) or get_close_matches(name, {one.partition("/")[2] for one in listed}, 1)
    return f"did you mean {close[0]}?" if close else "`tallystick prices list` has all; state others in a file (docs/prices.md)"


def _api_model(name: str, book: PriceBook, at: datetime, calls: Sequence[Call]) -> ApiModel:
    found = rates_of(name, book, at)
    if found is None:
        return ApiModel(name, None, note=f"no price is known: {meant(name)}")
    return ApiModel(name, _charge(found), found.price_id, _note(found, calls))


def _charge(rates: Rates) -> Callable[[Call], Decimal]:
    return lambda call: rates.cost(
        input_tokens=call.uncached_tokens,
        cache_read_tokens=call.cached_tokens,
        cache_write_5m_tokens=call.written_tokens,
        output_tokens=call.output_tokens,
    )


def _note(rates: Rates, calls: Sequence[Call]) -> str:
    if (
        rates.cache_write_5m != rates.input
        and any(call.cached_tokens for call in calls)
        and not any(call.written_tokens for call in calls)
    ):
        dearer = (rates.cache_write_5m - rates.input) * _MILLION
        return f"what it charges for writing to its cache isn't in the calls: {dearer.normalize():f} USD a million tokens above the price of input"
    return ""
