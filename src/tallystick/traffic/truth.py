"""What a replay must cost, worked out from the calls and genai-prices alone: the other side of the demo's check of the ledger."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from tallystick.traffic.calls import Call

_PRICE_PROVIDERS = {"openai": "openai", "anthropic": "anthropic", "gcp.gemini": "google"}
_ROUNDING = Decimal("0.000001")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Group(NamedTuple):
    """What totals are compared by."""

    customer: str
    feature: str
    agent: str
    model: str


@dataclass
class Total:
    """Sums over calls. `cost_usd` sums the priced ones; None while there is none."""

    calls: int = 0
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = None


def expected(calls: Iterable[Call]) -> dict[Group, Total]:
    """Sums by customer, feature, agent and response model, each call priced by genai-prices at the time it started."""
    totals: dict[Group, Total] = {}
    for call in calls:
        who = call.caller
        total = totals.setdefault(Group(who.customer, who.feature.name, who.feature.agent, who.model.response_model), Total())
        total.calls += 1
        total.input_tokens += call.input_tokens
        total.cache_read_tokens += call.cache_read_tokens
        total.cache_write_tokens += call.cache_write_tokens
        total.output_tokens += call.output_tokens
        cost = _price(call)
        if cost is not None:
            total.cost_usd = cost + (total.cost_usd or 0)
    return totals


def _price(call: Call) -> Decimal | None:
    from genai_prices import Usage, calc_price

    model = call.caller.model
    provider = _PRICE_PROVIDERS.get(model.provider)
    if provider is None:
        return None
    usage = Usage(
        input_tokens=call.input_tokens + call.cache_read_tokens + call.cache_write_tokens,
        cache_read_tokens=call.cache_read_tokens,
        cache_write_tokens=call.cache_write_tokens,
        output_tokens=call.output_tokens,
    )
    started = _EPOCH + timedelta(microseconds=call.started_ns // 1000)
    return calc_price(usage, model.response_model, provider_id=provider, genai_request_timestamp=started).total_price


def disagreements(wanted: dict[Group, Total], found: dict[Group, Total]) -> list[str]:
    """Every figure in which two sets of totals differ, in words; costs may differ by a millionth of a dollar of rounding."""
    nothing = Total()
    problems = []
    for group in sorted(wanted.keys() | found.keys()):
        want, have = wanted.get(group, nothing), found.get(group, nothing)
        for name in ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"):
            if getattr(want, name) != getattr(have, name):
                problems.append(f"{', '.join(group)}: {name} {getattr(have, name):,}, expected {getattr(want, name):,}")
        if not _equal(want.cost_usd, have.cost_usd):
            problems.append(f"{', '.join(group)}: cost_usd {have.cost_usd}, expected {want.cost_usd}")
    return problems


def _equal(want: Decimal | None, have: Decimal | None) -> bool:
    if want is None or have is None:
        return want is have
    return abs(want - have) <= _ROUNDING
