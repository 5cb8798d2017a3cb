"""Corrections over HTTP, for operators: prices of the past, calls told twice, what was corrected and why."""

from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Query, Request

from tallystick.server.auth import Door
from tallystick.server.corrections import (
    Desk,
    Period,
    RepriceAnswer,
    RepriceQuestion,
    RunAnswer,
    RunsAnswer,
    UndoQuestion,
    VoidAnswer,
    VoidQuestion,
)
from tallystick.server.operators import Who, author, operators_only

Id = Annotated[str, Path(max_length=100, description="A run's id.", examples=["3f9a1c22"])]


def router(desk: Desk, door: Door) -> APIRouter:
    """Routes /v1/corrections."""
    routes = APIRouter(prefix="/v1/corrections", tags=["corrections"], **operators_only(door))
    run = anyio.to_thread.run_sync

    @routes.get("", summary="What was corrected, the newest first")
    async def runs(limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> RunsAnswer:
        return await run(desk.runs, limit)

    @routes.get("/{id}", summary="One correction")
    async def one(id: Id) -> RunAnswer:
        return await run(desk.one, id)

    @routes.post("/reprice", summary="Price calls again by the present prices")
    async def reprice(request: Request, question: RepriceQuestion, who: Who = "") -> RepriceAnswer:
        return await run(desk.reprice, question, author(door, request, who))

    @routes.post("/void", summary="Void one call")
    async def void(request: Request, question: VoidQuestion, who: Who = "") -> VoidAnswer:
        return await run(desk.void, question, author(door, request, who))

    @routes.post("/void-duplicates", summary="Void calls that were told twice")
    async def void_duplicates(request: Request, question: Period, who: Who = "") -> VoidAnswer:
        return await run(desk.void_told_twice, question, author(door, request, who))

    @routes.post("/{id}/undo", summary="Undo a correction: its entries again, with opposite signs")
    async def undo(request: Request, id: Id, question: UndoQuestion, who: Who = "") -> RunAnswer:
        return await run(desk.undo, id, question, author(door, request, who))

    return routes
