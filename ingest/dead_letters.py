"""The dead-letter topic: messages that can't be entered, as they came, with where they came from and why in headers of their own.

What the topic holds may be somebody's prompts where they are collected: it wants the access rights and the retention of the topics it is fed from.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from kafka import KafkaProducer, errors
from kafka.structs import TopicPartition

from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.messages import Dead, Partition, Record
from tallystick.schema.kafka import Brokers, read_headers

PREFIX: Final = "tallystick-dead-"
TOPIC: Final = f"{PREFIX}topic"
PARTITION: Final = f"{PREFIX}partition"
OFFSET: Final = f"{PREFIX}offset"
TIMESTAMP: Final = f"{PREFIX}timestamp"
"""The message's own, in milliseconds."""
REASON: Final = f"{PREFIX}reason"
"""One of `messages.REASONS`."""
DETAIL: Final = f"{PREFIX}detail"
LEFT: Final = f"{PREFIX}left"
"""Bytes of a value that the dead-letter topic doesn't take: it is only where it came from."""

_UNDER_WAY: Final = 8 << 20
"""Bytes that are sent before their acknowledgements are waited for: the producer's own memory has no bound."""

_TIMEOUT_S: Final = 30

_LARGEST: Final = 64 << 20

_TOO_LARGE: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)

Letter = tuple[Record, Dead]


class DeadLettersUnavailable(StoreUnavailable):
    """The dead-letter topic can't be written now. Nothing is skipped for that: the messages are dealt with later."""


class DeadLetters:
    """Writes the topic, from one thread.

    connect: makes a producer of kafka-python. One that has failed is thrown away: an idempotent one that a broker refused once fails for ever.
    """

    def __init__(self, topic: str, connect: Callable[[], Any]) -> None:
        self._topic, self._connect = topic, connect
        self._producer: Any = None

    def write(self, letters: Sequence[Letter]) -> None:
        """On return the brokers in sync have all of them; where some of it was repeated, some stand there twice. Raises DeadLettersUnavailable."""
        without_value: set[int] = set()
        alone = len(letters) == 1
        while refused := self._attempt(letters, without_value, alone=alone):
            # Of a batch that is refused for one message's sake the client says the same of the others: sent alone, each answers for itself.
            if alone:
                without_value |= refused
            alone = True

    def close(self) -> None:
        """Everything written is acknowledged by now."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout=0)

    def _attempt(self, letters: Sequence[Letter], without_value: Collection[int], *, alone: bool) -> set[int]:
        """The numbers of those whose values the topic doesn't take; alone, the first. All are sent again then: after a refusal the producer is done for."""
        refused: set[int] = set()
        try:
            for chunk in ([number] for number in range(len(letters))) if alone else _chunks(letters):
                if refused:
                    break
                sent = []
                for number in chunk:
                    with _noting(number, refused):
                        sent.append((number, self._send(*letters[number], whole=number not in without_value)))
                for number, future in sent:
                    with _noting(number, refused):
                        future.get(timeout=_TIMEOUT_S)
        except errors.KafkaError as error:
            self.close()
            if not refused - set(without_value):
                raise DeadLettersUnavailable(f"{self._topic} can't be written: {type(error).__name__}") from error
        if refused:
            self.close()
            if refused & set(without_value):
                raise DeadLettersUnavailable(f"{self._topic} doesn't even take a message without its value")
        return refused

    def _send(self, record: Record, dead: Dead, *, whole: bool) -> Any:
        if self._producer is None:
            self._producer = self._connect()
        headers = [*record.headers, *dead_headers(record, dead, whole=whole)]
        # kafka-python takes no message without both, a value and a key.
        value = (record.value if whole else None) or b""
        return self._producer.send(self._topic, value, key=record.key, headers=headers)


@contextmanager
def _noting(number: int, refused: set[int]) -> Iterator[None]:
    try:
        yield
    except _TOO_LARGE:
        refused.add(number)


