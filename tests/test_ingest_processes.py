"""`tallystick ingest` in processes of their own, into a real ClickHouse server: killed or stopped at any moment, nothing is doubled or lost."""

import random
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import otlp
import pytest
from broker import Broker
from clickhouse import ClickHouse
from consuming import Topic, until
from server import CLEAN, COMMAND

from tallystick.ingest.migrate import migrate
from tallystick.ingest.server_store import ServerStore


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with Broker(tmp_path_factory.mktemp("kafka") / "broker") as running:
        yield running


@pytest.fixture(scope="module")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("clickhouse") / "server") as running:
        store = ServerStore(running.url(), running.password)
        migrate(store, 0)
        store.close()
        yield running


class Ingest:
    """The command on a topic of the test's own."""

    def __init__(self, topic: Topic, clickhouse: ClickHouse, log: Path) -> None:
        self._log = log
        env = {
            **CLEAN,
            **clickhouse.env("ingest"),
            "TALLYSTICK_KAFKA": topic.broker.address,
            "TALLYSTICK_KAFKA_RECEIVED": topic.received,
            "TALLYSTICK_KAFKA_TENANTS": f"{topic.others}={topic.tenant}",
            "TALLYSTICK_KAFKA_DEAD_LETTERS": topic.dead,
            "TALLYSTICK_KAFKA_GROUP": topic.name,
            "TALLYSTICK_KAFKA_SESSION_S": "6",
            "TALLYSTICK_BATCH_MAX_SPANS": "400",
            "TALLYSTICK_BATCH_WINDOW_MS": "100",
            "TALLYSTICK_HEALTH_PORT": "0",
        }
        with log.open("a") as out:
            self.process = subprocess.Popen([*COMMAND, "ingest"], env=env, stdout=subprocess.PIPE, stderr=out, text=True)

    def ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline().startswith("ready kafka://"), self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def send(topic: Topic, messages: int, first: int = 0) -> None:
    """Ten spans each, every second message twice."""
    made = [
        otlp.request(*(otlp.span(f"{topic.name}{number}", f"{number}.{one}") for one in range(10))).SerializeToString()
        for number in range(first, first + messages)
    ]
    topic.send([*made, *made[::2]])


def entered(clickhouse: ClickHouse, topic: Topic) -> tuple[int, int]:
    """Calls of the test's tenant, and how many of them are different ones."""
    query = f"SELECT sum(calls), uniqExact(trace_id, span_id) FROM tallystick.ledger WHERE tenant = '{topic.tenant}' FORMAT TSV"
    calls, different = clickhouse.ask(query).split()
    return int(calls), int(different)


def test_killed_and_stopped_consumers_double_and_lose_nothing(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    topic, chance = Topic(broker, "killed", partitions=4), random.Random(8)
    send(topic, 300)
    log = tmp_path / "log"
    running = [Ingest(topic, clickhouse, log) for _ in range(2)]
    for one in running:
        one.ready()
    # A zombie: stopped for longer than its session, while the other goes on with its partitions.
    zombie = running[0]
    zombie.process.send_signal(signal.SIGSTOP)
    until(lambda: topic.committed() >= 450, 120, log.read_text)
    send(topic, 100, 300)
    zombie.process.send_signal(signal.SIGCONT)
    for _ in range(2):
        victim = chance.randrange(2)
        until(lambda: entered(clickhouse, topic)[0] > 0, 60, log.read_text)
        running[victim].kill()
        running[victim] = Ingest(topic, clickhouse, log)
    until(lambda: topic.committed() == 600, 120, log.read_text)
    assert entered(clickhouse, topic) == (4000, 4000)
    for one in running:
        one.process.terminate()
        assert one.process.wait(60) == 0, log.read_text()
        one.process.communicate()


def test_too_many_dead_letters_end_the_process_with_what_to_do(broker: Broker, clickhouse: ClickHouse, tmp_path: Path) -> None:
    topic = Topic(broker, "garbage")
    topic.send([b"garbage"] * 150)
    one = Ingest(topic, clickhouse, tmp_path / "log")
    assert one.process.wait(120) == 1
    one.process.communicate()
    said = (tmp_path / "log").read_text()
    assert "dead letters in a row" in said
    assert "tallystick deadletters list" in said
