"""What the ledger has of the models' days that an invoice is about."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

from tallystick.attribution.invoices.explain import Metered
from tallystick.attribution.invoices.lines import BUCKETS
from tallystick.attribution.invoices.names import known_model, known_provider

Ask = Callable[[str, Mapping[str, Any]], Sequence[Sequence[Any]]]
"""(SQL, parameters) → rows, of all tenants."""

_QUERIES: Final = Path(__file__).parent.parent / "queries"
_CELLS: Final = (_QUERIES / "reconcile.sql").read_text(encoding="utf-8")
_GROUPS: Final = (_QUERIES / "reconcile_groups.sql").read_text(encoding="utf-8")
_RATES: Final = (_QUERIES / "reconcile_rates.sql").read_text(encoding="utf-8")
_EPOCH: Final = date(1970, 1, 1)


class Cell(NamedTuple):
    """A model's day, by the names of the price book."""

    provider: str
    model: str
    day: date


class Group(NamedTuple):
    """For whom a model's day was: names as the ledger has them, cost and tokens."""

    provider: str
    model: str
    tenant: str
    who: Mapping[str, str]
    cost_usd: Decimal
    tokens: int


def metered(ask: Ask, since: date, until: date, models: Mapping[str, str]) -> dict[Cell, Metered]:
    """Each model's days in [since, until). models: the provider of a model, for calls that name none."""
    rows = ask(_CELLS, _period(since, until))
    ids = sorted({str(row[3]) for row in rows if row[3]})
    rates = {str(id): [Decimal(rate) for rate in found] for id, found in ask(_RATES, {"price_ids": ids})} if ids else {}
    by_cell: dict[Cell, list[Sequence[Any]]] = defaultdict(list)
    for row in rows:
        by_cell[_cell(row, models)].append(row)
    return {cell: _metered(rows, rates) for cell, rows in by_cell.items()}


def groups(ask: Ask, since: date, until: date, models: Mapping[str, str]) -> dict[Cell, list[Group]]:
    """For whom each model's days in [since, until) were."""
    found: dict[Cell, list[Group]] = defaultdict(list)
    for row in ask(_GROUPS, _period(since, until)):
        who = {name: value for name, value in zip(("customer", "feature", "agent", "team"), row[4:8], strict=True) if value}
        found[_cell(row, models)].append(Group(row[1], row[2], row[3], who, Decimal(row[8]), int(row[9])))
    return found


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _period(since: date, until: date) -> dict[str, int]:
    return {"since": (since - _EPOCH).days, "until": (until - _EPOCH).days}


def _cell(row: Sequence[Any], models: Mapping[str, str]) -> Cell:
    day, seen, model = date.fromisoformat(row[0]), str(row[1]), str(row[2])
    provider = known_provider(seen) or models.get(known_model("", model), "")
    return Cell(provider, known_model(provider, model), day)


def _metered(rows: Iterable[Sequence[Any]], listed: Mapping[str, Sequence[Decimal]]) -> Metered:
    calls = priced_calls = 0
    tokens, unpriced = dict.fromkeys(BUCKETS, 0), dict.fromkeys(BUCKETS, 0)
    by_price: dict[str, list[int]] = {}
    cost: Decimal | None = None
    trued_up = early = late = Decimal(0)
    for row in rows:
        price_id, priced, is_trueup, number, *counts = row[3:12]
        usd, first, last = (Decimal(value) for value in row[12:])
        calls += number
        if is_trueup:
            trued_up += usd
            continue
        held = tokens if priced else unpriced
        for bucket, count in zip(BUCKETS, counts, strict=True):
            held[bucket] += count
        if priced:
            priced_calls += number
            cost = usd if cost is None else cost + usd
            early, late = early + first, late + last
            by_price[price_id] = [one + other for one, other in zip(by_price.get(price_id, [0] * 5), counts, strict=True)]
    return Metered(calls, priced_calls, tokens, unpriced, cost, trued_up, _rates(by_price, listed, tokens, cost), early, late)


def _rates(
    by_price: Mapping[str, Sequence[int]],
    listed: Mapping[str, Sequence[Decimal]],
    tokens: Mapping[str, int],
    cost: Decimal | None,
) -> dict[str, Decimal]:
    """USD a token by bucket: those of the prices that were applied, scaled so that tokens at them are the cost.

    What scales them is what buckets don't tell apart (audio, reasoning, a price a call) and repricing, which is a difference.
    """
    every = sum(tokens.values())
    if cost is None or every <= 0:
        return {}
    known = {id: listed[id] for id in by_price if id in listed}
    values = [sum((counts[at] * known[id][at] for id, counts in by_price.items() if id in known), Decimal(0)) for at in range(5)]
    listed_usd = sum(values, Decimal(0))
    if listed_usd <= 0 or known.keys() != by_price.keys():
        return dict.fromkeys(BUCKETS, cost / every)
    main = known[max(by_price, key=lambda id: sum(by_price[id]))]
    scale = cost / listed_usd
    return {
        bucket: scale * (values[at] / tokens[bucket] if tokens[bucket] > 0 else main[at]) for at, bucket in enumerate(BUCKETS)
    }
