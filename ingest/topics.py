"""The topics between receivers and consumers, brought into being."""

from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaAdminClient, errors
from kafka.admin import NewTopic

from tallystick.ingest.flight import CONNECT_MS, NoBroker, said
from tallystick.schema.kafka import Brokers

_DAY_MS: Final = 86_400_000

_BOTH: Final = {
    # As producers compressed it: brokers needn't do it again.
    "compression.type": "producer",
    # The clock of a receiver may be wrong, and Kafka 4 refuses what comes from an hour ahead.
    "message.timestamp.after.max.ms": str(2**63 - 1),
}
RECEIVED_CONFIG: Final = {**_BOTH, "retention.ms": str(7 * _DAY_MS), "max.message.bytes": "1048588"}
DEAD_LETTERS_CONFIG: Final = {
    **_BOTH,
    "retention.ms": str(30 * _DAY_MS),
    # A dead letter has more headers than the message had.
    "max.message.bytes": "2097152",
}

PARTITIONS: Final = 12
"""Of a new received topic: so many consumers may share it."""


def ensure_topics(
    brokers: Brokers,
    received: str,
    dead_letters: str,
    *,
    partitions: int | None = None,
    replication: int = 0,
    check: bool = False,
) -> list[str]:
    """Make the topics that are missing; what there is is left as it is.

    partitions: of the received topic, which is given more where it has fewer. None: of a new one 12, one that is there keeps its own.
    replication: copies of each message, 0 is the brokers' default; of three or more, two must have a message before it is acknowledged.
    What was done or, to check, is missing, in sentences. Raises NoBroker, and ValueError where the brokers refuse: its text says why.
    """
    made: Any = KafkaAdminClient
    try:
        admin = made(
            bootstrap_servers=list(brokers.addresses),
            client_id="tallystick-topics",
            bootstrap_timeout_ms=CONNECT_MS,
            request_timeout_ms=30_000,
            **brokers.security,
        )
    except Exception as error:
        raise NoBroker(said(error, brokers)) from error
    try:
        there = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics() if not topic["error_code"]}
        done: list[str] = []
        new = PARTITIONS if partitions is None else partitions
        for name, least, count, config in (
            (received, partitions or 1, new, RECEIVED_CONFIG),
            (dead_letters, 1, 1, DEAD_LETTERS_CONFIG),
        ):
            if check:
                if there.get(name, 0) < least:
                    done.append(f"topic {name} has {there.get(name, 0)} of {least if name in there else count} partitions")
            elif name not in there:
                _make(admin, name, count, replication, config)
                done.append(f"made topic {name} with {count} partition{'s' if count > 1 else ''}")
            elif there[name] < least:
                admin.create_partitions({name: count})
                done.append(f"gave topic {name} {count - there[name]} more partitions, {count} now")
    except errors.BrokerResponseError as error:
        raise ValueError(f"the brokers refuse: {type(error).__name__}, {error.description}") from error
    except errors.KafkaError as error:
        raise NoBroker(said(error, brokers)) from error
    finally:
        admin.close()
    return done


def _make(admin: Any, name: str, partitions: int, replication: int, config: Mapping[str, str]) -> None:
    quorum = {"min.insync.replicas": "2"} if replication >= 3 else {}
    try:
        admin.create_topics([NewTopic(name, partitions, replication or -1, topic_configs={**config, **quorum})])
    except errors.TopicAlreadyExistsError:
        """Another process was faster."""
