"""From a batch of messages to the ledger: written whole, or found poisonous and halved; tried again as long as the store is away."""

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.ceiling import Ceiling
from tallystick.ingest.committer import BatchWriter
from tallystick.ingest.dead_letters import DeadLetters, Letter
from tallystick.ingest.errors import PoisonBatch, StoreUnavailable
from tallystick.ingest.flows import Aside
from tallystick.ingest.messages import PARTLY_REJECTED, UNREADABLE, Dead, Message
from tallystick.ingest.store import error_name
from tallystick.ingest.writer import Item, Outcome

log = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.25
LONGEST_WAIT_S: Final = 15.0

_LOGGED: Final = 10
"""Dead letters of a batch that are logged one by one."""

_T = TypeVar("_T")


class Stopped(Exception):
    """The consumer is ending, and the store is still away: the batch stays in Kafka."""


@dataclass
class Tally:
    """What became of all messages and spans since the start. dropped, rejected: reason → spans. dead: reason → messages, of which
    `partly-rejected` ones are entered, too. skipped_messages: gone from the log before they were read. newest_ns: when the newest
    message that is dealt with was received.
    """

    messages: int = 0
    spans: int = 0
    entered: int = 0
    voided: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    failures: int = 0
    last_failure: str = ""
    rebalances: int = 0
    skipped_messages: int = 0
    newest_ns: int | None = None


class Entering:
    """Deals with one batch after the other, in a thread of its own: makes the writer and the producer there.

    set_aside: tells the loss ledger of messages that don't reach the writer; called in that thread, again after an error.
    identity: of this process; it decides by how much its waits differ from others'.
    """

    def __init__(
        self,
        writer: Callable[[], BatchWriter],
        set_aside: Callable[[Sequence[Aside]], None],
        dead_letters: DeadLetters,
        *,
        ceiling: Ceiling,
        tally: Tally,
        identity: str,
    ) -> None:
        self._make_writer, self._set_aside, self._dead_letters = writer, set_aside, dead_letters
        self._ceiling, self._tally, self._identity = ceiling, tally, identity
        self._writer: BatchWriter | None = None
        self._stopping = threading.Event()
        self.waiting_for = ""
        """What is away at this moment, or ''."""

    def enter(self, batch: Sequence[Message]) -> None:
        """On return all of it is on disk, or among the dead letters. Raises Stopped."""
        live = [(message, message.item) for message in batch if message.item is not None]
        letters: list[Letter] = []
        asides: list[Aside] = []
        for message in batch:
            if message.item is None:
                asides += [message.aside] if message.aside else []
                if message.dead is not None:
                    letters.append((message.record, message.dead))
                elif message.rejected:
                    letters.append((message.record, Dead(PARTLY_REJECTED, counted(message.rejected))))
        fates = self._write([item for _, item in live]) if live else []
        for (message, _), fate in zip(live, fates, strict=True):
            if isinstance(fate, PoisonBatch):
                asides += [message.aside._replace(reason=UNREADABLE)] if message.aside else []
                letters.append((message.record, Dead(UNREADABLE, f"the engine can't decode it: {fate}")))
            elif problems := Counter(message.rejected) + Counter(fate.rejected):
                letters.append((message.record, Dead(PARTLY_REJECTED, counted(problems))))
        if letters:
            self._bury(letters)
        if asides:
            self._patiently(lambda: self._set_aside(asides))
        self._count(batch, letters)

    def stop(self) -> None:
        """Don't wait for what is away any longer. From any thread."""
        self._stopping.set()

    def close(self) -> None:
        self._dead_letters.close()

    def _write(self, items: Sequence[Item]) -> list[Outcome | PoisonBatch]:
        """For each item what became of it."""
        try:
            return list(self._patiently(lambda: self._write_once(items)))
        except PoisonBatch as error:
            if len(items) == 1:
                return [error]
            # One bad payload spoils a batch: halve until it is alone.
            middle = len(items) // 2
            return [*self._write(items[:middle]), *self._write(items[middle:])]

    def _write_once(self, items: Sequence[Item]) -> list[Outcome]:
        if self._writer is None:
            self._writer = self._make_writer()
        written = self._writer.write(items)
        tally = self._tally
        rejected = Counter[str]()
        for outcome in written.outcomes:
            rejected.update(outcome.rejected)
        spans, calls = sum(item.spans for item in items), sum(outcome.calls for outcome in written.outcomes)
        tally.entered += written.entered
        tally.voided += written.voided
        tally.rejected += rejected
        tally.dropped += Counter({"no model call": spans - calls - rejected.total(), "told already": written.doubled})
        tally.batches += 1
        return written.outcomes

    def _bury(self, letters: Sequence[Letter]) -> None:
        self._patiently(lambda: self._dead_letters.write(letters))
        for record, dead in letters[:_LOGGED]:
            log.warning("dead letter %s, %s: %s", record.coordinates, dead.reason, dead.detail)
        if len(letters) > _LOGGED:
            log.warning("… and %d further dead letters of the same batch", len(letters) - _LOGGED)

    def _patiently(self, attempt: Callable[[], _T]) -> _T:
        """Until it succeeds: nothing is skipped because something is away. Raises PoisonBatch, Stopped."""
        number = 0
        while True:
            try:
                done = attempt()
            except PoisonBatch:
                raise
            except StoreUnavailable as error:
                self.waiting_for = str(error)
            except ClickHouseError as error:
                self.waiting_for = error_name(error)
            except Exception as error:
                # Not known to be the messages' fault: to stop here, and say so, loses nothing.
                self._writer = None
                if not number:
                    log.exception("a batch can't be entered")
                self.waiting_for = f"an unexpected {type(error).__name__}"
            else:
                if self.waiting_for:
                    log.info("it goes on after %d attempts", number)
                self.waiting_for = ""
                return done
            self._tally.failures += 1
            self._tally.last_failure = self.waiting_for
            number += 1
            wait_s = backoff_s(number, self._identity)
            log.warning("nothing can be entered now (%s); attempt %d follows in %.1f s", self.waiting_for, number + 1, wait_s)
            if self._stopping.wait(wait_s):
                raise Stopped(self.waiting_for)

    def _count(self, batch: Sequence[Message], letters: Sequence[Letter]) -> None:
        tally = self._tally
        dead = {record.coordinates for record, why in letters if why.reason != PARTLY_REJECTED}
        for message in batch:
            self._ceiling.note(message.record.coordinates in dead)
            tally.rejected.update(message.rejected)
        tally.messages += len(batch)
        tally.spans += sum(message.spans + sum(message.rejected.values()) for message in batch)
        tally.dead.update(why.reason for _, why in letters)
        newest = max((message.item.received_ns for message in batch if message.item), default=None)
        if newest is not None:
            tally.newest_ns = max(newest, tally.newest_ns or 0)


def counted(problems: Mapping[str, int]) -> str:
    """`3 spans: a text is not UTF-8; …`"""
    return "; ".join(f"{count} spans: {reason}" for reason, count in sorted(problems.items()))


def backoff_s(attempt: int, identity: str) -> float:
    """How long to wait after the attempt of this number, from 1: doubling, a quarter more or less.

    The identity decides by how much, so that consumers that were turned away together don't come back together.
    """
    digest = hashlib.sha256(f"{identity}:{attempt}".encode()).digest()
    return min(FIRST_WAIT_S * 2.0 ** min(attempt - 1, 32), LONGEST_WAIT_S) * (0.75 + int.from_bytes(digest[:8]) / 2**65)
