"""A backlog that drains: how fast one consumer enters what waited in Kafka, from its first part to its last, and how much memory it takes meanwhile.

    .venv/bin/python benchmarks/backlog.py [SPANS]      default 10,000,000: 2 GB in Kafka, some minutes

A real broker and a real ClickHouse server on this machine. Every span is a call of its own. The server merges meanwhile.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import numpy as np
import otlp
from broker import Broker
from clickhouse import ClickHouse
from consumer import SPANS, cpu_s, peak_mib
from consuming import Topic
from server import CLEAN, COMMAND

from tallystick.ingest.migrate import migrate
from tallystick.ingest.server_store import ServerStore

PART = 0.1
"""Of the backlog, that is told by itself."""


def values(count: int) -> Iterator[bytes]:
    """Requests of SPANS calls. The ids of one are replaced by random ones: making each would take longer than entering it."""
    names = [f"backlog {one}" for one in range(SPANS)]
    made = otlp.request(*(otlp.span(name) for name in names)).SerializeToString()
    places = []
    for name in names:
        for size in (16, 8):
            at = made.index(otlp.ident(name, size))
            places += range(at, at + size)
    template, where = np.frombuffer(made, np.uint8), np.array(places)
    chance = np.random.default_rng(20261121)
    for _ in range(count):
        one = template.copy()
        one[where] = chance.integers(1, 256, len(where), np.uint8)
        yield one.tobytes()


def main(spans: int) -> None:
    messages = -(-spans // SPANS)
    spans = messages * SPANS
    with (
        tempfile.TemporaryDirectory() as place,
        Broker(Path(place) / "kafka") as broker,
        ClickHouse(Path(place) / "ch") as clickhouse,
    ):
        store = ServerStore(clickhouse.url(), clickhouse.password)
        migrate(store, 0)
        store.close()
        topic = Topic(broker, "backlog", partitions=4)
        began = time.perf_counter()
        topic.send(values(messages))
        print(f"{spans:,} spans written to Kafka in {time.perf_counter() - began:.0f} s", flush=True)
        env = {
            **CLEAN, **clickhouse.env("ingest"), "TALLYSTICK_KAFKA": broker.address, "TALLYSTICK_KAFKA_RECEIVED": topic.received,
            "TALLYSTICK_KAFKA_DEAD_LETTERS": topic.dead, "TALLYSTICK_KAFKA_GROUP": topic.name, "TALLYSTICK_HEALTH_PORT": "0",
        }  # fmt: skip
        consumer = Popen([*COMMAND, "ingest"], env=env, stdout=PIPE, stderr=DEVNULL)
        its = cpu_s(clickhouse.pid)
        drain(clickhouse, consumer.pid, spans)
        mine = cpu_s(consumer.pid)
        print(
            f"µs of CPU a span: consumer {mine / spans * 1e6:.1f} + ClickHouse {(cpu_s(clickhouse.pid) - its) / spans * 1e6:.1f};"
            f" most memory of the consumer {peak_mib(consumer.pid)} MiB, of the server {peak_mib(clickhouse.pid)} MiB"
        )
        counted = clickhouse.ask("SELECT sum(calls), uniqExact(trace_id, span_id) FROM tallystick.ledger")
        print(f"in the ledger: calls, and calls that differ: {counted}")
        consumer.terminate()
        consumer.communicate()


def drain(clickhouse: ClickHouse, pid: int, spans: int) -> None:
    """Until all is entered; a line for each tenth."""
    last, since, told = 0, 0.0, 1
    while last < spans:
        time.sleep(0.5)
        now = int(clickhouse.ask("SELECT sum(calls) FROM tallystick.ledger") or 0)
        if not since and now:
            since, begun = time.perf_counter(), now
        if now >= spans * PART * told:
            took = time.perf_counter() - since
            print(
                f"{now / spans:4.0%} after {took:5.0f} s, {(now - begun) / max(took, 0.5):,.0f} a second; consumer {peak_mib(pid)} MiB",
                flush=True,
            )
            told = int(now / spans / PART) + 1
        last = now


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000)
