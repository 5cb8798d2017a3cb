"""Traffic as it is imagined, and what an API charges for it. Pure.

Tokens of a call, p prompt, c completion, s cache share, w cache write share: p·s read from the cache, p·(1−s)·w written to it where the provider
charges for that and s > 0, the rest uncached input. A month is 30.4375 days.
"""

from collections.abc import Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final, NamedTuple

from tallystick.estimating import Rates

DAYS_A_MONTH: Final = Decimal("30.4375")
_EXACT: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)
_MILLION: Final = 1_000_000


class Traffic(NamedTuple):
    """prompt: all tokens of a call's input. completion: reasoning among them. cache_share: of the prompt, what the cache has.

    cache_write_share: of the rest, what is written to it.
    """

    users: Decimal
    calls_per_user_day: Decimal
    prompt: Decimal
    completion: Decimal
    cache_share: Decimal = Decimal(0)
    cache_write_share: Decimal = Decimal(1)

    @property
    def calls_per_month(self) -> Decimal:
        """Of all users."""
        return self.users * self.calls_per_user_day * DAYS_A_MONTH

    @property
    def tokens_per_month(self) -> Decimal:
        """In and out."""
        return self.calls_per_month * (self.prompt + self.completion)


class Bill(NamedTuple):
    """USD of an average call, by bucket, and of the month."""

    by_bucket: Mapping[str, Decimal]
    usd_per_month: Decimal

    @property
    def usd_per_call(self) -> Decimal:
        """All buckets."""
        return sum(self.by_bucket.values(), Decimal(0))


def bill(traffic: Traffic, rates: Rates) -> Bill:
    """By the ledger's rules, for calls that all are as the average one: its size says which tier of input size is charged."""
    found = rates.of_size(int(traffic.prompt))
    cached = traffic.prompt * traffic.cache_share
    written = (traffic.prompt - cached) * traffic.cache_write_share if cached and writes_cost(found) else Decimal(0)
    parts = {
        "input": _EXACT.multiply(found.input, traffic.prompt - cached - written),
        "cache_read": _EXACT.multiply(found.cache_read, cached),
        "cache_write": _EXACT.multiply(found.cache_write_5m, written),
        "output": _EXACT.multiply(found.output, traffic.completion),
        "request": found.request,
    }
    return Bill(parts, _EXACT.multiply(sum(parts.values(), Decimal(0)), traffic.calls_per_month))


def writes_cost(rates: Rates) -> bool:
    """Whether what is written to the cache costs something else than input."""
    return rates.cache_write_5m != rates.input


def left_out(traffic: Traffic, rates: Rates) -> Iterator[str]:
    """What a reader of the bill must know."""
    found = rates.of_size(int(traffic.prompt))
    if traffic.cache_share and writes_cost(found):
        share = traffic.cache_write_share
        yield f"{share:.0%} of what isn't read from the cache is taken to be written to it, at {_per_million(found.cache_write_5m)} USD a million tokens"
    if traffic.cache_share and found.cache_read == found.input:
        yield "its price knows no discount for cached input"
    larger = next((size for size, _ in rates.larger if traffic.prompt <= size), None)
    if larger is not None and larger <= traffic.prompt * 20:
        yield f"calls with more than {larger:,} input tokens are charged by another price, and all are taken to be as the average one"


def _per_million(rate: Decimal) -> str:
    return f"{(rate * _MILLION).normalize():f}"
