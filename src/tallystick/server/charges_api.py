"""The ledger's entries over HTTP, page by page."""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tallystick.alerts.channels.webhook import Exact
from tallystick.attribution.charges import COLUMNS, Place, charges, place
from tallystick.attribution.user_sql import READER_SETTINGS, checked, result
from tallystick.client import result as typed
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.ledger_state import LedgerState, etag, unchanged
from tallystick.server.operators import askers_only
from tallystick.server.pages import (
    TABLE_ANSWER,
    AsOf,
    Cursor,
    Form,
    Format,
    IfNoneMatch,
    Since,
    Table,
    Until,
    Where,
    answer,
    filters_of,
    instant,
    not_modified,
    period_of,
    read,
    written,
)  # fmt: skip

_Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-01T12:00:00.000000000Z"])]


class Charge(BaseModel):
    """An entry: a call, or a correction of one. docs/charges.md says what each field is. Unknown is null, for text ""."""

    entry: Literal["call", "void", "reprice", "allocation", "trueup"]
    calls: int
    tenant: str
    customer: str
    feature: str
    agent: str
    team: str
    user: str
    session: str
    service: str
    environment: str
    tags: dict[str, str]
    provider: str
    request_model: str
    response_model: str
    operation: str
    service_tier: str
    streamed: bool | None
    status: Literal["ok", "error", "cancelled"]
    error_type: str
    cache_hit: str
    input_tokens: int | None
    cache_read_tokens: int | None
    cache_write_5m_tokens: int | None
    cache_write_1h_tokens: int | None
    output_tokens: int | None
    reasoning_tokens: int | None
    audio_input_tokens: int | None
    audio_output_tokens: int | None
    image_input_tokens: int | None
    usage_source: Literal["provider", "estimated", "partial", "missing", "none"]
    started_at: _Time
    ended_at: _Time
    ttft_ms: float | None
    ttft_kind: str
    tpot_ms: float | None
    price_id: str
    cost_usd: Exact | None = Field(examples=["0.00021"])
    reported_cost_usd: Exact | None = Field(examples=[None])
    trace_id: str = Field(examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    span_id: str = Field(examples=["00f067aa0ba902b7"])
    response_id: str
    entered_at: _Time
    reason: str
    correction: str


class ChargesAnswer(BaseModel):
    """Entries, the newest first. next: of the following page; null on the last."""

    charges: list[Charge]
    next: str | None = Field(examples=["WyI0ZjUzY2RhMTk2OGJhOWNhIiw1MF0"])


class _Place(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    since: int = Field(ge=0, lt=2**63)
    until: int = Field(ge=0, lt=2**63)
    as_of: int | None = Field(ge=0, lt=2**63)
    at_ns: int = Field(ge=0, lt=2**63)
    trace_id: str = Field(pattern="^[0-9a-f]{32}$")
    span_id: str = Field(pattern="^[0-9a-f]{16}$")
    entry: int = Field(ge=0, le=127)
    entered_ms: int = Field(ge=0, lt=2**62)
    hash: str = Field(pattern="^[0-9]{1,20}$")
    told: int = Field(ge=1, lt=2**62)

    def key(self) -> Place:
        return Place(self.at_ns, self.trace_id, self.span_id, self.entry, self.entered_ms, self.hash, self.told)


def router(store: Store, door: Door, asking: Asking, state: LedgerState) -> APIRouter:
    """The route /v1/charges."""
    routes = APIRouter(tags=["attribution"], **askers_only(door))

    @routes.get(
        "/v1/charges", summary="The entries themselves, the newest first", response_model=ChargesAnswer, responses=TABLE_ANSWER
    )
    async def entries(
        request: Request,
        *,
        since: Since = "30d",
        until: Until = None,
        where: Where = [],  # noqa: B006
        as_of: AsOf = None,
        limit: Annotated[int, Query(ge=1, le=5_000, description="Entries of a page.")] = 100,
        cursor: Cursor = None,
        format: Format = Form.JSON,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Calls and corrections in a period. Follow `next` until it is null: every entry that stood in the ledger when the first page was answered
        comes once. One that is made meanwhile comes if it is older than the page before.
        """
        tenant = door.reader(request.headers.get("authorization"))
        filters = filters_of(where)
        terms = [since, until, where, as_of]
        here: _Place | None = read(terms, cursor, _Place) if cursor is not None else None
        begin, end = (here.since, here.until) if here else period_of(since, until)
        known = here.as_of if here else None if as_of is None else instant("as_of", as_of, time.time_ns())
        after = here.key() if here else None

        def work(mark: str) -> Response:
            tag = etag(tenant, state.of(tenant), [*terms, begin, end, known, limit, cursor, format])
            if unchanged(if_none_match, tag):
                return not_modified(tag)
            # One more than is told: whether there is another page.
            query = charges(begin, end, where=filters, as_of_ns=known, after=after, limit=limit + 1)
            with store.reader(tenant, READER_SETTINGS) as reader:
                found = result(reader, checked(reader, query.text, query.params), mark)
            rows = typed(((column.name, column.type) for column in found.columns), found.rows, found.elapsed_ms).dicts()
            following = None
            if len(rows) > limit:
                following = written(terms, {"since": begin, "until": end, "as_of": known, **place(rows[:limit], after)._asdict()})
            told = [Charge.model_validate(row) for row in rows[:limit]]
            table = None if format is Form.JSON else Table("charges", COLUMNS, (_cells(row) for row in rows[:limit]))
            return answer(request, tag, ChargesAnswer(charges=told, next=following), following, table)

        return await asking.ask(request, work)

    return routes


def _cells(row: dict[str, Any]) -> list[Any]:
    return [row[name] for name in COLUMNS]
