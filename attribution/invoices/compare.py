"""An invoice beside the ledger: one row a model and day, with the parts of its difference and a verdict. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from tallystick.attribution.invoices.explain import Billed, Kind, Metered, Part, explain
from tallystick.attribution.invoices.ledger import Cell
from tallystick.attribution.invoices.lines import InvoiceLine

DEFAULT_TOLERANCE: Final = Decimal("0.005")

Verdict = Literal["within", "over"]


@dataclass(frozen=True)
class Row:
    """A model's day, or, with model '', what is no use of a model. Amounts in USD, difference is invoice minus ledger.

    calls, priced_calls, tokens, cost_usd: the ledger's, cost with true-ups and None where nothing is priced.
    invoice_tokens, invoice_usd: None where no file states them. difference: relative to the invoice, None where that is 0.
    Where the invoice states no cost, the verdict is about tokens.
    """

    day: date
    provider: str
    model: str
    calls: int
    priced_calls: int
    tokens: int
    cost_usd: Decimal | None
    invoice_tokens: int | None
    invoice_usd: Decimal | None
    difference_usd: Decimal | None
    difference: Decimal | None
    verdict: Verdict
    on_invoice: bool
    parts: Sequence[Part]


class Totals(NamedTuple):
    """Sums over rows. parts: by kind."""

    calls: int
    priced_calls: int
    tokens: int
    cost_usd: Decimal
    invoice_tokens: int
    invoice_usd: Decimal
    difference_usd: Decimal
    over: int
    parts: Mapping[Kind, Decimal]


def period(lines: Sequence[InvoiceLine]) -> tuple[date, date]:
    """First day, and the day after the last one. Raises ValueError where there are no lines."""
    if not lines:
        raise ValueError("an invoice without lines is about no days")
    return min(line.day for line in lines), max(line.day for line in lines) + timedelta(days=1)


def providers_of(lines: Iterable[InvoiceLine]) -> dict[str, str]:
    """The provider of each model, where the invoice names one only: for calls that don't say whose the model is."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in lines:
        found[line.model].add(line.provider)
    return {model: next(iter(providers)) for model, providers in found.items() if len(providers) == 1}


def compare(lines: Sequence[InvoiceLine], ledger: Mapping[Cell, Metered], tolerance: Decimal = DEFAULT_TOLERANCE) -> list[Row]:
    """Rows by day, provider and model: those of the invoice, and the ledger's of its providers on the days from its first to its last.

    tolerance: relative, 0.005 is 0.5 %. What is no more than rounding is within any.
    """
    billed = _billed(lines)
    days: dict[str, tuple[date, date]] = {}
    for line in lines:
        first, last = days.get(line.provider, (line.day, line.day))
        days[line.provider] = min(first, line.day), max(last, line.day)
    cells = {cell for cell in ledger if cell.provider in days and days[cell.provider][0] <= cell.day <= days[cell.provider][1]}
    # The costs of providers of which there is usage only aren't known: they aren't 0.
    paid = {line.provider for line in lines if line.cost_usd is not None}
    by_model: dict[tuple[str, str], dict[date, tuple[Metered, Billed | None]]] = defaultdict(dict)
    for cell in {*billed, *cells}:
        there = billed.get(cell) if cell in billed or cell.provider in paid else Billed(tokens={})
        by_model[cell.provider, cell.model][cell.day] = ledger.get(cell, Metered()), there
    rows = [
        _row(Cell(provider, model, day), *pair, explained.get(day, ()), tolerance)
        for (provider, model), held in by_model.items()
        for explained in [explain(held)]
        for day, pair in held.items()
    ]
    return sorted((row for row in rows if _says_something(row)), key=lambda row: (row.day, row.provider, row.model))


def totals(rows: Iterable[Row]) -> Totals:
    """Of rows of which the invoice states a cost, but for tokens and calls, which are of all."""
    rows = list(rows)
    parts: dict[Kind, Decimal] = {}
    for part in (part for row in rows for part in row.parts):
        parts[part.kind] = parts.get(part.kind, Decimal(0)) + part.usd
    return Totals(
        sum(row.calls for row in rows),
        sum(row.priced_calls for row in rows),
        sum(row.tokens for row in rows),
        sum((row.cost_usd or Decimal(0) for row in rows), Decimal(0)),
        sum(row.invoice_tokens or 0 for row in rows),
        sum((row.invoice_usd or Decimal(0) for row in rows), Decimal(0)),
        sum((row.difference_usd or Decimal(0) for row in rows), Decimal(0)),
        sum(row.verdict == "over" for row in rows),
        parts,
    )


def _billed(lines: Iterable[InvoiceLine]) -> dict[Cell, Billed]:
    by_cell: dict[Cell, list[InvoiceLine]] = defaultdict(list)
    # An amount of 0.5 may be exact: with how many decimals an export is written, all of its lines tell together.
    decimals: dict[str, int] = {}
    for line in lines:
        by_cell[Cell(line.provider, line.model, line.day)].append(line)
        decimals[line.source] = max(decimals.get(line.source, 0), line.decimals)
    return {cell: _sum(cell, held, decimals) for cell, held in by_cell.items()}


def _sum(cell: Cell, lines: Sequence[InvoiceLine], decimals: Mapping[str, int]) -> Billed:
    tokens: dict[str, int] | None = None
    costs: dict[str, Decimal] = {}
    cost: Decimal | None = None
    half_units = Decimal(0)
    for line in lines:
        if line.tokens is not None:
            tokens = tokens or {}
            tokens[line.bucket] = tokens.get(line.bucket, 0) + line.tokens
        if line.cost_usd is not None:
            cost = line.cost_usd if cost is None else cost + line.cost_usd
            half_units += line.count * Decimal(5).scaleb(-decimals[line.source] - 1)
            if line.bucket:
                costs[line.bucket] = costs.get(line.bucket, Decimal(0)) + line.cost_usd
    return Billed(tokens, cost, costs, half_units, no_use=not cell.model)


def _row(cell: Cell, metered: Metered, billed: Billed | None, parts: Sequence[Part], tolerance: Decimal) -> Row:
    known = metered.cost_usd is not None or bool(metered.trued_up_usd)
    tokens = sum(metered.tokens.values()) + sum(metered.unpriced.values())
    invoice_usd = Decimal(0) if billed is None else billed.cost_usd
    invoice_tokens = None if billed is None or billed.tokens is None else sum(billed.tokens.values())
    difference = None if invoice_usd is None else invoice_usd - metered.total_usd
    verdict: Verdict
    if difference is None:
        counted = invoice_tokens or 0
        verdict = "within" if abs(counted - tokens) <= tolerance * counted else "over"
    else:
        rounding = all(part.kind in ("rounding", "trued_up") for part in parts) and any(part.kind == "rounding" for part in parts)
        verdict = "within" if abs(difference) <= tolerance * abs(invoice_usd or Decimal(0)) or rounding else "over"
    return Row(
        cell.day, cell.provider, cell.model, metered.calls, metered.priced_calls, tokens, metered.total_usd if known else None, invoice_tokens,
        invoice_usd, difference, difference / invoice_usd if difference is not None and invoice_usd else None, verdict,
        billed is not None and billed != Billed(tokens={}), parts,
    )  # fmt: skip


def _says_something(row: Row) -> bool:
    return bool(row.on_invoice or row.calls or row.tokens or row.cost_usd)
