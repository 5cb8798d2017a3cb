"""Allocations over HTTP, for operators."""

from typing import Annotated

import anyio
from fastapi import APIRouter, Path, Request

from tallystick.server.allocations import AllocationAnswer, AllocationDesk, AllocationQuestion, AllocationsAnswer
from tallystick.server.auth import Door
from tallystick.server.operators import Who, author, operators_only

Name = Annotated[str, Path(max_length=80, description="The rule's name.", examples=["overhead"])]


def router(desk: AllocationDesk, door: Door) -> APIRouter:
    """Routes /v1/allocations."""
    routes = APIRouter(prefix="/v1/allocations", tags=["corrections"], **operators_only(door))

    @routes.get("", summary="Allocation rules, and what was allocated when")
    async def every() -> AllocationsAnswer:
        return await anyio.to_thread.run_sync(desk.all)

    @routes.post("/{rule}", summary="Spread what a rule comes to over those who are to bear it")
    async def make(request: Request, rule: Name, question: AllocationQuestion, who: Who = "") -> AllocationAnswer:
        return await anyio.to_thread.run_sync(desk.allocate, rule, question, author(door, request, who))

    return routes
