"""The HTTP application: routes, and one shape for every error."""

import logging
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel

from tallystick.alerts.database import LedgerError
from tallystick.attribution.audit import Partition
from tallystick.attribution.user_sql import BadQuery
from tallystick.ingest.committer import Counting
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.receiver import RETRY_AFTER_S, Receiver
from tallystick.ingest.store import Store
from tallystick.server import (
    alerts_api,
    allocation_api,
    audit_api,
    budgets_api,
    charges_api,
    clickhouse_api,
    corrections_api,
    focus_api,
    guard_api,
    measured_prices_api,
    metrics_api,
    outcomes_api,
    probes_api,
    questions_api,
    reconcile_api,
    spend_api,
    sql_api,
    statements_api,
    what_if_api,
)
from tallystick.server.alerts import Alerts
from tallystick.server.allocations import AllocationDesk, base_ask
from tallystick.server.answers import Guard, answer_errors, error_body, take_spans
from tallystick.server.api_doc import describe
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.corrections import Desk
from tallystick.server.figures import TimedRequests
from tallystick.server.ledger_state import LedgerState
from tallystick.server.measured_prices import PresentBook
from tallystick.server.metrics import Metrics
from tallystick.server.operators import askers_only, operators_only, senders_only
from tallystick.server.probe_schedules import ProbeSchedules
from tallystick.server.recorded_price import recorded_price

log = logging.getLogger(__name__)

_PAGE_HEADERS: Final = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""What the page can't say of itself in its own policy."""


class QueueAnswer(BaseModel):
    """What has come and isn't stored yet."""

    spans: int
    bytes: int


class StatusAnswer(BaseModel):
    """Counts since the start. dropped_spans, rejected_spans: by reason; refused_requests: by error code. last_failure: "" if there was none."""

    received_spans: int
    stored_calls: int
    voided_calls: int
    dropped_spans: dict[str, int]
    rejected_spans: dict[str, int]
    refused_requests: dict[str, int]
    failed_batches: int
    last_failure: str
    queue: QueueAnswer


class NoReceiver(PayloadError):
    """This process answers questions, and nothing else."""

    def __init__(self) -> None:
        super().__init__(
            404,
            "no_receiver",
            "This server answers questions and receives no spans.",
            "Send spans to `tallystick receiver`, or to `tallystick up`, which does both. Nothing was kept.",
        )


class UnknownPrice(PayloadError):
    """No such price id, or none in charges that the key may see."""

    def __init__(self) -> None:
        super().__init__(
            404,
            "no_such_price",
            "No charge that you may see has this price id.",
            "`SELECT DISTINCT price_id FROM charges` lists them.",
        )


