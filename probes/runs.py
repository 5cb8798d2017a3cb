"""A run: one engine of a probe, measured. It lies in a folder of its own, written while it goes, so that what was measured survives whatever ends it.

<data>/probes/<run id>/run.json            RunInfo, written at the start and again at the end
<data>/probes/<run id>/stages.jsonl        a line a stage, without its records
<data>/probes/<run id>/records.jsonl.gz    a line a request: {"stage": N, **Record}
<data>/probes/<run id>/samples.jsonl       a line a scrape: {"stage": N, "at_ns": …, "values": {…}}
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class State(StrEnum):
    """Of a run. INVALID: it ended, and its figures can't be trusted; FAILED: it ended before its end, with what was measured."""

    RUNNING = "running"
    DONE = "done"
    INVALID = "invalid"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class EngineFacts:
    """What preflight found out. settings: as the engine tells of itself. fields: optional ones of a request that it takes.

    endpoint: `/v1/chat/completions` or `/v1/completions`. token_ids: a prompt may be a list of them. sees_usage: it tells tokens of a stream.
    keeps_connections: not so where it closes them after an answer without saying so, so that none can be used again.
    """

    kind: str
    url: str
    model: str
    version: str
    endpoint: str
    fields: tuple[str, ...]
    token_ids: bool
    sees_usage: bool
    context: int | None
    metrics_url: str | None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was retried without, and what isn't known."""
    keeps_connections: bool = True


@dataclass(frozen=True)
class RunInfo:
    """probe: the configuration's name; entry: the engine's there. config: the whole file as JSON, without secrets.

    machine: cores, memory and GPUs of the client.
    """

    id: str
    probe: str
    entry: str
    state: State
    started_ns: int
    """Unix."""
    ended_ns: int | None
    engine: EngineFacts | None
    config: dict[str, Any]
    machine: dict[str, Any]
    failure: str = ""
    """What ended it before its end, and what to do; or why it is invalid."""

    @property
    def started(self) -> datetime:
        """UTC."""
        return datetime.fromtimestamp(self.started_ns / 1e9, UTC)
