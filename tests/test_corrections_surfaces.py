"""Corrections over HTTP, on the command line with and without a server, and in SQL: the same figures everywhere."""

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from otlp import ident, request, span
from server import CLEAN, COMMAND, Server

from tallystick.client import Client, Refused

PRICES = "prices:\n  models:\n    - {model: lab-a, per_million_tokens: {input: 2, output: 10}}\n"
CALL = {"gen_ai.provider.name": "lab", "gen_ai.request.model": "lab-a", "gen_ai.response.model": "lab-a"}
"""0.003 USD a call by PRICES; genai-prices doesn't know it."""

CALLS = 7


def tally(*args: str, config: Path | None = None, code: int = 0, error: str = "") -> str:
    env = CLEAN | ({"TALLYSTICK_CONFIG": str(config)} if config else {})
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, env=env, check=False)
    assert done.returncode == code, done.stderr
    assert error in done.stderr
    return done.stdout if code == 0 else done.stderr


def one(*args: str, **options: Any) -> dict[str, Any]:
    found = json.loads(tally(*args, "--json", **options))
    assert len(found) == 1
    return dict(found[0])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("config") / "tallystick.yaml"
    file.write_text(PRICES)
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, config: Path) -> Iterator[Server]:
    """Calls that were entered before their price was known."""
    data = tmp_path_factory.mktemp("corrected") / "data"
    with Server(data) as before:
        before.post_all([request(*(span(f"call {number}", attributes=CALL) for number in range(CALLS)))])
        before.stop()
    with Server(data, config=config) as running:
        yield running


TOTAL = "SELECT sum(calls) AS n, sumIf(calls, cost_usd IS NOT NULL) AS priced, sum(cost_usd) AS cost, sum(input_tokens) AS tokens FROM charges"


def test_one_correction_on_all_surfaces(server: Server) -> None:
    url = ("--url", server.url)
    assert server.sql(TOTAL) == [{"n": CALLS, "priced": 0, "cost": None, "tokens": 1000 * CALLS}]
    tried = one("reprice", "--since", "1d", "--dry-run", *url)
    assert (tried["correction"], tried["changed"], tried["newly_priced"], tried["unpriced"]) == (None, CALLS, CALLS, 0)
    assert server.sql(TOTAL)[0]["cost"] is None
    told = tally("reprice", "--since", "1d", "--model", "lab-*", "--reason", "the price came late", *url)
    assert "lab-a" in told
    with Client(server.url) as client:
        (run,) = client.corrections()
        assert client.correction(run["id"]) == run
    assert (run["kind"], run["reason"], run["entries"], run["cost_usd"]) == (
        "reprice",
        "the price came late",
        2 * CALLS,
        "0.021000000000",
    )
    assert run["author"]
    assert run["detail"]["model"] == "lab-*"
    total = {"n": CALLS, "priced": CALLS, "cost": Decimal("0.021"), "tokens": 1000 * CALLS}
    assert server.sql(TOTAL) == [total]
    assert server.sql(f"SELECT sum(cost_usd) AS cost, count() AS entries FROM charges WHERE correction = '{run['id']}'") == [
        {"cost": Decimal(run["cost_usd"]), "entries": run["entries"]}
    ]
    assert json.loads(tally("corrections", "list", "--json", *url)) == [run]
    assert json.loads(tally("corrections", "show", run["id"], "--json", *url)) == [run]
    assert run["id"] in tally("corrections", "list", *url)
    (line,) = csv.DictReader(io.StringIO(tally("corrections", "list", "--csv", *url)))
    assert Decimal(line["cost_usd"]) == Decimal(run["cost_usd"])
    assert one("costs", "--by", "total", "--since", "1d", *url)["cost_usd"] == "0.021"
    assert one("costs", "--by", "total", "--since", "1d", "--as-of", run["at"], *url)["cost_usd"] is None

    again = one("reprice", "--since", "1d", "--reason", "again", *url)
    assert (again["correction"], again["changed"]) == (None, 0)
    undone = one("corrections", "undo", run["id"], "--reason", "no", *url)
    assert (undone["undoes"], undone["cost_usd"]) == (run["id"], "-0.021000000000")
    assert server.sql(TOTAL) == [total | {"priced": 0, "cost": 0}]
    assert "made already" in tally("corrections", "undo", run["id"], "--reason", "no", *url, code=1)
    one("reprice", "--since", "1d", "--reason", "after all", *url)
    assert server.sql(TOTAL) == [total]

    ids = (ident("call 3", 16).hex(), ident("call 3", 8).hex())
    assert one("void", *ids, "--reason", "load test", "--dry-run", *url)["calls"] == 1
    assert server.sql(TOTAL) == [total]
    voided = one("void", *ids, "--reason", "load test", *url)
    assert voided["correction"]["cost_usd"] == "-0.003000000000"
    assert server.sql(TOTAL) == [{"n": CALLS - 1, "priced": CALLS - 1, "cost": Decimal("0.018"), "tokens": 1000 * (CALLS - 1)}]
    assert "voided already" in tally("void", *ids, "--reason", "load test", *url, code=1)
    assert "nothing to enter" in tally_err("void", "--duplicates", "--since", "1d", "--reason", "x", *url)


