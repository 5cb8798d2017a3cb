"""A probe, run: each of its engines is found or started, asked, measured and kept. What fails ends its run, and the others go on."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from tallystick.probes.client.request import open_session, send
from tallystick.probes.client.running import run_stage
from tallystick.probes.config import EngineEntry, ProbeConfig
from tallystick.probes.engines.bodies import Prompt, body
from tallystick.probes.engines.machine import machine
from tallystick.probes.engines.metrics import scrape
from tallystick.probes.engines.preflight import PreflightFailed, preflight
from tallystick.probes.engines.starting import Started, StartFailed, started
from tallystick.probes.engines.tokens import TokeniserError, tokeniser
from tallystick.probes.figures.summary import StageSummary, summarise
from tallystick.probes.load.prompts import Prompts, asks
from tallystick.probes.load.traffic_mix import Call
from tallystick.probes.loading import FOLDER
from tallystick.probes.money.power import PowerMeter
from tallystick.probes.records import Ask, LoadPoint, Outcome, Record
from tallystick.probes.run_folder import CantKeep, RunFolder, run_id
from tallystick.probes.runs import EngineFacts, RunInfo, State
from tallystick.probing.load_points import LoadPoints
from tallystick.probing.turns import Stopped, machine_of, machine_turn

_MODELS: Final = "models"
"""Of the data directory: generated ones are made once."""


class Watcher(Protocol):
    """Is told how a probe goes on, in the thread that measures: what it does must take microseconds while a stage runs."""

    def waits(self, entry: EngineEntry) -> None:
        """Another process measures on its machine."""

    def began(self, info: RunInfo) -> None: ...

    def found(self, info: RunInfo) -> None:
        """Its engine answers."""

    def stage(self, info: RunInfo, number: int, load: LoadPoint, requests: int) -> None: ...

    def answered(self, info: RunInfo, record: Record) -> None: ...

    def staged(self, info: RunInfo, summary: StageSummary) -> None: ...

    def ended(self, info: RunInfo) -> None: ...


@dataclass(frozen=True)
class Probe:
    """What is to be run. calls: of the trace or feature that the workload names. data: the directory whose folder of probes takes the runs."""

    config: ProbeConfig
    data: Path
    calls: Sequence[Call] | None = None

    def folder(self, run: str) -> Path:
        return self.data / FOLDER / run


async def run_probe(probe: Probe, watcher: Watcher, stop: asyncio.Event) -> list[RunInfo]:
    """Every engine's run, in the order of the file. stop: ends what runs as cancelled, and starts nothing more.

    One after the other, or with `at_once` all together. Raises OSError where not even a run's folder can be made.
    """
    entries = probe.config.engines
    if probe.config.at_once:
        return list(await asyncio.gather(*(_measured(probe, entry, watcher, stop) for entry in entries)))
    runs = []
    for entry in entries:
        if stop.is_set():
            break
        try:
            async with machine_turn(machine_of(entry), stop, partial(watcher.waits, entry)):
                runs.append(await _measured(probe, entry, watcher, stop))
        except Stopped:
            break
    return runs


async def _measured(probe: Probe, entry: EngineEntry, watcher: Watcher, stop: asyncio.Event) -> RunInfo:
    now = time.time_ns()
    info = RunInfo(
        run_id(entry.name, now), probe.config.name, entry.name, State.RUNNING, now, None, None,
        probe.config.model_dump(mode="json"), await asyncio.to_thread(machine),
    )  # fmt: skip
    with RunFolder(probe.folder(info.id), info) as folder:
        run = _Run(probe, entry, folder, info, watcher=watcher, stop=stop)
        watcher.began(info)
        try:
            state, failure = await run.measure()
        except (PreflightFailed, StartFailed) as error:
            state, failure = State.FAILED, f"{error.message}; {error.hint}" if error.hint else error.message
        except (TokeniserError, ValueError) as error:
            state, failure = State.FAILED, str(error)
        except CantKeep as error:
            state, failure = (
                State.FAILED,
                f"{error.strerror}; free some space, and run it again: what was written before is whole",
            )
        info = replace(run.info, state=state, failure=failure, ended_ns=time.time_ns())
        # Else the folder still says that it runs; this process knows better, and says so.
        with suppress(CantKeep):
            folder.tell(info)
    watcher.ended(info)
    return info


class _Run:
    """One engine, measured into its folder."""

    def __init__(
        self, probe: Probe, entry: EngineEntry, folder: RunFolder, info: RunInfo, *, watcher: Watcher, stop: asyncio.Event
    ) -> None:
        self._probe, self._entry, self._folder, self._watcher, self._stop = probe, entry, folder, watcher, stop
        self.info = info
        self._origin_ns = time.perf_counter_ns()
        self._key = _key(entry)
        self._summaries: list[StageSummary] = []

    async def measure(self) -> tuple[State, str]:
        """How it ended, and why, '' where it ended well."""
        config = self._probe.config
        async with AsyncExitStack() as stack:
            url, engine, entry = self._entry.url, None, self._entry
            if url is None:
                engine = await stack.enter_async_context(self._started())
                url, entry = engine.url, entry.model_copy(update={"model": engine.model})
            session = await stack.enter_async_context(open_session())
            facts = await preflight(session, entry, url, config.timeouts, self._key)
            if engine is not None:
                facts = replace(facts, version=facts.version or engine.version)
            self._tell(facts)
            self._watcher.found(self.info)
            meter = PowerMeter().start()
            try:
                ended = await self._stages(session, facts, engine)
            finally:
                energy = await asyncio.to_thread(meter.stop)
                if energy is not None:
                    self.info = replace(self.info, machine={**self.info.machine, "watts": energy.watts})
        return self._verdict(ended)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[Started]:
        """In threads: it blocks until the engine answers, and until it has ended."""
        log = self._folder.folder / "engine.log"
        manager = started(
            self._entry,
            log,
            self._probe.config.timeouts.start,
            models=self._probe.data / _MODELS,
            stop=self._stop.is_set,
        )
        engine = await asyncio.to_thread(manager.__enter__)
        try:
            yield engine
        finally:
            await asyncio.to_thread(manager.__exit__, None, None, None)

    async def _stages(self, session: aiohttp.ClientSession, facts: EngineFacts, engine: Started | None) -> str:
        """Why the last one ended."""
        config = self._probe.config
        prompts = Prompts(facts, config.load.seed, self.info.id)
        await prompts.prepare(await tokeniser(session, facts, self._key), partial(self._used, session, facts))
        self._tell(facts, prompts.notes)
        points = LoadPoints(config.load, config.target)
        ended = "done"
        while (point := points.next()) is not None and ended in ("done", "limit"):
            number = points.number
            asked = await asks(
                prompts, config.workload, config.load, point, stage=number, calls=self._probe.calls, extra=self._entry.request
            )
            self._tell(facts, asked.notes)
            self._watcher.stage(self.info, number, point, len(asked.asks))
            stage = await run_stage(
                session, facts, asked.asks, point,
                number=number, origin_ns=self._origin_ns, seconds=config.load.seconds, timeouts=config.timeouts, key=self._key,
                scrape=partial(scrape, session, facts, self._key), on_record=partial(self._record, number), stop=self._stop,
                alive=engine.died if engine else _lives,
            )  # fmt: skip
            self._folder.stage(stage)
            summary = summarise(stage, config.target)
            self._summaries.append(summary)
            points.reached(summary)
            self._watcher.staged(self.info, summary)
            ended = stage.ended
        return ended

    def _record(self, stage: int, record: Record) -> None:
        self._folder.record(stage, record)
        self._watcher.answered(self.info, record)

    async def _used(self, session: aiohttp.ClientSession, facts: EngineFacts, prompt: Prompt) -> int | None:
        """Tokens that the engine counts in a prompt."""
        content = body(facts, prompt, 1, self._entry.request)
        ask = Ask(0, None, content, None, 1)
        record = await send(session, facts, ask, self._origin_ns, timeouts=self._probe.config.timeouts, key=self._key)
        return record.usage.prompt_tokens if record.outcome is Outcome.OK and record.usage else None

    def _tell(self, facts: EngineFacts, notes: Sequence[str] = ()) -> None:
        known = self.info.engine.notes if self.info.engine else facts.notes
        self.info = replace(self.info, engine=replace(facts, notes=tuple(dict.fromkeys((*known, *notes)))))
        self._folder.tell(self.info)

    def _verdict(self, ended: str) -> tuple[State, str]:
        if ended == "cancelled" or self._stop.is_set():
            return State.CANCELLED, "stopped before its end; what was measured is kept"
        if ended not in ("done", "limit"):
            return State.FAILED, f"{ended}; what was measured before is kept"
        if not any(one.valid for one in self._summaries):
            return State.INVALID, f"no stage can be trusted: {_doubts(self._summaries)}; `tallystick probe show` has the figures"
        return State.DONE, ""


def _doubts(summaries: Sequence[StageSummary]) -> str:
    """`the client lagged (6 stages), no request was measured (1 stage)`: reasons by how they begin."""
    stages = Counter(reason.partition(":")[0] for one in summaries for reason in one.reasons)
    return ", ".join(f"{reason} ({number} {'stage' if number == 1 else 'stages'})" for reason, number in stages.most_common())


def _key(entry: EngineEntry, environ: Mapping[str, str] = os.environ) -> str | None:
    if entry.key_env is None:
        return None
    if not environ.get(entry.key_env):
        raise ValueError(f"the environment has no {entry.key_env}, which is to hold the API key of {entry.name}")
    return environ[entry.key_env]


def _lives() -> str:
    """Of an engine that runs elsewhere, only requests tell."""
    return ""
