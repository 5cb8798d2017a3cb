"""FOCUS from spans to files: the real server, its API and the command line, with and without it."""

import csv
import io
import json
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import focus_ledger as data
import pytest
from otlp import ident, request, span, trace_hex
from server import CLEAN, COMMAND, Server

from tallystick.client import Client, Refused

DAYS = ("2026-10-01", "2026-10-02", "2026-10-03")
USAGES: tuple[dict[str, Any], ...] = (
    {},
    {"gen_ai.usage.input_tokens": 137, "gen_ai.usage.output_tokens": 13},
    {"gen_ai.usage.input_tokens": 5000, "gen_ai.usage.cache_read.input_tokens": 4096, "gen_ai.usage.output_tokens": 77},
    {"gen_ai.request.model": "acme-7b", "gen_ai.response.model": "acme-7b", "gen_ai.provider.name": "vllm"},
    {"gen_ai.response.model": "gpt-5-2025-08-07", "gen_ai.request.model": "gpt-5"},
)

PRICES = """
prices:
  discounts:
    - {provider: openai, percent: 15, from: 2020-01-01}
  models:
    - {model: acme-7b, per_million_tokens: {input: 0.2, output: 0.6}}
"""


def spans(day: str, number: int) -> list[Any]:
    start = int(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) * 10**9
    return [
        span(
            f"{day} {index}",
            start_ns=start + index * 3_600 * 10**9,
            attributes={"tallystick.customer": f"=c{index % 3}", **USAGES[index % len(USAGES)]},
        )
        for index in range(number)
    ]


@pytest.fixture(scope="module")
def focus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("focus") / "data") as running:
        running.key("nobody")
        for day in DAYS:
            assert running.post(request(*spans(day, 20))).status_code == 200
        # Told twice: once in the ledger.
        assert running.post(request(*spans(DAYS[0], 20))).status_code == 200
        yield running


@pytest.fixture
def api(focus_server: Server) -> Iterator[Client]:
    with Client(focus_server.url) as client:
        yield client


def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*COMMAND, *arguments], env=CLEAN, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def total(server: Server) -> Decimal:
    (row,) = server.sql("SELECT sum(cost_usd) AS cost FROM charges")
    return Decimal(row["cost"])


@pytest.mark.parametrize("version", ["1.2", "1.4"])
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_the_file_is_the_ledger(focus_server: Server, api: Client, version: str, form: str) -> None:
    content = b"".join(api.focus(since=DAYS[0], until="2026-10-04", version=version, format=form, granularity="hourly"))
    rows = data.read(content, form, version)
    assert data.total(rows) == total(focus_server)
    assert sum(row["x_Calls"] for row in rows) == 60
    for row in rows:
        # As the real pipeline priced them, call by call: only rounding is between price and cost.
        assert abs(row["BilledCost"] - row["ContractedCost"]) < Decimal("1e-11")
        assert row["ListUnitPrice"] == row["ContractedUnitPrice"]
    types = {(row["x_Model"], row["x_TokenType"]) for row in rows}
    assert {("gpt-4o-mini-2024-07-18", "cache_read"), ("gpt-5-2025-08-07", "output"), ("acme-7b", "input")} <= types
    assert {row["x_Model"] for row in rows if not row["x_Priced"]} == {"acme-7b"}


def test_days_with_what_their_files_hold(focus_server: Server, api: Client) -> None:
    days = api.focus_days(since=DAYS[0], until="2026-10-04", rows=True)
    assert [day["day"] for day in days] == list(DAYS)
    assert sum(Decimal(day["cost_usd"]) for day in days) == sum(Decimal(day["billed_usd"]) for day in days) == total(focus_server)
    assert all(day["entries"] == 20 and day["rows"] > 20 and day["unpriced_tokens"] == 4400 for day in days)
    assert api.focus_days(since=DAYS[0], until="2026-10-02")[0]["rows"] is None


def test_a_tenant_has_its_own(focus_server: Server) -> None:
    with Client(focus_server.url, focus_server.key("somebody")) as other:
        assert other.focus_days(since=DAYS[0], until="2026-10-04") == []
        assert data.read(b"".join(other.focus(since=DAYS[0], until="2026-10-04", format="csv")), "csv", "1.2") == []
    answer = focus_server.http.get("/v1/focus", params={"since": DAYS[0]}, headers={"authorization": "Bearer wrong"})
    assert answer.status_code == 401


