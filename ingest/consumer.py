"""Kafka to the ledger: read, gathered, entered, and only then committed.

One thread polls: it keeps the consumer in its group, checks what it reads and gathers the next batch. Another writes the batch before that. The
polling thread never waits for the store, so the group sees a store that is away as nothing but a lag.

Memory is bounded by: two batches (one gathered, one written), each closed at `max_spans` or `max_bytes`, and held by the engine's side of the
writer besides; what one poll adds above that, `_POLL_BYTES`; and what the library has fetched, `_FETCH_BYTES` a broker and once more for a fetch
under way, compressed as it is in the log, of which it decompresses one record batch at a time.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import ConsumerRebalanceListener, KafkaConsumer, errors, structs
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.structs import OffsetAndMetadata, TopicPartition

from tallystick.ingest.batches import Gathering, Progress
from tallystick.ingest.ceiling import Ceiling
from tallystick.ingest.committer import BatchWriter
from tallystick.ingest.dead_letters import DeadLetters, as_record
from tallystick.ingest.entering import Entering, Stopped, Tally, backoff_s
from tallystick.ingest.flows import Aside
from tallystick.ingest.header_names import read_any_header_name
from tallystick.ingest.messages import Message, Partition, Record, Topics, read_message
from tallystick.ingest.payload import Limits
from tallystick.schema.kafka import Brokers

log = logging.getLogger(__name__)

_kafka: Any = structs
_STABLE: Final = _kafka.MemberState.STABLE

_FETCH_BYTES: Final = 8 << 20
_PARTITION_BYTES: Final = 2 << 20
"""Of a fetch from one partition: above the largest message that brokers take by default, so that every fetch is of whole batches."""
_POLL_BYTES: Final = 4 << 20
"""About so much is taken from what was fetched at a time; more only where messages suddenly grow."""
_POLL_RECORDS: Final = 500

_POLL_MS: Final = 200
"""The longest wait for messages …"""
_BUSY_POLL_MS: Final = 50
"""… while a batch is waiting for the writer to end …"""
_FULL_POLL_MS: Final = 10
_GROUP_S: Final = 0.2
"""… and while there is no room for more: the writer is waited for then, and in between polled only for the group's sake."""
_JOINING_MS: Final = 2_000
"""At least, while partitions are being given: the library (3.0.12) forgets that it has joined where that happens between two polls, and joins again,
for ever if all of them are short."""

_POLL_INTERVAL_MS: Final = 60_000
"""The polling thread does nothing that takes longer than a second. One that is silent for a minute hangs, and its partitions are for others."""

_COMMIT_EVERY_S: Final = 0.5
_COMMIT_MS: Final = 10_000
_BOOTSTRAP_MS: Final = 5_000
_METADATA_MS: Final = 15_000
"""After which topics and partitions that weren't there are seen."""
_LAG_S: Final = 5.0
_LAG_MS: Final = 1_000
_LEAVING_S: Final = 30.0

_MOVED_ON: Final = (
    errors.CommitFailedError,
    errors.RebalanceInProgressError,
    errors.IllegalGenerationError,
    errors.UnknownMemberIdError,
)
"""The group has given the partitions to another, or is about to."""


class CeilingReached(Exception):
    """There are too many dead letters to go on. What was dealt with is committed."""


class Fenced(Exception):
    """Another consumer has the same static name."""


@dataclass(frozen=True)
class Consuming:
    """What to read, as whom, and how it is gathered. instance: a static name in the group, so that a quick restart moves no partition.
    session_s: after which a consumer that is silent has lost its partitions.
    """

    brokers: Brokers
    topics: Topics
    group: str
    instance: str | None = None
    session_s: int = 45
    max_spans: int = 80_000
    max_bytes: int = 64 << 20
    window_s: float = 1.0
    limits: Limits = field(default_factory=Limits)


