"""Measured prices over HTTP, for operators."""

from datetime import UTC, datetime

import anyio
from fastapi import APIRouter, Request
from pydantic import BaseModel

from tallystick.server.auth import Door
from tallystick.server.measured_prices import PresentBook, PriceEntered, PriceEntry, PriceInForce
from tallystick.server.operators import Who, author, operators_only


class EnteredPrices(BaseModel):
    """In the order in which later ones replace earlier ones."""

    prices: list[PriceEntered]


def router(book: PresentBook, door: Door) -> APIRouter:
    """Routes /v1/probes/prices."""
    routes = APIRouter(prefix="/v1/probes/prices", tags=["probes"], **operators_only(door))

    @routes.get("", summary="What own engines' tokens cost, as it was measured")
    async def every() -> EnteredPrices:
        return EnteredPrices(prices=await anyio.to_thread.run_sync(book.entered))

    @routes.post("", summary="Enter a measured price, by which calls of its model are priced from then on")
    async def enter(request: Request, entry: PriceEntry, who: Who = "") -> PriceInForce:
        return await anyio.to_thread.run_sync(book.enter, entry, author(door, request, who), datetime.now(UTC))

    return routes
