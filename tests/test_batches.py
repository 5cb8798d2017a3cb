"""What is gathered into a batch, and which offsets may be committed: whatever is revoked when, nothing that isn't dealt with."""

import gzip
import json
import time

import otlp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tallystick.ingest.batches import Gathering, Progress, ends
from tallystick.ingest.messages import (
    MALFORMED,
    TOO_LARGE,
    UNKNOWN_TENANT,
    Message,
    Partition,
    Record,
    Topics,
    read_message,
)
from tallystick.ingest.payload import Limits
from tallystick.ingest.writer import Item
from tallystick.schema.kafka import TENANT, received_headers

A, B = Partition("t", 0), Partition("t", 1)
TOPICS = Topics("received", {"t": "acme"})
NOW = time.time_ns()


def message(partition: Partition = A, offset: int = 0, *, spans: int = 1, size: int = 10) -> Message:
    value = b"x" * size
    return Message(Record(partition, offset, 0, None, value, ()), Item(value, spans, "acme", 0) if spans else None)


def gathering(**given: float) -> Gathering:
    return Gathering(
        max_spans=int(given.get("spans", 10)), max_bytes=int(given.get("bytes", 1000)), window_s=given.get("window_s", 1.0)
    )


def test_a_batch_is_due_when_its_first_message_has_waited() -> None:
    waiting = gathering(window_s=1.0)
    assert waiting.due_in(5.0) is None
    waiting.add(message(), 5.0)
    waiting.add(message(), 5.9)
    assert waiting.due_in(5.25) == 0.75
    assert waiting.due_in(7.0) == 0.0


def test_a_batch_is_due_when_it_is_full() -> None:
    for large in (message(spans=10), message(size=1000)):
        waiting = gathering()
        waiting.add(large, 5.0)
        assert waiting.full
        assert waiting.due_in(5.0) == 0.0


def test_only_one_message_alone_is_more_than_a_batch() -> None:
    waiting = gathering(spans=10)
    for offset, spans in enumerate((4, 6, 1, 50, 3)):
        waiting.add(message(offset=offset, spans=spans), 0.0)
    assert [[one.spans for one in waiting.take()] for _ in range(4)] == [[4, 6], [1], [50], [3]]
    assert not waiting.take()
    assert (waiting.spans, waiting.bytes, len(waiting)) == (0, 0, 0)


@given(st.lists(st.tuples(st.sampled_from((A, B)), st.integers(0, 20), st.integers(0, 1500)), max_size=30), st.booleans())
def test_batches_hold_every_message_once_and_in_order(made: list[tuple[Partition, int, int]], lose: bool) -> None:
    waiting = gathering()
    messages = [message(partition, offset, spans=spans, size=size) for offset, (partition, spans, size) in enumerate(made)]
    for one in messages:
        waiting.add(one, 0.0)
    kept = [one for one in messages if not (lose and one.record.partition == A)]
    assert waiting.drop({A} if lose else set()) == len(messages) - len(kept)
    assert waiting.spans == sum(one.spans for one in kept)
    found = []
    while batch := waiting.take():
        assert len(batch) == 1 or (sum(one.spans for one in batch) <= 10 and sum(one.record.size for one in batch) <= 1000)
        found += batch
    assert found == kept


