"""Reconciliation with invoices over HTTP, for operators: lines of an invoice in, differences out, and a true-up if asked for."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final, Literal

import anyio
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field

from tallystick.attribution.corrections import Corrections
from tallystick.attribution.invoices.compare import Row, compare, period, providers_of, totals
from tallystick.attribution.invoices.explain import Kind
from tallystick.attribution.invoices.ledger import Ask, groups, metered
from tallystick.attribution.invoices.lines import BadInvoice, Invoice, InvoiceLine, combined
from tallystick.attribution.invoices.names import known_model, known_provider
from tallystick.attribution.invoices.true_up import key, lines_for
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.auth import DEFAULT_TENANT, Door
from tallystick.server.corrections import Reason, RunAnswer, refusals, run_answer
from tallystick.server.money import Money
from tallystick.server.operators import Who, author, operators_only

MOST_LINES: Final = 50_000
"""Of a request: the CLI sends sums by model, day and bucket."""

_MOST_BYTES: Final = 32 << 20
_LONGEST: Final = timedelta(days=400)
_LIMITS: Final = {"max_execution_time": 120, "max_memory_usage": 2_000_000_000}

_Name = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
_Cost = Annotated[Decimal, Field(max_digits=24, decimal_places=12, allow_inf_nan=False)]


class LineQuestion(BaseModel):
    """What an invoice or usage report states of one model on one day (UTC).

    provider, model: as calls name them, without date of snapshot; model "" is no use of a model, which `item` names. bucket: "" where
    it isn't said. tokens, cost_usd: null where this line states none. decimals: with how many the cost was written. count: of how many
    lines of the invoice this is the sum. source: which export; a figure of a model's day may come from one only.
    """

    model_config = ConfigDict(extra="forbid")

    provider: _Name = Field(min_length=1, examples=["openai"])
    model: _Name = Field("", examples=["gpt-4o"])
    day: date = Field(examples=["2026-10-31"])
    item: _Name = Field("", examples=["web search tool calls"])
    bucket: Literal["", "input", "cache_read", "cache_write_5m", "cache_write_1h", "output"] = ""
    tokens: int | None = Field(None, ge=0, lt=10**18)
    cost_usd: _Cost | None = Field(None, examples=["12.5"])
    currency: _Name = "USD"
    decimals: int = Field(0, ge=0, le=12)
    source: _Name = ""
    where: str = Field("", max_length=1000)
    count: int = Field(1, ge=1, le=10**12)


class TrueUpQuestion(BaseModel):
    """Enter the differences as true-ups. spread: `who` shares them out by what calls cost each tenant, customer, feature, agent and team;
    `none` makes one line a model and day. tenant: whose is what no call stands for."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Reason
    spread: Literal["who", "none"] = "who"
    tenant: _Name = Field(DEFAULT_TENANT, min_length=1)


class ReconcileQuestion(BaseModel):
    """An invoice. tolerance: relative difference that is within, 0.005 is 0.5 %."""

    model_config = ConfigDict(extra="forbid")

    lines: list[LineQuestion] = Field(min_length=1, max_length=MOST_LINES)
    tolerance: Decimal = Field(Decimal("0.005"), ge=0, le=1, allow_inf_nan=False, examples=["0.005"])
    true_up: TrueUpQuestion | None = None


class PartAnswer(BaseModel):
    """A part of a difference; docs/reconciliation.md has the kinds. text: figures behind it."""

    kind: Kind
    usd: Money
    text: str


class RowAnswer(BaseModel):
    """A model's day; model "" is no use of a model. difference_usd: invoice minus ledger, the sum of `parts`; difference: relative to the invoice.

    cost_usd: the ledger's, true-ups included; null where nothing is priced. invoice_tokens, invoice_usd: null where no line states them: the
    verdict is about tokens then. on_invoice: false for calls that it doesn't name.
    """

    day: date
    provider: str
    model: str
    calls: int
    priced_calls: int
    tokens: int
    cost_usd: Money | None
    invoice_tokens: int | None
    invoice_usd: Money | None
    difference_usd: Money | None
    difference: Money | None
    verdict: Literal["within", "over"]
    on_invoice: bool
    parts: list[PartAnswer]


class TotalsAnswer(BaseModel):
    """Sums over all rows; over: how many rows are."""

    calls: int
    priced_calls: int
    tokens: int
    cost_usd: Money
    invoice_tokens: int
    invoice_usd: Money
    difference_usd: Money
    over: int
    parts: dict[Kind, Money]


