"""What is kept of a measured request: its raw times, from which every figure is derived (probes/figures/measures.py).

All times are nanoseconds since the start of the run, of a clock that never steps; `RunInfo.started_ns` says when that was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, NamedTuple, Self


class Kind(StrEnum):
    """What an event of a stream brought. Only CONTENT, REASONING and TOOL carry generated tokens; how many, no event says."""

    ROLE = "role"
    CONTENT = "content"
    REASONING = "reasoning"
    TOOL = "tool"
    USAGE = "usage"
    DONE = "done"
    OTHER = "other"


GENERATED = frozenset({Kind.CONTENT, Kind.REASONING, Kind.TOOL})


class Event(NamedTuple):
    """One event of a stream, at the moment when its bytes were there. characters: of generated text that it brought."""

    at_ns: int
    kind: Kind
    characters: int


class Outcome(StrEnum):
    """How a request ended. Anything but OK is a failure; CANCELLED ones were ended by the probe and count as neither."""

    OK = "ok"
    REFUSED = "refused"
    """An HTTP status of 400 or more; `status` has it."""
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    CUT_OFF = "cut_off"
    """The connection or the stream ended before its end was said."""
    GARBAGE = "garbage"
    """What came is no event stream of chat or text completions."""
    EMPTY = "empty"
    """It ended well, and brought nothing."""
    CANCELLED = "cancelled"


class Usage(NamedTuple):
    """Tokens as the engine counted them; None is what it didn't say."""

    prompt_tokens: int | None
    cached_tokens: int | None
    completion_tokens: int | None
    reasoning_tokens: int | None


@dataclass(frozen=True, slots=True)
class Ask:
    """A request to be sent. at_ns: when, after the stage's start; None in a closed loop. body: JSON, as it is sent."""

    number: int
    at_ns: int | None
    body: bytes
    input_tokens: int | None
    """Of the prompt, where its length is exact."""
    output_tokens: int
    """Most that are to be generated."""
    group: str = ""
    """What it is compared with others for: `cold`, `warm`, `control`, or ''."""
    warmup: bool = False
    """Sent, recorded and left out of all figures."""


@dataclass(frozen=True, slots=True)
class Record:
    """One request, as it went.

    scheduled_ns: when it was due; None in a closed loop. sent_ns: when it was handed to the connection. headers_ns: when the answer began.
    status: HTTP's, None without an answer. error: in words, without content. counted_output: tokens of the generated text by the model's own
    tokeniser, where one was asked.
    """

    number: int
    group: str
    warmup: bool
    scheduled_ns: int | None
    sent_ns: int
    headers_ns: int | None
    ended_ns: int
    events: tuple[Event, ...]
    outcome: Outcome
    status: int | None
    error: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int
    usage: Usage | None
    counted_output: int | None = None

    def as_json(self) -> dict[str, Any]:
        """One line of records.jsonl.gz. Its tuples are JSON's lists; dataclasses.asdict would copy every event."""
        return {name: getattr(self, name) for name in _RECORD} | {"usage": self.usage and self.usage._asdict()}

    @classmethod
    def of_json(cls, line: Mapping[str, Any]) -> Self:
        """The reverse of as_json."""
        events = tuple(Event(at, Kind(kind), size) for at, kind, size in line["events"])
        usage = Usage(**line["usage"]) if line["usage"] else None
        return cls(**{**line, "events": events, "usage": usage, "outcome": Outcome(line["outcome"])})


_RECORD = tuple(field.name for field in fields(Record))


@dataclass(frozen=True, slots=True)
class Sample:
    """What an engine's own /metrics said at a moment: canonical name (probes/engines/metrics.py) → value."""

    at_ns: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ClientHealth:
    """Whether the client kept up while a stage ran. late: a request sent later than it was due by more than a millisecond.

    lag_ms: by how much the event loop's ticks came late, at most and the 99th percentile. cpu_share: of one core.
    """

    late_share: float
    most_late_ms: float
    lag_p99_ms: float
    most_lag_ms: float
    cpu_share: float
    open_at_once: int


@dataclass(frozen=True, slots=True)
class LoadPoint:
    """The load of one stage. rate: requests a second (constant, poisson, trace: the mean). concurrency: of a closed loop."""

    kind: str
    rate: float | None = None
    concurrency: int | None = None

    @property
    def name(self) -> str:
        """`poisson 4/s`, `closed 16`; `trace` at its own times."""
        if self.rate is not None:
            return f"{self.kind} {self.rate:g}/s"
        return self.kind if self.concurrency is None else f"{self.kind} {self.concurrency}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of a run at one load. ended: `done`, or why it ended before (`limit`, `cancelled`, `engine died: …`, `disk full`)."""

    number: int
    load: LoadPoint
    started_ns: int
    ended_ns: int
    records: Sequence[Record]
    samples: Sequence[Sample]
    health: ClientHealth
    ended: str = "done"