class Rebalancing(RuleBasedStateMachine):
    """Two partitions that come and go while batches are read, written and committed. Another consumer deals with nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting, self.progress = gathering(spans=3), Progress()
        self.committed = {A: 0, B: 0}
        self.position = {A: 0, B: 0}
        self.stored: set[tuple[Partition, int]] = set()
        self.batch: list[Message] = []

    @rule(partition=st.sampled_from((A, B)))
    def read(self, partition: Partition) -> None:
        self.waiting.add(message(partition, self.position[partition]), 0.0)
        self.position[partition] += 1

    @precondition(lambda self: not self.batch)
    @rule()
    def begin(self) -> None:
        self.batch = self.waiting.take()
        self.progress.begin(self.batch)

    @precondition(lambda self: self.batch)
    @rule()
    def end(self) -> None:
        self.stored |= {(one.record.partition, one.record.offset) for one in self.batch}
        self.batch = []
        self.progress.end()

    @rule(partition=st.sampled_from((A, B)))
    def lose(self, partition: Partition) -> None:
        """And have it back: it is read from what was committed."""
        self.waiting.drop({partition})
        self.progress.lose({partition})
        self.position[partition] = self.committed[partition]

    @rule()
    def commit(self) -> None:
        offsets = self.progress.to_commit()
        self.committed.update(offsets)
        self.progress.committed(offsets)

    @rule()
    def commit_is_refused(self) -> None:
        self.progress.committed(self.progress.to_commit())

    @invariant()
    def everything_below_a_commit_is_stored(self) -> None:
        for partition, offset in self.committed.items():
            assert all((partition, below) in self.stored for below in range(offset))
        for partition, offset in self.progress.to_commit().items():
            assert all((partition, below) in self.stored for below in range(offset))

    def teardown(self) -> None:
        """What is left is stored once it is read from what was committed."""
        if self.batch:
            self.end()
        while batch := self.waiting.take():
            self.progress.begin(batch)
            self.stored |= {(one.record.partition, one.record.offset) for one in batch}
            self.progress.end()
        self.commit()
        for partition, position in self.position.items():
            assert all((partition, below) in self.stored for below in range(position))


Rebalancing.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRebalancing = Rebalancing.TestCase


def test_ends_are_the_offsets_after() -> None:
    assert ends([message(A, 4), message(B, 7), message(A, 5)]) == {A: 6, B: 8}


def record(value: bytes | None, *headers: tuple[str, bytes], topic: str = "t", timestamp_ms: int = NOW // 1_000_000) -> Record:
    return Record(Partition(topic, 3), 14, timestamp_ms, None, value, headers)


def read(given: Record) -> Message:
    return read_message(given, TOPICS, Limits(), NOW)


VALUE = otlp.request(otlp.span("a"), otlp.span("b")).SerializeToString()


def test_a_message_of_an_opentelemetry_collector_is_its_topics_tenants() -> None:
    found = read(record(VALUE, (TENANT, b"globex"), timestamp_ms=1_790_000_000_000)).item
    assert found is not None
    assert (found.data, found.spans, found.tenant, found.operator) == (VALUE, 2, "acme", False)
    assert found.received_ns == 1_790_000_000_000_000_000
    assert found.origin is not None
    assert found.origin[:5] == ("t", 3, 14, "", 0)


def test_a_message_of_a_receiver_names_its_tenant() -> None:
    headers = received_headers(
        "receiver/1", 1, tenant="globex", operator=True, received_unix_nano=NOW - 5, spans=2, receiver="r", number=7, accepted=40
    )
    found = read(record(VALUE, *headers, topic="received")).item
    assert found is not None
    assert (found.tenant, found.operator, found.received_ns) == ("globex", True, NOW - 5)
    assert found.origin == ("received", 3, 14, "r", 7, 40)


def test_a_time_that_no_clock_can_have_said_is_now() -> None:
    for timestamp_ms in (-1, 0, 1_500_000_000_000, NOW // 1_000_000 + 2 * 86_400_000):
        found = read(record(VALUE, timestamp_ms=timestamp_ms)).item
        assert found is not None
        assert found.received_ns == NOW


def test_what_is_no_payload_is_dead() -> None:
    for value, reason, says in (
        (None, MALFORMED, "no value"),
        (b"\xff\xff", MALFORMED, "isn't"),
        (VALUE[:-1], MALFORMED, "isn't"),
        (gzip.compress(VALUE), MALFORMED, "compressed by gzip"),
        (json.dumps({"resourceSpans": []}).encode(), MALFORMED, "JSON"),
        (otlp.request(*[Span()] * 50_001).SerializeToString(), TOO_LARGE, "50001 spans"),
    ):
        found = read(record(value))
        assert found.item is None
        assert found.dead is not None
        assert found.dead.reason == reason, value
        assert says in found.dead.detail


def test_a_receivers_message_without_a_tenant_is_dead() -> None:
    for headers in ((), ((TENANT, b""),), ((TENANT, b"a\0b"),), ((TENANT, b"a" * 500),)):
        found = read(record(VALUE, *headers, topic="received"))
        assert found.dead is not None
        assert found.dead.reason == UNKNOWN_TENANT


def test_nothing_is_entered_of_a_message_without_spans() -> None:
    found = read(record(b""))
    assert (found.item, found.dead) == (None, None)


@given(st.binary(max_size=300), st.lists(st.tuples(st.text(max_size=30) | st.just(TENANT), st.binary(max_size=30)), max_size=4))
def test_nothing_that_anybody_writes_raises(value: bytes, headers: list[tuple[str, bytes]]) -> None:
    for topic in ("t", "received"):
        read(record(value, *headers, topic=topic))