def create_app(
    store: Store,
    committer: Counting | None,
    receiver: Receiver | None,
    door: Door,
    alerts: Alerts,
    *,
    book: PresentBook,
    desk: Desk,
    config: Path | None = None,
    ready: Callable[[], str] = lambda: "",
    waiting: Callable[[], Sequence[Partition] | None] = lambda: None,
    retention_days: int = 0,
    metrics: Metrics | None = None,
    schedules: ProbeSchedules | None = None,
) -> FastAPI:
    """The application over an open store, a running committer (or what is in its place) and a receiver, or neither, and alerts.

    book: by which is repriced, and what-if starts from. config: the configuration file.
    ready: "" while it can do its work, else why it can't. waiting: what Kafka holds, None without it.
    retention_days: after which calls are deleted, 0 never. metrics: of the process. schedules: of probes; None: there are none.
    """
    app = FastAPI(
        title="tallystick", description="Observability and FinOps for language-model calls.", docs_url="/docs", redoc_url=None
    )
    asking = Asking(store)

    app.add_middleware(Guard, door=door)
    if metrics is not None:
        app.add_middleware(TimedRequests, metrics=metrics)
        app.include_router(metrics_api.router(metrics, door))

    @app.get("/healthz", summary="Alive", tags=["operation"])
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get(
        "/readyz",
        summary="Does its work",
        tags=["operation"],
        responses={503: {"description": "`status` says why it doesn't."}},
    )
    def readyz(response: Response) -> dict[str, str]:
        reason = ready()
        response.status_code = 503 if reason else 200
        return {"status": reason or "ready"}

    @app.get(
        "/v1/status", summary="What became of all tenants' spans since the start", tags=["operation"], **operators_only(door)
    )
    async def status() -> StatusAnswer:
        if committer is None or receiver is None:
            raise NoReceiver
        spans, size = committer.waiting
        tally = committer.tally
        return StatusAnswer(
            received_spans=tally.received,
            stored_calls=tally.entered,
            voided_calls=tally.voided,
            dropped_spans=dict(tally.dropped),
            rejected_spans=dict(tally.rejected),
            refused_requests=dict(receiver.refused),
            failed_batches=tally.failures,
            last_failure=tally.last_failure,
            queue=QueueAnswer(spans=spans, bytes=size),
        )

    @app.get(
        "/v1/price",
        summary="What a price id of charges stands for",
        tags=["attribution"],
        responses={404: {"description": "No charge that you may see has this price id."}},
        **askers_only(door),
    )
    async def price(
        request: Request,
        id: Annotated[str, Query(max_length=1000, examples=["genai-prices@0.2.3,openai,gpt-5,from=always"])],
    ) -> dict[str, str]:
        tenant = door.reader(request.headers.get("authorization"))
        found = await asking.read(lambda: recorded_price(store, tenant, id))
        if found is None:
            raise UnknownPrice
        return found

    if receiver is None:

        @app.post("/v1/traces", include_in_schema=False)
        async def traces() -> None:
            raise NoReceiver
    else:
        take_spans(app, receiver)
    state = LedgerState(store)
    app.include_router(spend_api.router(store, door, asking, state))
    app.include_router(charges_api.router(store, door, asking, state))
    app.include_router(sql_api.router(store, door, asking), **askers_only(door))
    app.include_router(clickhouse_api.router(store, door, asking, _page))
    app.include_router(questions_api.router(store, door, asking), **askers_only(door))
    app.include_router(outcomes_api.router(store, door), **senders_only(door))
    app.include_router(what_if_api.router(store, door, asking, book.present))
    app.include_router(statements_api.router(store, door, asking), **askers_only(door))
    app.include_router(focus_api.router(store, door), **askers_only(door))
    app.include_router(corrections_api.router(desk, door))
    allocations = AllocationDesk(desk.corrections, base_ask(store), config)
    app.include_router(allocation_api.router(allocations, door))
    app.include_router(measured_prices_api.router(book, door))
    app.include_router(reconcile_api.router(reconcile_api.ask_of(store), desk.corrections, door))
    app.include_router(budgets_api.router(alerts, door))
    app.include_router(guard_api.router(alerts, door, state))
    app.include_router(alerts_api.router(alerts, door))
    app.include_router(probes_api.router(store, door, asking, schedules))
    app.include_router(audit_api.router(store, door, asking, waiting, retention_days))
    describe(app)
    _answer_errors(app)
    return app


def _page() -> HTMLResponse:
    text = files("tallystick.attribution").joinpath("page.html").read_text(encoding="utf-8")
    return HTMLResponse(text, headers=_PAGE_HEADERS)


def _answer_errors(app: FastAPI) -> None:
    answer_errors(app)

    @app.exception_handler(LedgerError)
    async def alert_ledger(request: Request, error: LedgerError) -> JSONResponse:
        body = error_body("unavailable", f"{error}", "Nothing was changed; ask again after Retry-After seconds.")
        return JSONResponse(body, 503, {"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(BadQuery)
    async def query(request: Request, error: BadQuery) -> JSONResponse:
        return JSONResponse(error_body(error.code, error.message, error.hint), 400)
