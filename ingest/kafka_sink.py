"""Payloads to Kafka: acknowledged once the brokers in sync have them, or once they are on disk while no broker takes them.

Nothing overtakes what was spooled: from the first failure on everything goes through the spool, until that is empty again.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final, NoReturn

from tallystick.ingest.committer import Full
from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.flight import Flight, NoBroker, connect, is_refusal, said
from tallystick.ingest.message_cuts import Piece, cut
from tallystick.ingest.payload import Limits, Payload, check_protobuf
from tallystick.ingest.spool import Message, Spool
from tallystick.ingest.writer import Item, Outcome
from tallystick.schema.kafka import MAX_REQUEST, Brokers, received_headers

log = logging.getLogger(__name__)

PATIENCE_S: Final = 3.0
"""For a message to be acknowledged before it is spooled: exporters give up after ten seconds."""

DRAIN_PATIENCE_S: Final = 30.0
"""The same for what is on disk already."""

_DRAIN_BYTES: Final = 8 << 20
"""Of spooled messages under way at once."""

_READ_BYTES: Final = 1 << 20

_SPOOL_BYTES: Final = 16 << 20
"""Of messages that are spooled by one flush of the disk."""

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
"""Between two attempts to reach a broker."""

_HOLD_BACK_S: Final = 1.0
"""For which payloads wait for the last spooled messages to be acknowledged, so that they needn't be spooled."""

_LAST_CONNECT_S: Final = 2.0
_LOOK_S: Final = 0.05
_TRY_AGAIN_S: Final = 5.0

_MESSAGE_BYTES: Final = MAX_REQUEST + 48_588
"""With its headers: brokers' default."""


@dataclass
class SinkTally:
    """What became of all payloads since the start, in messages where nothing else is said.

    received: spans taken. handed_back: of them, spans whose senders were told to send them again. too_large: spans rejected, as no message
    holds one. sent: to brokers straight away. refused: by the brokers for what they are, kept on disk.
    """

    received: int = 0
    handed_back: int = 0
    too_large: int = 0
    sent: int = 0
    spooled: int = 0
    drained: int = 0
    refused: int = 0
    failures: int = 0
    last_failure: str = ""


@dataclass
class _Request:
    """One submitted payload: its future is done with the last of its messages."""

    future: "Future[Outcome]"
    outcome: Outcome
    left: int


@dataclass
class _Parcel:
    message: Message
    spans: int
    request: _Request


