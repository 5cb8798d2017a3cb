"""Anthropic's usage report of messages and cost report. Pure.

Shapes: https://platform.claude.com/docs/en/api/admin/cost_report and …/usage_report. Token counts are disjoint as the ledger's are;
amounts are cents, as decimal strings.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from tallystick.attribution.invoices.lines import BadInvoice, InvoiceLine, amount, money, tokens
from tallystick.attribution.invoices.names import item, known_model
from tallystick.attribution.invoices.openai import identity
from tallystick.attribution.invoices.pages import Bucket, Json, buckets, looks_like

USAGE: Final = "anthropic_usage"
COSTS: Final = "anthropic_costs"

_TYPES: Final[Mapping[str, str]] = {
    "uncached_input_tokens": "input",
    "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write_5m",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write_1h",
    "output_tokens": "output",
}
"""token_type of a cost, and where a usage result has its count."""

_COUNTS: Final = frozenset(
    {"uncached_input_tokens", "cache_read_input_tokens", "cache_creation", "output_tokens", "server_tool_use"}
)


def is_anthropic(page: Json) -> bool:
    return any(isinstance(one, dict) and "starting_at" in one for one in page["data"])


def read(where: str, page: Json, rates: Mapping[str, Decimal]) -> Iterator[InvoiceLine]:
    """Raises BadInvoice, of results of another endpoint too."""
    for bucket in buckets(where, page, "starting_at", "ending_at"):
        for at, result in enumerate(bucket.results):
            path = f"{bucket.where}.results[{at}]"
            if isinstance(result, dict) and "amount" in result:
                yield _cost(result, bucket, path, rates)
            elif isinstance(result, dict) and "uncached_input_tokens" in result:
                yield from _used(result, bucket, path)
            else:
                raise BadInvoice(path, "is neither usage of messages nor a cost", looks_like(page))


def _used(result: Json, bucket: Bucket, path: str) -> Iterator[InvoiceLine]:
    if not result.get("model"):
        raise BadInvoice(path, "names no model", "fetch with group_by[]=model")
    base = _line(bucket, path, USAGE, {name: value for name, value in result.items() if name not in _COUNTS})
    model = known_model("anthropic", str(result["model"]))
    for name, bucketed in _TYPES.items():
        if count := tokens(_at(result, name) or 0, f"{path}.{name}"):
            yield replace(base, model=model, bucket=bucketed, tokens=count)


def _cost(result: Json, bucket: Bucket, path: str, rates: Mapping[str, Decimal]) -> InvoiceLine:
    description = result.get("description")
    if not description and not result.get("model"):
        raise BadInvoice(path, "says neither model nor what it is for", "fetch with group_by[]=description")
    currency = str(result.get("currency") or "USD")
    # Cents: `123.45` is 1.2345 USD.
    usd, decimals = money(amount(result["amount"], f"{path}.amount").scaleb(-2), currency, rates, path)
    kind = result.get("cost_type")
    stated, bucketed = str(result.get("model") or ""), _TYPES.get(str(result.get("token_type")), "")
    if not stated and kind in (None, "tokens"):
        stated, bucketed = item("anthropic", str(description))
    used = bool(stated) and kind in (None, "tokens")
    base = _line(bucket, path, COSTS, {name: value for name, value in result.items() if name != "amount"})
    return replace(
        base,
        model=known_model("anthropic", stated) if used else "",
        item="" if used else str(description or kind or "other")[:100],
        bucket=bucketed if used else "",
        cost_usd=usd,
        decimals=decimals,
        currency=currency.upper(),
    )


def _at(result: Json, path: str) -> Any:
    value: Any = result
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _line(bucket: Bucket, path: str, source: str, groups: Mapping[str, Any]) -> InvoiceLine:
    return InvoiceLine(
        provider="anthropic", model="", day=bucket.began.date(), item="", bucket="", tokens=None, cost_usd=None, currency="USD", decimals=0,
        source=source, where=path, key=identity(bucket, groups), began=bucket.began, ended=bucket.ended,
    )  # fmt: skip
