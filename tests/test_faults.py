"""What may go wrong between a sender and the ledger, for real, and nothing acknowledged is lost or doubled by it.

Kafka, ClickHouse, receivers and consumers are processes that are killed, stopped, starved and fed garbage while senders go on. Each
test adds a line to a table; `TALLYSTICK_FAULTS` names the file that it is written to. `TALLYSTICK_FAULT_KILLS` says how often is killed (100),
`TALLYSTICK_FAULT_OUTAGE_S` how long a broker or store is away (10 seconds).
"""

import gzip
import json
import os
import random
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from disks import filled, small_disk
from load import TOKENS, TOTALS, Sender
from otlp import trace_hex
from server import free_port
from system import SESSION_S, Part, System

from tallystick.ingest.migrate import migrations
from tallystick.schema.kafka import RECEIVED, TENANT

KILLS = int(os.environ.get("TALLYSTICK_FAULT_KILLS", "100"))
OUTAGE_S = float(os.environ.get("TALLYSTICK_FAULT_OUTAGE_S", "10"))
SENDERS = 4
SETTLED_S = 240
"""How long what was acknowledged may take to be stored once nothing is wrong any more."""


@dataclass
class Row:
    """What became of the calls of one test."""

    fault: str
    times: int
    sent: int = 0
    held_off: int = 0
    acknowledged: int = 0
    stored: int = 0
    doubled: int = 0
    lost: int = 0
    wrong: int = 0


