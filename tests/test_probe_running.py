"""Stages: when requests go out, what ends a stage, and what is left of it then."""

import asyncio
import errno
import gc
import resource
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from odd_engine import Answer, Do, OddEngine, chunk, refuse, stream

from tallystick.probes.client import running
from tallystick.probes.client.health import health
from tallystick.probes.client.pacing import due
from tallystick.probes.client.request import open_session
from tallystick.probes.config import Timeouts
from tallystick.probes.records import GENERATED, Ask, LoadPoint, Outcome, Record, Stage
from tallystick.probes.runs import EngineFacts

BODY = b'{"model": "odd"}'
OPEN = LoadPoint("constant", rate=100.0)
MS = 1_000_000


def scheduled(count: int, every_ms: float = 10, warmup: int = 0) -> list[Ask]:
    return [Ask(n, int(n * every_ms * MS), BODY, None, 5, warmup=n < warmup) for n in range(count)]


def unscheduled(count: int, warmup: int = 0) -> list[Ask]:
    return [Ask(n, None, BODY, None, 5, warmup=n < warmup) for n in range(count)]


async def nothing_told() -> None:
    return None


def run(
    facts: EngineFacts,
    asks: Sequence[Ask],
    load: LoadPoint = OPEN,
    *,
    seconds: float = 60,
    scrape: Callable[[], Awaitable[Mapping[str, float] | None]] = nothing_told,
    on_record: Callable[[Record], None] = lambda record: None,
    alive: Callable[[], str] = lambda: "",
    meanwhile: Callable[[asyncio.Event], Awaitable[Any]] | None = None,
) -> Stage:
    async def stage() -> Stage:
        stop = asyncio.Event()
        beside = asyncio.ensure_future(meanwhile(stop)) if meanwhile else None
        async with open_session() as session:
            done = await running.run_stage(
                session, facts, asks, load, number=3, origin_ns=time.perf_counter_ns(), seconds=seconds, timeouts=Timeouts(), key=None,
                scrape=scrape, on_record=on_record, stop=stop, alive=alive,
            )  # fmt: skip
        if beside:
            await beside
        assert asyncio.all_tasks() == {asyncio.current_task()}, "no task is left behind"
        return done

    return asyncio.run(stage())


def outcomes(stage: Stage) -> list[Outcome]:
    return [record.outcome for record in stage.records]


def test_an_open_loop() -> None:
    kept: list[Record] = []
    with OddEngine(stream(tokens=2)) as engine:
        stage = run(engine.facts(), scheduled(30, warmup=3), on_record=kept.append)
    assert (stage.number, stage.load, stage.ended) == (3, OPEN, "done")
    assert outcomes(stage) == [Outcome.OK] * 30
    assert [record.number for record in stage.records] == list(range(30))
    assert {record.number for record in kept} == set(range(30))
    assert sum(record.warmup for record in stage.records) == 3
    for record in stage.records:
        assert record.scheduled_ns == (at := stage.started_ns + record.number * 10 * MS)
        assert at <= record.sent_ns, "never before it is due"
    assert stage.ended_ns >= max(record.ended_ns for record in stage.records)


def test_an_open_loop_sends_whatever_is_under_way() -> None:
    with OddEngine(lambda seen: stream(first=0.0 if seen.number == 19 else 3600)) as engine:
        stage = run(engine.facts(), scheduled(20), seconds=3)
        assert len(engine.seen) == 20
    assert stage.health.open_at_once == 20
    assert sorted(outcomes(stage)) == [Outcome.CANCELLED] * 19 + [Outcome.OK]


def test_a_closed_loop() -> None:
    with OddEngine(stream(tokens=3, gap=0.002)) as engine:
        stage = run(engine.facts(), unscheduled(25, warmup=5), LoadPoint("closed", concurrency=4))
        assert engine.connections == 4
    assert outcomes(stage) == [Outcome.OK] * 25
    assert stage.health.open_at_once == 4
    assert [record.scheduled_ns for record in stage.records] == [None] * 25
    assert [record.warmup for record in stage.records] == [True] * 5 + [False] * 20
    for at in [record.sent_ns for record in stage.records]:
        assert sum(record.sent_ns <= at < record.ended_ns for record in stage.records) <= 4


