"""What calls cost, by the price book that the front door brings along: this room has none."""

from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Final, Protocol

from tallystick.collectors.calls.request import Request, Usage


class Rates(Protocol):
    """USD a token of each bucket."""

    @property
    def input(self) -> Decimal: ...
    @property
    def cache_write_5m(self) -> Decimal: ...
    @property
    def cache_write_1h(self) -> Decimal: ...
    @property
    def output(self) -> Decimal: ...
    @property
    def reasoning(self) -> Decimal: ...
    @property
    def audio_input(self) -> Decimal: ...
    @property
    def audio_output(self) -> Decimal: ...
    @property
    def request(self) -> Decimal: ...

    def of_size(self, input_total: int) -> "Rates":
        """Of a call with so much input."""
        ...

    def cost(
        self,
        *,
        input_tokens: int = 0,
        cache_read_tokens: int = 0,
        cache_write_5m_tokens: int = 0,
        cache_write_1h_tokens: int = 0,
        output_tokens: int = 0,
        reasoning_tokens: int = 0,
    ) -> Decimal:
        """USD."""
        ...


RatesOf = Callable[[str, str, str], Rates | None]
"""Of (model, provider, service tier) now; None where the model has no price. Microseconds, but for the first call of a model."""

_PROVIDERS: Final = {"google-genai": "gcp.gemini", "boto3": "aws.bedrock", "mistralai": "mistral_ai"}
"""Library → its provider as spans name it, where that isn't the library's name."""

_ORDINARY: Final = frozenset({"", "auto", "default", "standard", "standard_only"})

_load: Callable[[], RatesOf] = lambda: lambda model, provider, tier: None  # noqa: E731 - until the front door says better


def use(load: Callable[[], RatesOf]) -> None:
    """load: reads the price book, which may take half a second."""
    global _load  # noqa: PLW0603 - a process has one price book
    _load = load
    rates_of.cache_clear()


@cache
def rates_of() -> RatesOf:
    """Reads the price book the first time."""
    return _load()


def rates(request: Request) -> Rates | None:
    """Of the call as it is requested."""
    tier = request.body.get("service_tier")
    return rates_of()(request.model, provider_of(request), "" if tier in _ORDINARY or not isinstance(tier, str) else tier)


def provider_of(request: Request) -> str:
    """As spans name it."""
    if request.library == "openai" and request.host.endswith(".azure.com"):
        return "azure.ai.openai"
    return _PROVIDERS.get(request.library, request.library)


def cost(rates: Rates, usage: Usage) -> Decimal:
    """Of a call by its usage. Unknown buckets of cache and reasoning count as empty: then input and output have it all."""
    return rates.cost(
        input_tokens=usage.input_tokens or 0,
        cache_read_tokens=usage.cache_read_tokens or 0,
        cache_write_5m_tokens=usage.cache_write_5m_tokens or 0,
        cache_write_1h_tokens=usage.cache_write_1h_tokens or 0,
        output_tokens=usage.output_tokens or 0,
        reasoning_tokens=usage.reasoning_tokens or 0,
    )
