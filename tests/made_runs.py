"""Runs of probes as their folders have them, of engines whose latencies are known."""

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tallystick.probes.records import ClientHealth, Event, Kind, LoadPoint, Outcome, Record, Sample, Stage, Usage
from tallystick.probes.run_folder import RunFolder
from tallystick.probes.runs import EngineFacts, RunInfo, State

MS = 1_000_000
SECOND = 1_000_000_000
STARTED = 1_795_278_600 * SECOND
HEALTH = ClientHealth(late_share=0.0, most_late_ms=0.2, lag_p99_ms=0.4, most_lag_ms=1.5, cpu_share=0.2, open_at_once=8)


def record(
    number: int,
    at_ns: int,
    *,
    ttft_ms: float = 20.0,
    tpot_ms: float = 5.0,
    tokens: int = 20,
    waited_ms: float = 0.0,
    open_loop: bool = True,
    group: str = "",
    cached: int = 0,
    warmup: bool = False,
    outcome: Outcome = Outcome.OK,
    error: str = "",
) -> Record:
    """A request of 100 input tokens, due at a time, with a role chunk first and a chunk a token."""
    sent = at_ns + round(waited_ms * MS)
    first = sent + round(ttft_ms * MS)
    events = [Event(sent + MS // 2, Kind.ROLE, 0)]
    events += [Event(first + round(index * tpot_ms * MS), Kind.CONTENT, 4) for index in range(tokens)]
    last = events[-1].at_ns + 1000
    fine = outcome is Outcome.OK
    return Record(
        number=number, group=group, warmup=warmup, scheduled_ns=at_ns if open_loop else None, sent_ns=sent, headers_ns=sent + MS // 4,
        ended_ns=last if fine else sent + MS, events=tuple(events) if fine else (), outcome=outcome, status=200 if fine else 503,
        error=error, finish_reason="length" if fine else "", input_tokens=100, output_tokens=tokens,
        usage=Usage(100, cached, tokens, None) if fine else None,
    )  # fmt: skip


def stage(
    number: int, rate: float, *, ttft_ms: float, tpot_ms: float, count: int = 100, started_ns: int = 0, failed: int = 0
) -> Stage:
    """Poisson arrivals of exponential latencies above a floor of half the median."""
    chance = random.Random(f"{number} {rate} {ttft_ms}")
    at, records = started_ns, []
    for index in range(count):
        at += round(chance.expovariate(rate) * SECOND)
        slow = 0.5 + chance.expovariate(1.4)
        outcome = Outcome.REFUSED if index < failed else Outcome.OK
        records.append(
            record(
                index, at, ttft_ms=ttft_ms * slow, tpot_ms=tpot_ms * (0.9 + chance.random() / 5), outcome=outcome,
                error="busy" if index < failed else "",
            )
        )  # fmt: skip
    ended = max(one.ended_ns for one in records)
    steps = range(started_ns, ended, SECOND)
    samples = [
        Sample(
            when, {"kv_cache_usage": min(1.0, rate / 20 + index / 200), "requests_running": rate, "requests_waiting": rate // 8}
        )
        for index, when in enumerate(steps)
    ]
    return Stage(number, LoadPoint("poisson", rate=rate), started_ns, ended, records, samples, HEALTH)


def info(entry: str, *, probe: str = "quantised", started_ns: int = STARTED, state: State = State.DONE, **config: Any) -> RunInfo:
    """Of a llama.cpp that runs a generated model."""
    engine = EngineFacts(
        kind="llamacpp", url="http://127.0.0.1:8080", model="generated", version="b6000", endpoint="/v1/completions",
        fields=("ignore_eos",), token_ids=True, sees_usage=True, context=2048, metrics_url=None, settings={"n_ctx": 2048, "quant": entry},
    )  # fmt: skip
    entries = [{"name": name, "engine": "llamacpp", "variant": {"quantisation": name}} for name in ("F32", "Q8_0", "Q4_0")]
    whole: Mapping[str, Any] = {
        "name": probe,
        "engines": entries,
        "workload": {"input_tokens": 100, "output_tokens": 20},
        "load": {"kind": "poisson", "rates": [2, 4, 8], "requests": 100},
        "target": {"ttft_ms": 200, "tpot_ms": None, "e2e_ms": None, "share": 0.95},
    }
    run_id = f"{started_ns // SECOND}-{entry.lower()}-0000"
    return RunInfo(run_id, probe, entry, state, started_ns, started_ns + 60 * SECOND, engine, {**whole, **config}, {"cores": 2})


def write(data: Path, run: RunInfo, *stages: Stage) -> Path:
    """The folder of a run that ended."""
    folder = data / "probes" / run.id
    with RunFolder(folder, replace(run, state=State.RUNNING, ended_ns=None)) as out:
        for one in stages:
            for request in one.records:
                out.record(one.number, request)
            out.stage(one)
        out.tell(run)
    return folder


def ladder(ttft_ms: float = 20.0, tpot_ms: float = 4.0, rates: tuple[float, ...] = (2, 4, 8), count: int = 100) -> list[Stage]:
    """Stages at rates, each slower than the one before."""
    stages: list[Stage] = []
    for index, rate in enumerate(rates):
        begun = stages[-1].ended_ns + SECOND if stages else SECOND
        stages.append(
            stage(index + 1, rate, ttft_ms=ttft_ms * 2**index, tpot_ms=tpot_ms * (1 + index / 4), count=count, started_ns=begun)
        )
    return stages