def _chunks(letters: Sequence[Letter]) -> Iterator[list[int]]:
    """Numbers of letters of about `_UNDER_WAY` bytes."""
    chunk: list[int] = []
    size = 0
    for number, (record, _) in enumerate(letters):
        chunk.append(number)
        size += record.size
        if size > _UNDER_WAY:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def dead_headers(record: Record, dead: Dead, *, whole: bool = True) -> list[tuple[str, bytes]]:
    """What is added to the message's own headers. whole: whether its value is there, too."""
    added = {
        TOPIC: record.partition.topic,
        PARTITION: str(record.partition.number),
        OFFSET: str(record.offset),
        TIMESTAMP: str(record.timestamp_ms),
        REASON: dead.reason,
        DETAIL: dead.detail,
        **({} if whole else {LEFT: str(len(record.value or b""))}),
    }
    return [(name, text.encode()) for name, text in added.items()]


class DeadLetter(NamedTuple):
    """A message of the dead-letter topic. at: its own coordinates; at_ms: when it was written. record: the message as it was where it came from;
    its value is missing where `left` bytes of it wouldn't fit. tenant, spans: as the headers claim; "" and None where they don't.
    """

    at: Record
    record: Record
    dead: Dead
    left: int
    tenant: str
    spans: int | None

    @property
    def at_ms(self) -> int:
        return self.at.timestamp_ms


def read_letter(at: Record) -> DeadLetter | None:
    """None where the headers don't say where it came from: somebody else wrote it."""
    added = {name: (value or b"").decode("utf-8", "replace") for name, value in at.headers if name.startswith(PREFIX)}
    if not all(re.fullmatch(r"-?[0-9]{1,19}", added.get(name, "")) for name in (PARTITION, OFFSET, TIMESTAMP)) or not added.get(
        TOPIC
    ):
        return None
    own = tuple(header for header in at.headers if not header[0].startswith(PREFIX))
    left = int(added[LEFT]) if re.fullmatch(r"[0-9]{1,19}", added.get(LEFT, "")) else 0
    partition = Partition(added[TOPIC], int(added[PARTITION]))
    record = Record(partition, int(added[OFFSET]), int(added[TIMESTAMP]), at.key, None if left else at.value, own)
    said = read_headers(own)
    return DeadLetter(at, record, Dead(added.get(REASON, ""), added.get(DETAIL, "")), left, said.tenant, said.spans)


def dead_letter_producer(brokers: Brokers) -> Any:
    """Of kafka-python. Raises errors of Kafka where no broker answers."""
    made: Any = KafkaProducer
    return made(
        bootstrap_servers=list(brokers.addresses),
        client_id="tallystick-dead-letters",
        acks="all",
        enable_idempotence=True,
        compression_type="gzip",
        # How much the topic takes is the brokers' to say.
        max_request_size=_LARGEST,
        max_block_ms=10_000,
        delivery_timeout_ms=_TIMEOUT_S * 1000,
        request_timeout_ms=10_000,
        bootstrap_timeout_ms=10_000,
        metrics_enabled=False,
        **brokers.security,
    )


def read_all(consumer: Any, topic: str, since_ms: int | None = None) -> Iterator[Record]:
    """Every message that a topic holds now, or that was written to it since: a partition after the other.

    consumer: of kafka-python, without a group. Raises errors of Kafka.
    """
    for number in sorted(consumer.partitions_for_topic(topic) or ()):
        partition = TopicPartition(topic, number)
        end = consumer.end_offsets([partition])[partition]
        consumer.assign([partition])
        if since_ms is None:
            consumer.seek_to_beginning(partition)
        else:
            found = consumer.offsets_for_times({partition: since_ms})[partition]
            consumer.seek(partition, end if found is None else found.offset)
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=500).values():
                yield from (one for one in map(as_record, records) if one.offset < end)


def as_record(given: Any) -> Record:
    """From kafka-python's ConsumerRecord. A header without a value is an empty one."""
    headers = tuple((name, value or b"") for name, value in given.headers)
    return Record(Partition(given.topic, given.partition), given.offset, given.timestamp, given.key, given.value, headers)
