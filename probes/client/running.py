"""One stage: its requests sent as their load says, and everything that happened meanwhile.

Open loop: each request goes out when it is due, whatever is under way, so that an engine which falls behind is seen to. Closed loop: so many
at once, the next when one ends. A stage ends when all is answered, or at its limit: what is under way then is CANCELLED, since an end that
waited for it would last as long as the slowest request.
"""

import asyncio
import errno
import gc
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import aiohttp

from tallystick.probes.client.health import Ticker
from tallystick.probes.client.pacing import due
from tallystick.probes.client.request import Request
from tallystick.probes.config import Timeouts
from tallystick.probes.records import Ask, LoadPoint, Outcome, Record, Sample, Stage
from tallystick.probes.runs import EngineFacts

UNREACHED_IN_A_ROW: Final = 20
"""After which the engine counts as dead."""
LOOK_S: Final = 0.25
SAMPLE_S: Final = 1.0
SCRAPE_S: Final = 5.0


async def run_stage(
    session: aiohttp.ClientSession,
    facts: EngineFacts,
    asks: Sequence[Ask],
    load: LoadPoint,
    *,
    number: int,
    origin_ns: int,
    seconds: float,
    timeouts: Timeouts,
    key: str | None,
    scrape: Callable[[], Awaitable[Mapping[str, float] | None]],
    on_record: Callable[[Record], None],
    stop: asyncio.Event,
    alive: Callable[[], str],
) -> Stage:
    """Send all `asks`, and keep what came of them. origin_ns: time.perf_counter_ns() at the start of the run.

    Those that warm up are the first of the schedule, or of the queue: what is measured finds the engine under its load. on_record: called with
    each record when its request has ended; an OSError of it ends the stage. stop: ends it as `cancelled`. alive: '' as long as the engine
    lives, then what happened to it. The records are in the order of the asks.
    """
    sending = _Sending(session, facts, origin_ns=origin_ns, timeouts=timeouts, key=key, on_record=on_record)
    samples: list[Sample] = []
    with _uncollected():
        ticker = Ticker()
        started_ns = sending.now()
        watching = asyncio.create_task(_watch(sending, stop, alive))
        sampling = asyncio.create_task(_sample_each_second(scrape, samples, origin_ns))
        try:
            if load.concurrency is None:
                await sending.within(seconds, sending.open(asks, started_ns))
            else:
                await sending.within(seconds, sending.closed(asks, load.concurrency))
            ended_ns = sending.now()
        finally:
            watching.cancel()
            sampling.cancel()
            health = ticker.stop(sending.records, sending.most_open)
    await _sample(scrape, samples, origin_ns)
    return Stage(
        number=number,
        load=load,
        started_ns=started_ns,
        ended_ns=ended_ns,
        records=sorted(sending.records, key=lambda record: record.number),
        samples=samples,
        health=health,
        ended=sending.ended or "done",
    )


class _Sending:
    """ended: why the stage ends before its end, '' as long as it doesn't. most_open: requests under way at once."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        facts: EngineFacts,
        *,
        origin_ns: int,
        timeouts: Timeouts,
        key: str | None,
        on_record: Callable[[Record], None],
    ) -> None:
        self._session = session
        self._facts = facts
        self._origin_ns = origin_ns
        self._timeouts = timeouts
        self._key = key
        self._on_record = on_record
        self._under_way: set[Request] = set()
        self._schedule: asyncio.Task[None] | None = None
        self._unreached = 0
        self.records: list[Record] = []
        self.most_open = 0
        self.ended = ""

    def now(self) -> int:
        return time.perf_counter_ns() - self._origin_ns

    def end(self, why: str) -> None:
        """Send no more, and call off what is under way."""
        if self.ended:
            return
        self.ended = why
        if self._schedule:
            self._schedule.cancel()
        for request in self._under_way:
            request.call_off()

    async def within(self, seconds: float, work: Awaitable[None]) -> None:
        limit = asyncio.get_running_loop().call_later(seconds, self.end, "limit")
        try:
            await work
        finally:
            limit.cancel()

    async def open(self, asks: Sequence[Ask], started_ns: int) -> None:
        """Each when it is due; one without a time is due at once."""
        moments = [started_ns + (ask.at_ns or 0) for ask in asks]

        async def schedule(group: asyncio.TaskGroup) -> None:
            async for index in due(moments, self._origin_ns):
                group.create_task(self._one(asks[index], moments[index]))

        async with asyncio.TaskGroup() as group:
            if not self.ended:
                self._schedule = group.create_task(schedule(group))

    async def closed(self, asks: Sequence[Ask], concurrency: int) -> None:
        """`concurrency` at once, the next when one ends."""
        waiting = iter(asks)

        async def one_after_the_other() -> None:
            for ask in waiting:
                if self.ended:
                    return
                await self._one(ask, None)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(asks))):
                group.create_task(one_after_the_other())

    async def _one(self, ask: Ask, scheduled_ns: int | None) -> None:
        request = Request(self._facts, ask, self._origin_ns, timeouts=self._timeouts, key=self._key, scheduled_ns=scheduled_ns)
        self._under_way.add(request)
        self.most_open = max(self.most_open, len(self._under_way))
        if self.ended:
            request.call_off()
        try:
            record = await request.send(self._session)
        finally:
            self._under_way.discard(request)
        self.records.append(record)
        try:
            self._on_record(record)
        except OSError as error:
            self.end("disk full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"records can't be kept: {error.strerror}")
        if record.outcome is Outcome.UNREACHABLE:
            self._unreached += 1
            if self._unreached == UNREACHED_IN_A_ROW:
                self.end(f"engine died: {UNREACHED_IN_A_ROW} requests in a row didn't reach it, the last with {record.error}")
        elif record.outcome is not Outcome.CANCELLED:
            self._unreached = 0


async def _watch(sending: _Sending, stop: asyncio.Event, alive: Callable[[], str]) -> None:
    while not (died := alive()):
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await stop.wait()
            sending.end("cancelled")
            return
    # What was under way breaks by itself, as failures of the engine; called off at once, it would count as ours.
    await asyncio.sleep(LOOK_S)
    sending.end(f"engine died: {died}")


async def _sample_each_second(
    scrape: Callable[[], Awaitable[Mapping[str, float] | None]], samples: list[Sample], origin_ns: int
) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while True:
        await _sample(scrape, samples, origin_ns)
        await asyncio.sleep(SAMPLE_S - (loop.time() - began) % SAMPLE_S)


async def _sample(scrape: Callable[[], Awaitable[Mapping[str, float] | None]], samples: list[Sample], origin_ns: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(SCRAPE_S):
            values = await scrape()
        if values is not None:
            samples.append(Sample(time.perf_counter_ns() - origin_ns, values))


@contextmanager
def _uncollected() -> Iterator[None]:
    """No search for cyclic garbage meanwhile: with 500,000 events kept it stops all streams for 70 ms, and requests leave next to none."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
