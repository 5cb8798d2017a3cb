"""Ended model spans on their way out: a bounded queue and the thread that empties it."""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.sdk.trace import ReadableSpan

from tallystick.collectors.content import Outgoing, outgoing
from tallystick.collectors.failures import contained, logger, report, warn_once
from tallystick.collectors.forks import Importing, at_fork
from tallystick.collectors.losses import Loss, stamp, summary
from tallystick.collectors.settings import Settings

THREAD_NAME: Final = "tallystick-export"

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
"""Between tries to reach a server that is away, doubling."""

EXIT_S: Final = 2.0
"""How long the end of the process is held up at most for what is left to send."""


Completion = Callable[[ReadableSpan], ReadableSpan]


def completed(span: ReadableSpan, completion: Completion | None) -> ReadableSpan:
    """`span` with what `completion` adds, as it is where that fails."""
    if completion is not None:
        with contained("completing a span"):
            return completion(span)
    return span


class Outcome(Enum):
    """What became of a batch, named for what to do with it."""

    STORED = "acknowledged"
    REFUSED = "not acceptable: don't send it again as it is"
    UNENCODABLE = "can't be made into bytes: don't send it again as it is"
    KEEP = "server not reachable or not ready: send it again later"


class Sender(Protocol):
    """What takes a batch to the server; see `Delivery`."""

    rejected: int
    """Spans in acknowledged batches that the server said it rejected (OTLP partial success)."""
    error: str
    """Why the last batch wasn't stored, empty if it was: an HTTP status or the name of an exception, never content."""

    def send(self, batch: Sequence[ReadableSpan]) -> Outcome:
        """Blocks, raises nothing. STORED only once the other side has said so."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Counts:
    """Spans since the start of the process. `waiting` includes those being sent."""

    waiting: int
    exported: int
    lost: Mapping[Loss, int]
    """Never stored, by reason; without zeros."""
    error: str
    """Why the last batch wasn't stored, empty if it was."""

    @property
    def dropped(self) -> int:
        return sum(self.lost.values())


