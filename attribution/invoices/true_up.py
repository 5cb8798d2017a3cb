"""What makes the ledger's total of each model's day the invoice's: lines for a run of corrections. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

from tallystick.attribution.corrections import Line
from tallystick.attribution.invoices.compare import Row, period
from tallystick.attribution.invoices.ledger import Cell, Group, midnight
from tallystick.attribution.invoices.lines import InvoiceLine, digest
from tallystick.attribution.spreading import spread

Spread = Literal["who", "none"]
"""`who`: shared out by what the day's calls of the model cost each tenant, customer, feature, agent, team. `none`: one line, nobody's."""


def key(lines: Sequence[InvoiceLine]) -> str:
    """What a true-up of these lines is for: providers, days and content. The same content, however it is filed, is one."""
    since, until = period(lines)
    providers = "+".join(sorted({line.provider for line in lines}))
    return f"invoice {providers} {since} {until} {digest(lines)}"


def lines_for(rows: Iterable[Row], groups: Mapping[Cell, Sequence[Group]], how: Spread, tenant: str) -> list[Line]:
    """Lines whose sum is, for each row, its difference, to the last decimal.

    Rows that the invoice doesn't name, or without a cost on it, are left as they are: it may be of another account. tenant: whose
    is what no call stands for.
    """
    made = []
    for row in rows:
        if not row.on_invoice or not row.difference_usd:
            continue
        held = list(groups.get(Cell(row.provider, row.model, row.day), ())) if how == "who" else []
        made += _lines(row, held, tenant)
    return made


def _lines(row: Row, groups: Sequence[Group], tenant: str) -> list[Line]:
    amount = row.difference_usd or Decimal(0)
    weights = [max(group.cost_usd, Decimal(0)) for group in groups]
    if not any(weights):
        # Nothing is priced: tokens are what there is.
        weights = [max(Decimal(group.tokens), Decimal(0)) for group in groups]
    if not any(weights):
        return [Line(midnight(row.day), amount, tenant, {}, _what(row.provider, row.model), {})]
    shares = spread(amount, weights)
    return [
        Line(midnight(row.day), share, group.tenant, group.who, _what(group.provider, group.model), {})
        for group, share in zip(groups, shares, strict=True)
        if share
    ]


def _what(provider: str, model: str) -> dict[str, str]:
    return {"provider": provider, "response_model": model} if model else {"provider": provider}
