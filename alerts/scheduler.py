"""When evaluations run: APScheduler as a shell around one function, and what can be said of how it fares."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from tallystick.alerts.database import LedgerError
from tallystick.alerts.outbox import Outbox
from tallystick.alerts.tick import Evaluator, Ticked

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pace:
    """How evaluations fare in this process. lag: how much later than asked the last one began. failing_since: None if the last one succeeded."""

    every: timedelta
    last: Ticked | None
    lag: timedelta | None
    failures: int
    failing_since: datetime | None
    last_error: str | None
    leading: bool


class Scheduler:
    """Evaluates every `every`, one evaluation at a time, and wakes the outbox when something was said.

    outbox: the one in use, which `refresh` may change; refresh is called before each evaluation.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        outbox: Callable[[], Outbox],
        every: timedelta,
        *,
        refresh: Callable[[], object] = lambda: None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self._evaluator, self._outbox, self._every, self._refresh = evaluator, outbox, every, refresh
        self._clock = clock or (lambda: datetime.now(UTC))
        self._turn = threading.Lock()
        self._pace = Pace(every, None, None, 0, None, None, leading=False)
        # Jobs live in memory: a store that two schedulers share has each of them run half of the jobs twice. A run that is late isn't dropped.
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )

    @property
    def pace(self) -> Pace:
        return self._pace

    def start(self) -> None:
        """The first evaluation is at once."""
        seconds = self._every.total_seconds()
        trigger = IntervalTrigger(seconds=seconds, timezone=UTC)  # pyright: ignore[reportArgumentType], parts of one are taken, too
        self._scheduler.add_job(self._run, trigger, next_run_time=datetime.now(UTC))
        self._scheduler.start()

    def stop(self) -> None:
        """Finish the evaluation under way, and let another replica take over."""
        self._scheduler.shutdown(wait=True)
        with self._turn:
            try:
                self._evaluator.release(self._clock())
            except LedgerError as error:
                log.warning("the lease of alerts runs out by itself: %s", error)

    def evaluate(self) -> Ticked | None:
        """Now, whoever asks. None: another replica evaluates. Raises what an evaluation raises."""
        with self._turn:
            self._refresh()
            done = self._evaluator.tick(self._clock())
        if done is not None and done.said:
            self._outbox().wake()
        return done

    def _run(self) -> None:
        began = time.monotonic()
        due = self._pace.last.at + self._every if self._pace.last else None
        pace = self._pace
        try:
            done = self.evaluate()
        except Exception as error:
            # One that fails is tried again at the next turn; the log is told once of each kind.
            told = f"{type(error).__name__}: {error}" if isinstance(error, LedgerError) else type(error).__name__
            if told != pace.last_error:
                log.exception("alerts can't be evaluated")
            since = pace.failing_since or self._clock()
            self._pace = Pace(self._every, pace.last, pace.lag, pace.failures + 1, since, told, leading=pace.leading)
            return
        if pace.failing_since is not None:
            log.info("alerts are evaluated again, after %d failures", pace.failures)
        lag = max(timedelta(0), done.at - due) if done is not None and due is not None else timedelta(0)
        self._pace = Pace(self._every, done or pace.last, lag, 0, None, None, leading=done is not None)
        if (took := time.monotonic() - began) > self._every.total_seconds():
            log.warning("an evaluation of alerts took %.1f s, longer than the %s between two", took, self._every)
