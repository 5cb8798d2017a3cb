"""What calls would cost by an API: each priced as the ledger prices it, tiers of input size and cache rates among it."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Final

from tallystick.attribution.prices import PriceBook
from tallystick.estimate.models import meant, rates_of
from tallystick.estimating import Rates
from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.money.breakeven import ApiModel

_MILLION: Final = 1_000_000


def api_models(names: Iterable[str], book: PriceBook, at: datetime, calls: Sequence[Call] = ()) -> list[ApiModel]:
    """`PROVIDER/MODEL`, or a model's name alone, each once. calls: those that are to be priced; what of them its price leaves out is noted.

    A price that depends on the hour of the day is that of `at` for all of them.
    """
    return [_api_model(name, book, at, calls) for name in dict.fromkeys(names)]


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
