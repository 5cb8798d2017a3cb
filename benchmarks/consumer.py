"""Kafka to stored row: CPU of a consumer and of the ClickHouse server a span, with one and two consumers, and a consumer's memory while a backlog drains.

    .venv/bin/python benchmarks/consumer.py [MESSAGES]      of 512 spans, default 400

A real broker and a real server on this machine; batches of 10,000 and of 64,000 spans (80,000 is the default). CPU is user and system time of the
processes, from the first message to the last commit, without their start.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import otlp
from broker import Broker
from clickhouse import ClickHouse
from consuming import Topic
from server import CLEAN, COMMAND

from tallystick.ingest.migrate import migrate
from tallystick.ingest.server_store import ServerStore

SPANS = 512
TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def peak_mib(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) >> 10


def consume(broker: Broker, clickhouse: ClickHouse, values: list[bytes], consumers: int, batch: int) -> None:
    topic = Topic(broker, f"with{consumers}of{batch}", partitions=4)
    env = {
        **CLEAN,
        **clickhouse.env("ingest"),
        "TALLYSTICK_KAFKA": broker.address,
        "TALLYSTICK_KAFKA_RECEIVED": topic.received,
        "TALLYSTICK_KAFKA_DEAD_LETTERS": topic.dead,
        "TALLYSTICK_KAFKA_GROUP": topic.name,
        "TALLYSTICK_BATCH_MAX_SPANS": str(batch),
        "TALLYSTICK_HEALTH_PORT": "0",
    }
    started: list[Any] = [
        subprocess.Popen([*COMMAND, "ingest"], env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(consumers)
    ]
    for one in started:
        assert one.stdout.readline().startswith(b"ready")
    time.sleep(8)  # partitions have been shared out
    pids = [one.pid for one in started]
    before, server = sum(map(cpu_s, pids)), cpu_s(clickhouse.pid)
    began = time.perf_counter()
    topic.send(values)
    sent_s = time.perf_counter() - began
    spans = len(values) * SPANS
    count = f"SELECT sum(calls) FROM tallystick.ledger WHERE tenant = '{topic.tenant}'"
    while int(clickhouse.ask(count) or 0) < spans:
        time.sleep(0.2)
    wall = time.perf_counter() - began
    mine, its = sum(map(cpu_s, pids)) - before, cpu_s(clickhouse.pid) - server
    print(
        f"batches of {batch:,}, {consumers} consumer{'s' * (consumers > 1)}: {spans:,} spans in {wall:.1f} s"
        f" ({spans / wall:,.0f} a second; written to Kafka in {sent_s:.1f} s),"
        f" µs of CPU a span: consumer {mine / spans * 1e6:.1f} + ClickHouse {its / spans * 1e6:.1f} = {(mine + its) / spans * 1e6:.1f};"
        f" most memory of a consumer {max(map(peak_mib, pids))} MiB",
        flush=True,
    )
    for one in started:
        one.terminate()
        one.communicate()


def main(messages: int) -> None:
    with (
        tempfile.TemporaryDirectory() as place,
        Broker(Path(place) / "kafka") as broker,
        ClickHouse(Path(place) / "ch") as clickhouse,
    ):
        store = ServerStore(clickhouse.url(), clickhouse.password)
        migrate(store, 0)
        store.close()
        for batch, consumers in ((10_000, 1), (10_000, 2), (64_000, 1), (64_000, 2)):
            values = [
                # One call a trace, as most are.
                otlp.request(*(otlp.span(f"{batch}.{consumers}.{n}.{one}") for one in range(SPANS))).SerializeToString()
                for n in range(messages)
            ]
            consume(broker, clickhouse, values, consumers, batch)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
