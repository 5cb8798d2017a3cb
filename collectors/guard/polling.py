"""The thread that asks the server how budgets stand."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from tallystick.collectors.failures import report, warn_once
from tallystick.collectors.forks import Importing, at_fork
from tallystick.collectors.guard.budgets import Budgets, NoAnswer, read

THREAD_NAME: Final = "tallystick-guard"

LAG_S: Final = 10.0
"""How long a call takes to be stored, where it isn't this process that exports it."""

DELIVERY_S: Final = 2.0
"""How long to wait, before the server is asked, for spans to be stored that have ended: they should be in its answer."""

MARGIN_S: Final = 0.25
"""Between the moments at which a call is settled and its span is in the queue."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Of `GET /v1/guard`."""

    status: int
    body: bytes
    etag: str
    age_s: float
    """For how long it has stood."""


Fetch = Callable[[str], Answer]
"""Asks the server, given the ETag of what is known. Raises what its transport raises."""


class Queue(Protocol):
    """Where ended calls wait to be stored."""

    def put_and_done(self) -> tuple[int, int] | None:
        """How many were put in ever, and how many of these are no longer there; None where nothing is exported."""


class Poller:
    """Asks every `every_s` seconds, once somebody waits for what is heard. Never blocks or raises into a call."""

    def __init__(self, budgets: Budgets, connect: Callable[[], Fetch], queue: Queue, every_s: float) -> None:
        """connect: called in the thread, where what it imports costs no call."""
        self._budgets, self._connect, self._queue, self._every_s = budgets, connect, queue, every_s
        # Of its own: an application that seeds the common one counts on what comes from it.
        self._random = random.Random()  # noqa: S311
        self._importing = Importing()
        self._reset()
        at_fork(in_child=self._reset)

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._first = threading.Event()
        self._etag = ""
        self._known_until = 0.0
        self.since: float | None = None
        """When the thread was started, or last heard of the server."""
        self.trouble = ""
        """Why it didn't, '' if it did: an HTTP status or the name of an exception."""

    def start(self) -> None:
        """Once in a process; a forked child has a thread of its own."""
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self.since = time.time()
                thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the interpreter is ending
                    return
                self._thread = thread

    def wait(self, timeout_s: float) -> bool:
        """For the first answer, or the first failure to get one; whether it came."""
        return self._first.wait(timeout_s)

    def stale_s(self, now: float) -> float:
        """For how long nothing was heard."""
        return now - self.since if self.since is not None else 0.0

    def _run(self) -> None:
        from opentelemetry.instrumentation.utils import suppress_instrumentation

        with suppress_instrumentation():
            try:
                with self._importing.lock:
                    fetch = self._connect()
                self._ask(fetch)
                self._first.set()
                while True:
                    # Not all processes at one moment.
                    time.sleep(self._every_s * self._random.uniform(0.9, 1.1))
                    self._ask(fetch)
            except Exception as error:
                self.trouble = type(error).__name__
                self._first.set()
                report("asking the server for budgets", error)

    def _ask(self, fetch: Fetch) -> None:
        until = self._stored_until()
        begun = time.time()
        try:
            answer = fetch(self._etag)
            self._take(answer, min(until, begun - answer.age_s))
        except Exception as error:
            self.trouble = str(error) if isinstance(error, NoAnswer) else type(error).__name__
        else:
            self.trouble = "" if answer.status in (200, 304) else f"HTTP {answer.status}"
        if self.trouble:
            warn_once("guard unreachable", f"budgets can't be asked of the server ({self.trouble}); guards go by what is known")
        else:
            self.since = begun

    def _take(self, answer: Answer, until: float) -> None:
        if answer.status == 200:
            self._budgets.hear(read(answer.body), until)
            self._etag = answer.etag
        elif answer.status == 304:
            self._budgets.hear(None, until)

    def _stored_until(self) -> float:
        """Calls that ended before have been stored, as far as they ever will be."""
        counts = self._queue.put_and_done()
        if counts is None:
            return time.time() - LAG_S
        now, (put, _) = time.time(), counts
        while time.time() < now + DELIVERY_S:
            counts = self._queue.put_and_done()
            if counts is None or counts[1] >= put:
                self._known_until = now - MARGIN_S
                break
            time.sleep(0.05)
        return self._known_until