class Consumer:
    """From `start` to `close`.

    writer: makes what enters batches, in the thread that does. set_aside: tells the loss ledger there of messages that don't reach the writer.
    identity: of this process. clock: nanoseconds since 1970.
    """

    def __init__(
        self,
        what: Consuming,
        writer: Callable[[], BatchWriter],
        set_aside: Callable[[Sequence[Aside]], None],
        dead_letters: DeadLetters,
        *,
        identity: str,
        ceiling: Ceiling | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._what, self._clock, self._identity = what, clock, identity
        self.tally = Tally()
        self._ceiling = ceiling or Ceiling()
        self._entering = Entering(writer, set_aside, dead_letters, ceiling=self._ceiling, tally=self.tally, identity=identity)
        self._gathering = Gathering(max_spans=what.max_spans, max_bytes=what.max_bytes, window_s=what.window_s)
        self._progress = Progress()
        self._membership = _Membership()
        self._to_write: queue.SimpleQueue[list[Message] | None] = queue.SimpleQueue()
        self._idle = threading.Event()
        """The writer has nothing to do."""
        self._idle.set()
        self._stopped_short = False
        self._committing: Any = None
        self._uncommitted = ""
        """With what the last commit failed, which was said."""
        self._next: dict[Partition, int] = {}
        """The offset that is expected next, to see what was skipped."""
        self._dealt: dict[Partition, int] = {}
        """The offset below which everything is dealt with."""
        self._lag: dict[Partition, int] = {}
        self._measured_at = self._commit_at = self._drain_until = 0.0
        self._mean_bytes = _POLL_BYTES / _POLL_RECORDS
        self._state = "it is starting"
        self._joined = False
        self._closing = threading.Event()
        self._polling = threading.Thread(target=self._poll_until_closed, name="tallystick-consumer", daemon=True)
        self._writing = threading.Thread(target=self._write_until_closed, name="tallystick-writer", daemon=True)
        self.failure: Exception | None = None
        """Why it ended by itself: CeilingReached, Fenced, or what nobody foresaw. None while it runs and after `close`."""
        self.ended = threading.Event()

    def start(self) -> None:
        self._writing.start()
        self._polling.start()

    def ready(self) -> str:
        """Why nothing is entered at this moment, or ''."""
        if self.failure is not None:
            return str(self.failure)
        return self._state or self._entering.waiting_for

    def lag(self) -> dict[Partition, int]:
        """Of the partitions that are ours: messages that aren't dealt with yet, as of some seconds ago."""
        return dict(self._lag)

    def freshness_s(self) -> float | None:
        """Seconds since the newest message that is dealt with was received; None before the first."""
        newest = self.tally.newest_ns
        return None if newest is None else (self._clock() - newest) / 1e9

    def close(self, drain_s: float = 30.0) -> None:
        """Enter what was read, commit, leave the group. What can't be entered in that time stays in Kafka, for the next to read."""
        self._drain_until = time.monotonic() + drain_s
        self._closing.set()
        self.ended.wait(drain_s + _LEAVING_S)

    # The writing thread.

    def _write_until_closed(self) -> None:
        while (batch := self._to_write.get()) is not None:
            try:
                self._entering.enter(batch)
            except Stopped as error:
                self._stopped_short = True
                log.error("%d messages aren't entered, and stay in Kafka: %s", len(batch), error)
            except Exception as error:
                # Nothing after it may be committed: to end, and be started again, loses nothing.
                self._stopped_short = True
                self.failure = error
                log.exception("%d messages aren't entered, and stay in Kafka", len(batch))
            self._idle.set()
        self._entering.close()

    # The polling thread.

    def _poll_until_closed(self) -> None:
        attempt = 0
        while self._going:
            try:
                with self._connected() as kafka:
                    while self._going:
                        self._tick(kafka)
                        attempt = 0
                    self._drain(kafka)
            except errors.FencedInstanceIdError:
                self.failure = Fenced(f"another consumer of the group {self._what.group} is called {self._what.instance!r}, too")
            except Exception as error:
                attempt += 1
                wait_s = backoff_s(attempt, self._identity)
                self._state = f"Kafka can't be read: {type(error).__name__}"
                log.error(
                    "%s; it is connected anew in %.1f s", self._state, wait_s, exc_info=not isinstance(error, errors.KafkaError)
                )
                self._closing.wait(wait_s)
            # Another connection is another member, who reads from what is committed on.
            self._membership.drain()
            self._forget(set(self._next))
            self._committing = None
        self._entering.stop()
        self._to_write.put(None)
        self._writing.join()
        if self.failure is not None:
            log.error("the consumer has stopped: %s", self.failure)
        self.ended.set()

    @property
    def _going(self) -> bool:
        return self.failure is None and not self._closing.is_set()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        what = self._what
        read_any_header_name()
        made: Any = KafkaConsumer
        kafka = made(
            bootstrap_servers=list(what.brokers.addresses),
            client_id=f"tallystick-ingest-{self._identity}",
            group_id=what.group,
            group_instance_id=what.instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            session_timeout_ms=what.session_s * 1000,
            heartbeat_interval_ms=min(3_000, what.session_s * 1000 // 3),
            max_poll_interval_ms=_POLL_INTERVAL_MS,
            fetch_max_bytes=_FETCH_BYTES,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            bootstrap_timeout_ms=_BOOTSTRAP_MS,
            metadata_max_age_ms=_METADATA_MS,
            reconnect_backoff_max_ms=2_000,
            metrics_enabled=False,
            **what.brokers.security,
        )
        try:
            kafka.subscribe(what.topics.names, listener=self._membership)
            self._state = "it is joining its group"
            yield kafka
        finally:
            kafka.close(autocommit=False, timeout_ms=_COMMIT_MS)

    def _tick(self, kafka: Any) -> None:
        """Raises errors of Kafka. What was read of a poll before an error may not be all of it: the connection is of no use then."""
        self._settle(kafka)
        now = time.monotonic()
        due_s = self._gathering.due_in(now)
        if due_s == 0 and self._idle.is_set():
            self._hand_over()
            due_s = self._gathering.due_in(now)
        if self._gathering.full:
            if not self._wait_for_writer(kafka):
                return
        else:
            kafka.resume(*kafka.paused())
            timeout_ms = _POLL_MS if due_s is None else min(_POLL_MS, int(due_s * 1000) + 1) if due_s else _BUSY_POLL_MS
            self._poll(kafka, timeout_ms)
        if now - self._measured_at > _LAG_S:
            self._measured_at = now
            self._measure(kafka)

    def _wait_for_writer(self, kafka: Any) -> bool:
        """For a moment. Where that wasn't long enough, poll for the group's sake, and read nothing."""
        if self._joined and self._idle.wait(_GROUP_S):
            return False
        kafka.pause(*kafka.assignment())
        # It finds what there is of partitions that are given within it.
        self._poll(kafka, _FULL_POLL_MS)
        return True

    def _poll(self, kafka: Any, timeout_ms: int) -> None:
        most = max(1, min(_POLL_RECORDS, int(_POLL_BYTES / self._mean_bytes)))
        found = kafka.poll(timeout_ms=timeout_ms if self._joined else max(timeout_ms, _JOINING_MS), max_records=most)
        # Partitions are taken and given within a poll, before it looks for records: these here are of partitions that are ours.
        self._mind_members(kafka)
        for records in found.values():
            for given in records:
                self._read(kafka, as_record(given))

    def _read(self, kafka: Any, record: Record) -> None:
        partition = record.partition
        expected = self._expected(kafka, partition)
        if expected is not None and record.offset > expected:
            self._skipped(kafka, record, expected)
        self._next[partition] = record.offset + 1
        self._dealt.setdefault(partition, record.offset)
        # Large messages count at once, small ones by and by.
        self._mean_bytes = max(record.size, self._mean_bytes + (record.size - self._mean_bytes) / 64, 1)
        self._gathering.add(read_message(record, self._what.topics, self._what.limits, self._clock()), time.monotonic())

    def _expected(self, kafka: Any, partition: Partition) -> int | None:
        """The offset that should be next; None where the group has never committed."""
        if partition in self._next:
            return self._next[partition]
        committed: int | None = kafka.committed(TopicPartition(*partition), timeout_ms=_COMMIT_MS)
        return committed

    def _skipped(self, kafka: Any, record: Record, expected: int) -> None:
        """Between two messages there may be offsets without any (of transactions, of what was compacted); those below the log's start are gone."""
        topic_partition = TopicPartition(*record.partition)
        start = kafka.beginning_offsets([topic_partition], timeout_ms=_COMMIT_MS)[topic_partition]
        skipped = min(start, record.offset) - expected
        if skipped > 0:
            self.tally.skipped_messages += skipped
            log.error(
                "%d messages of %s/%d, from %d on, were deleted by the topic's retention before they were read: they are lost",
                skipped,
                *record.partition,
                expected,
            )

    def _hand_over(self) -> None:
        batch = self._gathering.take()
        self._progress.begin(batch)
        self._idle.clear()
        self._to_write.put(batch)

    def _settle(self, kafka: Any) -> None:
        """What the writer has dealt with is to be committed."""
        if not self._idle.is_set() or self._stopped_short:
            return
        self._dealt.update(self._progress.end())
        if self._ceiling.reached and self.failure is None:
            self.failure = CeilingReached(self._ceiling.reached)
        now = time.monotonic()
        if now >= self._commit_at and (self._committing is None or self._committing.is_done):
            offsets = self._progress.to_commit()
            if offsets:
                self._commit_at = now + _COMMIT_EVERY_S
                self._committing = kafka.commit_async(
                    as_kafka(offsets), callback=lambda _, answer: self._committed(offsets, answer)
                )

    def _committed(self, offsets: Mapping[Partition, int], answer: Any) -> None:
        """Called by a later poll, in the polling thread."""
        if isinstance(answer, Exception):
            failed = type(answer).__name__
            if failed != self._uncommitted:
                # Of what the group gives to others, the next poll tells. The rest stays ours, and nothing else would ever commit it on a quiet topic.
                level = logging.INFO if isinstance(answer, _MOVED_ON) else logging.WARNING
                log.log(level, "offsets can't be committed now, it is tried again and again: %s", failed)
            self._uncommitted = failed
            return
        if self._uncommitted:
            self._uncommitted = ""
            log.info("offsets are committed again")
        self._progress.committed(offsets)

    def _mind_members(self, kafka: Any) -> None:
        gone, came = self._membership.drain()
        self._forget(gone)
        if gone or came:
            self.tally.rebalances += 1
            ours = ", ".join(f"{topic}/{number}" for topic, number in sorted(kafka.assignment()))
            log.info("partitions: %s", ours or "none")
        self._joined = kafka.group_metadata().state == _STABLE
        self._state = "" if self._joined else "it is joining its group"

    def _forget(self, gone: Collection[Partition]) -> None:
        """Partitions that aren't ours any more: what was gathered of them is discarded, what is being written isn't committed by us."""
        if not gone:
            return
        discarded = self._gathering.drop(gone)
        if discarded:
            log.info("%d messages that were read of them are left to whom they belong now", discarded)
        self._progress.lose(gone)
        for partition in gone:
            for known in (self._next, self._dealt, self._lag):
                known.pop(partition, None)

    def _measure(self, kafka: Any) -> None:
        """How far behind we are. Raises nothing: it is asked again."""
        ours = sorted(kafka.assignment())
        try:
            ends = kafka.end_offsets(ours, timeout_ms=_LAG_MS) if ours else {}
            for partition in ours:
                if partition not in self._dealt:
                    position = kafka.position(partition, timeout_ms=_LAG_MS)
                    if position is not None:
                        self._dealt[Partition(*partition)] = position
            self._lag = {Partition(*p): max(0, end - self._dealt[Partition(*p)]) for p, end in ends.items() if p in self._dealt}
        except errors.KafkaError as error:
            log.debug("the lag can't be measured: %s", type(error).__name__)

    def _drain(self, kafka: Any) -> None:
        """Enter and commit what is gathered, unless there is a reason to stop right here. Raises errors of Kafka."""
        while self.failure is None and not self._stopped_short and not (self._idle.is_set() and not len(self._gathering)):
            self._settle(kafka)
            if self._idle.is_set() and len(self._gathering) and self.failure is None:
                self._hand_over()
            if time.monotonic() > self._drain_until:
                self._entering.stop()
            self._wait_for_writer(kafka)
        self._settle(kafka)
        offsets = self._progress.to_commit()
        if offsets:
            try:
                kafka.commit(as_kafka(offsets), timeout_ms=_COMMIT_MS)
            except _MOVED_ON as error:
                # It finds them entered.
                log.info("the last messages aren't committed, another reads them again: %s", type(error).__name__)


class _Membership(ConsumerRebalanceListener):  # type: ignore[misc]
    """Which partitions came and went, told by the library's thread of I/O, where nothing may block."""

    def __init__(self) -> None:
        self._told: deque[tuple[str, set[Partition]]] = deque()

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        self._told.append(("came", {Partition(*one) for one in assigned}))

    def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Also those that are lost."""
        self._told.append(("gone", {Partition(*one) for one in revoked}))

    def drain(self) -> tuple[set[Partition], bool]:
        """Those that went since the last time, be they ours again, and whether any came."""
        gone, came = set[Partition](), False
        while self._told:
            what, partitions = self._told.popleft()
            if what == "gone":
                gone |= partitions
            else:
                came = True
        return gone, came


def as_kafka(offsets: Mapping[Partition, int]) -> dict[Any, Any]:
    """As kafka-python commits them."""
    return {TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()}
