"""Outcomes over HTTP: what came of calls, as the applications that made them report it."""

from datetime import UTC, datetime
from typing import Any, Final

import anyio
from fastapi import APIRouter, Request
from pydantic import BaseModel

from tallystick.ingest.outcomes import ReportedOutcome, read_outcomes, write_outcomes
from tallystick.ingest.payload import Limits, PayloadError, decompress
from tallystick.ingest.store import Store
from tallystick.server.auth import Door

_LIMITS: Final = Limits(decoded_bytes=8 << 20)

_WRITING: Final = 1
"""Reports that are written at one time; further ones wait. Each is a part of the table on disk."""


class RejectedAnswer(BaseModel):
    """An outcome that wasn't kept: its index in the request, from 0; field: '' if it is about all of it."""

    index: int
    field: str
    message: str


class ReportedAnswer(BaseModel):
    """How many outcomes were kept, and what is wrong with the others."""

    accepted: int
    rejected: list[RejectedAnswer]


def router(store: Store, door: Door) -> APIRouter:
    """The route /v1/outcomes."""
    routes = APIRouter(tags=["ingest"])
    writing = anyio.CapacityLimiter(_WRITING)

    @routes.post(
        "/v1/outcomes",
        summary="Report what came of calls, and what it earned",
        openapi_extra={"requestBody": _body()},
        responses={
            413: {"description": "The body is too large, or has too many outcomes."},
            415: {"description": "The Content-Encoding isn't gzip, deflate or none."},
            422: {"description": "None of the outcomes can be kept; the message says what is wrong with the first."},
        },
    )
    async def report(request: Request) -> ReportedAnswer:
        """An outcome, or an array of them. The good ones are kept, whatever is wrong with others; the same id again replaces."""
        tenant = door.sender(request.headers.get("authorization")).tenant
        body = decompress(await _read(request), request.headers.get("content-encoding", ""), _LIMITS)
        reported = read_outcomes(body)

        def write() -> None:
            write_outcomes(store.client(), tenant, reported.outcomes, datetime.now(UTC))

        await anyio.to_thread.run_sync(write, limiter=writing)
        rejected = [RejectedAnswer(**vars(one)) for one in reported.rejected]
        return ReportedAnswer(accepted=len(reported.outcomes), rejected=rejected)

    return routes


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _LIMITS.decoded_bytes:
            raise PayloadError(
                413, "too_large", f"The body is over {_LIMITS.decoded_bytes} bytes.", "Send fewer outcomes at once."
            )
    return bytes(body)


def _body() -> dict[str, Any]:
    one = ReportedOutcome.model_json_schema()
    example = {name: field["examples"][0] for name, field in one["properties"].items() if "examples" in field}
    schema = {"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]}
    return {"required": True, "content": {"application/json": {"schema": schema, "example": example}}}
