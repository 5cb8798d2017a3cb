"""The dead letters of a deployment: read, told of without their contents, and sent back to where they came from."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from typing import Any

from kafka import KafkaConsumer

from tallystick.ingest.dead_letters import DeadLetter, dead_letter_producer, read_all, read_letter
from tallystick.ingest.header_names import read_any_header_name
from tallystick.ingest.payload import Limits, PayloadError, check_protobuf
from tallystick.server.brokers import brokers_of
from tallystick.settings import Settings

_UNDER_WAY = 100
"""Messages that are sent before their acknowledgements are waited for."""


class NoSuchTopic(Exception):
    """The dead-letter topic isn't there."""


class DeadLetterDesk:
    """Raises BadSetting where no broker is named, and errors of Kafka."""

    def __init__(self, settings: Settings) -> None:
        self._brokers, self._topic = brokers_of(settings), settings.kafka_dead_letters
        self._limits = Limits(settings.max_body_bytes, settings.max_request_spans)

    def letters(self, reason: str | None = None, topic: str | None = None, since: datetime | None = None) -> Iterator[DeadLetter]:
        """In the order in which they were written, of one partition after the other. None: any. Raises NoSuchTopic."""
        read_any_header_name()
        made: Any = KafkaConsumer
        consumer = made(
            bootstrap_servers=list(self._brokers.addresses),
            enable_auto_commit=False,
            allow_auto_create_topics=False,
            auto_offset_reset="earliest",
            bootstrap_timeout_ms=10_000,
            metrics_enabled=False,
            **self._brokers.security,
        )
        with closing(consumer):
            if not consumer.partitions_for_topic(self._topic):
                raise NoSuchTopic(f"there is no topic {self._topic}")
            for at in read_all(consumer, self._topic, None if since is None else int(since.timestamp() * 1000)):
                letter = read_letter(at)
                if letter and reason in {None, letter.dead.reason} and topic in {None, letter.record.partition.topic}:
                    yield letter

    def one(self, coordinates: str) -> DeadLetter | None:
        """By its own `TOPIC/PARTITION/OFFSET`, or by that of the message that it was: the last then."""
        found = None
        for letter in self.letters():
            if coordinates == letter.at.coordinates:
                return letter
            if coordinates == letter.record.coordinates:
                found = letter
        return found

    def summary(self, letter: DeadLetter) -> dict[str, Any]:
        """What a message holds, without its contents: services and their spans, spans that can't be read by reason, names of headers."""
        headers = ", ".join(name for name, _ in letter.record.headers)
        if letter.record.value is None:
            return {"headers": headers, "services": {}, "rejected": {}, "problem": "the value isn't here: it was too large"}
        try:
            payload = check_protobuf(letter.record.value, self._limits)
        except PayloadError as error:
            return {"headers": headers, "services": {}, "rejected": {}, "problem": str(error)}
        services = Counter[str]()
        for account in payload.accounts:
            services[account.service] += account.spans
        return {"headers": headers, "services": dict(services), "rejected": payload.rejected, "problem": ""}

    def replay(self, letters: Iterable[DeadLetter], *, dry_run: bool) -> dict[str, Any]:
        """Send each message once, however often it stands there. On return the brokers in sync have all of them.

        messages: sent; repeated, without_value: not sent, as another letter was it, or its value isn't here. topics: topic → messages.
        """
        seen: set[str] = set()
        topics = Counter[str]()
        repeated = without_value = 0
        producer: Any = None if dry_run else dead_letter_producer(self._brokers)
        under_way: list[Any] = []
        try:
            for letter in letters:
                record = letter.record
                if record.coordinates in seen:
                    repeated += 1
                elif record.value is None:
                    without_value += 1
                else:
                    seen.add(record.coordinates)
                    topics[record.partition.topic] += 1
                    if producer is not None:
                        under_way.append(
                            producer.send(
                                record.partition.topic,
                                record.value,
                                key=record.key,
                                headers=list(record.headers),
                                timestamp_ms=record.timestamp_ms if record.timestamp_ms >= 0 else None,
                            )
                        )
                        if len(under_way) >= _UNDER_WAY:
                            _wait(under_way)
            _wait(under_way)
        finally:
            if producer is not None:
                producer.close(timeout=0)
        return {"messages": topics.total(), "topics": dict(topics), "repeated": repeated, "without_value": without_value}


def _wait(under_way: list[Any]) -> None:
    for future in under_way:
        future.get(timeout=30)
    under_way.clear()