def test_a_file_comes_with_its_name_and_type(focus_server: Server) -> None:
    answer = focus_server.http.get("/v1/focus", params={"since": DAYS[0], "until": DAYS[1], "format": "csv"})
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="focus-2026-10-01.csv"'
    names = {row["SubAccountId"] for row in csv.DictReader(io.StringIO(answer.text))}
    assert names == {"'=c0", "'=c1", "'=c2"}


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [
        ({"since": "2026-10-01", "version": "1.3"}, "no_such_version", "there are 1.2, 1.4"),
        ({"since": "2099-01-01", "until": "2099-01-02"}, "bad_period", "future"),
        ({"since": "2026-10-02", "until": "2026-10-02"}, "bad_period", "isn't before"),
        ({"since": "yesterday"}, "bad_period", "is no time"),
        ({"since": "2026-01-01", "until": "2026-03-01"}, "bad_period", "31 days"),
    ],
)
def test_bad_questions(api: Client, asked: dict[str, str], code: str, said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        list(api.focus(**asked))
    assert (refused.value.status, refused.value.code) == (400, code)


@pytest.mark.parametrize(
    "asked",
    [
        {"granularity": "weekly"},
        {"format": "xlsx"},
        {"as_of": "2026-10-01T00:00:00"},
        {"as_of": "0649-04-16T01:54:10Z"},
        {"since": ""},
    ],
)
def test_bad_values(focus_server: Server, asked: dict[str, str]) -> None:
    answer = focus_server.http.get("/v1/focus", params={"since": DAYS[0], **asked})
    assert answer.status_code in (400, 422)
    assert set(answer.json()["error"]) == {"code", "message", "hint"}


def test_exports_by_the_server_and_without_it(focus_server: Server, tmp_path: Path) -> None:
    """The same files; after a late call and a killed server, only the day that changed."""
    since = ("--since", "2026-10-01", "--until", "2026-10-04")
    export = ("focus", "export", *since, "--data", str(focus_server.data), "--format", "csv", "--json", "-o")
    first = json.loads(run(*export, str(tmp_path / "files")).stdout)
    assert [(row["day"], row["done"]) for row in first] == [(day, "written") for day in DAYS]
    assert sum(Decimal(row["cost_usd"]) for row in first) == total(focus_server)
    assert {row["done"] for row in json.loads(run(*export, str(tmp_path / "files")).stdout)} == {"unchanged"}

    late = span("late", start_ns=int(datetime(2026, 10, 2, 23, tzinfo=UTC).timestamp()) * 10**9)
    assert focus_server.post(request(late)).status_code == 200
    expected = total(focus_server)
    focus_server.stop()
    try:
        done = run("focus", "export", *since, "--data", str(focus_server.data), "--format", "csv", "-o", str(tmp_path / "files"))
        assert "written 1, unchanged 2" in done.stderr
        assert "13,200 tokens have no price" in done.stderr
        assert json.loads((tmp_path / "files" / "manifest.json").read_text())["cost_usd"] == f"{expected:f}"
        rows = [row for day in DAYS for row in data.read((tmp_path / "files" / f"focus-{day}.csv").read_bytes(), "csv", "1.2")]
        assert data.total(rows) == expected
        refused = run(*export, str(tmp_path / "files"), "--version", "1.4", code=1).stderr
        assert "holds FOCUS 1.2, daily, csv, not FOCUS 1.4, daily, csv" in refused
    finally:
        focus_server.start()


def test_what_was_voided_and_repriced_is_in_the_sum(focus_server: Server, api: Client, tmp_path: Path) -> None:
    """By the commands that do so, with a server that has other prices from now on."""
    url = ("--url", focus_server.url)
    run("void", trace_hex(f"{DAYS[1]} 1"), ident(f"{DAYS[1]} 1", 8).hex(), "--reason", "load test", *url)
    before = total(focus_server)
    focus_server.stop()
    try:
        prices = tmp_path / "prices.yaml"
        prices.write_text(PRICES)
        local = ("--data", str(focus_server.data), "--since", DAYS[0], "--until", "2026-10-04")
        run("reprice", *local, "--config", str(prices), "--reason", "agreed")
    finally:
        focus_server.start()
    expected = total(focus_server)
    assert expected != before
    with Client(focus_server.url) as anew:
        rows = data.read(b"".join(anew.focus(since=DAYS[0], until="2026-10-04", format="csv")), "csv", "1.2")
        (day,) = anew.focus_days(since=DAYS[1], until=DAYS[2], rows=True)
    assert data.total(rows) == expected
    assert day["billed_usd"] == day["cost_usd"]
    kinds = {(row["x_Entry"], row["ChargeCategory"], row["x_Priced"]) for row in rows}
    assert kinds == {
        ("call", "Usage", True),
        ("call", "Usage", False),
        ("void", "Usage", True),
        ("reprice", "Usage", False),
        ("reprice", "Usage", True),
        *([("reprice", "Adjustment", True)] if datetime.now(UTC).month == 10 and datetime.now(UTC).year == 2026 else []),
    }
    assert sum(row["x_Calls"] for row in rows) == int(focus_server.sql("SELECT sum(calls) AS n FROM charges")[0]["n"])
    assert sum(row["ConsumedQuantity"] for row in rows if row["x_Model"] == "acme-7b" and not row["x_Priced"]) == 0


def test_wrong_usage(tmp_path: Path) -> None:
    at = ("--data", str(tmp_path), "-o", str(tmp_path / "files"))
    assert "there are 1.2, 1.4" in run("focus", "export", *at, "--version", "1.3", code=2).stderr
    assert "future" in run("focus", "export", *at, "--since", "2099-01-01", code=2).stderr
    assert "isn't before" in run("focus", "export", *at, "--since", "2026-10-02", "--until", "2026-10-01", code=2).stderr
    assert "no FOCUS version '3'" in run("focus", "columns", "--version", "3", code=2).stderr
    assert not (tmp_path / "files").exists()


def test_columns_explain_themselves() -> None:
    rows = json.loads(run("focus", "columns", "--version", "1.4", "--json").stdout)
    assert [row["name"] for row in rows][:2] == ["AllocatedMethodId", "AllocatedResourceId"]
    assert all(row["meaning"] for row in rows)
    assert "BilledCost" in run("focus", "columns").stdout
