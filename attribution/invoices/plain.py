"""A CSV of one's own making: `day, provider, model, input_tokens, …, cost_usd`, a row for what one likes of a model's day. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from difflib import get_close_matches
from typing import Final

from tallystick.attribution.invoices.lines import BUCKETS, BadInvoice, Invoice, InvoiceLine, amount, money, tokens
from tallystick.attribution.invoices.names import known_model, known_provider
from tallystick.attribution.invoices.sheet import Row, Sheet, missing

SOURCE: Final = "csv"
_TOKENS: Final = {f"{bucket}_tokens": bucket for bucket in BUCKETS} | {"cache_write_tokens": "cache_write_5m"}
COLUMNS: Final = ("day", "provider", "model", *_TOKENS, "cost_usd", "cost", "currency", "item")
"""day, provider and one of tokens or cost are needed; model may be empty for what `item` names (tax, a credit)."""


def is_plain(header: tuple[str, ...]) -> bool:
    return {"day", "provider"} <= {column.lower() for column in header}


def read(sheet: Sheet, name: str, rates: Mapping[str, Decimal]) -> Invoice:
    """Raises BadInvoice."""
    header = tuple(column.lower() for column in sheet.header)
    for column in header:
        if column not in COLUMNS:
            close = get_close_matches(column, COLUMNS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(COLUMNS)}"
            raise BadInvoice(f"{name}:1", f"{column!r} is no column", hint)
    if not {*_TOKENS, "cost_usd", "cost"} & {*header}:
        raise missing("cost_usd", sheet.header, name)
    rows = (Row({key.lower(): cell for key, cell in row.cells.items()}, row.where, row.key) for row in sheet.rows)
    return Invoice([line for row in rows for line in _lines(row, sheet.comma, rates)])


def _lines(row: Row, comma: bool, rates: Mapping[str, Decimal]) -> Iterator[InvoiceLine]:
    provider = known_provider(row.get("provider"))
    if not provider:
        raise BadInvoice(
            row.where, f"{row.get('provider')!r} is no provider", "name who sent the invoice: openai, anthropic, aws …"
        )
    model, currency = known_model(provider, row.get("model")), row.get("currency") or "USD"
    base = InvoiceLine(
        provider=provider, model=model, day=row.day("day"), item="" if model else row.get("item") or "other", bucket="", tokens=None,
        cost_usd=None, currency=currency.upper(), decimals=0, source=SOURCE, where=row.where, key=row.key,
    )  # fmt: skip
    for column, bucket in _TOKENS.items():
        if written := row.get(column):
            yield replace(
                base, bucket=bucket, tokens=tokens(written, f"{row.where}, {column}", comma=comma), key=f"{row.key}|{column}"
            )
    for column, unit in (("cost_usd", "USD"), ("cost", currency)):
        if written := row.get(column):
            where = f"{row.where}, {column}"
            usd, decimals = money(amount(written, where, comma=comma), unit, rates, where)
            yield replace(base, cost_usd=usd, decimals=decimals)
            return