def tally_err(*args: str) -> str:
    done = subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, env=CLEAN, check=True)
    return done.stderr


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "said"),
    [
        ("reprice", {"since": "1d"}, 422, "bad_request", "reason"),
        ("reprice", {"since": "1d", "reason": ""}, 422, "bad_request", "reason"),
        ("reprice", {"since": "1d", "reason": "x", "modle": "a"}, 422, "bad_request", "modle"),
        ("reprice", {"since": "yesterday", "reason": "x"}, 400, "bad_time", "yesterday"),
        ("reprice", {"since": "2026-11-02", "until": "2026-11-01", "reason": "x"}, 400, "bad_time", "before"),
        ("reprice", {"since": "1d", "reason": "x", "model": "gpt-*"}, 404, "no_calls", "no call"),
        ("void", {"trace_id": "xyz", "span_id": "1" * 16, "reason": "x"}, 404, "no_such_call", "hex"),
        ("void", {"trace_id": "0" * 32, "span_id": "0" * 16, "reason": "x"}, 404, "no_such_call", "not all 0"),
        ("void", {"trace_id": "1" * 32, "span_id": "1" * 16, "reason": "x"}, 404, "no_such_call", "no such call"),
        ("nosuch/undo", {"reason": "x"}, 404, "no_such_correction", "nosuch"),
        ("void-duplicates", {"since": "1d", "reason": "a\nb"}, 422, "bad_request", "reason"),
    ],
)
def test_bad_questions_over_http(server: Server, path: str, body: dict[str, Any], status: int, code: str, said: str) -> None:
    answer = server.http.post(f"/v1/corrections/{path}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code)
    assert said in error["message"]
    assert error["hint"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["reprice", "--reason", "x"], "--since"),
        (["reprice", "--since", "1d"], "--reason"),
        (["void", "--reason", "x"], "--duplicates"),
        (["void", "--reason", "x", "--duplicates"], "--since"),
        (["void", "1" * 32, "--reason", "x"], "SPAN_ID"),
        (["void", "1" * 32, "1" * 16, "--duplicates", "--reason", "x"], "--duplicates"),
        (["corrections", "undo", "abc"], "--reason"),
    ],
)
def test_bad_command_lines(server: Server, args: list[str], said: str) -> None:
    assert said in tally(*args, "--url", server.url, code=2)


def test_only_operators_correct(server: Server) -> None:
    key = server.key("acme")
    for method, path in (
        ("GET", ""),
        ("GET", "/x"),
        ("POST", "/reprice"),
        ("POST", "/void"),
        ("POST", "/void-duplicates"),
        ("POST", "/x/undo"),
    ):
        answer = server.http.request(method, f"/v1/corrections{path}", headers={"authorization": f"Bearer {key}"}, json={})
        assert answer.status_code == 403, path
    with Client(server.url, key) as client, pytest.raises(Refused, match="member"):
        client.corrections()
    assert server.sql("SELECT sum(calls) AS calls FROM charges", key) == [{"calls": 0}]
    operator = server.key("acme", operator=True)
    with Client(server.url, operator) as client:
        (run, *_) = client.corrections()
        undone = client.undo_correction(run["id"], "as the key", who="ana")
    assert undone["author"].startswith("ana (key ")


def test_without_a_server(tmp_path: Path, config: Path) -> None:
    data = tmp_path / "data"
    with Server(data) as server:
        server.post_all([request(span("alone", attributes=CALL))])
        server.stop()
    local = ("--data", str(data))
    made = one("reprice", "--since", "1d", "--reason", "x", *local, "--config", str(config))
    assert made["cost_usd"] == "0.003000000000"
    assert one("corrections", "list", *local) == made["correction"]
    assert one("corrections", "undo", made["correction"]["id"], "--reason", "x", *local)["cost_usd"] == "-0.003000000000"
    assert "500" in tally("reprice", "--since", "1d", "--reason", "x" * 501, *local, code=1)
