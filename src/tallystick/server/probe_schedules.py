"""Recurring probes: the `probes:` part of the configuration file, run one at a time in a process of their own. Reference: docs/probes.md."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.util import find_spec
from typing import Any, Final, NamedTuple

from apscheduler.events import EVENT_JOB_SUBMITTED
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from tallystick.alerts.database import LedgerError
from tallystick.alerts.lease import Fence, Leases
from tallystick.attribution.config_file import ConfigFileError
from tallystick.ingest.payload import PayloadError
from tallystick.probes.config import ConfigError, load_config
from tallystick.server.alerts import file_stamp
from tallystick.server.probe_outcomes import Last, Remembered, last_of
from tallystick.server.probe_process import Ended, measure
from tallystick.server.probe_times import ProbeSchedule, load_schedules, trigger
from tallystick.settings import Settings

log = logging.getLogger(__name__)

_LEASE: Final = timedelta(minutes=1)
_RENEW_S: Final = 15.0

_NEEDED: Final = ("aiohttp", "numpy")
"""Of the extra `probes`, what the server's own packages don't bring."""


class ScheduleState(StrEnum):
    """Of a schedule. ELSEWHERE: this process runs none."""

    WAITING = "waiting"
    QUEUED = "queued"
    RUNNING = "running"
    ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Told:
    """A schedule as it stands. when: `every 6h`, `0 3 * * * Europe/Berlin`. problem: why its next run would fail."""

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


class AllTold(NamedTuple):
    """problems: what keeps parts of the file out; then the last that could be read hold."""

    schedules: tuple[Told, ...]
    problems: tuple[str, ...]


class CantRun(PayloadError):
    """Nothing was started."""


def no_schedule(name: str, known: Collection[str]) -> CantRun:
    """For a name that none of those has."""
    there = (
        f"There is {', '.join(sorted(known))}." if known else "`probes:` of the configuration file has none, see docs/probes.md."
    )
    return CantRun(404, "no_such_schedule", f"There is no schedule {name[:100]!r}.", there)


class ProbeSchedules:
    """`start` begins to run what is due, one at a time; `stop` ends what runs, with its engines.

    url: where its runs are pushed, None where nobody said. leases: in the alerts' database, so that of several replicas one runs what is due; None:
    nothing is ever run here. holder: this replica's name. command: of a run, before its arguments. look_s: between two looks at the file.
    """

    def __init__(
        self,
        settings: Settings,
        url: str | None,
        leases: Leases | None,
        holder: str = "",
        *,
        command: tuple[str, ...] = (sys.executable, "-m", "tallystick.cli", "probe", "run"),
        look_s: int = 10,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings, self._url, self._leases, self._holder = settings, url, leases, holder
        self._command, self._look_s, self._clock = command, look_s, clock
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._known: Mapping[str, ProbeSchedule] = {}
        self._problems: tuple[str, ...] = ()
        self._seen: object = ()
        self._states: dict[str, ScheduleState] = {}
        self._last = Remembered(settings.data / "probes" / "schedules.json")
        # As alerts' own (alerts/scheduler.py). One thread measures: what is due while another probe runs waits for it.
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(1), "reading": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        self._scheduler.add_listener(self._queued, EVENT_JOB_SUBMITTED)

    def start(self) -> None:
        """What is due from now on is run; nothing is run just because the server starts."""
        self._read()
        every = IntervalTrigger(seconds=self._look_s, timezone=UTC)
        self._scheduler.add_job(self._read, every, id=".read", executor="reading")
        self._scheduler.start()

    def stop(self) -> None:
        """End what runs: what it had measured by then stays in its folder."""
        self._stopping.set()
        self._scheduler.shutdown(wait=True)

    def told(self) -> AllTold:
        """All of them, by name."""
        if self._leases is None:
            self._read()
        with self._lock:
            return AllTold(tuple(self._told(one) for _, one in sorted(self._known.items())), self._problems)

    def run_now(self, name: str) -> Told:
        """Put it in the queue, whatever its time is. Raises CantRun."""
        with self._lock:
            schedule = self._known.get(name)
            if schedule is None:
                raise no_schedule(name, self._known)
            told = self._told(schedule)
            if told.state is ScheduleState.ELSEWHERE:
                raise CantRun(
                    409, "runs_elsewhere", "This process runs no probes.", "Ask `tallystick up`, or run it: tallystick probe run."
                )
            if told.state is not ScheduleState.WAITING:
                raise CantRun(409, "already_running", f"{name} is {told.state} already.", "Nothing was started.")
            self._states[name] = ScheduleState.QUEUED
            self._scheduler.add_job(self._run, args=(name, True), id=f".now {name}")
            return self._told(schedule)

    def _told(self, schedule: ProbeSchedule) -> Told:
        last, job = self._last.get(schedule.name), None
        state = ScheduleState.ELSEWHERE
        if self._leases is not None:
            job = self._scheduler.get_job(schedule.name)
            state = self._states.get(schedule.name, ScheduleState.WAITING)
        return Told(
            schedule.name,
            str(schedule.config),
            schedule.when,
            state,
            getattr(job, "next_run_time", None),
            self._problem(schedule),
            last.began_at if last else None,
            last.ended_at if last else None,
            last.outcome if last else None,
            last.said if last else "",
            list(last.runs) if last else [],
        )

    def _problem(self, schedule: ProbeSchedule) -> str:
        """Why a run of it would fail now; '' if nothing is known."""
        if self._leases is not None and (missing := [name for name in _NEEDED if find_spec(name) is None]):
            return f"{', '.join(missing)} isn't installed here: pip install 'tallystick[probes]'"
        if self._leases is not None and self._url is None:
            return "nobody said where its runs are to be pushed: set TALLYSTICK_URL"
        try:
            load_config(schedule.config)
        except ConfigError as error:
            return str(error)
        except OSError as error:
            return f"{schedule.config}: {error.strerror}"
        return ""

    def _read(self) -> None:
        """The file, where it was changed. One that can't be read changes nothing."""
        file = self._settings.config
        if file is None or (now := file_stamp(file)) == self._seen:
            return
        self._seen = now
        try:
            found = {one.name: one for one in load_schedules(file)}
        except ConfigFileError as error:
            self._problems = error.problems
        except OSError as error:
            self._problems = (f"{file}: {error.strerror}",)
        else:
            self._problems = ()
            self._use(found)
            return
        for problem in self._problems:
            log.error("probes: %s", problem)

    def _use(self, found: Mapping[str, ProbeSchedule]) -> None:
        with self._lock:
            before, self._known = self._known, found
        if self._leases is None or found == before:
            return
        for name in before.keys() - found.keys():
            self._scheduler.remove_job(name)
        for name, schedule in found.items():
            if before.get(name) != schedule:
                self._scheduler.add_job(self._run, trigger(schedule), args=(name,), id=name, replace_existing=True)
                log.info("probe %s: %s", name, schedule.when)

    def _queued(self, event: Any) -> None:
        with self._lock:
            if event.job_id in self._known:
                self._states[event.job_id] = ScheduleState.QUEUED

    def _run(self, name: str, asked: bool = False) -> None:
        """In the one thread that measures. asked: by somebody, not because it is due."""
        schedule = self._known.get(name)
        try:
            if schedule is not None and not self._stopping.is_set() and (asked or self._mine(schedule)):
                self._states[name] = ScheduleState.RUNNING
                log.info("probe %s begins", name)
                began = self._clock()
                done = replace(self._measured(schedule), began_at=began, ended_at=self._clock())
                self._last.put(name, done)
                level = logging.INFO if done.outcome == "done" else logging.ERROR
                log.log(
                    level,
                    "probe %s: %s after %s: %s",
                    name,
                    done.outcome,
                    done.ended_at - began,
                    done.said or ", ".join(done.runs),
                )
        except LedgerError as error:
            now = self._clock()
            self._last.put(name, Last(now, now, "skipped", f"the alerts' database can't be asked whose turn it is: {error}"))
            log.error("probe %s was skipped: %s", name, error)
        finally:
            self._states.pop(name, None)

    def _mine(self, schedule: ProbeSchedule) -> bool:
        """Whether this replica runs what is due now: the others find it taken until shortly before the next time."""
        assert self._leases is not None
        now = self._clock()
        following = trigger(schedule).get_next_fire_time(None, now + timedelta(seconds=1))
        until = (following - now) * 0.9 if following else _LEASE
        return self._leases.acquire(f"probe {schedule.name}", self._holder, until, now) is not None

    def _measured(self, schedule: ProbeSchedule) -> Last:
        now = self._clock()
        if problem := self._problem(schedule):
            return Last(now, now, "failed", problem)
        until = time.monotonic() + schedule.timeout.total_seconds()
        while not self._stopping.is_set() and time.monotonic() < until:
            if fence := self._turn():
                return self._ended(schedule, fence, until - time.monotonic())
            self._stopping.wait(1)
        if self._stopping.is_set():
            return Last(now, now, "stopped", "the server was stopped before it began")
        return Last(now, now, "skipped", f"another probe ran for the {schedule.timeout} that it may take")

    def _turn(self) -> Fence | None:
        """One scheduled probe runs at a time in all replicas; on one machine, `tallystick probe run` itself waits for its turn."""
        assert self._leases is not None
        return self._leases.acquire("probes", self._holder, _LEASE, self._clock())

    def _ended(self, schedule: ProbeSchedule, fence: Fence, timeout_s: float) -> Last:
        assert self._leases is not None
        leases, renewed = self._leases, [time.monotonic()]

        def stopped() -> str:
            if self._stopping.is_set():
                return "stopped"
            if time.monotonic() - renewed[0] < _RENEW_S:
                return ""
            try:
                if not leases.renew(fence, _LEASE, self._clock()):
                    return "another replica took over"
                renewed[0] = time.monotonic()
            except LedgerError:
                if time.monotonic() - renewed[0] > _LEASE.total_seconds():
                    return "the alerts' database was away for too long"
            return ""

        more = {"TALLYSTICK_KEY": self._settings.key} if self._settings.key else {}
        try:
            ended = measure(
                (*self._command, str(schedule.config), "--data", str(self._settings.data), "--url", self._url or "", "--push", "--json"),
                folder=schedule.config.parent, env={**os.environ, **more}, timeout_s=timeout_s, stopped=stopped,
            )  # fmt: skip
        except OSError as error:
            ended = Ended(1, "", "", f"it can't be started: {error.strerror}")
        try:
            leases.release(fence, self._clock())
        except LedgerError as error:
            log.warning("the lease of probes runs out by itself: %s", error)
        return last_of(ended, schedule.timeout)
