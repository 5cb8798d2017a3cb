"""From one process to several, as README tells it: its commands, run as they stand there, and the demo's traffic through them, to the last decimal."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from broker import Broker
from clickhouse import ClickHouse, ClickHouseCluster
from server import Server, free_port
from system import Part

from tallystick.cli.costs import by_dimensions
from tallystick.cli.replay import Source, Tally, deliver, opened
from tallystick.client import Client
from tallystick.traffic import shipped
from tallystick.traffic.calls import moved_to_yesterday
from tallystick.traffic.send import batched
from tallystick.traffic.truth import Group, expected

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
COMMANDS = [line.partition("#")[0].split()[1:] for line in BLOCK.splitlines() if line.startswith("tallystick ")]


@pytest.fixture(params=[ClickHouse, ClickHouseCluster], ids=["a server", "two shards"])
def env(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What README exports, for the servers that run here."""
    with Broker(tmp_path / "broker") as broker, request.param(tmp_path / "clickhouse") as clickhouse:
        made = {"TALLYSTICK_KAFKA": broker.address, **clickhouse.env("admin")}
        assert set(re.findall(r"(TALLYSTICK_\w+)=", BLOCK)) == made.keys() - {"TALLYSTICK_CLICKHOUSE_CLUSTER"}
        yield {
            **made,
            # Several of them on one machine.
            "TALLYSTICK_GRPC_PORT": "0",
            "TALLYSTICK_HEALTH_PORT": "0",
            "TALLYSTICK_RETENTION_DAYS": "0",
            "TALLYSTICK_DATA": str(tmp_path / "data"),
        }


def test_the_demo_through_kafka(tmp_path: Path, env: dict[str, str], server: Server) -> None:
    assert [command[0] for command in COMMANDS] == ["migrate", "receiver", "ingest", "api", "audit"]
    ports = {"receiver": free_port(), "api": free_port()}
    parts = {
        command[0]: Part(tmp_path, command[0], command, {**env, "TALLYSTICK_PORT": str(ports.get(command[0], 0))})
        for command in COMMANDS
    }
    assert parts["migrate"].run() == 0, parts["migrate"].log()
    try:
        for name in ("receiver", "ingest", "api"):
            parts[name].start()
        now_ns, tally = time.time_ns(), Tally()
        traffic = [
            call for trace in opened(shipped()) for call in tally.read(Source(trace, moved_to_yesterday(trace, now_ns)), 0)
        ]
        since_ns, until_ns = min(call.started_ns for call in traffic), max(call.started_ns for call in traffic) + 1
        with Client(f"http://127.0.0.1:{ports['receiver']}") as to, Client(f"http://127.0.0.1:{ports['api']}") as api:
            # Twice, as if no answer had come.
            for _ in range(2):
                deliver(to, batched(traffic), len(traffic))
            until = time.monotonic() + 120
            while int(api.sql("SELECT sum(calls) FROM charges").rows[0][0]) < len(traffic):
                assert time.monotonic() < until, parts["ingest"].log()[-4000:]
                time.sleep(0.2)
            # What was sent again comes to be entered, too.
            parts["ingest"].stop()
            rows = by_dimensions(api, Group._fields, since_ns, until_ns)
        with Client(server.url, server.key("of-the-demo")) as embedded:
            deliver(embedded, batched(traffic), len(traffic))
            same = by_dimensions(embedded, Group._fields, since_ns, until_ns)
        figures = ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "cost_usd")
        totals, wanted = (
            {Group(*(row[name] for name in Group._fields)): tuple(row[name] for name in figures) for row in found}
            for found in (rows, same)
        )
        assert totals == wanted
        assert {group: total.calls for group, total in expected(traffic).items()} == {
            group: total[0] for group, total in totals.items()
        }
        # On one machine the receiver has the port that it would ask.
        audit = Part(tmp_path, "audit", COMMANDS[-1], {**env, "TALLYSTICK_URL": f"http://127.0.0.1:{ports['api']}"})
        assert audit.run() == 0, audit.log()
        assert "0 lost" in audit.log()
    finally:
        for part in parts.values():
            part.kill()
