"""Topics with messages on a real broker, and consumers of them, as tests drive them."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from broker import Broker
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic
from kafka.structs import TopicPartition
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tallystick.ingest.ceiling import Ceiling
from tallystick.ingest.committer import BatchWriter
from tallystick.ingest.consumer import Consumer, Consuming
from tallystick.ingest.dead_letters import DeadLetters, dead_letter_producer
from tallystick.ingest.errors import PoisonBatch, StoreUnavailable
from tallystick.ingest.flows import Aside
from tallystick.ingest.messages import Topics
from tallystick.ingest.writer import Item, Outcome, Written
from tallystick.schema.kafka import Brokers, received_headers

POISON = "poison"
"""In a value: the stand-in for the engine can't read it."""


def until(done: Callable[[], Any], seconds: float = 60.0, otherwise: Callable[[], object] = lambda: "") -> None:
    """Wait for it, generously."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.02)


class Topic:
    """A received topic, one of a tenant's, and one for dead letters, new ones for each test; and the group that reads the first two.

    Messages go to its partitions by turns.
    """

    def __init__(self, broker: Broker, name: str, partitions: int = 3) -> None:
        self.broker, self.name, self.partitions = broker, name, partitions
        self.received, self.others, self.dead = f"{name}.received", f"{name}.others", f"{name}.dead"
        self.tenant = name
        self.asides: list[Aside] = []
        admin: Any = KafkaAdminClient(bootstrap_servers=broker.address)
        admin.create_topics([NewTopic(topic, partitions, 1) for topic in (self.received, self.others, self.dead)])
        admin.close()

    def send(self, values: Iterable[bytes | ExportTraceServiceRequest], *, topic: str | None = None, headers: Any = None) -> None:
        """To the received topic, as a receiver does, where nothing else is said. On return the broker has them."""
        made: Any = KafkaProducer
        producer = made(bootstrap_servers=self.broker.address, acks="all", max_request_size=8 << 20, compression_type="gzip")
        for number, value in enumerate(values, 1):
            data = value.SerializeToString() if isinstance(value, ExportTraceServiceRequest) else value
            given = self.headers(number) if headers is None else headers
            producer.send(topic or self.received, data, headers=given, partition=number % self.partitions)
        producer.flush()
        producer.close()

    def headers(self, number: int = 1) -> list[tuple[str, bytes]]:
        return received_headers(
            "receiver/test",
            time.time_ns(),
            tenant=self.tenant,
            operator=False,
            received_unix_nano=time.time_ns(),
            spans=1,
            receiver="0123456789abcdef",
            number=number,
            accepted=0,
        )

    def consumer(
        self, writer: Callable[[], BatchWriter], identity: str = "a", ceiling: Ceiling | None = None, **what: Any
    ) -> Consumer:
        brokers = Brokers((self.broker.address,), {})
        given: dict[str, Any] = {"session_s": 6, "window_s": 0.1, **what}
        return Consumer(
            Consuming(brokers, Topics(self.received, {self.others: self.tenant}), self.name, **given),
            writer,
            self.asides.extend,
            DeadLetters(self.dead, lambda: dead_letter_producer(brokers)),
            identity=identity,
            ceiling=ceiling,
        )

    def committed(self) -> int:
        """Messages of the received topic, and of the other, below what the group has committed."""
        made: Any = KafkaConsumer
        consumer = made(bootstrap_servers=self.broker.address, group_id=self.name, enable_auto_commit=False)
        places = [
            TopicPartition(topic, number)
            for topic in (self.received, self.others)
            for number in consumer.partitions_for_topic(topic)
        ]
        total = sum(consumer.committed(place) or 0 for place in places)
        consumer.close()
        return total


@contextmanager
def running(*consumers: Consumer) -> Iterator[None]:
    for consumer in consumers:
        consumer.start()
    try:
        yield
    finally:
        for consumer in consumers:
            consumer.close(drain_s=5.0)


class Shelf:
    """Stands in for the ledger: takes what comes, and can be away."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.batches: list[int] = []
        self.there = threading.Event()
        self.there.set()

    def write(self, items: Sequence[Item]) -> Written:
        if not self.there.is_set():
            raise StoreUnavailable("NETWORK_ERROR")
        if any(POISON.encode() in item.data for item in items):
            raise PoisonBatch("INCORRECT_DATA")
        self.taken += [item.data for item in items]
        self.batches.append(len(items))
        return Written([Outcome(calls=item.spans) for item in items], sum(item.spans for item in items), 0, 0)