def test_a_closed_loop_of_fewer_than_its_concurrency() -> None:
    with OddEngine() as engine:
        assert outcomes(run(engine.facts(), unscheduled(2), LoadPoint("closed", concurrency=50))) == [Outcome.OK] * 2
        assert outcomes(run(engine.facts(), [], LoadPoint("closed", concurrency=50))) == []
        assert outcomes(run(engine.facts(), [])) == []


def test_an_open_loop_does_not_hide_queueing() -> None:
    """Coordinated omission: of an engine that serves one at a time, in 30 ms, a client that waits for its answers sees only those 30 ms."""
    with OddEngine(stream(tokens=1, first=0.03), at_once=1) as engine:
        opened = run(engine.facts(), scheduled(40, every_ms=10))
        closed = run(engine.facts(), unscheduled(40), LoadPoint("closed", concurrency=1))
    waited = [(record.ended_ns - (record.scheduled_ns or 0)) / MS for record in opened.records]
    seen = median((record.ended_ns - record.sent_ns) / MS for record in closed.records)
    assert waited[-1] > 5 * seen
    assert waited[-1] > 39 * 30 - 39 * 10, "at least what was asked beyond what it can"


def test_the_limit_ends_a_stage_with_what_was_seen() -> None:
    with OddEngine(lambda seen: stream(tokens=1) if seen.number % 2 == 0 else Answer([chunk("a "), Do.HANG])) as engine:
        stage = run(engine.facts(), [*scheduled(10), Ask(10, 3600_000 * MS, BODY, None, 5)], seconds=3)
        assert len(engine.seen) == 10, "what isn't due is not sent"
    assert stage.ended == "limit"
    assert sorted(outcomes(stage)) == [Outcome.CANCELLED] * 5 + [Outcome.OK] * 5
    assert all(len(record.events) == 1 for record in stage.records if record.outcome is Outcome.CANCELLED)
    closed = LoadPoint("closed", concurrency=2)
    with OddEngine(Answer([chunk("a "), Do.HANG])) as engine:
        stage = run(engine.facts(), unscheduled(10), closed, seconds=0.5)
    assert (stage.ended, outcomes(stage)) == ("limit", [Outcome.CANCELLED] * 2)


@pytest.mark.parametrize("load", [OPEN, LoadPoint("closed", concurrency=3)])
def test_a_stage_that_is_stopped(load: LoadPoint) -> None:
    async def stop_soon(stop: asyncio.Event) -> None:
        while len(engine.seen) < 3:
            await asyncio.sleep(0.01)
        stop.set()

    asks = scheduled(2000, every_ms=20) if load is OPEN else unscheduled(2000)
    with OddEngine(lambda seen: stream() if seen.number == 0 else Answer([Do.HANG])) as engine:
        stage = run(engine.facts(), asks, load, meanwhile=stop_soon)
    assert stage.ended == "cancelled"
    assert len(stage.records) < 2000
    assert set(outcomes(stage)) == {Outcome.OK, Outcome.CANCELLED}


