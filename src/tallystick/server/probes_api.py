"""Probes over HTTP, for operators: runs as they were pushed, and what is scheduled."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

import anyio
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from tallystick.attribution.moments import moment
from tallystick.ingest.payload import Limits, PayloadError, decompress
from tallystick.ingest.store import Store
from tallystick.probes.runs import State
from tallystick.server.asking import Asking
from tallystick.server.auth import Door
from tallystick.server.caged import caged
from tallystick.server.operators import operators_only
from tallystick.server.probe_schedules import AllTold, ProbeSchedules, ScheduleState, no_schedule
from tallystick.server.probe_store import Filter, PushedRun, PushedStage, keep, read_push, run, runs

LIMITS: Final = Limits(decoded_bytes=32 << 20)
"""Of one push. Requests of a larger run are pushed ahead of it, in several."""

_PUSHING: Final = 1
"""Pushes that are read and written at one time; further ones wait: each takes several times its size in memory."""

_BODY: Final = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PushedRun"}}}}


class ProbeRun(BaseModel):
    """A run. failure: what ended it before its end, or why it is invalid. workload: the same for runs that can be compared."""

    id: str = Field(examples=["20261121T163000-f32-3fa9"])
    probe: str
    entry: str
    engine: str
    version: str
    model: str
    quantisation: str
    state: State
    started_at: datetime
    ended_at: datetime | None
    workload: str
    failure: str
    pushed_at: datetime


class ProbeRunsAnswer(BaseModel):
    """Runs, the newest first. next: what `before` is to be for the page after; null on the last one."""

    runs: list[ProbeRun]
    next: str | None


class ProbeFigure(BaseModel):
    """docs/probes.md defines each. low, high: its interval; null where there is none. value: null where so few requests don't carry it."""

    stage: int
    load: str
    valid: bool
    request_group: str
    name: str
    unit: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


class ProbeRunAnswer(BaseModel):
    """A run whole, but for its requests. run: RunInfo, stages: as they were pushed."""

    run: dict[str, Any]
    stages: list[PushedStage]
    figures: list[ProbeFigure]
    revision: str
    pushed_at: datetime


class PushedAnswer(BaseModel):
    """kept: false where exactly this stood already. stands: false while parts are to come. requests: how many this part had."""

    run: str
    revision: str
    kept: bool
    stands: bool
    requests: int


class ScheduleAnswer(BaseModel):
    """A schedule. state: `waiting`, `queued`, `running` or `elsewhere` (this process runs none). problem: why its next run would fail; "" if nothing is known.

    outcome: of the last run here, `done`, `failed`, `timed out`, `stopped` or `skipped`; said: why. runs: ids of what it measured.
    """

    name: str
    config: str
    when: str
    state: ScheduleState
    next_at: datetime | None
    problem: str
    began_at: datetime | None
    ended_at: datetime | None
    outcome: str | None
    said: str
    runs: list[str]


class SchedulesAnswer(BaseModel):
    """problems: what keeps parts of the configuration's `probes:` out."""

    schedules: list[ScheduleAnswer]
    problems: list[str]


class NoSuchRun(PayloadError):
    """Nothing was pushed under this id."""

    def __init__(self, id: str) -> None:
        super().__init__(404, "no_such_run", f"No run {id[:200]!r} was pushed here.", "`GET /v1/probes/runs` lists them.")


Word = Annotated[str, Query(max_length=256)]
Id = Annotated[str, Path(max_length=200, examples=["20261121T163000-f32-3fa9"])]


def router(store: Store, door: Door, asking: Asking, schedules: ProbeSchedules | None) -> APIRouter:
    """Routes /v1/probes."""
    routes = APIRouter(prefix="/v1/probes", tags=["probes"], **operators_only(door))
    pushing = anyio.CapacityLimiter(_PUSHING)

    @routes.get("/runs", summary="Runs of probes, the newest first")
    async def listed(
        request: Request,
        *,
        probe: Word = "",
        entry: Word = "",
        engine: Word = "",
        model: Word = "",
        state: State | None = None,
        since: Annotated[str, Query(description="An age or a time, UTC if no zone.", examples=["30d"])] = "1970-01-01",
        before: Annotated[str, Query(max_length=200, description="`next` of the page before.")] = "",
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
    ) -> ProbeRunsAnswer:
        try:
            since_ns = moment(since, _now_ns())
        except ValueError as error:
            raise PayloadError(400, "bad_time", f"since: {error}", "An age such as 7d, or a time.") from None
        which = Filter(probe, entry, engine, model, state or "", since_ns, before, limit + 1)
        found = await asking.ask(request, lambda mark: runs(caged(store, None, mark), which))
        page = [ProbeRun.model_validate(row) for row in found[:limit]]
        return ProbeRunsAnswer(runs=page, next=page[-1].id if len(found) > limit else None)

    @routes.get("/runs/{id}", summary="One run, with its figures", responses={404: {"description": "There is none."}})
    async def one(request: Request, id: Id) -> ProbeRunAnswer:
        found = await asking.ask(request, lambda mark: run(caged(store, None, mark), id))
        if found is None:
            raise NoSuchRun(id)
        return ProbeRunAnswer(run=found.pop("info"), **found)

    @routes.post(
        "/runs",
        summary="Keep a run that was measured elsewhere",
        openapi_extra={"requestBody": _BODY},
        responses={
            409: {"description": "The run stands as ended, and this one says that it hasn't."},
            413: {"description": "The body is too large."},
            422: {"description": "It can't be kept; the message says what is wrong."},
        },
    )
    async def push(request: Request) -> PushedAnswer:
        """The same again changes nothing; more of the same run replaces what was known of it. `tallystick probe push` sends it."""
        body = await _read(request)
        encoding = request.headers.get("content-encoding", "")

        def work() -> PushedAnswer:
            pushed: PushedRun = read_push(decompress(body, encoding, LIMITS))
            kept = keep(store.client(), pushed, datetime.now(UTC))
            return PushedAnswer(
                run=pushed.run.id,
                revision=pushed.revision,
                kept=kept,
                stands=not (kept and pushed.more),
                requests=len(pushed.requests),
            )

        return await anyio.to_thread.run_sync(work, limiter=pushing)

    @routes.get("/schedules", summary="What is measured when, and how it went")
    def scheduled() -> SchedulesAnswer:
        found = schedules.told() if schedules else AllTold((), ())
        return SchedulesAnswer(schedules=[ScheduleAnswer(**vars(one)) for one in found.schedules], problems=list(found.problems))

    @routes.post(
        "/schedules/{name}/run",
        summary="Measure now",
        status_code=202,
        responses={
            404: {"description": "There is no such schedule."},
            409: {"description": "It runs, or waits for another that does; or this process runs none."},
        },
    )
    def run_now(name: Annotated[str, Path(max_length=256)]) -> ScheduleAnswer:
        if schedules is None:
            raise no_schedule(name, ())
        return ScheduleAnswer(**vars(schedules.run_now(name)))

    return routes


def _now_ns() -> int:
    return int(datetime.now(UTC).timestamp()) * 10**9


async def _read(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LIMITS.decoded_bytes:
            raise PayloadError(
                413, "too_large", f"The body is over {LIMITS.decoded_bytes} bytes.", "Push its requests in several parts."
            )
    return bytes(body)
