"""OpenAI's usage API (completions, embeddings) and costs API. Pure.

Shapes: https://platform.openai.com/docs/api-reference/usage. Of completions input_tokens hold what was read from the cache, and
audio; costs are USD, and name line items only if grouped by them.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final

from tallystick.attribution.invoices.lines import BadInvoice, InvoiceLine, amount, money, tokens
from tallystick.attribution.invoices.names import item, known_model
from tallystick.attribution.invoices.pages import Bucket, Json, buckets, looks_like

USAGE: Final = "openai_usage"
COSTS: Final = "openai_costs"
_USED: Final = ("organization.usage.completions.result", "organization.usage.embeddings.result")
_FIGURES: Final = ("_tokens", "num_model_requests", "amount", "quantity")


def is_openai(page: Json) -> bool:
    return any(isinstance(one, dict) and "start_time" in one for one in page["data"]) or page.get("object") == "page"


def read(where: str, page: Json, rates: Mapping[str, Decimal]) -> Iterator[InvoiceLine]:
    """Raises BadInvoice, of results of another endpoint too."""
    for bucket in buckets(where, page, "start_time", "end_time"):
        for at, result in enumerate(bucket.results):
            path = f"{bucket.where}.results[{at}]"
            kind = result.get("object") if isinstance(result, dict) else None
            if kind in _USED:
                yield from _used(result, bucket, path)
            elif kind == "organization.costs.result":
                yield _cost(result, bucket, path, rates)
            else:
                raise BadInvoice(path, f"is {str(kind)[:60]!r}", looks_like(page))


def _used(result: Json, bucket: Bucket, path: str) -> Iterator[InvoiceLine]:
    if not result.get("model"):
        raise BadInvoice(path, "names no model", "fetch with group_by=model")
    read, cached = tokens(result.get("input_tokens") or 0, path), tokens(result.get("input_cached_tokens") or 0, path)
    if cached > read:
        raise BadInvoice(
            path, f"has {cached} cached tokens of {read} that were read", "input_tokens hold the cached ones: fetch it again"
        )
    model = known_model("openai", str(result["model"]))
    base = replace(_line(result, bucket, path, USAGE), model=model)
    for name, count in (
        ("input", read - cached),
        ("cache_read", cached),
        ("output", tokens(result.get("output_tokens") or 0, path)),
    ):
        if count:
            yield replace(base, bucket=name, tokens=count)


def _cost(result: Json, bucket: Bucket, path: str, rates: Mapping[str, Decimal]) -> InvoiceLine:
    paid = result.get("amount")
    if not isinstance(paid, dict) or "value" not in paid:
        raise BadInvoice(f"{path}.amount", "has no `value`", "the file isn't as the API gives it: fetch it again")
    name = result.get("line_item")
    if not isinstance(name, str) or not name:
        raise BadInvoice(path, "names no line item", "fetch with group_by=line_item")
    about = item("openai", name)
    model = known_model("openai", about.model) if about.model else ""
    currency = str(paid.get("currency") or "usd")
    usd, decimals = money(amount(paid["value"], f"{path}.amount.value"), currency, rates, f"{path}.amount")
    base = _line(result, bucket, path, COSTS)
    bucketed = about.bucket if model else ""
    return replace(
        base,
        model=model,
        item="" if model else name[:100],
        bucket=bucketed,
        cost_usd=usd,
        decimals=decimals,
        currency=currency.upper(),
    )


def _line(result: Json, bucket: Bucket, path: str, source: str) -> InvoiceLine:
    groups = {name: value for name, value in result.items() if not name.endswith(_FIGURES)}
    return InvoiceLine(
        provider="openai", model="", day=bucket.began.date(), item="", bucket="", tokens=None, cost_usd=None, currency="USD", decimals=0,
        source=source, where=path, key=identity(bucket, groups), began=bucket.began, ended=bucket.ended,
    )  # fmt: skip


def identity(bucket: Bucket, groups: Mapping[str, Any]) -> str:
    """What makes a result this one: its bucket's time, and what it is grouped by."""
    return f"{bucket.began} {bucket.ended} {json.dumps(groups, sort_keys=True, default=str)}"
