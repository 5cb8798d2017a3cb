"""Stages and records of probes, made: an engine of known times, as the client would have recorded it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tallystick.probes.records import ClientHealth, Event, Kind, LoadPoint, Outcome, Record, Sample, Stage, Usage

MS = 1_000_000
SECOND = 1_000 * MS
HEALTHY = ClientHealth(late_share=0, most_late_ms=0.2, lag_p99_ms=0.5, most_lag_ms=2, cpu_share=0.2, open_at_once=8)


def record(**changes: Any) -> Record:
    """Due at 1,000 ms, sent at 1,002; a role at 1,005, then five events of two tokens each from 1,050 to 1,090; ended at 1,095."""
    content = [Event((1_050 + 10 * i) * MS, Kind.CONTENT, 8) for i in range(5)]
    events = (Event(1_005 * MS, Kind.ROLE, 0), *content, Event(1_091 * MS, Kind.USAGE, 0), Event(1_095 * MS, Kind.DONE, 0))
    made = Record(
        number=0,
        group="",
        warmup=False,
        scheduled_ns=1_000 * MS,
        sent_ns=1_002 * MS,
        headers_ns=1_004 * MS,
        ended_ns=1_095 * MS,
        events=events,
        outcome=Outcome.OK,
        status=200,
        error="",
        finish_reason="length",
        input_tokens=100,
        output_tokens=10,
        usage=Usage(100, 20, 10, None),
    )
    return replace(made, **changes)


def answer(at_ms: float, ttft_ms: float, gap_ms: float = 10, tokens: int = 11, **changes: Any) -> Record:
    """Due and sent at a moment, its first token after ttft_ms, one more in each gap, ended with the last."""
    sent = round(at_ms * MS)
    events = tuple(Event(sent + round((ttft_ms + i * gap_ms) * MS), Kind.CONTENT, 4) for i in range(tokens))
    whole = {"scheduled_ns": sent, "sent_ns": sent, "ended_ns": events[-1].at_ns, "events": events, "output_tokens": tokens}
    return record(**{**whole, "usage": Usage(100, 0, tokens, None), **changes})


def stage(records: Sequence[Record], load: LoadPoint | None = None, **changes: Any) -> Stage:
    """Of these records, from 0 to the end of the last, on a client that kept up."""
    made = Stage(
        number=0,
        load=load or LoadPoint("poisson", rate=4),
        started_ns=0,
        ended_ns=max((one.ended_ns for one in records), default=0),
        records=tuple(records),
        samples=(),
        health=HEALTHY,
    )
    return replace(made, **changes)


def poisson(seed: int, count: int = 200, rate: float = 4, median_ms: float = 80, spread: float = 0.3) -> tuple[Record, ...]:
    """Answers to Poisson arrivals; TTFT lognormal around a median, TPOT 10 ms."""
    random = np.random.default_rng(seed)
    at = np.cumsum(random.exponential(1_000 / rate, count))
    ttft = median_ms * random.lognormal(0, spread, count)
    return tuple(answer(a, t, number=i) for i, (a, t) in enumerate(zip(at.tolist(), ttft.tolist(), strict=True)))


def sample(at_ms: float, **values: float) -> Sample:
    """Of an engine's metrics, by canonical names."""
    known: Mapping[str, float] = values
    return Sample(round(at_ms * MS), known)