class KafkaSink:
    """Writes payloads to `topic`; a payload above a message's limit as several messages. The spool is the caller's to close, after it.

    max_bytes: of payloads that are neither acknowledged nor on disk; beyond it `submit` raises Full. clock: nanoseconds since 1970.
    """

    def __init__(
        self,
        brokers: Brokers,
        topic: str,
        spool: Spool,
        *,
        max_bytes: int = 64 << 20,
        clock: Callable[[], int] = time.time_ns,
        connect: Callable[[Brokers, str], Any] = connect,
    ) -> None:
        self._brokers, self._topic, self._spool = brokers, topic, spool
        self._max_bytes, self._clock, self._connect = max_bytes, clock, connect
        self._sender = f"receiver/{version('tallystick')}"
        self.receiver: Final = os.urandom(8).hex()
        """This process in the headers of its messages."""
        self.tally = SinkTally()
        self._changed = threading.Condition(threading.RLock())
        self._queue: deque[_Parcel] = deque()
        self._parcels: dict[int, _Parcel] = {}
        """What is under way in `_flight`, by number."""
        self._flight: Flight | None = None
        """Where payloads go straight to; None while they go to the spool."""
        self._bytes = 0
        self._number = 0
        self._sent = 0
        """Messages that were ever given to a flight straight away."""
        self._spooling = self._held_back = self._closing = False
        self._full_since_s: float | None = None
        """When the spool or its disk last took nothing."""
        self._drained_before = 0
        self._said = ""
        self._suspects = 0
        """The last of the spooled messages of which the brokers refuse some: up to it they are sent one by one."""
        self._threads = [
            threading.Thread(target=target, name=f"tallystick-kafka-{name}", daemon=True)
            for name, target in (("sink", self._run), ("drain", self._drain_ever))
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @staticmethod
    def check(data: bytes, limits: Limits) -> Payload:
        """All of it: a request is answered long before the engine reads its spans."""
        return check_protobuf(data, limits)

    def submit(self, item: Item) -> "Future[Outcome]":
        """The outcome comes once all of the payload is acknowledged or on disk, Full if neither can be. Raises Full.

        What the engine will make of its spans isn't known then: `rejected` has those alone that fit no message.
        """
        size = len(item.data)
        whole = size <= MAX_REQUEST
        pieces, too_large = ([Piece(item.data, item.spans)], 0) if whole else cut(item.data, MAX_REQUEST)
        rejected = {f"over {MAX_REQUEST:,} bytes": too_large} if too_large else {}
        request = _Request(Future(), Outcome(rejected=rejected), len(pieces))
        with self._changed:
            if self._closing:
                raise Full("shutting down")
            if self._bytes and self._bytes + size > self._max_bytes:
                raise Full(f"{self._bytes >> 20} MiB are waiting for Kafka")
            self.tally.too_large += too_large
            for piece in pieces:
                self._queue.append(self._parcel(piece, item, request))
                self._bytes += len(piece.data)
            self._changed.notify_all()
        if not pieces:
            request.future.set_result(request.outcome)
        return request.future

    @property
    def waiting(self) -> tuple[int, int]:
        """Messages and bytes that are neither acknowledged nor on disk."""
        with self._changed:
            return len(self._queue) + len(self._parcels), self._bytes

    @property
    def direct(self) -> bool:
        """Whether brokers take messages, and none is spooled."""
        return self._flight is not None

    def ready(self) -> str:
        """Empty while payloads are taken, else why they aren't."""
        if self._closing:
            return "shutting down"
        # After a while senders are let try again: nobody else would find out that there is room.
        full = self._full_since_s is not None and time.monotonic() - self._full_since_s < _TRY_AGAIN_S
        room = self._spool.max_bytes - self._spool.waiting.used
        if not self.direct and (full or room < MAX_REQUEST):
            return "no broker takes messages, and the spool or its disk is full"
        return ""

    def close(self) -> None:
        """Finish what was submitted: what isn't acknowledged soon is spooled. What is spooled stays for the next start."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        run, drain = self._threads
        # It may be connecting, which can't be interrupted; it touches nothing of ours any more then.
        drain.join(_LAST_CONNECT_S)
        run.join()
        if self._flight is not None:
            self._flight.land()

    def _parcel(self, piece: Piece, item: Item, request: _Request) -> _Parcel:
        self._number += 1
        self.tally.received += piece.spans
        headers = received_headers(
            self._sender,
            self._clock(),
            tenant=item.tenant,
            operator=item.operator,
            received_unix_nano=item.received_ns,
            spans=piece.spans,
            receiver=self.receiver,
            number=self._number,
            accepted=self.tally.received - self.tally.handed_back,
        )
        return _Parcel(Message(piece.data, headers, item.received_ns // 1_000_000), piece.spans, request)

    # Straight to the brokers, or into the spool: one thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._failed() or (self._queue and not self._held_back)):
                    if self._closing and not self._queue and not self._parcels:
                        return
                    self._changed.wait(self._patience_s())
                failed, flight = self._failed(), self._flight
                parcels = [] if failed else self._taken(_SPOOL_BYTES)
                self._spooling = flight is None
            if flight is None:
                self._keep(parcels)
                with self._changed:
                    self._spooling = False
                    self._changed.notify_all()
            elif failed:
                self._fall(flight, failed)
            else:
                self._send(flight, parcels)

    def _failed(self) -> str:
        """Why brokers aren't to be sent to any more, or ""."""
        flight = self._flight
        if flight is None:
            return ""
        if flight.failure is not None:
            return said(flight.failure, self._brokers)
        return f"no acknowledgement for {PATIENCE_S:.0f} s" if flight.waited_s() >= PATIENCE_S else ""

    def _patience_s(self) -> float | None:
        """Until a message has been under way for too long."""
        return max(0.01, PATIENCE_S - self._flight.waited_s()) if self._flight is not None and self._parcels else None

    def _taken(self, most_bytes: int) -> list[_Parcel]:
        taken: list[_Parcel] = []
        size = 0
        while self._queue and size < most_bytes:
            taken.append(self._queue.popleft())
            size += len(taken[-1].message.value)
        return taken

    def _send(self, flight: Flight, parcels: list[_Parcel]) -> None:
        for parcel in parcels:
            with self._changed:
                self._sent += 1
                number = self._sent
                self._parcels[number] = parcel
            flight.send(number, parcel.message, partial(self._arrived, number))

    def _arrived(self, number: int) -> None:
        with self._changed:
            parcel = self._parcels.pop(number, None)
            if parcel is None:
                return
            self.tally.sent += 1
            self._done([parcel])

    def _fall(self, flight: Flight, why: str) -> None:
        """From here on everything is spooled, what is under way first."""
        left = flight.land()
        with self._changed:
            self._flight = None
            back = [self._parcels.pop(number) for number in left if number in self._parcels]
            self._queue.extendleft(reversed(back))
            self.tally.failures += 1
            self.tally.last_failure = why
            self._changed.notify_all()
        log.warning("brokers take no messages (%s): they are kept on disk until one does", why)

    def _keep(self, parcels: list[_Parcel]) -> None:
        try:
            self._spool.put([parcel.message for parcel in parcels])
        except Exception as error:
            if len(parcels) == 1:
                if not isinstance(error, StoreUnavailable):
                    log.exception("a payload can't be spooled and is handed back")
                self._hand_back(parcels[0], error)
                return
            middle = len(parcels) // 2
            self._keep(parcels[:middle])
            self._keep(parcels[middle:])
            return
        with self._changed:
            self._full_since_s = None
            self.tally.spooled += len(parcels)
            self._done(parcels)

    def _hand_back(self, parcel: _Parcel, error: Exception) -> None:
        with self._changed:
            if self._full_since_s is None:
                log.error("payloads are handed back to their senders until a broker takes messages: %s", error)
            self._full_since_s = time.monotonic()
            self.tally.handed_back += parcel.spans
            self._bytes -= len(parcel.message.value)
            future = parcel.request.future
            if not future.done():
                future.set_exception(Full(str(error)))

    def _done(self, parcels: list[_Parcel]) -> None:
        for parcel in parcels:
            self._bytes -= len(parcel.message.value)
            parcel.request.left -= 1
            if not parcel.request.left and not parcel.request.future.done():
                parcel.request.future.set_result(parcel.request.outcome)

    # From the spool to the brokers: another thread.

    def _drain_ever(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closing or self._flight is None)
                if self._closing:
                    return
            drained = self.tally.drained
            try:
                self._drain()
                pause_s = _FIRST_PAUSE_S
            except _Again:
                continue
            except Exception as error:
                foreseen = isinstance(error, (NoBroker, StoreUnavailable))
                self._say(str(error) if foreseen else type(error).__name__, None if foreseen else error)
                pause_s = _FIRST_PAUSE_S if self.tally.drained > drained else min(2 * pause_s, _LONGEST_PAUSE_S)
                with self._changed:
                    self._changed.wait_for(lambda: self._closing, pause_s)

    def _drain(self) -> None:
        """Connect, send what is spooled in its order, and then what comes straight away. Raises _Again, NoBroker, StoreUnavailable."""
        flight = Flight(self._connect(self._brokers, self._topic), self._topic, self._changed)
        try:
            self._drain_by(flight)
        finally:
            with self._changed:
                self._held_back = False
                self._changed.notify_all()
            if self._flight is not flight:
                flight.land()

    def _drain_by(self, flight: Flight) -> None:
        """Until the spool is empty, and payloads go to `flight` straight away; or until we are closing."""
        last = removed = 0
        while not self._closing:
            first = flight.first()
            behind = last if first is None else first - 1
            if behind > removed:
                self._count_drained(self._spool.remove(behind))
                removed = behind
            if flight.failure is not None:
                self._give_up(flight, flight.failure)
            if flight.waited_s() > DRAIN_PATIENCE_S:
                raise NoBroker(f"no acknowledgement for {DRAIN_PATIENCE_S:.0f} s")
            one_by_one = last < self._suspects
            if first is None if one_by_one else flight.bytes < _DRAIN_BYTES:
                spooled = self._spool.read(last, 1 if one_by_one else _READ_BYTES)
                for number, message in spooled:
                    flight.send(number, message, _nothing)
                    last = number
                if not spooled and self._handed_over(flight):
                    return
                if spooled:
                    continue
            with self._changed:
                self._changed.wait(_LOOK_S)

    def _handed_over(self, flight: Flight) -> bool:
        """At the end of the spool: what comes now waits for the last of it, for a moment."""
        with self._changed:
            if self._spooling or self._spool.waiting.messages:
                self._held_back = not self._spooling and flight.waited_s() < _HOLD_BACK_S
                return False
            self._flight = flight
            self._suspects, self._full_since_s = 0, None
            self._said = ""
            self._changed.notify_all()
        log.info("brokers take messages; %d were on disk until now", self.tally.drained - self._drained_before)
        self._drained_before = self.tally.drained
        return True

    def _give_up(self, flight: Flight, failure: Exception) -> NoReturn:
        """Raises _Again where it is about a message, NoBroker where it isn't."""
        if not is_refusal(failure):
            raise NoBroker(said(failure, self._brokers))
        numbers = flight.numbers
        if len(numbers) == 1:
            self._spool.refuse(numbers[0])
            with self._changed:
                self.tally.refused += 1
            log.error(
                "the brokers refuse a message for what it is (%s): it is set aside in the spool and sent again after the next start; "
                "topic %s must take messages of %d bytes (max.message.bytes) and of any time (message.timestamp.after.max.ms)",
                type(failure).__name__,
                self._topic,
                _MESSAGE_BYTES,
            )
        else:
            self._suspects = max(numbers, default=0)
        raise _Again

    def _count_drained(self, messages: int) -> None:
        with self._changed:
            self.tally.drained += messages

    def _say(self, problem: str, unforeseen: Exception | None) -> None:
        with self._changed:
            new, self._said = self._said != problem, problem
            self.tally.failures += 1
            self.tally.last_failure = problem
        if new:
            log.warning("messages can't be sent, and are kept on disk: %s", problem, exc_info=unforeseen)


class _Again(Exception):
    """Without a pause: it will go on."""


def _nothing() -> None:
    """What is spooled has been acknowledged."""
