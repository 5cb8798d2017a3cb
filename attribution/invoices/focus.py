"""FOCUS (FinOps Open Cost and Usage Specification) 1.x as CSV, of any provider: rows of model use, taxes, credits. Pure.

Columns: https://focus.finops.org. What names a model isn't in the specification: looked for in this order are x_UsageType (AWS), x_Model,
`Model` in SkuPriceDetails, ResourceName. The bucket is read from SkuMeter, `TokenType` in SkuPriceDetails, or ChargeDescription.
"""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Final

from tallystick.attribution.invoices.aws import counted
from tallystick.attribution.invoices.lines import BadInvoice, Invoice, InvoiceLine, amount, money
from tallystick.attribution.invoices.names import Item, item, known_model, known_provider
from tallystick.attribution.invoices.sheet import Row, Sheet, missing

SOURCE: Final = "focus"
_NEEDED: Final = ("BilledCost", "BillingCurrency", "ChargeCategory", "ChargePeriodEnd", "ChargePeriodStart")

_BUCKETS: Final = (
    (re.compile(r"cache.*write.*(1h|hour)|(1h|hour).*cache.*write", re.IGNORECASE), "cache_write_1h"),
    (re.compile(r"cache.*(write|creation)", re.IGNORECASE), "cache_write_5m"),
    (re.compile(r"cache|cached", re.IGNORECASE), "cache_read"),
    (re.compile(r"output|completion|reasoning|generated", re.IGNORECASE), "output"),
    (re.compile(r"input|prompt", re.IGNORECASE), "input"),
)
_SERVICES: Final = (
    (re.compile(r"bedrock", re.IGNORECASE), "aws"),
    (re.compile(r"azure.*openai|azure ai|cognitive services|foundry", re.IGNORECASE), "azure"),
    (re.compile(r"vertex|gemini|generative language", re.IGNORECASE), "google"),
)


def is_focus(header: tuple[str, ...]) -> bool:
    return len({"BilledCost", "ChargePeriodStart", "ChargeCategory", "ServiceCategory", "EffectiveCost"} & {*header}) >= 2


def read(sheet: Sheet, name: str, rates: Mapping[str, Decimal]) -> Invoice:
    """Rows of services that serve models; others are left out, and counted in the notes. Raises BadInvoice."""
    for wanted in _NEEDED:
        if wanted not in sheet.header:
            raise missing(wanted, sheet.header, name)
    lines, others = [], 0
    for row in sheet.rows:
        provider = _provider(row)
        if provider:
            lines.append(_line(row, provider, sheet.comma, rates))
        else:
            others += 1
    return Invoice(lines, (f"{name}: {others:,} rows of services that serve no models were left out",) if others else ())


def _line(row: Row, provider: str, comma: bool, rates: Mapping[str, Decimal]) -> InvoiceLine:
    began, ended = row.time("ChargePeriodStart"), row.time("ChargePeriodEnd")
    category = row.get("ChargeCategory")
    used = category == "Usage"
    if used and ended - began > timedelta(days=1):
        raise BadInvoice(
            row.where, "its charge period is longer than a day", "export by the hour or day: calls are compared by day"
        )
    about = _item(row, provider) if used else Item("", "")
    model = known_model(provider, about.model) if about.model else ""
    usd, decimals = money(
        amount(row.get("BilledCost") or "0", row.where, comma=comma), row.get("BillingCurrency"), rates, row.where
    )
    unit, quantity = row.get("ConsumedUnit"), row.get("ConsumedQuantity")
    has_tokens = bool(model and about.bucket and quantity and "token" in unit.lower())
    return InvoiceLine(
        provider=provider,
        model=model,
        day=began.date(),
        item="" if model else f"{category}: {row.get('ChargeDescription', 'SkuMeter', 'ServiceName')}"[:100],
        bucket=about.bucket if model else "",
        tokens=counted(quantity, unit, row.where, comma=comma) if has_tokens else None,
        cost_usd=usd,
        currency=row.get("BillingCurrency").upper(),
        decimals=decimals,
        source=SOURCE,
        where=row.where,
        key=row.key,
    )


def _provider(row: Row) -> str:
    """Whose models they are; '' for other services."""
    service = row.get("ServiceName")
    for pattern, provider in _SERVICES:
        if pattern.search(service):
            return provider
    stated = row.get("ServiceProviderName", "ProviderName", "InvoiceIssuerName")
    ours = row.get("ServiceCategory") in ("AI and Machine Learning", "") or row.get("ChargeCategory") != "Usage"
    return known_provider(stated) if ours else ""


def _item(row: Row, provider: str) -> Item:
    details = _details(row)
    if provider == "aws" and (found := item("aws", row.get("x_UsageType"))).model:
        return found
    model = row.get("x_Model", "x_ModelName") or details.get("Model") or details.get("x_Model") or row.get("ResourceName")
    told = details.get("TokenType") or details.get("x_TokenType") or row.get("x_TokenType", "SkuMeter", "ChargeDescription")
    bucket = next((bucket for pattern, bucket in _BUCKETS if pattern.search(told)), "")
    return Item(model, bucket) if model else Item("", "")


def _details(row: Row) -> dict[str, str]:
    try:
        found = json.loads(row.get("SkuPriceDetails") or "{}")
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
