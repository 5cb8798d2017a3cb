"""Calls entered by hand, priced by hand, and what the ledger then says of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from tallystick.attribution.corrections import Corrections
from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import read_prices
from tallystick.attribution.sql_files import insert_json
from tallystick.ingest.turns import LocalTurns

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from tallystick.attribution.runs import Turns

FIRST = datetime(2026, 9, 30, 23, tzinfo=UTC)
"""When the first call starts; the others follow by the hour, over the end of a month."""

SINCE_NS, UNTIL_NS = (int(datetime(2026, month, 1, tzinfo=UTC).timestamp()) * 10**9 for month in (9, 12))


class Kept:
    """The ledger of an engine in this process, by one connection to it. alone: whether it is looked at as nobody else's."""

    def __init__(self, client: "Client", *, alone: bool = True) -> None:
        self._client, self.alone = client, alone

    def client(self) -> "Client":
        return self._client

    def delete(self, condition: str, /) -> None:
        self._client.command(f"ALTER TABLE ledger DELETE WHERE {condition} SETTINGS mutations_sync = 2")


def corrections_of(
    client: "Client",
    turns: "Turns | None" = None,
    *,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    alone: bool = True,
) -> Corrections:
    """Of the engine in this process."""
    return Corrections(Kept(client, alone=alone), clock, turns or LocalTurns())


Rates = Mapping[str, tuple[Decimal, Decimal] | None]
"""Model → USD for a million tokens of input and of output; None has no price."""


@dataclass(frozen=True)
class Call:
    """A call of model `model`; cost is what it was entered with."""

    number: int
    model: str
    input_tokens: int | None
    output_tokens: int | None
    cost: Decimal | None
    customer: str = "acme"

    @property
    def trace_id(self) -> str:
        return f"{self.number + 1:032x}"

    @property
    def span_id(self) -> str:
        return f"{self.number + 1:016x}"

    @property
    def started_at(self) -> datetime:
        return FIRST + timedelta(hours=self.number)

    def price(self, rates: Rates) -> Decimal | None:
        """What it costs by these rates, worked out in fractions; exact, for rates have at most 6 decimals."""
        rate = rates.get(self.model)
        if rate is None or (self.input_tokens is None and self.output_tokens is None):
            return None
        cost = sum(
            (
                Fraction(tokens or 0) * Fraction(usd) / 10**6
                for tokens, usd in zip((self.input_tokens, self.output_tokens), rate, strict=True)
            ),
            Fraction(0),
        )
        return Decimal(cost.numerator * 10**12 // cost.denominator).scaleb(-12)


def book(rates: Rates) -> PriceBook:
    """A price book of these and the public prices."""
    priced = {model: rate for model, rate in rates.items() if rate is not None}
    lines = [
        f"    - {{model: {model}, per_million_tokens: {{input: {rate[0]:f}, output: {rate[1]:f}}}}}"
        for model, rate in priced.items()
    ]
    return PriceBook(read_prices("\n".join(["prices:", "  models:", *lines])) if lines else None)


def enter(client: "Client", tenant: str, calls: Iterable[Call]) -> None:
    """Into the ledger, as the writer would have."""
    insert_json(client, "ledger", (_row(tenant, call) for call in calls))


def _row(tenant: str, call: Call) -> dict[str, Any]:
    ids = {"trace_id": bytes.fromhex(call.trace_id).decode("latin-1"), "span_id": bytes.fromhex(call.span_id).decode("latin-1")}
    return {
        "entry": "call", "calls": 1, "tenant": tenant, "customer": call.customer, "provider": "lab", "request_model": call.model,
        "operation": "chat", "input_tokens": call.input_tokens, "output_tokens": call.output_tokens, "cost_usd": call.cost,
        "started_at": f"{call.started_at:%Y-%m-%d %H:%M:%S}", "duration_ns": 10**9, "ttft_ns": 10**8, **ids,
    }  # fmt: skip


class Totals(NamedTuple):
    """Of a tenant. tokens: input and output."""

    calls: int
    priced_calls: int
    tokens: int
    priced_tokens: int
    cost: Decimal


def totals(client: "Client", tenant: str, condition: str = "1") -> Totals:
    """As the ledger has them."""
    query = f"""SELECT sum(calls), sumIf(calls, cost_usd IS NOT NULL), ifNull(sum(input_tokens), 0) + ifNull(sum(output_tokens), 0),
        ifNull(sumIf(input_tokens, cost_usd IS NOT NULL), 0) + ifNull(sumIf(output_tokens, cost_usd IS NOT NULL), 0), ifNull(sum(cost_usd), 0)
        FROM charges WHERE tenant = {{tenant:String}} AND {condition}"""
    return Totals(*client.query(query, parameters={"tenant": tenant}).result_rows[0])


def expected(calls: Iterable[Call], costs: Mapping[int, Decimal | None]) -> Totals:
    """Of calls that stand. costs: of each call that stands, by number; None is unpriced."""
    standing = [call for call in calls if call.number in costs]
    priced = [call for call in standing if costs[call.number] is not None]

    def tokens(of: Sequence[Call]) -> int:
        return sum((call.input_tokens or 0) + (call.output_tokens or 0) for call in of)

    cost = sum((costs[call.number] or Decimal(0) for call in priced), Decimal(0))
    return Totals(len(standing), len(priced), tokens(standing), tokens(priced), cost)


def by_call(client: "Client", tenant: str) -> dict[str, Decimal | None]:
    """What the ledger holds for each call that stands, by its trace."""
    query = """SELECT trace_id, if(sumIf(calls, cost_usd IS NULL) > 0, NULL, sum(cost_usd)) FROM charges
        WHERE tenant = {tenant:String} AND trace_id != repeat('0', 32) GROUP BY trace_id HAVING sum(calls) = 1"""
    return {row[0]: row[1] for row in client.query(query, parameters={"tenant": tenant}).result_rows}
