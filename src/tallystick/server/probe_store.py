"""Probes' runs in the ledger's database: entered as they are pushed, and read back."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

from clickhouse_connect.driver.exceptions import ClickHouseError
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from tallystick.attribution.spend import Ask
from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.store import error_name, read_sql
from tallystick.probes.records import GENERATED, Record
from tallystick.probes.runs import RunInfo, State

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_EARLIEST_NS: Final = 0
_LATEST_NS: Final = 7_258_118_400 * 10**9
"""1970 to 2199: what a column holds."""

Text = Annotated[str, Field(max_length=256)]


class PushedFigure(BaseModel):
    """A figure of a stage. value: null where it isn't known, or not carried. group: of a cache experiment."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    unit: Text = ""
    value: FiniteFloat | None = None
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    n: Annotated[int, Field(ge=0, lt=2**63)] = 0
    method: Text = ""
    group: Text = ""


class PushedStage(BaseModel):
    """A stage. reasons: why its figures can't be trusted. summary: as probes/figures/summary.py has it, kept as it is."""

    number: Annotated[int, Field(ge=0, lt=2**16)]
    load: Text
    valid: bool
    reasons: list[str] = []
    figures: Annotated[list[PushedFigure], Field(max_length=10_000)] = []
    summary: dict[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedRequest(Record):
    """A line of records.jsonl.gz."""

    stage: Annotated[int, Field(ge=0, lt=2**16)]


class PushedRun(BaseModel):
    """A run, or with `more` some of its requests ahead of it.

    revision: names what is pushed, hexadecimal, the same in all of its parts; left out: the hash of this body. It stands once its last
    part, that without `more`, is there.
    """

    model_config = ConfigDict(extra="forbid")

    run: RunInfo
    stages: Annotated[list[PushedStage], Field(max_length=1_000)] = []
    requests: list[PushedRequest] = []
    revision: Annotated[str, Field(pattern=r"^([0-9a-f]{16,64})?$")] = ""
    more: bool = False

    @field_validator("run")
    @classmethod
    def _can_be_kept(cls, run: RunInfo) -> RunInfo:
        if not 0 < len(run.id) <= 200 or not all(c.isascii() and (c.isalnum() or c in "._-") for c in run.id):
            raise ValueError("`id` is letters, digits, `.`, `_` and `-`, at most 200 of them")
        if not (0 < len(run.probe) <= 256 and 0 < len(run.entry) <= 256):
            raise ValueError("`probe` and `entry` have 1 to 256 characters")
        if not all(_EARLIEST_NS <= at < _LATEST_NS for at in (run.started_ns, run.ended_ns or 0)):
            raise ValueError("`started_ns` or `ended_ns` is outside 1970 to 2199")
        if run.state is not State.RUNNING and run.ended_ns is None:
            raise ValueError(f"`state` is {run.state}, and `ended_ns` is missing")
        return run


def read_push(body: bytes) -> PushedRun:
    """Raises PayloadError, which says what is wrong first."""
    try:
        pushed = PushedRun.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise PayloadError(
            422, "bad_run", f"{where}: {first['msg'].removeprefix('Value error, ')}.", "Nothing of it was kept."
        ) from None
    return pushed.model_copy(update={"revision": pushed.revision or hashlib.sha256(body).hexdigest()})


class RunHasEnded(PayloadError):
    """What stands is more than what was pushed."""

    def __init__(self, run: str) -> None:
        super().__init__(409, "run_has_ended", f"Run {run} stands as ended already.", "Nothing was changed.")


def workload(config: Mapping[str, Any]) -> str:
    """Sixteen hex digits that change with what a probe asks and how, and not with the engine, its settings or the target."""
    asked = {"workload": config.get("workload"), "load": {**(config.get("load") or {}), "seed": None}}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()[:16]


def keep(client: "Client", pushed: PushedRun, now: datetime) -> bool:
    """On return it is on disk. False: it stood already. A run stands by its own row, which is written last.

    Raises RunHasEnded, StoreUnavailable.
    """
    run, pushed_at = pushed.run, f"{now:%Y-%m-%d %H:%M:%S.%f}"
    own = {"run": run.id, "revision": pushed.revision, "pushed_at": pushed_at}
    try:
        standing = client.query(read_sql("probe_run"), parameters={"id": run.id}).result_rows
        if standing:
            _, revision, _, ended, *_ = standing[0]
            if revision == pushed.revision:
                return False
            if ended and run.ended_ns is None:
                raise RunHasEnded(run.id)
        _insert(client, "probe_requests", [{**own, **row} for row in _requests(pushed)])
        if not pushed.more:
            _insert(client, "probe_results", [{**own, **row} for row in _figures(pushed.stages)])
            _insert(client, "probe_runs", [_row(pushed, pushed_at)])
    except ClickHouseError as error:
        raise StoreUnavailable(error_name(error)) from error
    return True


@dataclass(frozen=True)
class Filter:
    """Which runs; '' is any. before: the id of a run, after which the page begins."""

    probe: str = ""
    entry: str = ""
    engine: str = ""
    model: str = ""
    state: str = ""
    since_ns: int = 0
    before: str = ""
    limit: int = 100


def runs(ask: Ask, which: Filter) -> Sequence[Mapping[str, Any]]:
    """The newest first; columns of probe_runs.sql."""
    params = {**asdict(which), "since": which.since_ns}
    del params["since_ns"]
    return ask(read_sql("probe_runs"), params)


def run(ask: Ask, id: str) -> dict[str, Any] | None:
    """`info`, `stages` as they were pushed, `figures` (columns of probe_run_figures.sql), `revision`, `pushed_at`; None where there is none."""
    found = ask(read_sql("probe_run"), {"id": id})
    if not found:
        return None
    (row,) = found
    figures = ask(read_sql("probe_run_figures"), {"id": id, "revision": row["revision"]})
    return {
        "info": json.loads(row["info"]),
        "stages": json.loads(row["stages"]),
        "figures": figures,
        "revision": row["revision"],
        "pushed_at": row["pushed_at"],
    }


def _insert(client: "Client", table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        client.raw_insert(table, None, b"".join(json.dumps(row).encode() + b"\n" for row in rows), fmt="JSONEachRow")


def _row(pushed: PushedRun, pushed_at: str) -> dict[str, Any]:
    run = pushed.run
    engine = run.engine
    entries = [one for one in run.config.get("engines") or [] if isinstance(one, dict) and one.get("name") == run.entry]
    entry: dict[str, Any] = entries[0] if entries else {}
    return {
        "id": run.id,
        "revision": pushed.revision,
        "probe": run.probe,
        "entry": run.entry,
        "engine": engine.kind if engine else str(entry.get("engine") or ""),
        "version": engine.version if engine else "",
        "model": engine.model if engine else str(entry.get("model") or ""),
        "quantisation": str((entry.get("variant") or {}).get("quantisation") or ""),
        "state": run.state,
        "started_at": _time(run.started_ns),
        "ended_at": None if run.ended_ns is None else _time(run.ended_ns),
        "workload": workload(run.config),
        "failure": run.failure,
        "info": json.dumps(asdict(run), default=str),
        "stages": json.dumps([stage.model_dump(exclude={"figures"}) for stage in pushed.stages]),
        "pushed_at": pushed_at,
    }


def _figures(stages: Sequence[PushedStage]) -> Iterator[dict[str, Any]]:
    for stage in stages:
        own = {"stage": stage.number, "load": stage.load, "valid": int(stage.valid)}
        for figure in stage.figures:
            yield {**own, **figure.model_dump(exclude={"group"}), "request_group": figure.group}


def _requests(pushed: PushedRun) -> Iterator[dict[str, Any]]:
    started_at = _time(pushed.run.started_ns)
    for one in pushed.requests:
        generated = [event.at_ns for event in one.events if event.kind in GENERATED]
        usage = one.usage
        yield {
            "stage": one.stage,
            "number": one.number,
            "started_at": started_at,
            "request_group": one.group,
            "warmup": int(one.warmup),
            "scheduled_ns": one.scheduled_ns,
            "sent_ns": one.sent_ns,
            "headers_ns": one.headers_ns,
            "first_generated_ns": generated[0] if generated else None,
            "last_generated_ns": generated[-1] if generated else None,
            "ended_ns": one.ended_ns,
            "outcome": one.outcome,
            "status": one.status,
            "error": one.error,
            "finish_reason": one.finish_reason,
            "input_tokens": one.input_tokens,
            "most_output_tokens": one.output_tokens,
            "prompt_tokens": usage and usage.prompt_tokens,
            "cached_tokens": usage and usage.cached_tokens,
            "completion_tokens": usage and usage.completion_tokens,
            "reasoning_tokens": usage and usage.reasoning_tokens,
            "counted_output": one.counted_output,
            "event_ns": [event.at_ns for event in one.events],
            "event_kind": [event.kind for event in one.events],
            "event_characters": [event.characters for event in one.events],
        }


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}.{ns % 10**9:09}"