@dataclass
class Table:
    """The lines of all tests."""

    rows: list[Row] = field(default_factory=list)

    def __str__(self) -> str:
        head = ("fault", "times", "requests", "of them 503", "calls acknowledged", "stored", "doubled", "lost")
        lines = [(r.fault, r.times, r.sent, r.held_off, r.acknowledged, r.stored, r.doubled, r.lost) for r in self.rows]
        width = max(len(str(line[0])) for line in [head, *lines])
        return "\n".join(
            f"{line[0]:<{width}}" + "".join(f"{cell:>{len(name) + 3}}" for name, cell in zip(head[1:], line[1:], strict=True))
            for line in [head, *lines]
        )


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    made = Table()
    yield made
    if made.rows:
        print(f"\n{made}")
        if name := os.environ.get("TALLYSTICK_FAULTS"):
            Path(name).write_text(f"{made}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("system")) as running:
        yield running


@contextmanager
def under_load(
    system: System, table: Table, fault: str, urls: Sequence[str] | None = None, pause_s: float = 0.1
) -> Iterator[Row]:
    """Senders at work while the block does harm, then everything that they were acknowledged is in the ledger, once."""
    row = Row(fault, 1)
    short = re.sub(r"\W+", "-", fault)
    senders = [Sender(f"{short}-{i}", urls or system.urls, pause_s) for i in range(SENDERS)]
    for sender in senders:
        sender.start()
    yield row
    for sender in senders:
        sender.finish(SETTLED_S)
    names = {trace_hex(name) for sender in senders for name in sender.calls()}
    row.sent = sum(sender.sent for sender in senders)
    row.held_off = sum(sender.held_off for sender in senders)
    row.acknowledged = len(names)
    until = time.monotonic() + SETTLED_S
    while True:
        stored = {found["trace_id"]: found for found in system.rows(TOTALS)}
        row.lost = sum(name not in stored or stored[name]["calls"] < 1 for name in names)
        if not row.lost or time.monotonic() > until:
            break
        time.sleep(0.5)
    # What a stopped or late process might still add has time to come.
    time.sleep(2)
    stored = {found["trace_id"]: found for found in system.rows(TOTALS)}
    of = [stored[name] for name in names if name in stored]
    row.stored = sum(found["calls"] >= 1 for found in of)
    row.lost = row.acknowledged - row.stored
    row.doubled = sum(found["calls"] > 1 or found["most_entries"] > 1 for found in of)
    row.wrong = sum(found["total"] != TOKENS for found in of)
    table.rows.append(row)
    assert (row.doubled, row.lost, row.wrong) == (0, 0, 0), row
    assert row.acknowledged > 0


def test_kills(system: System, table: Table) -> None:
    """SIGKILL of receivers, consumers, broker and ClickHouse at random moments, also while they start."""
    chance = random.Random(20261121)
    victims: list[Part | str] = [*system.receivers * 4, *system.consumers * 4, "broker", "clickhouse", "clickhouse"]
    with under_load(system, table, "kill -9 of a receiver, consumer, broker or ClickHouse") as row:
        for _ in range(KILLS):
            victim = chance.choice(victims)
            if isinstance(victim, Part):
                # It may be starting still: that is a moment like any other.
                victim.kill()
                victim.launch()
            else:
                server = system.broker if victim == "broker" else system.clickhouse
                server.kill()
                time.sleep(chance.uniform(0, 1))
                server.start()
            row.times += 1
            time.sleep(chance.uniform(0, 1.2))
        row.times -= 1
        mend(system)


def mend(system: System) -> None:
    """All parts run again."""
    for part in system.parts:
        if not part.running:
            part.launch()
    for part in system.parts:
        part.wait_until_ready()


def test_a_consumer_that_was_stopped(system: System, table: Table) -> None:
    """A zombie: it is stopped, others take its partitions when its session has expired, and then it goes on with what it was at."""
    with under_load(system, table, "SIGSTOP of a consumer past its session") as row:
        for part in system.consumers:
            part.pause()
            time.sleep(SESSION_S + 2)
            part.resume()
            time.sleep(3)
            row.times += 1
        row.times -= 1
    assert all(part.running for part in system.consumers)


def test_a_broker_that_is_away(system: System, table: Table) -> None:
    """Receivers go on: what they acknowledge stands in their spools."""
    with under_load(system, table, f"broker away for {OUTAGE_S:.0f} s") as row:
        time.sleep(1)
        system.broker.kill()
        time.sleep(OUTAGE_S)
        system.broker.start()
        time.sleep(2)
    assert row.held_off == 0, "a spool has room for all of it"


def test_a_broker_that_is_silent(system: System, table: Table) -> None:
    with under_load(system, table, f"broker silent for {OUTAGE_S:.0f} s"):
        time.sleep(1)
        system.broker.pause()
        time.sleep(OUTAGE_S)
        system.broker.resume()
        time.sleep(2)


def test_a_store_that_is_away(system: System, table: Table) -> None:
    """Receivers don't notice, consumers wait."""
    with under_load(system, table, f"ClickHouse away for {OUTAGE_S:.0f} s") as row:
        time.sleep(1)
        system.clickhouse.kill()
        time.sleep(OUTAGE_S)
        system.clickhouse.start()
    assert row.held_off == 0
    assert all(part.running for part in system.consumers)


def test_a_store_that_is_slow(system: System, table: Table) -> None:
    """It is stopped for a moment, again and again, in the middle of whatever it does."""
    chance = random.Random(20261122)
    with under_load(system, table, "ClickHouse stopped for moments") as row:
        for _ in range(10):
            system.clickhouse.pause()
            time.sleep(chance.uniform(0.2, 2))
            system.clickhouse.resume()
            time.sleep(chance.uniform(0, 1))
            row.times += 1
        row.times -= 1


def test_garbage(system: System, table: Table) -> None:
    """Messages that are none stand among the good ones; each is a dead letter, and its partition moves on."""
    chance = random.Random(20261123)
    good = Sender("a payload", system.urls).request(0).SerializeToString()
    garbage = [
        b"{}",
        b"\x0a\xff\xff\xff\xff\xff\xff",
        good[: len(good) // 2],
        gzip.compress(good),
        json.dumps({"resourceSpans": []}).encode(),
        b"\x0a" * 900_000,
        *(chance.randbytes(chance.randrange(1, 5_000)) for _ in range(20)),
    ]
    before = dead_letters(system)
    with under_load(system, table, "messages of garbage between") as row:
        for value in garbage:
            system.broker.send(RECEIVED, value, {TENANT: b"default"})
            time.sleep(0.2)
        system.broker.send(RECEIVED, good, {})
        # Nothing at all is a request without spans.
        system.broker.send(RECEIVED, b"", {TENANT: b"default"})
        row.times = len(garbage) + 2
    found = dead_letters(system)[len(before) :]
    assert len(found) == len(garbage) + 1
    assert {letter["reason"] for letter in found} >= {"malformed", "unknown-tenant"}
    assert all(part.running for part in system.consumers)


def dead_letters(system: System) -> list[dict[str, Any]]:
    listed = system.run("deadletters", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)
    return found


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 150) as place:
        yield place


def test_a_spool_on_a_full_disk(system: System, table: Table, disk: Path) -> None:
    """No broker, and no room for a spool: senders are asked to wait, and nothing that was acknowledged is lost."""
    port = free_port()
    receiver = Part(
        system.folder,
        "receiver-full",
        ["receiver", "--data", str(disk / "receiver"), "--port", str(port), "--grpc-port", "0"],
        system.env,
    )
    receiver.start()
    try:
        with (
            under_load(system, table, "spool on a full disk", [f"http://127.0.0.1:{port}"]) as row,
            filled(disk, 3_000_000),
        ):
            system.broker.kill()
            time.sleep(OUTAGE_S)
            system.broker.start()
        assert row.held_off > 0, "the disk never filled"
        receiver.stop()
    finally:
        receiver.kill()


def test_a_store_out_of_disk(tmp_path: Path, table: Table, disk: Path) -> None:
    with System(tmp_path, receivers=1, consumers=1, clickhouse=disk / "clickhouse") as system:
        with under_load(system, table, "ClickHouse out of disk"):
            time.sleep(2)
            with filled(disk, 200_000):
                time.sleep(OUTAGE_S)
        assert "NOT_ENOUGH_SPACE" in system.consumers[0].log()
        system.consumers[0].stop()


def test_clocks_that_jump(system: System, table: Table, tmp_path: Path) -> None:
    """A receiver and a consumer whose clocks are set an hour back, and a day forth and back, while they work."""
    (tmp_path / "sitecustomize.py").write_text(JUMPS)
    env = {**system.env, "PYTHONPATH": str(tmp_path)}
    port = free_port()
    receiver = system.receiver("receiver-jumping", port, env)
    consumer = system.consumer("consumer-jumping", env)
    for part in (receiver, consumer):
        part.start()
    try:
        with under_load(system, table, "clock steps", [f"http://127.0.0.1:{port}"]):
            time.sleep(15)
        for part in (consumer, receiver):
            part.stop()
    finally:
        receiver.kill()
        consumer.kill()


JUMPS = """
import itertools, time
ns, real = time.time_ns, time.monotonic
begun = real()
def off():
    return (0, -3_600, 0, 86_400, -86_400)[int((real() - begun) // 3) % 5] * 1_000_000_000
time.time_ns = lambda: ns() + off()
time.time = lambda: time.time_ns() / 1e9
"""
"""Of each fifteen seconds three on time, three an hour late, three on time, three a day early, three a day late."""


def test_two_versions(system: System, table: Table, tmp_path: Path) -> None:
    """An upgrade while spans come: the schema first, then one consumer after the other. An older one may be started on the newer schema, too."""
    source = Path(__file__).parent.parent / "src" / "tallystick"
    shutil.copytree(source, tmp_path / "tallystick", ignore=shutil.ignore_patterns("__pycache__"))
    newer = {**system.env, "PYTHONPATH": str(tmp_path)}
    number = len(migrations()) + 1
    (tmp_path / "tallystick" / "schema" / "migrations" / f"{number:04}_next.sql").write_text(
        "ALTER TABLE ledger ADD COLUMN IF NOT EXISTS next LowCardinality(String);\n"
    )
    older = system.consumers
    with under_load(system, table, "upgrade with two versions"):
        migrated = system.run("migrate", "--json", env={**newer, **system.clickhouse.env("admin")})
        assert migrated.returncode == 0, migrated.stderr
        assert f"{number:04} next" in migrated.stdout
        upgraded = system.consumer("consumer-newer", newer)
        upgraded.start()
        older[0].stop()
        older[0].start()
        time.sleep(3)
        for part in older:
            part.stop()
        time.sleep(3)
    assert "it works with what it knows" in older[0].log()
    upgraded.stop()
    for part in older:
        part.start()
