"""Spend over HTTP: the figures of `tallystick costs`, and the dimensions to ask by."""

import time
from decimal import Decimal
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from tallystick.alerts.channels.webhook import Exact
from tallystick.attribution.dimensions import MEANINGS, TAG, values
from tallystick.attribution.spend import Query as Sql
from tallystick.attribution.spend import coverage, share, spend
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
    checked_dimension,
    checked_text,
    dimensions_of,
    filters_of,
    instant,
    not_modified,
    period_of,
    read,
    written,
)  # fmt: skip

_FIGURES: Final = ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd")

DEFINITION: Final = {
    "calls": "model calls, each counted once; a call that was entered twice and taken back counts as none",
    "input_tokens": "tokens read at the full rate: neither read from nor written to the provider's cache",
    "cache_read_tokens": "tokens read from the provider's cache",
    "cache_write_tokens": "tokens written to it",
    "output_tokens": "tokens generated, reasoning included",
    "cost_usd": "sum of all entries, corrections included, in USD by the price book; null where nothing is priced",
    "share": "of the cost of all groups, 0 to 1",
    "calls_priced": "share of the calls that have a price, 0 to 1",
    "tokens_priced": "share of the tokens that have a price, 0 to 1",
}
"""What each figure is."""


class Figures(BaseModel):
    """Signed sums. Tokens are null where nobody reported any; shares, null where there is nothing to have a share of."""

    calls: int = Field(examples=[1412])
    input_tokens: int | None = Field(examples=[903122])
    cache_read_tokens: int | None = Field(examples=[120000])
    cache_write_tokens: int | None = Field(examples=[None])
    output_tokens: int | None = Field(examples=[88031])
    cost_usd: Exact | None = Field(examples=["18.402211"])
    calls_priced: float | None = Field(examples=[1.0])
    tokens_priced: float | None = Field(examples=[1.0])


class SpendGroup(Figures):
    """by: dimension → value."""

    by: dict[str, str] = Field(examples=[{"customer": "acme", "feature": "chat"}])
    share: float | None = Field(examples=[0.42])


class SpendTotal(Figures):
    """Of all groups, on this page or not. groups: how many there are."""

    groups: int = Field(examples=[212])


class SpendAnswer(BaseModel):
    """Groups by time if grouped by time, else the dearest first. since, until, as_of: as they were understood. next: of the following page."""

    since: str = Field(json_schema_extra={"format": "date-time"}, examples=["2026-11-01T00:00:00Z"])
    until: str = Field(json_schema_extra={"format": "date-time"}, examples=["2026-12-01T00:00:00Z"])
    as_of: str | None = Field(json_schema_extra={"format": "date-time"}, examples=[None])
    definition: dict[str, str] = Field(examples=[DEFINITION])
    rows: list[SpendGroup]
    total: SpendTotal
    next: str | None = Field(examples=["WyI0ZjUzY2RhMTk2OGJhOWNhIiw1MF0"])


class DimensionAnswer(BaseModel):
    """What spend can be grouped and filtered by."""

    name: str = Field(examples=["customer"])
    meaning: str = Field(examples=["for which customer of yours"])


class DimensionsAnswer(BaseModel):
    """Besides these there is `tag:NAME` for each NAME among the values of `tag`."""

    dimensions: list[DimensionAnswer]


class ValueAnswer(BaseModel):
    """A value, and what it came to in the period. cost_usd: null where nothing is priced."""

    value: str = Field(examples=["acme"])
    calls: int = Field(examples=[1412])
    cost_usd: Exact | None = Field(examples=["18.402211"])


class ValuesAnswer(BaseModel):
    """Those with the most calls first. more: whether there are others that begin so."""

    dimension: str = Field(examples=["customer"])
    values: list[ValueAnswer]
    more: bool