def test_what_an_engine_leaves_when_it_dies_is_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not ours: it is known to be dead before its connections break."""
    monkeypatch.setattr(running, "LOOK_S", 2.0)
    killed: list[threading.Thread] = []

    def alive() -> str:
        if len(engine.seen) < 5:
            return ""
        killed.append(threading.Thread(target=engine.die))
        killed[-1].start()
        return "exit status 137"

    asks = [*scheduled(5), Ask(5, 3600_000 * MS, BODY, None, 5)]
    with OddEngine(Answer([chunk("a "), Do.HANG])) as engine:
        stage = run(engine.facts(), asks, alive=alive)
        killed[0].join()
    assert outcomes(stage) == [Outcome.CUT_OFF] * 5
    assert stage.ended == "engine died: exit status 137"


def test_an_engine_that_dies_in_the_midst_of_the_schedule() -> None:
    dead = False

    def alive() -> str:
        return "exit status 139" if dead else ""

    async def die(stop: asyncio.Event) -> None:
        nonlocal dead
        while len(engine.seen) < 5:
            await asyncio.sleep(0.01)
        dead = True

    with OddEngine(stream()) as engine:
        stage = run(engine.facts(), scheduled(1000, every_ms=100), meanwhile=die, alive=alive)
    assert stage.ended == "engine died: exit status 139"
    assert 5 <= len(stage.records) < 1000


def test_an_engine_that_nobody_watches_and_that_is_gone() -> None:
    async def die(stop: asyncio.Event) -> None:
        while len(engine.seen) < 5:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(engine.die)

    with OddEngine(stream()) as engine:
        stage = run(engine.facts(), scheduled(1000, every_ms=20), meanwhile=die)
    assert stage.ended.startswith(
        f"engine died: 20 requests in a row didn't reach it, the last with no connection to 127.0.0.1:{engine.port}"
    )
    assert outcomes(stage).count(Outcome.UNREACHABLE) >= 20
    assert len(stage.records) < 1000


@pytest.mark.parametrize(
    ("before", "between", "ended"),
    [
        (19, Outcome.OK, "done"),
        (19, Outcome.TIMED_OUT, "done"),
        (19, Outcome.CANCELLED, "engine died"),
        (20, Outcome.OK, "engine died"),
    ],
)
def test_only_twenty_in_a_row_mean_that_it_is_dead(
    before: int, between: Outcome, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the probe ended itself says nothing of it."""
    script = [Outcome.UNREACHABLE] * before + [between] + [Outcome.UNREACHABLE] * 19

    class Scripted:
        def __init__(self, facts: EngineFacts, ask: Ask, started_ns: int, **how: Any) -> None:
            self.number = ask.number

        async def send(self, session: object) -> Record:
            return replace(record(None, 1), number=self.number, outcome=script[self.number])

        def call_off(self) -> None: ...

    monkeypatch.setattr(running, "Request", Scripted)
    with OddEngine() as engine:
        stage = run(engine.facts(), unscheduled(len(script)), LoadPoint("closed", concurrency=1))
    assert stage.ended.partition(":")[0] == ended


def test_refusals_do_not_end_a_stage() -> None:
    with OddEngine(refuse(429)) as engine:
        stage = run(engine.facts(), scheduled(50, every_ms=1))
    assert (stage.ended, outcomes(stage)) == ("done", [Outcome.REFUSED] * 50)


@pytest.mark.parametrize(
    ("number", "ended"), [(errno.ENOSPC, "disk full"), (errno.EROFS, "records can't be kept: Read-only file system")]
)
def test_a_disk_that_is_full(number: int, ended: str) -> None:
    written: list[Record] = []

    def write(record: Record) -> None:
        if len(written) == 3:
            raise OSError(number, "Read-only file system")
        written.append(record)

    with OddEngine(stream()) as engine:
        stage = run(engine.facts(), unscheduled(1000), LoadPoint("closed", concurrency=1), on_record=write)
    assert stage.ended == ended
    assert len(stage.records) == 4, "the one that couldn't be written is in memory still"


def test_samples() -> None:
    told = iter([{"requests_running": 1.0}, None, {"requests_running": 3.0}])

    async def scrape() -> dict[str, float] | None:
        return next(told, {"requests_running": 9.0})

    with OddEngine(stream(tokens=1, first=2.2)) as engine:
        stage = run(engine.facts(), unscheduled(1), LoadPoint("closed", concurrency=1), scrape=scrape)
    assert [sample.values["requests_running"] for sample in stage.samples[:2]] == [1.0, 3.0]
    assert stage.samples[-1].values["requests_running"] == 9.0
    assert stage.samples[-1].at_ns >= stage.ended_ns, "counters are read once more at the end"
    assert stage.samples[0].at_ns <= stage.records[0].ended_ns


