"""One producer of Kafka from its connection to its first failure, and the messages that it has under way.

A producer is never used again after a failure: an idempotent one that a broker has refused once fails for ever, and one whose broker is away
would send late what was sent again. It has no bound of its own for what it holds: `Flight.bytes` is there to be held to.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer, errors
from kafka.partitioner.sticky import StickyPartitioner

from tallystick.ingest.spool import Message
from tallystick.schema.kafka import Brokers

CONNECT_MS: Final = 15_000
"""For brokers to answer at all, and to say where the topic's partitions are: several questions and answers each, of brokers that may be slow."""

_ABOUT_MESSAGES: Final = (
    errors.MessageSizeTooLargeError,
    errors.RecordListTooLargeError,
    errors.InvalidRecordError,
    errors.InvalidTimestampError,
)

_BLOCK_MS: Final = 2_000

_BATCH_BYTES: Final = 900_000
"""Of a partition's batch, uncompressed: brokers take 1,048,588 by default. A message may be a little larger, and is then alone."""

_REQUEST_BYTES: Final = 8 << 20
"""Of one request, batches of several partitions."""

_LINGER_MS: Final = 5
"""For which a message waits for others of its batch; it is compressed with them."""


class NoBroker(Exception):
    """No broker takes messages for the topic now. The text says why, without what was configured of security."""


class _Held(NamedTuple):
    message: Message
    since_s: float
    arrived: Callable[[], None]


class Flight:
    """Messages under way to one topic, by their number.

    changed: held while anything here changes, and notified of it; callers hold it while they look at several things at once.
    """

    def __init__(
        self, producer: Any, topic: str, changed: threading.Condition, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._producer, self._topic, self._changed, self._clock = producer, topic, changed, clock
        self._held: dict[int, _Held] = {}
        self.bytes = 0
        """Of the messages under way, uncompressed."""
        self.failure: Exception | None = None
        """The first, after which nothing more is sent."""

    def send(self, number: int, message: Message, arrived: Callable[[], None]) -> None:
        """`arrived` is called on another thread once the brokers in sync have the message. Raises nothing: see `failure`."""
        with self._changed:
            self._held[number] = _Held(message, self._clock(), arrived)
            self.bytes += len(message.value)
        if self.failure is not None:
            return
        try:
            future = self._producer.send(self._topic, message.value, headers=message.headers, timestamp_ms=message.timestamp_ms)
        except Exception as error:
            self._fail(error)
            return
        future.add_callback(self._arrived, number)
        future.add_errback(self._fail)

    @property
    def numbers(self) -> list[int]:
        """Of the messages under way, as they were sent."""
        with self._changed:
            return list(self._held)

    def first(self) -> int | None:
        """Of the messages under way the first that was sent."""
        with self._changed:
            return next(iter(self._held), None)

    def waited_s(self) -> float:
        """For how long the first of them has been under way; 0 where there is none."""
        with self._changed:
            first = next(iter(self._held.values()), None)
            return 0.0 if first is None else self._clock() - first.since_s

    def land(self) -> list[int]:
        """Give up: what is under way may arrive yet, but nobody is told. The numbers of those messages, as they were sent."""
        with self._changed:
            left = list(self._held)
            self._held.clear()
            self.bytes = 0
        self._producer._sender.force_close()
        # Else it would be closed again, slowly, when it is collected.
        self._producer._closed = True
        return left

    def _arrived(self, number: int, _: Any) -> None:
        with self._changed:
            held = self._held.pop(number, None)
            if held is None:
                return
            self.bytes -= len(held.message.value)
            self._changed.notify_all()
        held.arrived()

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()


def connect(brokers: Brokers, topic: str) -> Any:
    """An idempotent producer that knows where the topic is. Blocks for `CONNECT_MS` twice at most. Raises NoBroker."""
    made: Any = KafkaProducer
    try:
        producer = made(
            bootstrap_servers=list(brokers.addresses),
            client_id="tallystick-receiver",
            acks="all",
            enable_idempotence=True,
            # 0.3 µs a span where gzip takes 5.6; batches are a quarter larger.
            compression_type="lz4",
            partitioner=StickyPartitioner(),
            batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
            linger_ms=_LINGER_MS,
            max_block_ms=CONNECT_MS,
            request_timeout_ms=10_000,
            delivery_timeout_ms=60_000,
            bootstrap_timeout_ms=CONNECT_MS,
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
            **brokers.security,
        )
    except Exception as error:
        raise NoBroker(said(error, brokers)) from error
    producer._unregister_cleanup()
    # A topic that a broker makes by itself has no second copy. kafka-python 3.0.12 has a setting for it that does nothing.
    producer._metadata.config["allow_auto_create_topics"] = False
    try:
        producer.partitions_for(topic)
    except Exception as error:
        producer._sender.force_close()
        producer._closed = True
        missing = isinstance(error, (errors.KafkaTimeoutError, errors.UnknownTopicOrPartitionError))
        raise NoBroker(
            f"no broker knows of topic {topic}: tallystick migrate makes it" if missing else said(error, brokers)
        ) from error
    # From here on only a topic that is deleted makes it wait, and payloads with it.
    producer.config["max_block_ms"] = _BLOCK_MS
    return producer


def is_refusal(error: Exception) -> bool:
    """Whether it is about a message. Others are about the brokers, the topic or the rights, and pass."""
    # Of a batch that is refused for one message Kafka's client says this of the others.
    return isinstance(error, _ABOUT_MESSAGES) or type(error) is errors.KafkaError


def said(error: Exception, brokers: Brokers) -> str:
    """An error in words that hold nothing of what was sent or configured."""
    name = type(error).__name__
    if isinstance(error, errors.KafkaTimeoutError) and brokers.security.get("security_protocol", "PLAINTEXT") != "PLAINTEXT":
        # Kafka's client takes being turned away for not being answered.
        return f"{name}: no broker answers, or it doesn't take the user, password or certificate"
    return name
