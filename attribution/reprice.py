"""Repricing: what calls of the past cost under the present price book, entered as differences to what the ledger holds for them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from tallystick.attribution.corrections import Corrections, Made
from tallystick.attribution.priced_calls import Which, period, priced_calls
from tallystick.attribution.prices import PriceBook, PriceRow
from tallystick.attribution.sql_files import fill, insert_json, scalar
from tallystick.schema.dialects import quote
from tallystick.schema.models import Seen

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Coverage:
    """Calls and tokens of a period, and how many of them are priced. cost_usd: of those that are."""

    calls: int
    priced_calls: int
    tokens: int
    priced_tokens: int
    cost_usd: Decimal


@dataclass(frozen=True)
class Difference:
    """What changes for one model, customer or day (UTC, ISO 8601). calls: those whose cost changes; cost_usd: by how much in all."""

    by: Literal["model", "customer", "day"]
    value: str
    calls: int
    cost_usd: Decimal


@dataclass(frozen=True)
class Repriced:
    """What a repricing changed, or would change.

    made: the run; None where nothing changed, or nothing was to be entered. book: the price book's id. newly_priced: of the `changed`
    calls, those that had no price. price_lost: calls that keep their cost although their model has no price any more. differences:
    of models, customers and days each the largest.
    """

    made: Made | None
    book: str
    changed: int
    newly_priced: int
    price_lost: int
    cost_usd: Decimal
    before: Coverage
    after: Coverage
    differences: tuple[Difference, ...]


class NothingToReprice(ValueError):
    """No call is meant."""


def reprice(
    corrections: Corrections, book: PriceBook, which: Which, *, reason: str, author: str, dry_run: bool = False, top: int = 20
) -> Repriced:
    """Enter for each call that stands what its cost under `book` differs by from what the ledger holds; a second time changes nothing.

    dry_run: say what would be entered, and enter nothing. top: how many differences are told of models, customers and days each.
    Raises NothingToReprice, and what Corrections.run raises.
    """
    detail = {**asdict(which), "since": _iso(which.since_ns), "until": _iso(which.until_ns)}
    with corrections.run("reprice", reason=reason, author=author, book=book.id, detail=detail) as run:
        condition = which.condition()
        held = run.client.query(fill("spend_by_name", condition=condition)).result_rows
        if not held:
            raise NothingToReprice("no call is in this time, or none is of this model, provider, customer or tenant")
        totals: list[Any] = [sum(column) for column in list(zip(*held, strict=True))[4:]]
        before = Coverage(*totals)
        _enter_prices(run.client, book, (Seen(*row[:4]) for row in held))
        price_lost = _price_lost(run.client, book, which, held)
        for piece in run.pieces(condition, which.since_ns, which.until_ns):
            meant = f"{period(piece.since_ns, piece.until_ns)} AND {condition}"
            # A void that comes from here on is told apart when the run is entered.
            run.add("enter_repriced", priced_calls=priced_calls(book.id, meant, corrected=piece.corrections > 0))
        found = run.client.query(fill("repriced", beside=run.beside)).result_rows
        made = None if dry_run else run.enter()
    total = next((row for row in found if not row[0]), None)
    changed, newly_priced, tokens, cost = total[2:] if total else (0, 0, 0, Decimal(0))
    cost = cost or Decimal(0)
    return Repriced(
        made,
        book.id,
        changed,
        newly_priced,
        price_lost,
        cost,
        before,
        Coverage(
            before.calls, before.priced_calls + newly_priced, before.tokens, before.priced_tokens + tokens, before.cost_usd + cost
        ),
        tuple(_largest(found, top)),
    )


def _largest(found: Iterable[Sequence[Any]], top: int) -> Iterable[Difference]:
    told = Counter[str]()
    for by, value, changed, _, _, cost in found:
        told[by] += 1
        if by and told[by] <= top:
            yield Difference(by, value, changed, cost)


def _enter_prices(client: "Client", book: PriceBook, seen: Iterable[Seen]) -> None:
    """Give prices to models that have none of this book yet, as the writer does at first sight."""
    present = set(client.query(fill("priced_book"), parameters={"book": book.id}).result_rows)
    rows = book.rows(name for name in seen if name not in present)
    if rows:
        insert_json(client, "prices", (_json(row) for row in rows))


def _json(row: PriceRow) -> dict[str, object]:
    return {**row._asdict(), "valid_from": f"{row.valid_from:%Y-%m-%d %H:%M:%S.%f}", "rates": [f"{rate:f}" for rate in row.rates]}


def _price_lost(client: "Client", book: PriceBook, which: Which, held: Iterable[Sequence[Any]]) -> int:
    """Only models that are priced in the ledger, and not all the time in the book, are looked at call by call."""
    names = [Seen(*row[:4]) for row in held if row[5]]
    gaps = [name for name in names if not _always_priced(book.rows([name]), which)]
    if not gaps:
        return 0
    listed = ", ".join(f"({', '.join(map(quote, name))})" for name in gaps)
    condition = f"(provider, request_model, response_model, service_tier) IN ({listed}) AND {which.condition()}"
    return int(scalar(client, fill("price_lost", priced_calls=priced_calls(book.id, condition))))


def _always_priced(rows: Sequence[PriceRow], which: Which) -> bool:
    since, until = _time(which.since_ns), _time(which.until_ns)
    before = [row for row in rows if row.valid_from <= since]
    during = [row for row in rows if since < row.valid_from < until]
    return bool(before) and all(row.price_ids for row in [max(before, key=lambda row: row.valid_from), *during])


def _time(ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ns // 1000)


def _iso(ns: int) -> str:
    return _time(ns).isoformat()
