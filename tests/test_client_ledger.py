"""The client's typed questions, against the real server and against one that is busy."""

import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread, get_ident
from typing import Any

import pytest
from otlp import request, span
from server import Server

import tallystick
from tallystick.answers import Charge
from tallystick.client import Client, Refused


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    made = server.key("client-acme")
    calls = (
        span(f"client-{n}", attributes={"tallystick.customer": f"c{n % 5}", "tallystick.feature": "chat"}) for n in range(20)
    )
    server.post_all([request(*calls)], made)
    return made


@pytest.fixture
def client(server: Server, key: str) -> Iterator[Client]:
    with Client(server.url, key) as made:
        yield made


def test_spend_charges_and_sql_come_to_the_same(client: Client) -> None:
    spend = client.spend(["customer", "feature"], since=datetime.now(UTC) - timedelta(days=2))
    assert [len(group.by) for group in spend.groups] == [2] * 5
    assert spend.total.groups == 5
    assert spend.since < datetime.now(UTC) < spend.until
    entries = list(client.charges(page=3))
    assert len({entry.span_id for entry in entries}) == len(entries) == 20
    exact = client.sql("SELECT sum(cost_usd) FROM charges").rows[0][0]
    assert isinstance(exact, Decimal)
    assert (
        spend.total.cost_usd
        == exact
        == sum(entry.cost_usd or 0 for entry in entries)
        == sum(group.cost_usd or 0 for group in spend.groups)
    )
    assert all(isinstance(entry, Charge) and entry.started_at.tzinfo for entry in entries)
    assert entries == sorted(entries, key=lambda entry: entry.started_at, reverse=True)


def test_terms(client: Client) -> None:
    assert len(client.spend(limit=2).groups) == 2
    assert client.spend(limit=2).total.groups == 5
    assert client.spend("total", where={"customer": "c1", "feature": "chat"}).total.calls == 4
    assert client.spend(as_of=datetime(2026, 1, 1, tzinfo=UTC)).groups == ()
    assert [entry.customer for entry in client.charges(where={"customer": "c2"}, page=2)] == ["c2"] * 4
    assert "customer" in client.dimensions()
    assert [(one.value, one.calls) for one in client.dimension_values("customer", prefix="c", limit=2)] == [("c0", 4), ("c1", 4)]
    with pytest.raises(Refused, match="did you mean customer"):
        client.spend("custmer")


def test_what_is_kept_is_asked_about(server: Server) -> None:
    key = server.key("client-cache")
    with Client(server.url, key, cache=1) as client:
        for number in range(3):
            server.post_all([request(span(f"client-cache-{number}"))], key)
            for _ in range(2):
                assert client.spend().total.calls == number + 1
                assert len(list(client.charges())) == number + 1


class Busy(BaseHTTPRequestHandler):
    """Answers what `script` says, then with no dimensions; keeps what was asked in `seen`."""

    script: list[tuple[int, dict[str, str]]]
    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.seen.append(dict(self.headers))
        status, headers = self.script.pop(0) if self.script else (200, {"ETag": '"one"'})
        body = b'{"dimensions": []}' if status == 200 else b'{"error": {"code": "unavailable", "message": "busy", "hint": ""}}'
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status != 304:
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def busy() -> Iterator[str]:
    Busy.script, Busy.seen = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Busy)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_question_is_asked_again_when_the_server_says_so(busy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    really, here = time.sleep, get_ident()

    def sleep(seconds: float) -> None:
        """There is one `sleep` for all: threads of other tests go on."""
        slept.append(seconds) if get_ident() == here else really(seconds)

    monkeypatch.setattr("tallystick.client.time.sleep", sleep)
    Busy.script = [(503, {"Retry-After": "2"}), (429, {})]
    with Client(busy) as client:
        assert client.dimensions() == {}
    assert slept == [2.0, 1.0]
    Busy.script = [(503, {"Retry-After": "6"})] * 3
    with Client(busy) as client, pytest.raises(Refused, match="busy"):
        client.dimensions()
    assert slept == [2.0, 1.0, 6.0]
    Busy.script = [(404, {})]
    with Client(busy) as client, pytest.raises(Refused):
        client.dimensions()
    assert len(slept) == 3


def test_only_what_is_kept_is_asked_about(busy: str) -> None:
    with Client(busy, cache=5) as client:
        client.dimensions()
        Busy.script = [(304, {"ETag": '"one"'}), (200, {}), (200, {})]
        for _ in range(3):
            assert client.dimensions() == {}
    assert [seen.get("if-none-match") for seen in Busy.seen] == [None, '"one"', '"one"', None]


def test_the_client_is_at_the_front_door_and_costs_nothing_there() -> None:
    assert tallystick.Client is Client
    with pytest.raises(AttributeError, match="no attribute 'Server'"):
        _ = tallystick.Server  # pyright: ignore[reportAttributeAccessIssue]
    code = "import sys, tallystick; sys.exit(bool({'httpx', 'tallystick.client'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
