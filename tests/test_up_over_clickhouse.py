"""`tallystick up` over a ClickHouse server and over two shards: the same product, by configuration."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse import ClickHouse, ClickHouseCluster
from otlp import request, span
from server import CLEAN, Server

CALLS = "SELECT sum(calls) FROM tallystick.charges"
TOTALS = "SELECT sum(calls), sum(input_tokens), sum(output_tokens), sum(cost_usd) FROM tallystick.charges"


@pytest.fixture(scope="module", params=["server", "shards"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, ClickHouse]]:
    """The server, and the ClickHouse that is asked."""
    data = tmp_path_factory.mktemp(request.param)
    servers = ClickHouse(data / "one") if request.param == "server" else ClickHouseCluster(data)
    with servers as clickhouse, Server(data / "data", env=clickhouse.env()) as server:
        yield server, clickhouse if isinstance(clickhouse, ClickHouse) else clickhouse.shards[0]


def test_what_is_sent_is_entered_once(running: tuple[Server, ClickHouse]) -> None:
    server, clickhouse = running
    bodies = [request(span(f"once-{number}")) for number in range(20)]
    server.post_all(bodies)
    before = clickhouse.ask(TOTALS)
    assert before.startswith("20\t")
    assert "\\N" not in before
    server.post_all(bodies)
    assert clickhouse.ask(TOTALS) == before


def test_a_second_process_on_the_directory_is_told(running: tuple[Server, ClickHouse]) -> None:
    """Keys, server.json and what was alerted lie in it."""
    server, _ = running
    second = Server(server.data, env=server._env).launch()
    out, _ = second.communicate(timeout=60)
    assert (second.returncode, out) == (1, "")
    assert "another process holds" in server.log()


def test_clickhouse_away_and_back(running: tuple[Server, ClickHouse]) -> None:
    server, clickhouse = running
    calls = int(clickhouse.ask(CALLS))
    clickhouse.kill()
    refused = server.post(request(span("later")))
    assert refused.status_code == 503, refused.text
    assert refused.headers["retry-after"]
    asked = server.http.get("/v1/spend", params={"since": "2026-01-01"})
    assert asked.status_code == 503, asked.text
    assert asked.headers["retry-after"]
    clickhouse.start()
    until = time.monotonic() + 60
    while (answer := server.post(request(span("later")))).status_code != 200:
        assert answer.status_code == 503, answer.text
        assert time.monotonic() < until
        time.sleep(0.1)
    assert int(clickhouse.ask(CALLS)) == calls + 1
    assert "Traceback" not in server.log()


def test_it_ends_as_it_should(running: tuple[Server, ClickHouse]) -> None:
    server, clickhouse = running
    server.post_all([request(span("at-the-end"))])
    calls = clickhouse.ask(CALLS)
    server.stop()
    assert not (server.data / "engine").exists()
    assert not (server.data / "server.json").exists()
    server.start()
    assert clickhouse.ask(CALLS) == calls
    assert clickhouse.password not in server.log()


def test_what_is_misconfigured_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tallystick.cli", "up", "--data", str(tmp_path / "data"), "--port", "0", "--grpc-port", "0"]
    env = {**CLEAN, "TALLYSTICK_CLICKHOUSE": "clickhouse://ana:geheim@127.0.0.1"}
    ended = subprocess.run(command, check=False, env=env, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "TALLYSTICK_CLICKHOUSE_PASSWORD" in ended.stderr
    assert "geheim" not in ended.stderr
    assert "Traceback" not in ended.stderr
