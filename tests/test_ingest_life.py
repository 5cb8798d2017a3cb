"""A server's life: a second one, a taken port, SIGTERM under load, a full disk, strange neighbours in its directory."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from disks import filled, small_disk
from otlp import request, span, trace_hex
from server import Server, free_port, rejected


def refused(server: Server) -> str:
    """What a server says that can't start: on standard error, in clear words."""
    process = server.launch()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    said = server.log()
    assert "Traceback" not in said
    return said


def test_a_second_one_on_the_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data) as first:
        said = refused(Server(data))
        assert str(data) in said
        assert "another process" in said.lower()
        assert rejected(first.post(request(span("still")))) == 0
        first.stop()
    with Server(data) as again:
        assert again.sql("SELECT sum(calls) AS calls FROM charges") == [{"calls": 1}]


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(Server(tmp_path / "data", port=port))
        assert str(port) in said
        assert "in use" in said
        other = Server(tmp_path / "other", grpc=True)
        other.grpc_port = port
        assert str(port) in refused(other)


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "can't be used" in refused(Server(tmp_path / "file"))


@pytest.mark.parametrize("name", ["{{ data }}", "a*", "b?"])
def test_a_directory_whose_name_the_engine_takes_for_a_pattern(tmp_path: Path, name: str) -> None:
    """It found no file of `{a}`, and every span that was acknowledged was lost."""
    said = refused(Server(tmp_path / name))
    assert "takes" in said
    assert "choose a directory" in said
    assert not (tmp_path / name).exists()


def test_sigterm_under_load_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    answered: set[int] = set()
    stopping = threading.Event()

    def send(sender: int) -> None:
        number = 0
        while not stopping.is_set():
            names = [f"{sender}-{number}-{i}" for i in range(10)]
            try:
                answer = server.post(request(*map(span, names)))
            except httpx.TransportError:
                return
            answered.add(answer.status_code)
            if answer.status_code == 200:
                acknowledged.extend(names)
                number += 1

    with Server(tmp_path / "data") as server:
        with ThreadPoolExecutor(6) as pool:
            for sender in range(6):
                pool.submit(send, sender)
            while len(acknowledged) < 300:
                time.sleep(0.01)
            server.stop()
            stopping.set()
        assert answered <= {200, 503}
        assert not (server.data / "server.json").exists()
    with Server(tmp_path / "data") as server:
        stored = [row["trace_id"] for row in server.sql("SELECT trace_id FROM charges")]
        assert len(stored) == len(set(stored))
        assert {trace_hex(name) for name in acknowledged} <= set(stored)


def test_sigint_is_a_way_to_stop(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        server.process.send_signal(signal.SIGINT)
        server.process.communicate(timeout=60)
        assert server.process.returncode == 0


def test_says_where_it_is_while_it_runs(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as server:
        told = json.loads((server.data / "server.json").read_text())
        assert told == {"url": server.url, "pid": server.process.pid}


def test_leaves_nothing_in_the_working_directory_nor_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    with Server(tmp_path / "data") as server:
        server.post_all([request(span(f"left-{i}")) for i in range(5)])
        server.stop()
    assert list(here.iterdir()) == []
    assert list((tmp_path / "data" / "tmp").iterdir()) == []


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 80) as place:
        yield place


def test_a_full_disk(disk: Path) -> None:
    """Refused with 503, nothing lost of what was acknowledged, and it goes on once there is space."""
    with Server(disk / "data") as server:
        server.post_all([request(span("before"))])
        acknowledged, answer = ["before"], None
        with filled(disk, 300_000):
            for number in range(60):
                names = [f"full-{number}-{i}" for i in range(200)]
                answer = server.post(
                    request(*(span(name, attributes={"tallystick.user": os.urandom(100).hex()}) for name in names))
                )
                if answer.status_code != 200:
                    break
                acknowledged += names
            assert answer is not None
            assert answer.status_code == 503, "the disk never filled"
            assert int(answer.headers["retry-after"]) > 0
            error = answer.json()["error"]
            assert error.keys() == {"code", "message", "hint"}
            assert server.http.get("/healthz").status_code == 200
            assert server.post(request(span("once more"))).status_code == 503
        assert server.post(request(span("after"))).status_code == 200
        stored = [row["trace_id"] for row in server.sql("SELECT trace_id FROM charges")]
        assert len(stored) == len(set(stored))
        assert {trace_hex(name) for name in [*acknowledged, "after"]} <= set(stored)
        server.stop()
    with Server(disk / "data") as server:
        assert server.sql("SELECT count() AS n FROM charges")[0]["n"] == len(stored)


def test_a_port_of_its_own_choice(tmp_path: Path) -> None:
    port = free_port()
    with Server(tmp_path / "data", port=port) as server:
        assert server.url == f"http://127.0.0.1:{port}"
