"""A real Kafka broker in a process of its own, as tests drive it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.structs import TopicPartition

RUN = Path(__file__).parent.parent / "deploy" / "kafka" / "run.sh"


class Message(NamedTuple):
    """One message of a topic."""

    value: bytes
    headers: dict[str, bytes]
    key: bytes | None
    timestamp_ms: int


class Broker:
    """Apache Kafka on loopback while the block runs; what it holds survives `kill` and `start`. Needs Java; Maven once, for the jars."""

    def __init__(self, data: Path, port: int = 0, ports: Sequence[int] = ()) -> None:
        """ports: of all the brokers that it is one of."""
        self._data = data
        self._port = port or _two_free_ports()
        self._env = {"KAFKA_PORTS": " ".join(map(str, ports)), "KAFKA_HEAP": "256m"} if ports else {}
        self.address = f"127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()

    def launch(self) -> None:
        """Without waiting until it listens."""
        self._data.mkdir(parents=True, exist_ok=True)
        with self._log.open("a") as out:
            self._process = subprocess.Popen(
                [RUN, self._data, str(self._port)],
                stdout=out,
                stderr=out,
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._env},
            )

    @property
    def _log(self) -> Path:
        return self._data.parent / f"{self._data.name}.log"

    def start(self) -> None:
        self.launch()
        self.wait()

    def wait(self) -> None:
        """Until it listens."""
        log = self._log
        until = time.monotonic() + 120
        while not _listens(self._port):
            assert self._process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < until, log.read_text()[-4000:]
            time.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL, no chance to write anything."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """It answers nothing, and closes nothing."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self._process.pid, signal.SIGCONT)

    def make_topic(self, name: str, config: dict[str, str], partitions: int = 1) -> None:
        admin: Any = KafkaAdminClient(bootstrap_servers=self.address)
        admin.create_topics([NewTopic(name, partitions, 1, topic_configs=config)])
        admin.close()

    def configure(self, topic: str, config: dict[str, str]) -> None:
        """Change a topic's configuration."""
        admin: Any = KafkaAdminClient(bootstrap_servers=self.address)
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, config)])
        admin.close()

    def leader(self, topic: str) -> int:
        """The number of the broker, from 1, that leads the topic's first partition."""
        admin: Any = KafkaAdminClient(bootstrap_servers=self.address)
        (described,) = admin.describe_topics([topic])
        admin.close()
        return int(next(one["leader_id"] for one in described["partitions"] if one["partition_index"] == 0))

    def send(self, topic: str, value: bytes, headers: Mapping[str, bytes]) -> None:
        """One message to a topic, acknowledged when this returns."""
        producer: Any = KafkaProducer(bootstrap_servers=self.address, max_request_size=2_000_000)
        producer.send(topic, value, headers=list(headers.items())).get(30)
        producer.close()

    def messages(self, topic: str) -> list[Message]:
        """All of a topic, from its beginning, of one partition after the other."""
        consumer: Any = KafkaConsumer(bootstrap_servers=self.address, consumer_timeout_ms=2_000, auto_offset_reset="earliest")
        try:
            partitions = [TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())]
            ends = consumer.end_offsets(partitions)
            consumer.assign(partitions)
            consumer.seek_to_beginning(*partitions)
            found: dict[Any, list[Message]] = {partition: [] for partition in partitions}
            while any(consumer.position(partition) < end for partition, end in ends.items()):
                for partition, records in consumer.poll(timeout_ms=500).items():
                    found[partition] += [Message(r.value, dict(r.headers), r.key, r.timestamp) for r in records]
        finally:
            consumer.close()
        return [message for partition in partitions for message in found[partition]]


class Brokers:
    """Several brokers on loopback, each a controller, too, while the block runs. 300 MB each."""

    def __init__(self, data: Path, count: int = 3) -> None:
        ports: list[int] = []
        while len(ports) < count:
            port = _two_free_ports()
            if all(abs(port - other) > 1 for other in ports):
                ports.append(port)
        self.all = [Broker(data / f"broker-{number}", port, ports) for number, port in enumerate(ports, 1)]
        self.addresses = tuple(broker.address for broker in self.all)

    def __enter__(self) -> Self:
        for broker in self.all:
            broker.launch()
        for broker in self.all:
            broker.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for broker in self.all:
            broker.kill()


def _two_free_ports() -> int:
    """A port that is free together with the one after it, for the controller."""
    while True:
        with socket.socket() as one, socket.socket() as next_one:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            try:
                next_one.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return port


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