class SpanQueue:
    """Takes spans in nanoseconds, sends them from a thread of its own, and loses none while the server is away.

    The batch processor of the SDK drops a batch after ten seconds without a server; a restart of the server would cost
    calls. Here a batch is kept until it is stored or refused, and the newest spans are dropped, and counted, once the
    queue is full. The thread starts with the first span, so also in a forked child.
    """

    def __init__(
        self,
        settings: Settings,
        connect: Callable[[], Sender],
        prepare: Callable[[ReadableSpan], Outgoing] = outgoing,
    ) -> None:
        self._settings = settings
        self._connect = connect
        self._prepare = prepare
        """Makes of an ended span the one that is sent, in the thread of the queue."""
        self._since_ns = 0
        self._importing = Importing()
        self._reset()
        at_fork(in_child=self._in_child)

    def _in_child(self) -> None:
        self._since_ns = time.time_ns()
        self._reset()

    def _reset(self) -> None:
        # In a forked child: what waits is the parent's to send, its thread and connection aren't here.
        # Reentrant, because a span may be ended by the garbage collector, anywhere.
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[tuple[ReadableSpan, Completion | None]] = deque()
        self._prepared: deque[Outgoing] = deque()
        self._preparing = self._sending = 0
        self._exported = self._failures = 0
        self._lost: Counter[Loss] = Counter()
        self._id = os.urandom(8).hex()
        self._batches = 0
        self._worker: threading.Thread | None = None
        self._sender: Sender | None = None
        self._stopping = False
        self._why_stopped = Loss.SHUTDOWN
        self._flushing = 0

    def put(self, span: ReadableSpan, completion: Completion | None = None) -> None:
        """Never blocks, never raises. completion: writes into the span what else is known of its call, in the thread of the queue."""
        if (span.start_time or 0) < self._since_ns:
            return  # begun before the fork: the parent ends it, too
        with self._changed:
            if self._stopping or self._held() >= self._settings.max_queue:
                self._lost[self._why_stopped if self._stopping else Loss.QUEUE_FULL] += 1
                return
            self._waiting.append((span, completion))
            if self._worker is None:
                self._start()
            elif len(self._waiting) == 1 or len(self._waiting) >= self._settings.max_batch:
                self._changed.notify_all()

    def counts(self) -> Counts:
        with self._changed:
            rejected = self._sender.rejected if self._sender else 0
            return Counts(
                waiting=self._held(),
                exported=self._exported - rejected,
                lost=dict(self._lost + Counter({Loss.REFUSED: rejected})),
                error=self._sender.error if self._sender else "",
            )

    def _held(self) -> int:
        return len(self._waiting) + self._preparing + len(self._prepared) + self._sending

    def flush(self, timeout_s: float) -> bool:
        """Waits until all that was put is stored; False where that failed once or took longer than `timeout_s`."""
        with self._changed:
            if self._worker is None:
                return True
            self._flushing += 1
            self._changed.notify_all()
            failures = self._failures
            try:
                self._changed.wait_for(lambda: not self._held() or self._failures > failures, timeout_s)
            finally:
                self._flushing -= 1
            return not self._held()

    def stop(self, timeout_s: float = EXIT_S) -> None:
        """Sends what is left, for `timeout_s` at most, and takes no more."""
        with self._changed:
            self._stopping = True
            worker = self._worker
            self._changed.notify_all()
        if worker is not None and worker is not threading.current_thread():
            worker.join(timeout_s)
            if worker.is_alive() and self._sender is not None:
                self._sender.close()
        counts = self.counts()
        if lost := summary(counts):
            warn_once("lost", f"{lost} ({self._settings.server})")
        else:
            logger.debug("tallystick: %d model spans were sent to %s, none lost", counts.exported, self._settings.server)

    def _start(self) -> None:
        worker = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        try:
            worker.start()
        except RuntimeError:  # the interpreter is ending
            self._lost[Loss.SHUTDOWN] += len(self._waiting)
            self._waiting.clear()
            return
        self._worker = worker

    def _run(self) -> None:
        with suppress_instrumentation():
            try:
                with self._importing.lock:
                    self._sender = self._connect()
                while batch := self._next_batch():
                    self._deliver(self._sender, batch)
                self._sender.close()
            except Exception as error:
                # Without a thread nothing can be sent: count instead of keeping.
                with self._changed:
                    self._stopping = True
                    self._why_stopped = Loss.NO_SENDER
                    self._lost[Loss.NO_SENDER] += self._held()
                    self._waiting.clear()
                    self._prepared.clear()
                    self._preparing = self._sending = 0
                    self._changed.notify_all()
                report("starting the export of spans", error)

    def _next_batch(self) -> list[Outgoing]:
        """The spans to send next; empty when the queue was stopped and is empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held() or self._stopping)
                self._changed.wait_for(
                    lambda: self._stopping or self._flushing or self._held() >= self._settings.max_batch,
                    self._settings.delay_s,
                )
                if not self._held():
                    return []
            self._prepare_waiting(self._settings.max_batch)
            with self._changed:
                batch = [self._prepared.popleft() for _ in range(min(len(self._prepared), self._settings.max_batch))]
                self._sending = len(batch)
                counts = self.counts()
            if batch:
                self._batches += 1
                stamp(batch, self._id, self._batches, counts)
                return batch

    def _prepare_waiting(self, most: int) -> None:
        """Until `most` spans are prepared. What else is on an ended span, prompts perhaps, isn't held any longer."""
        with self._changed:
            ended = [self._waiting.popleft() for _ in range(min(len(self._waiting), most - len(self._prepared)))]
            self._preparing = len(ended)
        prepared: list[Outgoing] = []
        for span, completion in ended:
            with contained("preparing a span"), self._importing.lock:
                prepared.append(self._prepare(completed(span, completion)))
        with self._changed:
            self._prepared.extend(prepared)
            self._preparing = 0
            if len(prepared) < len(ended):
                self._lost[Loss.ENCODING] += len(ended) - len(prepared)
                self._changed.notify_all()

    def _deliver(self, sender: Sender, batch: Sequence[Outgoing]) -> None:
        """Until each span of `batch` is stored or dropped."""
        pause = FIRST_PAUSE_S
        while (outcome := sender.send(batch)) is Outcome.KEEP:
            with self._changed:
                self._failures += 1
                self._changed.notify_all()
                if self._stopping:
                    self._lost[Loss.SHUTDOWN] += len(batch)
                    self._sending -= len(batch)
                    return
            warn_once(
                "unreachable",
                f"spans can't be sent to {self._settings.server} ({sender.error}); up to {self._settings.max_queue} are kept",
            )
            self._prepare_waiting(self._settings.max_queue)
            with self._changed:
                flushing = self._flushing
                self._changed.wait_for(lambda f=flushing: self._stopping or self._flushing > f, pause)  # type: ignore[misc]
            pause = min(pause * 2, LONGEST_PAUSE_S)
        if outcome is not Outcome.STORED and len(batch) > 1:
            # One bad span must not take the others with it.
            self._deliver(sender, batch[: len(batch) // 2])
            self._deliver(sender, batch[len(batch) // 2 :])
            return
        with self._changed:
            self._sending -= len(batch)
            if outcome is Outcome.STORED:
                self._exported += len(batch)
            elif outcome is Outcome.REFUSED:
                self._lost[Loss.REFUSED] += len(batch)
                warn_once("refused", f"a span was refused by {self._settings.server} ({sender.error}) and dropped")
            else:
                self._lost[Loss.ENCODING] += len(batch)
                warn_once("encoding", f"a span couldn't be encoded ({sender.error}) and was dropped")
            self._changed.notify_all()