class ReconcileAnswer(BaseModel):
    """Days in [since, until). correction: the true-up that was entered; null where none was asked for, or nothing differs."""

    since: date
    until: date
    rows: list[RowAnswer]
    totals: TotalsAnswer
    correction: RunAnswer | None


class BadLines(PayloadError):
    """The lines contradict each other, or are about too many days."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(400, "bad_invoice", message, hint)


class TooLong(PayloadError):
    """More than anybody's invoice, or of a length not told."""

    def __init__(self) -> None:
        super().__init__(
            413,
            "too_long",
            f"The request has more than {_MOST_BYTES >> 20} MiB, or doesn't say how long it is.",
            "Send a month at a time.",
        )


class _Bounded(APIRoute):
    """Looks at the length before the body is read."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            length = request.headers.get("content-length", "")
            if not length.isdecimal() or int(length) > _MOST_BYTES:
                raise TooLong
            return await handle(request)

        return bounded


def router(ask: Ask, corrections: Corrections, door: Door) -> APIRouter:
    """Route /v1/reconcile."""
    routes = APIRouter(prefix="/v1/reconcile", tags=["corrections"], route_class=_Bounded, **operators_only(door))

    @routes.post("", summary="Compare an invoice with the ledger, and true it up if asked")
    async def reconcile(request: Request, question: ReconcileQuestion, who: Who = "") -> ReconcileAnswer:
        return await anyio.to_thread.run_sync(reconciled, ask, corrections, question, author(door, request, who))

    return routes


def ask_of(store: Store) -> Ask:
    """Questions of ours, of all tenants' rows."""

    def ask(sql: str, params: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        with store.reader(None, _LIMITS) as reader:
            rows: Sequence[Sequence[Any]] = reader.query(sql, parameters=dict(params)).result_rows
        return rows

    return ask


def reconciled(ask: Ask, corrections: Corrections, question: ReconcileQuestion, author: str) -> ReconcileAnswer:
    """Differences as the ledger stands, and after them, if asked for, the true-up. Raises PayloadError."""
    invoice = _invoice(question)
    since, until = period(invoice.lines)
    if until - since > _LONGEST:
        raise BadLines(f"The lines are about {(until - since).days:,} days.", f"Send {_LONGEST.days} days at most.")
    models = providers_of(invoice.lines)
    rows = compare(invoice.lines, metered(ask, since, until, models), question.tolerance)
    made = None
    if question.true_up is not None:
        wanted = question.true_up
        found = groups(ask, since, until, models) if wanted.spread == "who" else {}
        entries = lines_for(rows, found, wanted.spread, wanted.tenant)
        if entries:
            sum_ = totals(rows)
            detail = {
                "providers": sorted({line.provider for line in invoice.lines}),
                "since": f"{since}",
                "until": f"{until}",
                "invoice_usd": f"{sum_.invoice_usd:f}",
                "spread": wanted.spread,
                "sources": sorted({line.source for line in invoice.lines}),
            }
            with refusals():
                made = run_answer(
                    corrections.append(
                        "trueup", entries, key=key(invoice.lines), reason=wanted.reason, author=author, detail=detail
                    )
                )
    return ReconcileAnswer(
        since=since,
        until=until,
        rows=[_row(row) for row in rows],
        totals=TotalsAnswer.model_validate(totals(rows)._asdict()),
        correction=made,
    )


def question(invoice: Invoice, tolerance: Decimal, true_up: TrueUpQuestion | None = None) -> dict[str, Any]:
    """A ReconcileQuestion as JSON has it."""
    lines = [
        LineQuestion.model_validate({name: getattr(line, name) for name in LineQuestion.model_fields}) for line in invoice.lines
    ]
    return ReconcileQuestion(lines=lines, tolerance=tolerance, true_up=true_up).model_dump(mode="json")


def _invoice(question: ReconcileQuestion) -> Invoice:
    lines = []
    for at, line in enumerate(question.lines):
        provider = known_provider(line.provider) or line.provider
        lines.append(
            InvoiceLine(
                provider=provider,
                model=known_model(provider, line.model) if line.model else "",
                day=line.day,
                item=line.item,
                bucket=line.bucket,
                tokens=line.tokens,
                cost_usd=line.cost_usd,
                currency=line.currency,
                decimals=line.decimals,
                source=line.source,
                where=line.where or f"lines[{at}]",
                count=line.count,
                key=f"{at}",
            )
        )
    try:
        return combined([Invoice(lines)])
    except BadInvoice as error:
        raise BadLines(f"{error}.", error.hint) from None


def _row(row: Row) -> RowAnswer:
    facts = vars(row) | {"parts": [PartAnswer.model_validate(part._asdict()) for part in row.parts]}
    return RowAnswer.model_validate(facts)
