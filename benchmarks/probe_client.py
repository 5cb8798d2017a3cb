"""What the probes' client takes itself, and how exact it is.

    python benchmarks/probe_client.py [--streams 1000] [--tokens 100] [--gap 0.5] [--rate 100] [--seconds 10]

The engine is tests/odd_engine.py in a process of its own; the client's process is held to one core, the engine to another. Figures go to
standard output.
"""

import argparse
import asyncio
import gc
import math
import os
import pathlib
import platform
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import aiohttp

from tallystick.probes.client.request import open_session
from tallystick.probes.client.running import run_stage
from tallystick.probes.config import Timeouts
from tallystick.probes.records import GENERATED, Ask, LoadPoint, Outcome, Stage
from tallystick.probes.runs import EngineFacts

DEFINITIONS = """\
us_a_chunk  CPU of the client's process over a stage / events that brought a token: receiving, parsing, timing and keeping them; connections,
            requests and the schedule among it. Aim: under 100.
arrival_ms  when a request was sent - when it was due. ks: the distance of Kolmogorov and Smirnov between times from one sending to the next
            and the exponential distribution of that rate; above `refused` they would not be a Poisson process's, at 1 % error.
gap_ms      time between tokens as the client saw it, of an engine that sleeps for that long between two.
"""
ENGINE = pathlib.Path(__file__).parent.parent / "tests" / "odd_engine.py"
BODY = b'{"model":"odd","stream":true,"messages":[{"role":"user","content":"' + b"word " * 400 + b'"}],"max_tokens":100}'


@contextmanager
def engine(tokens: int, gap: float, core: int) -> Iterator[str]:
    command = [sys.executable, str(ENGINE), "--tokens", str(tokens), "--gap", str(gap)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    os.sched_setaffinity(process.pid, {core})
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def measured(url: str, moments_ns: Sequence[int | None], load: LoadPoint, seconds: float) -> tuple[Stage, float]:
    """A stage, and seconds of CPU that it took."""
    facts = EngineFacts("openai", url, "odd", "", "/v1/chat/completions", (), False, True, None, None)
    asks = [Ask(number, at, BODY, 400, 100) for number, at in enumerate(moments_ns)]

    async def nothing() -> None:
        return None

    async with open_session() as session:
        origin_ns, before = time.perf_counter_ns(), time.process_time()
        stage = await run_stage(
            session, facts, asks, load, number=1, origin_ns=origin_ns, seconds=seconds, timeouts=Timeouts(), key=None,
            scrape=nothing, on_record=lambda record: None, stop=asyncio.Event(), alive=lambda: "",
        )  # fmt: skip
        return stage, time.process_time() - before


def quantiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {name: round(ordered[min(len(ordered) - 1, int(len(ordered) * share))], 3) for name, share in QUANTILES}


QUANTILES = (("p50", 0.5), ("p99", 0.99), ("most", 1.0))


def poisson(rate: float, count: int, seed: int = 20261121) -> list[int]:
    source, at, moments = random.Random(seed), 0.0, []
    for _ in range(count):
        at += source.expovariate(rate)
        moments.append(int(at * 1e9))
    return moments


def from_exponential(gaps_s: Sequence[float], rate: float) -> float:
    """Kolmogorov's D. Its 1 % point is 1.628 / sqrt(n) for large n (Smirnov 1948)."""
    expected = [1 - math.exp(-rate * gap) for gap in sorted(gaps_s)]
    n = len(expected)
    return max(max((i + 1) / n - share, share - i / n) for i, share in enumerate(expected))


def told(what: str, stage: Stage, cpu: float, gap: float) -> None:
    chunks = sum(event.kind in GENERATED for record in stage.records for event in record.events)
    wall = (stage.ended_ns - stage.started_ns) / 1e9
    ok = sum(record.outcome is Outcome.OK for record in stage.records)
    print(f"{what}: {ok} of {len(stage.records)} ok, {stage.ended}, {stage.health.open_at_once} at once, {wall:.1f} s")
    print(f"  us_a_chunk {cpu / chunks * 1e6:.1f} at {chunks / wall:,.0f} chunks/s, {cpu / wall:.0%} of a core; {stage.health}")
    late = [(record.sent_ns - record.scheduled_ns) / 1e6 for record in stage.records if record.scheduled_ns is not None]
    if late and stage.load.rate:
        sent = sorted(record.sent_ns for record in stage.records)
        distance = from_exponential([(after - before) / 1e9 for before, after in pairwise(sent)], stage.load.rate)
        print(f"  arrival_ms {quantiles(late)}, ks {distance:.4f}, refused {1.628 / math.sqrt(len(sent) - 1):.4f}")
    if gap:
        times = [[event.at_ns for event in record.events if event.kind in GENERATED] for record in stage.records]
        gaps = [(after - before) / 1e6 for one in times for before, after in pairwise(one)]
        print(f"  gap_ms {quantiles(gaps)}, written each {gap * 1e3:g}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--gap", type=float, default=0.5)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=10)
    given = parser.parse_args()
    mine, other = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, {mine})
    print(f"{DEFINITIONS}\n{platform.machine()}, Python {platform.python_version()}, aiohttp {aiohttp.__version__}")
    print(f"load of the machine when it began: {os.getloadavg()[0]:.1f}\n")
    with engine(given.tokens, 0.01, other) as url:
        stage, cpu = asyncio.run(measured(url, [None] * 100, LoadPoint("closed", concurrency=10), 120))
        told("10 streams in a closed loop, a token each 10 ms", stage, cpu, 0.01)
        moments = poisson(given.rate, int(given.rate * given.seconds))
        stage, cpu = asyncio.run(measured(url, moments, LoadPoint("poisson", rate=given.rate), 120))
        told(f"poisson {given.rate:g}/s, a token each 10 ms", stage, cpu, 0.01)
    with engine(given.tokens, given.gap, other) as url:
        gc.collect()
        # Sent within a fifth of what one takes, so that all are open at once.
        rate = given.streams / (given.tokens * given.gap / 5)
        stage, cpu = asyncio.run(measured(url, poisson(rate, given.streams), LoadPoint("poisson", rate=rate), 600))
        told(f"{given.streams} streams at once, a token each {given.gap * 1e3:g} ms", stage, cpu, given.gap)


if __name__ == "__main__":
    main()
