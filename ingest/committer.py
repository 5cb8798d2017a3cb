"""Group commit: requests that arrive together are entered together, and answered once that is on disk."""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final, Protocol

from tallystick.ingest.errors import PoisonBatch, StoreError, StoreUnavailable
from tallystick.ingest.payload import Limits, Payload, check_frame
from tallystick.ingest.writer import Item, Outcome, Written

log = logging.getLogger(__name__)

_GATHER_S: Final = 0.02
"""A batch is closed when no request has come for so long …"""

_GATHER_MANY_S: Final = 0.12
"""… for so long, when the last batch was of many requests: it takes a while to read as many again …"""

_MANY: Final = 16

_GATHER_MOST_S: Final = 0.3
"""… or so long after its first. Senders that were answered together send again together."""

_SHARE: Final = 0.2
"""The share of time that small batches may take in the long run: a trickle of spans mustn't cost a core."""

_CREDIT_S: Final = 60.0
"""How much of it may be saved up, so that a burst of requests, one after another, isn't held back."""

_BATCH_BYTES: Final = 72 << 20
"""A batch is closed at so many bytes, whatever its spans: it is held several times over while it is entered."""

_EAGER_SPANS: Final = 500
"""With so many spans waiting nothing is gained by waiting longer."""


class Full(StoreUnavailable):
    """More is waiting than the queue may hold: try again in a second."""


class BatchWriter(Protocol):
    """What enters a batch."""

    def write(self, items: Sequence[Item]) -> Written: ...


@dataclass
class Tally:
    """What became of all spans since the start. dropped: reason → spans that are no entries of their own; rejected: reason → unusable spans."""

    received: int = 0
    entered: int = 0
    voided: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    last_failure: str = ""


class Counting(Protocol):
    """What tells what became of spans: a committer, or what is in its place."""

    @property
    def tally(self) -> Tally: ...
    @property
    def waiting(self) -> tuple[int, int]: ...


class Committer:
    """A bounded queue and the one thread that writes.

    window_s: the longest time a request waits to be entered together with others. max_spans: spans at which a batch is closed.
    max_bytes: payload bytes that may wait; beyond it `submit` raises Full.
    """

    def __init__(
        self, writer: Callable[[], BatchWriter], *, window_s: float = 1.0, max_spans: int = 80_000, max_bytes: int = 128 << 20
    ) -> None:
        self._make_writer = writer
        self._window_s, self._max_spans, self._max_bytes = window_s, max_spans, max_bytes
        self._queue: deque[tuple[Item, Future[Outcome]]] = deque()
        self._spans = self._bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self.tally = Tally()
        self._started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name="tallystick-writer", daemon=True)

    def start(self) -> None:
        """Raises what the writer raises when it is made."""
        self._thread.start()
        self._started.result()

    @staticmethod
    def check(data: bytes, limits: Limits) -> Payload:
        """The frame alone: a request is answered once the engine has read its spans."""
        return check_frame(data, limits)

    def submit(self, item: Item) -> "Future[Outcome]":
        """The outcome comes once the item is on disk; StoreUnavailable if it can't be now, PoisonBatch if it never can. Raises Full."""
        with self._changed:
            if self._closing or self._bytes + len(item.data) > self._max_bytes:
                raise Full("shutting down" if self._closing else f"{self._bytes >> 20} MiB are waiting to be stored")
            future: Future[Outcome] = Future()
            self._queue.append((item, future))
            self._spans += item.spans
            self._bytes += len(item.data)
            self._changed.notify()
        return future

    @property
    def waiting(self) -> tuple[int, int]:
        """Spans and bytes in the queue."""
        with self._changed:
            return self._spans, self._bytes

    def close(self) -> None:
        """Enter what is waiting, then stop. Further requests are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        try:
            writer = self._make_writer()
        except BaseException as error:
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        credit_s, ended, requests = _CREDIT_S, time.monotonic(), 0
        while True:
            batch = self._next(0.0 if credit_s > 0 else self._window_s, _GATHER_S if requests < _MANY else _GATHER_MANY_S)
            if not batch:
                return
            began = time.monotonic()
            self._commit(writer, batch)
            credit_s = min(_CREDIT_S, credit_s + _SHARE * (time.monotonic() - ended)) - (time.monotonic() - began)
            ended, requests = time.monotonic(), len(batch)

    def _next(self, rest_s: float, gather_s: float) -> list[tuple[Item, Future[Outcome]]]:
        """The next batch, once it is full enough or has waited; empty when closing and nothing is left."""
        earliest = time.monotonic() + rest_s
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            close_at = time.monotonic() + _GATHER_MOST_S
            while not self._closing and self._spans < self._max_spans:
                wait_s = earliest - time.monotonic() if self._spans < _EAGER_SPANS else 0.0
                wait_s = max(wait_s, min(gather_s, close_at - time.monotonic()))
                waiting = len(self._queue)
                if wait_s <= 0 or (
                    not self._changed.wait(wait_s) and len(self._queue) == waiting and time.monotonic() >= earliest
                ):
                    break
            batch: list[tuple[Item, Future[Outcome]]] = []
            spans = size = 0
            while self._queue:
                item, future = self._queue[0]
                if batch and (spans + item.spans > self._max_spans or size + len(item.data) > _BATCH_BYTES):
                    break
                self._queue.popleft()
                batch.append((item, future))
                spans += item.spans
                size += len(item.data)
            self._spans -= spans
            self._bytes -= size
        return batch

    def _commit(self, writer: BatchWriter, batch: Sequence[tuple[Item, Future[Outcome]]]) -> None:
        try:
            written = writer.write([item for item, _ in batch])
        except PoisonBatch as error:
            if len(batch) == 1:
                log.warning("a request of %d spans can't be read by the engine and is rejected: %s", batch[0][0].spans, error)
                self._fail(batch, error)
                return
            # One bad payload spoils a batch: halve until it is alone.
            middle = len(batch) // 2
            self._commit(writer, batch[:middle])
            self._commit(writer, batch[middle:])
            return
        except StoreError as error:
            log.error("%d requests can't be stored and are handed back: %s", len(batch), error)
            self._fail(batch, error)
            return
        except Exception as error:
            log.exception("%d requests can't be stored and are handed back", len(batch))
            self._fail(batch, StoreUnavailable(str(error)[:200]))
            return
        self._count([item for item, _ in batch], written)
        for (_, future), outcome in zip(batch, written.outcomes, strict=True):
            future.set_result(outcome)

    def _fail(self, batch: Sequence[tuple[Item, Future[Outcome]]], error: StoreError) -> None:
        self.tally.failures += 1
        self.tally.last_failure = type(error).__name__
        for _, future in batch:
            future.set_exception(error)

    def _count(self, items: Sequence[Item], written: Written) -> None:
        tally = self.tally
        spans = sum(item.spans for item in items)
        rejected = Counter[str]()
        for outcome in written.outcomes:
            rejected.update(outcome.rejected)
        calls = sum(outcome.calls for outcome in written.outcomes)
        tally.received += spans
        tally.entered += written.entered
        tally.voided += written.voided
        tally.rejected += rejected
        tally.dropped += Counter({"no model call": spans - calls - rejected.total(), "told already": written.doubled})