class _Place(BaseModel):
    """The next group's number in the ledger as it was before `as_of_ns`, which was its present state where that was `state`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: int = Field(ge=0, lt=2**63)
    until: int = Field(ge=0, lt=2**63)
    offset: int = Field(ge=1, lt=2**62)
    asked_as_of: int | None = Field(ge=0, lt=2**63)
    as_of: int = Field(ge=0, lt=2**63)
    state: str = Field(max_length=200)


By = Annotated[
    str,
    Query(
        max_length=4000,
        description="Dimensions to group by, with commas between; `total` is one sum.",
        examples=["customer,feature", "day", "tag:plan"],
    ),
]
Name = Annotated[str, Path(max_length=1000, description="A dimension, or `tag` for the names of tags.", examples=["customer"])]


def router(store: Store, door: Door, asking: Asking, state: LedgerState) -> APIRouter:
    """Routes /v1/spend and /v1/dimensions."""
    routes = APIRouter(tags=["attribution"], **askers_only(door))

    def asked(tenant: str | None, query: Sql, mark: str) -> list[dict[str, Any]]:
        with store.reader(tenant, READER_SETTINGS) as reader:
            found = result(reader, checked(reader, query.text, query.params), mark)
        return typed(((column.name, column.type) for column in found.columns), found.rows, found.elapsed_ms).dicts()

    @routes.get("/v1/spend", summary="Spend by any dimensions", response_model=SpendAnswer, responses=TABLE_ANSWER)
    async def spend_by(
        request: Request,
        *,
        by: By = "customer",
        since: Since = "30d",
        until: Until = None,
        where: Where = [],  # noqa: B006
        as_of: AsOf = None,
        limit: Annotated[int, Query(ge=1, le=10_000, description="Groups of a page.")] = 100,
        cursor: Cursor = None,
        format: Format = Form.JSON,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """What was spent in a period, with the share of it that is priced beside every sum: the figures of `tallystick costs`.

        All pages are of the ledger as it was when the first was answered, whatever is entered meanwhile.
        """
        tenant = door.reader(request.headers.get("authorization"))
        dimensions, filters = dimensions_of(by), filters_of(where)
        terms = [by, since, until, where, as_of]
        here: _Place | None = read(terms, cursor, _Place) if cursor is not None else None
        begin, end = (here.since, here.until) if here else period_of(since, until)
        known = here.asked_as_of if here else None if as_of is None else instant("as_of", as_of, time.time_ns())

        def work(mark: str) -> Response:
            now = state.of(tenant)
            tag = etag(tenant, now, [*terms, begin, end, known, limit, cursor, format])
            if unchanged(if_none_match, tag):
                return not_modified(tag)

            def page(as_of_ns: int | None) -> list[dict[str, Any]]:
                # One more than is told: whether there is another page.
                return asked(
                    tenant,
                    spend(
                        dimensions,
                        begin,
                        end,
                        where=filters,
                        limit=limit + 1,
                        offset=here.offset if here else 0,
                        as_of_ns=as_of_ns,
                    ),
                    mark,
                )

            # The ledger's present is answered by its projections, its past isn't: the present is asked as long as it is what the first page saw.
            present = here is None or here.state == now
            rows = page(known if here is None else None if present and here.asked_as_of is None else here.as_of)
            following = None
            if here is not None or len(rows) > limit:
                seen = here.as_of if here else known if known is not None else (state.last_entered_ms(tenant) + 1) * 1_000_000
                if present and state.of(tenant) != now:
                    rows = page(seen)
                if len(rows) > limit:
                    place = _Place(
                        since=begin,
                        until=end,
                        offset=(here.offset if here else 0) + limit,
                        asked_as_of=known,
                        as_of=seen,
                        state=here.state if here else now,
                    )
                    following = written(terms, place.model_dump())
            told = SpendAnswer(
                since=_iso(begin),
                until=_iso(end),
                as_of=None if known is None else _iso(known),
                definition=DEFINITION,
                rows=[_group(row, dimensions) for row in rows[:limit]],
                total=_total(rows),
                next=following,
            )
            table = None if format is Form.JSON else _table(told.rows, dimensions)
            return answer(request, tag, told, following, table)

        return await asking.ask(request, work)

    @routes.get("/v1/dimensions", summary="What spend can be grouped and filtered by")
    async def dimensions() -> DimensionsAnswer:
        """The names that `by` and `where` take."""
        return DimensionsAnswer(dimensions=[DimensionAnswer(name=name, meaning=meaning) for name, meaning in MEANINGS.items()])

    @routes.get(
        "/v1/dimensions/{name}/values",
        summary="Values of a dimension",
        response_model=ValuesAnswer,
        responses={304: {"description": "The answer that the client has still holds."}},
    )
    async def dimension_values(
        request: Request,
        name: Name,
        *,
        prefix: Annotated[str, Query(max_length=1000, description="What they begin with.", examples=["ac"])] = "",
        since: Since = "30d",
        until: Until = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 50,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """For a list to choose from: those with the most calls first."""
        tenant = door.reader(request.headers.get("authorization"))
        if name != TAG:
            checked_dimension("name", name)
        begins = checked_text("prefix", prefix)
        begin, end = period_of(since, until)

        def work(mark: str) -> Response:
            tag = etag(tenant, state.of(tenant), [name, begins, begin, end, limit])
            if unchanged(if_none_match, tag):
                return not_modified(tag)
            rows = asked(tenant, values(name, begin, end, prefix=begins, limit=limit + 1), mark)
            told = [ValueAnswer(value=row["value"], calls=row["value_calls"], cost_usd=row["value_cost"]) for row in rows[:limit]]
            return answer(request, tag, ValuesAnswer(dimension=name, values=told, more=len(rows) > limit), None)

        return await asking.ask(request, work)

    return routes


def _group(row: dict[str, Any], dimensions: list[str]) -> SpendGroup:
    calls_priced, tokens_priced = coverage(row)
    return SpendGroup(
        by={name: str(row[name]) for name in dimensions},
        **{name: row[name] for name in _FIGURES},
        share=share(row["cost_usd"], row["all_cost_usd"]),
        calls_priced=calls_priced,
        tokens_priced=tokens_priced,
    )


def _total(rows: list[dict[str, Any]]) -> SpendTotal:
    if not rows:
        nothing: dict[str, Decimal | int | None] = dict.fromkeys(_FIGURES, None) | {"calls": 0}
        return SpendTotal.model_validate({**nothing, "calls_priced": None, "tokens_priced": None, "groups": 0})
    first = rows[0]
    calls_priced, tokens_priced = coverage(first, "all_")
    return SpendTotal(
        **{name: first[f"all_{name}"] for name in _FIGURES},
        calls_priced=calls_priced,
        tokens_priced=tokens_priced,
        groups=first["all_groups"],
    )


def _table(rows: list[SpendGroup], dimensions: list[str]) -> Table:
    figures = [*_FIGURES, "share", "calls_priced", "tokens_priced"]
    lines = ([*(row.by[name] for name in dimensions), *(getattr(row, name) for name in figures)] for row in rows)
    return Table("spend", [*dimensions, *figures], lines)


def _iso(at_ns: int) -> str:
    seconds, rest = divmod(at_ns, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{rest:09}Z" if rest else f"{text}Z"
