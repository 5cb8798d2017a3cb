"""The audit over HTTP, for operators."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tallystick.attribution.audit import Partition, Place, State, Window, read
from tallystick.attribution.audit_verdict import verdict
from tallystick.attribution.moments import moment
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import Store
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.operators import operators_only

_LIMITS: Final = {"max_execution_time": 120, "max_threads": 2, "max_memory_usage": 2 << 30}


class HourAnswer(BaseModel):
    """Spans. hour: its beginning, UTC, as the spans were received. emitted: null where no sender tells; untold: received from such."""

    service: str
    hour: datetime
    emitted: int | None
    lost: int
    received: int
    calls: int
    dropped: int
    rejected: int
    untold: int


class FindingAnswer(BaseModel):
    """spans, messages: null where nobody can tell. at: when it was seen first."""

    place: Place
    state: State
    what: str
    todo: str
    spans: int | None
    messages: int | None
    at: datetime | None


class AuditAnswer(BaseModel):
    """clean: nothing is lost. lost_spans: at least so many. waiting, lag_s: messages in Kafka, and since the oldest was received; null without Kafka.
    freshness_s: since the newest call in the ledger started.
    """

    clean: bool
    lost_spans: int
    lost_messages: int
    unfinished_spans: int
    untold_spans: int
    waiting: int | None
    lag_s: float | None
    freshness_s: float | None
    findings: list[FindingAnswer]
    hours: list[HourAnswer]


class BadMoment(PayloadError):
    """Neither an age nor a time."""

    def __init__(self, message: str) -> None:
        super().__init__(400, "bad_parameter", message, "An age (24h, 7d) or a time (UTC if no zone).")


def router(
    store: Store, door: Door, asking: Asking, waiting: Callable[[], Sequence[Partition] | None], retention_days: int
) -> APIRouter:
    """GET /v1/audit. waiting: what Kafka holds; raises StoreUnavailable."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/v1/audit", summary="What was lost between a call and its row, and where", **operators_only(door))
    async def audit(
        since: Annotated[str, Query(description="An age or a time, UTC if no zone.", examples=["24h"])] = "24h",
        settle: Annotated[int, Query(ge=0, le=86_400, description="Seconds after which what hasn't come is lost.")] = 300,
    ) -> AuditAnswer:
        now = datetime.now(UTC)
        try:
            begin = datetime.fromtimestamp(moment(since, int(now.timestamp() * 1e9)) / 1e9, UTC)
        except ValueError as error:
            raise BadMoment(str(error)) from None
        window = Window(now, begin, timedelta(seconds=settle))

        def asked() -> AuditAnswer:
            # First Kafka: what it says is read and committed is in the ledger when that is asked.
            partitions = waiting()
            with store.reader(None, _LIMITS) as reader:
                ledger = read(reader, window, timedelta(days=retention_days) if retention_days else None)
            found = verdict(ledger, partitions, window)
            return AuditAnswer.model_validate(asdict(found) | {"clean": found.clean})

        return await asking.read(asked)

    return routes
