"""What waits in Kafka: the topics' partitions as brokers tell of them."""

import logging
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, Final

from tallystick.attribution.audit import Partition
from tallystick.ingest.errors import StoreUnavailable
from tallystick.schema.kafka import Brokers
from tallystick.server.brokers import brokers_of
from tallystick.settings import Settings

_TIMEOUT_MS: Final = 5_000


def waiting(settings: Settings) -> list[Partition] | None:
    """Of all topics that are consumed; None where the settings name no brokers. Raises StoreUnavailable, BadSetting."""
    if not settings.kafka:
        return None
    from kafka.errors import KafkaError

    from tallystick.server.run_ingest import topics_of

    # It tells of every connection.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    try:
        return _asked(brokers_of(settings), settings.kafka_group, topics_of(settings).names)
    except KafkaError as error:
        raise StoreUnavailable(
            f"Kafka can't be asked: {type(error).__name__}", "is it running, and TALLYSTICK_KAFKA right?"
        ) from error


def _asked(brokers: Brokers, group: str, topics: list[str]) -> list[Partition]:
    from kafka import KafkaConsumer
    from kafka.structs import TopicPartition

    make: Any = KafkaConsumer
    # A consumer that is assigned to joins no group: it may ask for what a group committed.
    with closing(
        make(
            bootstrap_servers=list(brokers.addresses), group_id=group, enable_auto_commit=False, allow_auto_create_topics=False,
            bootstrap_timeout_ms=_TIMEOUT_MS, request_timeout_ms=_TIMEOUT_MS, session_timeout_ms=_TIMEOUT_MS - 1_000, heartbeat_interval_ms=1_000,
            fetch_max_bytes=1, metrics_enabled=False, **brokers.security,
        )
    ) as consumer:  # fmt: skip
        found = []
        for topic in topics:
            for number in sorted(consumer.partitions_for_topic(topic) or ()):
                at = TopicPartition(topic, number)
                start, end = consumer.beginning_offsets([at])[at], consumer.end_offsets([at])[at]
                committed = consumer.committed(at, timeout_ms=_TIMEOUT_MS)
                following = max(start, committed or 0)
                since = _received(consumer, at, following) if following < end else None
                found.append(Partition(topic, number, start, end, committed, since))
        return found


def _received(consumer: Any, at: Any, offset: int) -> datetime | None:
    """When the message at an offset was."""
    consumer.assign([at])
    consumer.seek(at, offset)
    for record in consumer.poll(timeout_ms=_TIMEOUT_MS, max_records=1).get(at, []):
        return datetime.fromtimestamp(record.timestamp / 1000, UTC)
    return None
