"""FOCUS over HTTP: a file, and what the ledger holds of each day."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import anyio
from clickhouse_connect.driver.exceptions import ClickHouseError
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, Field
from starlette.concurrency import iterate_in_threadpool

from tallystick.attribution.focus.columns import UnknownVersion, columns
from tallystick.attribution.focus.question import MEDIA_TYPES, SETTINGS, Form, Granularity, Question, by_day, days, stream, tally
from tallystick.attribution.moments import end_of_day, moment
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store, error_name
from tallystick.server.auth import Door
from tallystick.server.money import Money

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

LONGEST_DAYS: Final = 31
"""Of a file: Parquet is whole before it is sent."""

_DAY_NS: Final = 86_400_000_000_000
_WRITERS: Final = 2
"""Files that are made at one time; further ones wait."""

Since = Annotated[
    str, Query(description="An age or a time, UTC if no zone; the day it is in counts whole.", examples=["2026-10-01"])
]
Until = Annotated[str | None, Query(description="Exclusive, likewise; not given: the end of today.", examples=["2026-10-02"])]
Version = Annotated[str, Query(description="Of FOCUS: 1.2 or 1.4.", examples=["1.2"])]
Customer = Annotated[str | None, Query(description="This customer's alone.", examples=["acme"])]
AsOf = Annotated[AwareDatetime | None, Query(description="Only what had been entered before.", examples=["2026-11-01T00:00:00Z"])]


class FocusDay(BaseModel):
    """What the ledger holds of a day. rows, billed_usd: of its file and the sum of BilledCost in it; null unless asked for."""

    day: str = Field(examples=["2026-10-01"])
    entries: int
    entered_at: datetime = Field(description="When the last of the entries was made.")
    cost_usd: Money = Field(examples=["12.500000000000"])
    tokens: int
    unpriced_tokens: int = Field(description="Of `tokens`, those of calls without a price: their cost is 0 in the file.")
    rows: int | None
    billed_usd: Money | None


class FocusDays(BaseModel):
    """The earliest first; days without entries are left out."""

    days: list[FocusDay]


def router(store: Store, door: Door) -> APIRouter:
    """Routes /v1/focus. A tenant's key has its own charges, an operator's all."""
    routes = APIRouter(prefix="/v1/focus", tags=["attribution"])
    writers = anyio.CapacityLimiter(_WRITERS)

    @routes.get(
        "",
        summary="Charges as a FOCUS file",
        response_class=StreamingResponse,
        responses={
            200: {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}},
            400: {"description": "No such version, or no such period."},
        },
    )
    async def focus(
        request: Request,
        *,
        since: Since,
        until: Until = None,
        version: Version = "1.2",
        granularity: Granularity = "daily",
        format: Form = "parquet",
        customer: Customer = None,
        as_of: AsOf = None,
    ) -> StreamingResponse:
        tenant = door.reader(request.headers.get("authorization"))
        question = asked(version, since, until, granularity=granularity, customer=customer, as_of=as_of)
        if question.until_ns - question.since_ns > LONGEST_DAYS * _DAY_NS:
            raise _bad_period(
                f"A file holds {LONGEST_DAYS} days at most.", "Ask for each month, or take `tallystick focus export`."
            )
        pieces = file_of(store, tenant, question, format)
        # What fails before the first byte is an error that says so.
        first = await anyio.to_thread.run_sync(next, pieces, b"", limiter=writers)

        async def body() -> AsyncIterator[bytes]:
            yield first
            async for piece in iterate_in_threadpool(pieces):
                yield piece

        name = f"focus-{_date(question.since_ns)}.{format}"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return StreamingResponse(body(), media_type=MEDIA_TYPES[format], headers=headers)

    @routes.get("/days", summary="What a FOCUS export would find: entries of each day")
    async def of_days(
        request: Request,
        *,
        since: Since,
        until: Until = None,
        version: Version = "1.2",
        granularity: Granularity = "daily",
        customer: Customer = None,
        as_of: AsOf = None,
        rows: Annotated[bool, Query(description="Whether rows and sums of the files are worked out, too.")] = False,
    ) -> FocusDays:
        tenant = door.reader(request.headers.get("authorization"))
        question = asked(version, since, until, granularity=granularity, customer=customer, as_of=as_of)

        def work() -> FocusDays:
            return found_days(store, tenant, question, rows)

        return await anyio.to_thread.run_sync(work, limiter=writers)

    return routes


def asked(
    version: str,
    since: str,
    until: str | None,
    *,
    granularity: Granularity = "daily",
    customer: str | None = None,
    as_of: datetime | None = None,
) -> Question:
    """The question, of whole days. Raises PayloadError."""
    now_ns = time.time_ns()
    try:
        columns(version)
    except UnknownVersion as error:
        raise PayloadError(400, "no_such_version", f"{error}.", "Give `version`.") from None
    try:
        since_ns = moment(since, now_ns) // _DAY_NS * _DAY_NS
        until_ns = end_of_day(now_ns) if until is None else -(-moment(until, now_ns) // _DAY_NS) * _DAY_NS
    except ValueError as error:
        raise _bad_period(f"{error}.", "Times are 30d, 2026-10-01 or 2026-10-01T00:00:00Z.") from None
    if since_ns > now_ns:
        raise _bad_period("The period lies in the future.", "Nothing is charged yet.")
    if since_ns >= until_ns:
        raise _bad_period("`since` isn't before `until`.", "`until` is exclusive, and the end of today if it isn't given.")
    if as_of is not None and not 1970 <= as_of.year < 2200:
        raise _bad_period("`as_of` is outside 1970 to 2199.", "It is when entries were made.")
    return Question(version, since_ns, until_ns, granularity, customer, as_of.astimezone(UTC) if as_of else None)


def found_days(store: Store, tenant: str | None, question: Question, rows: bool) -> FocusDays:
    """What the ledger holds of each day for a tenant, None for all. Raises PayloadError."""
    with _reader(store, tenant) as reader:
        found = days(reader, question)
        tallies = [tally(reader, by_day(question, day.day)) if rows else None for day in found]
    return FocusDays(
        days=[
            FocusDay(**day._asdict(), rows=made.rows if made else None, billed_usd=made.billed if made else None)
            for day, made in zip(found, tallies, strict=True)
        ]
    )


def file_of(store: Store, tenant: str | None, question: Question, form: Form) -> Iterator[bytes]:
    """A tenant's file in pieces, None for everybody's. Raises PayloadError."""
    with _reader(store, tenant) as reader:
        yield from stream(reader, question, form)


@contextmanager
def _reader(store: Store, tenant: str | None) -> "Iterator[Client]":
    try:
        with store.reader(tenant, SETTINGS) as reader:
            yield reader
    except ClickHouseError as error:
        if error_name(error) in ("MEMORY_LIMIT_EXCEEDED", "TIMEOUT_EXCEEDED", "TOO_MANY_ROWS_OR_BYTES", "NOT_ENOUGH_SPACE"):
            raise PayloadError(400, "too_much", "The period has too many groups of charges.", "Ask for a shorter one.") from None
        raise


def _bad_period(message: str, hint: str) -> PayloadError:
    return PayloadError(400, "bad_period", message, hint)


def _date(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%Y-%m-%d}"
