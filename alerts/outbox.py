"""Sends what the ledger says is due. At least once: who dies between sending and settling has it sent again, when the claim is over."""

import hashlib
import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from tallystick.alerts.channels import Channel, Refused, Retry
from tallystick.alerts.database import LedgerDown
from tallystick.alerts.deliveries import CLAIM, Delivery, State
from tallystick.alerts.ledger import Ledger

_log = logging.getLogger(__name__)

FIRST_WAIT_S = 2.0
LONGEST_WAIT_S = 900.0
ATTEMPTS = 105
"""The waits between so many add up to a day. They are counted, for a clock can't be trusted over a day."""
GIVE_UP = timedelta(days=1)
UNKNOWN_AFTER = timedelta(minutes=10)
"""While a new configuration is rolled out, replicas see messages for channels that they don't know yet."""

_POLL_S = 1.0
_SWEEP_S = 60.0
_LEDGER_S = 5.0
_FAILING_S = 60.0


def next_attempt(attempt: int, delivery_id: str, now: datetime, after_s: float | None) -> datetime | None:
    """When to try again after the attempt of this number, from 1; None: never.

    2 s, doubling up to 15 minutes, a quarter more or less, which the id decides: messages that failed together don't come back together.
    after_s: what the other side asked for; it counts where it is later, and ends it where it is more than a day.
    """
    digest = hashlib.sha256(f"{delivery_id}:{attempt}".encode()).digest()
    jitter = 0.75 + int.from_bytes(digest[:8]) / 2**65
    wait = max(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(attempt - 1, 32)) * jitter, after_s or 0)
    if attempt >= ATTEMPTS or wait > GIVE_UP.total_seconds():
        return None
    return now + timedelta(seconds=wait)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Outbox:
    """Each channel has a thread of its own, so that one that hangs holds up none but itself.

    sleep: waits between two sends to a channel.
    """

    def __init__(
        self,
        ledger: Ledger,
        channels: Mapping[str, Channel],
        clock: Callable[[], datetime] = _utc_now,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._deliveries = ledger.deliveries
        self._channels = dict(channels)
        self._clock = clock
        self._stopping = threading.Event()
        self._aborted = threading.Event()
        self._sleep = sleep or self._aborted.wait
        self._woken = {name: threading.Event() for name in self._channels}
        self._threads: list[threading.Thread] = []
        self._worker = f"{socket.gethostname()}:{os.getpid()}"

    def deliver_due(self, now: datetime) -> Counter[State]:
        """Send all that is due, here, one channel after another: how many are SENT, REFUSED, or PENDING again. Raises LedgerDown.

        A channel that fails for now isn't asked again in this call.
        """
        counts = Counter({State.REFUSED: self._refuse_unknown(now)})
        for name in self._channels:
            while (done := self._deliver(name, lambda: now)) is not None:
                state, pause_s = done
                counts[state] += 1
                if state is State.PENDING:
                    break
                if pause_s:
                    self._sleep(pause_s)
        return counts

    def start(self) -> None:
        """Deliver in the background until `stop`."""
        if self._threads:
            raise RuntimeError("the outbox is running")
        self._stopping.clear()
        self._aborted.clear()
        self._threads = [threading.Thread(target=self._sweep, name="outbox", daemon=True)]
        self._threads += [
            threading.Thread(target=self._run, args=(name,), name=f"outbox {name}", daemon=True) for name in self._channels
        ]
        for thread in self._threads:
            thread.start()

    def wake(self) -> None:
        """Something was announced: look now, not at the next second."""
        for event in self._woken.values():
            event.set()

    def stop(self, limit_s: float = 5.0) -> bool:
        """Send what is due, for so long at most. False: a channel was still sending; its message may be sent again."""
        self._stopping.set()
        self.wake()
        deadline = time.monotonic() + limit_s
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._aborted.set()
        for thread in self._threads:
            thread.join(0.2)
        ended = not any(thread.is_alive() for thread in self._threads)
        self._threads = []
        return ended

    def _run(self, name: str) -> None:
        down = False
        while not self._aborted.is_set():
            try:
                done = self._deliver(name, self._clock)
            except Exception as error:
                if not down:
                    _log.error(
                        "nothing is delivered to %s for now: %s",
                        name,
                        error if isinstance(error, LedgerDown) else type(error).__name__,
                    )
                down = True
                if self._stopping.wait(_LEDGER_S):
                    return
                continue
            if down:
                _log.warning("delivering to %s again", name)
            down = False
            if done is None:
                if self._stopping.is_set():
                    return
                self._woken[name].wait(_POLL_S)
                self._woken[name].clear()
                continue
            state, pause_s = done
            if state is State.PENDING:
                if self._stopping.wait(pause_s):
                    return
            elif pause_s:
                self._sleep(pause_s)

    def _sweep(self) -> None:
        while True:
            try:
                self._refuse_unknown(self._clock())
            except LedgerDown as error:
                _log.debug("not swept: %s", error)
            if self._stopping.wait(_SWEEP_S):
                return

    def _refuse_unknown(self, now: datetime) -> int:
        refused = self._deliveries.refuse_unknown(self._channels.keys(), now - UNKNOWN_AFTER, now)
        if refused:
            _log.error("%d messages were refused: the configuration has no such channels (tallystick alerts status)", refused)
        return refused

    def _deliver(self, name: str, clock: Callable[[], datetime]) -> tuple[State, float] | None:
        """The oldest message that is due: what became of it, and for how many seconds the channel is to be left alone. None: none is due."""
        channel = self._channels[name]
        delivery = self._deliveries.claim(name, self._worker, clock())
        if delivery is None:
            return None
        try:
            sent = channel.send(delivery.message, delivery_id=delivery.id, thread=delivery.thread)
        except Refused as error:
            return self._refuse(delivery, error.reason, clock()), channel.interval_s
        except Retry as error:
            return self._retry(delivery, error.reason, error.after_s, clock())
        except Exception as error:
            # Its text may hold a URL or a token.
            return self._retry(delivery, type(error).__name__, None, clock())
        self._settle(delivery, partial(self._deliveries.sent, delivery, sent.thread, clock()))
        return State.SENT, channel.interval_s

    def _retry(self, delivery: Delivery, reason: str, after_s: float | None, now: datetime) -> tuple[State, float]:
        at = next_attempt(delivery.attempt, delivery.id, now, after_s)
        if at is None:
            return self._refuse(delivery, f"given up after {delivery.attempt} attempts: {reason}", now), 0.0
        self._settle(delivery, partial(self._deliveries.postpone, delivery, reason, at, now))
        _log.warning("delivery to %s failed, attempt %d: %s", delivery.channel, delivery.attempt, reason)
        pause_s = min(after_s, LONGEST_WAIT_S) if after_s else min((at - now).total_seconds(), _FAILING_S)
        return State.PENDING, max(pause_s, self._channels[delivery.channel].interval_s)

    def _refuse(self, delivery: Delivery, reason: str, now: datetime) -> State:
        self._settle(delivery, partial(self._deliveries.refuse, delivery, reason, now))
        _log.error("delivery to %s refused: %s", delivery.channel, reason)
        return State.REFUSED

    def _settle(self, delivery: Delivery, settle: Callable[[], bool]) -> None:
        """Insists for as long as the claim lasts: after that the message is sent again. Raises LedgerDown."""
        tries = int(CLAIM.total_seconds() / _LEDGER_S)
        while True:
            try:
                own = settle()
                break
            except LedgerDown:
                tries -= 1
                if not tries or self._aborted.is_set():
                    raise
            self._sleep(_LEDGER_S)
        if not own:
            _log.warning("a delivery to %s was taken over by another worker: it may have been sent twice", delivery.channel)