def test_samples_that_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "SCRAPE_S", 0.1)

    async def scrape() -> None:
        await asyncio.sleep(3600)

    with OddEngine(stream()) as engine:
        stage = run(engine.facts(), scheduled(3), scrape=scrape)
    assert (stage.samples, outcomes(stage)) == ([], [Outcome.OK] * 3)


def test_a_thousand_streams_at_once() -> None:
    """None ends before all have begun; each token of each is recorded."""
    with OddEngine(lambda seen: stream(tokens=3, first=0.0 if seen.number == 999 else 2.0)) as engine:
        stage = run(engine.facts(), scheduled(1000, every_ms=0.5))
    assert outcomes(stage) == [Outcome.OK] * 1000
    assert stage.health.open_at_once > 500
    assert all(sum(event.kind in GENERATED for event in record.events) == 3 for record in stage.records)


def test_more_streams_than_a_process_may_open_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Those of the engine, too, which is in this process, and of whatever else is open in it.
    few = len(list(Path("/proc/self/fd").iterdir())) + 200
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with OddEngine(stream(first=2.0)) as engine:
            assert outcomes(run(engine.facts(), scheduled(200, every_ms=1))) == [Outcome.OK] * 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_garbage_is_collected_again_after_a_stage() -> None:
    during: list[bool] = []
    with OddEngine() as engine:
        run(
            engine.facts(),
            unscheduled(1),
            LoadPoint("closed", concurrency=1),
            on_record=lambda record: during.append(gc.isenabled()),
        )
    assert during == [False]
    assert gc.isenabled()


# Moments


def test_no_moment_comes_early_or_is_left_out() -> None:
    moments = [0, 0, 3 * MS, 3 * MS + 1, 20 * MS, 20 * MS, 31 * MS]

    async def come() -> list[tuple[int, int]]:
        origin_ns = time.perf_counter_ns()
        return [(index, time.perf_counter_ns() - origin_ns) async for index in due(moments, origin_ns)]

    came = asyncio.run(come())
    assert [index for index, _ in came] == list(range(7))
    assert all(at >= moments[index] for index, at in came)


def test_who_is_late_finds_the_next_at_once() -> None:
    async def come() -> int:
        count = 0
        async for _ in due([-5, 0, 1], time.perf_counter_ns()):
            time.sleep(0.01)
            count += 1
        return count

    assert asyncio.run(come()) == 3


# The client's own health


def record(scheduled_ms: float | None, sent_ms: float) -> Record:
    at = None if scheduled_ms is None else int(scheduled_ms * MS)
    return Record(0, "", False, at, int(sent_ms * MS), None, int(sent_ms * MS) + 1, (), Outcome.OK, 200, "", "", None, 1, None)


def test_lateness() -> None:
    told = health([record(0, 0.5), record(10, 11.5), record(20, 40), record(None, 99)], [0.001] * 99 + [0.5], 0.25, 7)
    assert (told.late_share, told.most_late_ms, told.cpu_share, told.open_at_once) == (2 / 3, 20.0, 0.25, 7)
    assert (told.lag_p99_ms, told.most_lag_ms) == (1.0, 500.0)
    nothing = health([], [], 0.0, 0)
    assert (nothing.late_share, nothing.most_late_ms, nothing.lag_p99_ms, nothing.most_lag_ms) == (0.0, 0.0, 0.0, 0.0)


@given(st.lists(st.floats(0, 10), min_size=1))
def test_the_99th_percentile_of_lags_is_one_of_them(lags: list[float]) -> None:
    told = health([], lags, 0.0, 0)
    assert sum(lag * 1e3 <= told.lag_p99_ms for lag in lags) >= 0.99 * len(lags)
    assert told.lag_p99_ms / 1e3 in [pytest.approx(lag) for lag in lags]


def test_a_loop_that_is_held_up_is_seen_to() -> None:
    async def hold(stop: asyncio.Event) -> None:
        await asyncio.sleep(0.05)
        time.sleep(0.2)

    with OddEngine(stream(tokens=2, gap=0.4)) as engine:
        stage = run(engine.facts(), unscheduled(1), LoadPoint("closed", concurrency=1), meanwhile=hold)
    assert stage.health.most_lag_ms > 150
