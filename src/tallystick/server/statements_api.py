"""Statements over HTTP: each key's own tenant."""

import time
from decimal import Decimal
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Query, Request, Response

from tallystick.attribution.showback import asked, statement, terms
from tallystick.attribution.showback_files import MEDIA_TYPES, WRITERS
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.caged import caged

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "private, no-cache",
}
_TEXT: Final = {"schema": {"type": "string"}}


class BadStatement(PayloadError):
    """What the statement should be of can't be."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "bad_statement", message, "docs/allocation.md has what a statement can be told.")


def router(store: Store, door: Door, asking: Asking) -> APIRouter:
    """The route /v1/statements."""
    routes = APIRouter(prefix="/v1/statements", tags=["attribution"])

    @routes.get(
        "",
        summary="What a customer or team cost in a period, to show or to charge",
        response_class=Response,
        responses={200: {"content": {kind.partition(";")[0]: _TEXT for kind in MEDIA_TYPES.values()}}},
    )
    async def get(
        request: Request,
        *,
        period: Annotated[str, Query(description="A month, week or day of UTC.", examples=["2026-10"])],
        for_: Annotated[
            list[str] | None, Query(alias="for", description="DIMENSION=VALUE; repeatable.", examples=[["customer=acme"]])
        ] = None,
        format: Literal["html", "csv", "json"] = "html",
        as_of: Annotated[str | None, Query(description="As it was known at this time; now if not given.")] = None,
        markup: Annotated[Decimal, Query(ge=-100, le=1000, description="Percent on everything.")] = Decimal(0),
        currency: Annotated[str, Query(pattern="^[A-Z]{3}$")] = "USD",
        rate: Annotated[Decimal | None, Query(gt=0, le=1_000_000, description="Price of 1 USD in the currency.")] = None,
    ) -> Response:
        tenant = door.reader(request.headers.get("authorization"))
        try:
            wanted, charged = asked(for_ or [], period, as_of, time.time_ns()), terms(markup, currency, rate)
        except ValueError as error:
            raise BadStatement(f"{error}") from None

        def work(mark: str) -> Response:
            found = statement(caged(store, tenant, mark), wanted, charged)
            return Response(WRITERS[format](found), headers=_HEADERS, media_type=MEDIA_TYPES[format])

        return await asking.ask(request, work)

    return routes
