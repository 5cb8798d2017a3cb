"""The command line with the real server: one directory, held by `up` or opened by the commands themselves."""

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tallystick.traffic import DATA

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("TALLYSTICK_", "OTEL_"))}
COMMAND = [sys.executable, "-m", "tallystick.cli"]


def tallystick(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=120, env=CLEAN, check=False)


def rows(*args: str) -> list[dict[str, Any]]:
    result = tallystick(*args, "--json")
    assert result.returncode == 0, result.stderr
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


@contextmanager
def up(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`tallystick up` on a free port: the process and its URL. Killed at the end if it hasn't ended."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [*COMMAND, "up", "--data", str(data), "--port", port, "--grpc-port", "0"]
    with (data.parent / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=CLEAN)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == f"ready http://127.0.0.1:{port}\n", (data.parent / "log").read_text()
        yield process, line.split()[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    with gzip.open(DATA / "mooncake_conversation.jsonl.gz", "rt") as stream:
        path = tmp_path / "trace.jsonl"
        path.write_text("".join(next(stream) for _ in range(1500)))
    return path


def test_one_ledger_with_and_without_the_server(tmp_path: Path, trace: Path) -> None:
    data = tmp_path / "ledger"
    here = ("--data", str(data))
    with up(data) as (process, url):
        assert json.loads((data / "server.json").read_text())["url"] == url
        assert rows("replay", str(trace), *here)[0]["accepted_spans"] == 1500
        assert rows("replay", str(trace), *here)[0]["accepted_spans"] == 1500
        (total,) = rows("costs", "--by", "total", *here)
        assert total["calls"] == 1500
        assert rows("sql", "SELECT sum(calls) AS n FROM charges", "--url", url) == [{"n": 1500}]
        by_feature = rows("costs", "--by", "feature,model", *here)
        doctor = {check["what"]: check for check in rows("doctor", *here)}
        assert doctor["received"]["found"] == "3,000 spans, 1,500 calls stored"
        assert doctor["priced"]["state"] == "warn"
        assert [row["model"] for row in rows("prices", "missing", *here)] == ["inhouse-24b-instruct"]
        second = tallystick("up", *here, "--port", "0", "--grpc-port", "0")
        assert second.returncode == 1
        assert "another process holds" in second.stderr
        assert "Traceback" not in second.stderr
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert not (data / "server.json").exists()
    assert rows("costs", "--by", "feature,model", *here) == by_feature
    assert rows("costs", "--by", "total", *here) == [total]
    wrong = tallystick("sql", "SELECT nonsense FROM charges", *here)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert "nonsense" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_server_that_was_killed_leaves_a_ledger_that_can_be_asked(tmp_path: Path, trace: Path) -> None:
    data = tmp_path / "ledger"
    with up(data) as (process, _):
        assert tallystick("replay", str(trace), "--data", str(data)).returncode == 0
        process.kill()
    assert (data / "server.json").exists()
    (total,) = rows("costs", "--by", "total", "--data", str(data))
    assert total["calls"] == 1500


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = tallystick("up", "--data", str(tmp_path / "ledger"), "--port", str(taken.getsockname()[1]), "--grpc-port", "0")
    assert (result.returncode, result.stdout) == (1, "")
    assert "Address already in use" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_demo_with_the_real_server(tmp_path: Path) -> None:
    result = tallystick("demo", "--data", str(tmp_path / "demo"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert "stored 40,216 calls with 193,672,276 tokens" in result.stdout
    assert "every token and every cent as in the trace files" in result.stdout
    said = [line.split() for line in result.stdout.splitlines() if line.startswith("  demo: at least ")]
    reached = [float(words[3]) for words in said]
    assert len(reached) == 3
    assert all(line <= share for line, share in zip((50, 80, 100), reached, strict=True)), reached
    assert "Unusual requests" in result.stdout
    assert not (tmp_path / "demo" / "server.json").exists()
