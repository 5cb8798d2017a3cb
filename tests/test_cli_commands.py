"""Commands against a stand-in of the server: the API's contract over real HTTP, the ledger's columns in real ClickHouse."""

import csv
import gzip
import io
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client as ClickHouse
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from genai_prices import Usage, calc_price
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tallystick import cli
from tallystick.cli import demo as demo_module
from tallystick.ingest.keys import KeyStore
from tallystick.traffic import DATA

PRICED_AS = {"openai": "openai", "anthropic": "anthropic", "gcp.gemini": "google"}
COLUMNS = {
    "entry": "String", "calls": "Int8", "tenant": "String", "customer": "String", "feature": "String", "agent": "String",
    "team": "String", "user": "String", "session": "String", "service": "String", "environment": "String",
    "tags": "Map(String, String)",
    "provider": "String", "request_model": "String", "response_model": "String", "operation": "String", "service_tier": "String",
    "status": "String", "error_type": "String", "cache_hit": "String", "usage_source": "String", "price_id": "String",
    "input_tokens": "Nullable(Int64)", "cache_read_tokens": "Nullable(Int64)", "cache_write_5m_tokens": "Nullable(Int64)",
    "cache_write_1h_tokens": "Nullable(Int64)", "output_tokens": "Nullable(Int64)", "started_at": "DateTime64(9, 'UTC')",
    "cost_usd": "Nullable(Decimal(18, 12))", "span_id": "String",
}  # fmt: skip


class StandIn(ThreadingHTTPServer):
    """Answers as the server does. `overcharge` is added to the cost of the first call, as a broken ledger would."""

    def __init__(self, database: ClickHouse) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.database = database
        self.lock = threading.Lock()
        self.key: str | None = None
        self.ready = True
        self.overcharge = Decimal(0)
        self.seen: set[bytes] = set()
        self.status: dict[str, Any] = {
            "received_spans": 0,
            "stored_calls": 0,
            "dropped_spans": {},
            "rejected_spans": {},
            "queue": 0,
        }
        columns = ", ".join(f"`{name}` {kind}" for name, kind in COLUMNS.items())
        database.command(f"CREATE OR REPLACE TABLE charges ({columns}) ENGINE = MergeTree ORDER BY started_at")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, export: ExportTraceServiceRequest) -> None:
        rows = []
        for resource in export.resource_spans:
            service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                if span.span_id not in self.seen:
                    self.seen.add(span.span_id)
                    rows.append(charge(service, span))
        if rows and self.overcharge:
            rows[0]["cost_usd"] = (rows[0]["cost_usd"] or 0) + self.overcharge
        self.store(rows)

    def store(self, rows: list[dict[str, Any]]) -> None:
        blank: dict[str, Any] = {name: "" if kind == "String" else None for name, kind in COLUMNS.items()}
        blank |= {"entry": "call", "calls": 1, "tags": {}, "status": "ok", "started_at": datetime.now(UTC)}
        full = [list((blank | row).values()) for row in rows]
        if full:
            self.database.insert("charges", full, column_names=list(COLUMNS))

    def ask(self, query: str, params: dict[str, Any]) -> dict[str, Any]:
        result = self.database.query(query, parameters=params)
        columns = [{"name": n, "type": t.name} for n, t in zip(result.column_names, result.column_types, strict=True)]
        return {"columns": columns, "rows": [list(row) for row in result.result_rows], "elapsed_ms": 1.5}


def charge(service: str, span: Any) -> dict[str, Any]:
    """What the ledger holds of a span of the official instrumentations, by their documentation."""
    has = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}
    read, write = (has.get(f"gen_ai.usage.cache_{kind}.input_tokens", 0) for kind in ("read", "write"))
    prompt, output = has["gen_ai.usage.input_tokens"], has["gen_ai.usage.output_tokens"]
    provider, model = has["gen_ai.provider.name"], has["gen_ai.response.model"]
    started = datetime.fromtimestamp(span.start_time_unix_nano // 10**9, UTC) + timedelta(
        microseconds=span.start_time_unix_nano % 10**9 // 1000
    )
    cost = None
    if provider in PRICED_AS:
        usage = Usage(input_tokens=prompt, cache_read_tokens=read, cache_write_tokens=write, output_tokens=output)
        cost = calc_price(usage, model, provider_id=PRICED_AS[provider], genai_request_timestamp=started).total_price
    return {
        **{name: has.get(f"tallystick.{name}", "") for name in ("customer", "feature", "agent", "team", "user", "session")},
        "service": service, "tags": {"plan": has["tallystick.tag.plan"]}, "provider": provider,
        "request_model": has["gen_ai.request.model"], "response_model": model, "operation": has["gen_ai.operation.name"],
        "input_tokens": prompt - read - write, "cache_read_tokens": read, "cache_write_5m_tokens": write, "output_tokens": output,
        "started_at": started, "cost_usd": cost, "span_id": span.span_id.hex(),
    }  # fmt: skip


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.here()
        if self.path == "/readyz":
            self.answer(200 if server.ready else 503, {})
        elif self.path == "/v1/status":
            self.answer(200, server.status)
        else:
            self.answer(200 if self.path == "/healthz" else 404, {})

    def do_POST(self) -> None:
        server = self.here()
        body = self.rfile.read(int(self.headers["content-length"]))
        if server.key is not None and self.headers["authorization"] != f"Bearer {server.key}":
            self.answer(401, {"error": {"code": "unauthorized", "message": "unknown key", "hint": ""}})
            return
        with server.lock:
            if self.path == "/v1/traces":
                server.take(ExportTraceServiceRequest.FromString(gzip.decompress(body)))
                self.answer(200, b"")
                return
            if self.path != "/v1/sql":
                self.answer(200, b"<html>Welcome</html>")
                return
            asked = json.loads(body)
            try:
                self.answer(200, server.ask(asked["query"], asked["params"]))
            except ClickHouseError as error:
                message = str(error).splitlines()[0]
                self.answer(
                    400, {"error": {"code": "bad_query", "message": message, "hint": "DESCRIBE charges lists the columns"}}
                )

    def here(self) -> StandIn:
        assert isinstance(self.server, StandIn)
        return self.server

    def answer(self, status: int, content: bytes | dict[str, Any]) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content, default=str).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def database(chdb_client: ClickHouse, chdb_path: Path) -> Iterator[ClickHouse]:
    chdb_client.command("CREATE DATABASE IF NOT EXISTS stand_in")
    client = clickhouse_connect.get_client(dsn=f"chdb://{chdb_path}", database="stand_in")
    yield client
    client.close()


@pytest.fixture
def server(database: ClickHouse) -> Iterator[StandIn]:
    server = StandIn(database)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        assert self.code == 0, self.err
        found: list[dict[str, Any]] = json.loads(self.out)
        return found


class Shell:
    """Runs `tallystick` in this process, with stdout, stderr and exit code as a shell would see them."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch
        for name in os.environ:
            if name.startswith("TALLYSTICK_"):
                monkeypatch.delenv(name)

    def __call__(self, *args: str) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["tallystick", *args])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = self.capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(capsys, monkeypatch)


@pytest.fixture
def at(shell: Shell, server: StandIn) -> Shell:
    shell.monkeypatch.setenv("TALLYSTICK_URL", server.url)
    return shell


@pytest.fixture
def traces(tmp_path: Path) -> list[Path]:
    """The beginning of two shipped traces, small enough to be replayed often."""
    found = []
    for name, lines in (("azure_2023_code.csv", 1200), ("mooncake_conversation.jsonl", 600)):
        with gzip.open(DATA / f"{name}.gz", "rt") as stream:
            found.append(tmp_path / name)
            found[-1].write_text("".join(next(stream) for _ in range(lines)))
    return found


# --- replay ---


def test_a_replay_enters_every_call_once_and_says_so(at: Shell, server: StandIn, traces: list[Path]) -> None:
    files = [str(path) for path in traces]
    first = at("replay", *files, "--shift-to-now", "--json").rows
    assert first[0]["calls"] == first[0]["accepted_spans"] == 1_199 + 600
    assert first[0]["requests"] == 4
    again = at("replay", *files, "--shift-to-now")
    assert again.code == 0
    assert "1,799 calls with" in again.out
    assert at("sql", "SELECT sum(calls) AS n FROM charges", "--json").rows == [{"n": 1_799}]
    tokens = server.ask("SELECT sum(input_tokens + cache_read_tokens + cache_write_5m_tokens + output_tokens) FROM charges", {})
    assert tokens["rows"][0][0] == first[0]["tokens"]


def test_recorded_times_stay_unless_they_are_to_be_moved(at: Shell, server: StandIn, traces: list[Path]) -> None:
    assert at("replay", str(traces[0])).code == 0
    (row,) = server.ask("SELECT toString(toDate(min(started_at))), toString(toDate(max(started_at))) FROM charges", {})["rows"]
    assert row == ["2023-11-16", "2023-11-16"]
    assert at("replay", str(traces[1])).code == 0
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date()
    (row,) = server.ask("SELECT toString(toDate(max(started_at))) FROM charges", {})["rows"]
    assert row == [str(yesterday)]


def test_a_paced_replay_starts_now_and_sends_everything(at: Shell, server: StandIn, tmp_path: Path) -> None:
    trace = tmp_path / "short.csv"
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens", *(f"2023-11-16 18:00:{n:02},10,1" for n in range(0, 60, 5))]
    trace.write_text("\n".join(lines))
    before = datetime.now(UTC) - timedelta(seconds=1)
    assert at("replay", str(trace), "--speed", "600", "--shift-to-now").code == 0
    query = "SELECT sum(calls), min(started_at) > {a:DateTime64(6, 'UTC')}, max(started_at) - min(started_at) < 1 FROM charges"
    (row,) = server.ask(query, {"a": before})["rows"]
    assert [int(value) for value in row] == [12, 1, 1]


def test_bad_lines_are_named_and_fail_the_replay_after_the_rest_was_sent(at: Shell, tmp_path: Path, traces: list[Path]) -> None:
    text = traces[0].read_text().splitlines()
    for number in (3, 10, 11, 12, 13, 14, 15):
        text[number - 1] = "2023-11-16 18:17:03,many,1"
    broken = tmp_path / "broken.csv"
    broken.write_text("\n".join(text))
    result = at("replay", str(broken))
    assert result.code == 1
    assert "1,192 calls with" in result.out
    assert f"{broken}: 7 of 1,199 lines hold no call and were passed over, the others were sent" in result.err
    assert "line 3: ContextTokens is no whole number of tokens: 'many'" in result.err
    assert "and 2 more" in result.err


def test_what_is_no_trace_is_told_before_anything_is_sent(at: Shell, server: StandIn, tmp_path: Path, traces: list[Path]) -> None:
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    result = at("replay", str(traces[0]), str(other))
    assert (result.code, result.out) == (1, "")
    assert f"error: {other}: line 1 is of no known trace: 'a,b'" in result.err
    assert server.seen == set()


def test_a_wrong_key_is_said_to_be_wrong(at: Shell, server: StandIn, traces: list[Path]) -> None:
    server.key = "right"
    for command in (("replay", str(traces[0])), ("sql", "SELECT 1"), ("costs",)):
        result = at(*command)
        assert result.code == 1
        assert "unknown key" in result.err
        assert "TALLYSTICK_KEY" in result.err
    at.monkeypatch.setenv("TALLYSTICK_KEY", "right")
    assert at("sql", "SELECT 1 AS x", "--json").rows == [{"x": 1}]


# --- costs ---


def test_costs_by_any_dimensions_add_up(at: Shell, traces: list[Path]) -> None:
    assert at("replay", *map(str, traces), "--shift-to-now").code == 0
    (total,) = at("costs", "--by", "total", "--json").rows
    assert total["calls"] == 1_799
    assert 0 < total["calls_priced"] < 1
    assert total["share"] == 1
    money = Decimal(total["cost_usd"])
    assert money > 0
    for by in (
        "customer",
        "customer,feature",
        "feature,agent,team",
        "model",
        "tag:plan",
        "day",
        "provider,operation,service",
        "session",
    ):
        rows = at("costs", "--by", by, "--json").rows
        assert list(rows[0])[: by.count(",") + 1] == by.split(",")
        assert sum(Decimal(row["cost_usd"] or 0) for row in rows) == money
        for name in ("calls", "input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"):
            assert sum(row[name] for row in rows) == total[name], (by, name)
        assert sum(row["share"] or 0 for row in rows) == pytest.approx(1)
    assert {row["tag:plan"] for row in at("costs", "--by", "tag:plan", "--json").rows} == {"enterprise", "pro", "free"}


def test_the_dearest_come_first_and_the_total_is_of_all(at: Shell, server: StandIn) -> None:
    server.store([{"customer": f"c{n:02}", "cost_usd": Decimal(n) / 8, "input_tokens": 8, "output_tokens": 0} for n in range(40)])
    rows = at("costs", "--json", "--limit", "3").rows
    assert [(row["customer"], row["cost_usd"]) for row in rows] == [
        ("c39", "4.875000000000"),
        ("c38", "4.750000000000"),
        ("c37", "4.625000000000"),
    ]
    assert rows[0]["share"] == pytest.approx(39 / 780)
    table = at("costs")
    shown = [line.split() for line in table.out.splitlines() if line.strip()]
    assert "total of 40" in table.out
    assert shown[-1][3:] == ["40", "320", "–", "–", "0", "97.50", "100.0", "%", "100.0", "%"]
    assert len([line for line in shown if line[0].startswith("c")]) == 20 + 1  # and the header
    assert "20 more groups are in the total; --limit 0 shows them" in table.err
    assert len(at("costs", "--json").rows) == 40
    assert len([line for line in at("costs", "--limit", "0").out.splitlines() if line.strip().startswith("c")]) == 40 + 1


def test_what_has_no_price_is_unpriced_and_not_zero(at: Shell, server: StandIn) -> None:
    tokens = {"input_tokens": 600, "output_tokens": 400}
    server.store([
        {"customer": "paying", "cost_usd": Decimal("0.5"), **tokens},
        {"customer": "paying", "cost_usd": None, "input_tokens": 100, "output_tokens": 0, "response_model": "house"},
        {"customer": "house", "cost_usd": None, "response_model": "house", **tokens},
        {"customer": "house", "cost_usd": None, "response_model": "gpt-5"},
        {"customer": "free", "cost_usd": Decimal(0), **tokens},
        {"entry": "void", "calls": -1, "customer": "free", "cost_usd": Decimal(0), "input_tokens": -600, "output_tokens": -400},
    ])  # fmt: skip
    rows = {row["customer"]: row for row in at("costs", "--json").rows}
    assert (rows["house"]["cost_usd"], rows["house"]["calls_priced"], rows["house"]["tokens_priced"]) == (None, 0, 0)
    assert rows["paying"]["calls_priced"] == 0.5
    assert rows["paying"]["tokens_priced"] == pytest.approx(1000 / 1100)
    assert (rows["free"]["calls"], rows["free"]["cost_usd"], rows["free"]["calls_priced"]) == (0, "0.000000000000", None)
    table = at("costs")
    assert "unpriced" in next(line for line in table.out.splitlines() if line.strip().startswith("house"))
    assert "47.6 % of tokens and 25.0 % of calls are priced; `tallystick prices missing` lists the rest" in table.err
    missing = at("prices", "missing", "--json").rows
    assert [(row["model"], row["why"], row["calls"], row["tokens"]) for row in missing] == [
        ("house", "no price", 2, 1100),
        ("gpt-5", "usage unknown", 1, 0),
    ]
    listed = at("prices", "missing")
    assert "usage unknown" in listed.out
    assert "state prices in a file" in listed.err


def test_unknown_tokens_are_unknown_and_a_failed_call_is_a_call(at: Shell, server: StandIn) -> None:
    server.store([{"customer": "acme", "status": "error", "cost_usd": None}])
    (row,) = at("costs", "--json").rows
    assert (row["calls"], row["input_tokens"], row["output_tokens"], row["cost_usd"], row["tokens_priced"]) == (
        1,
        None,
        None,
        None,
        None,
    )


def test_time_and_filters_are_kept_to(at: Shell, server: StandIn) -> None:
    days = [datetime(2026, 11, day, hour, 59, 59, 999_999, tzinfo=UTC) for day in (1, 2, 3) for hour in (0, 23)]
    priced = {"cost_usd": Decimal(1), "input_tokens": 1, "output_tokens": 1}
    server.store(
        [{"customer": "o'brien" if at_.hour else "a\\b", "tags": {"plan": "p"}, "started_at": at_, **priced} for at_ in days]
    )

    def calls(*args: str) -> int:
        rows = at("costs", "--by", "total", "--json", *args).rows
        return sum(row["calls"] for row in rows)

    assert calls("--since", "2026-11-01", "--until", "2026-11-03") == 4
    assert calls("--since", "2026-11-01T23:59:59.999999", "--until", "2026-11-03") == 3
    assert calls("--since", "2026-11-01T23:00", "--until", "2026-11-02") == 1
    assert calls("--since", "2026-11-02T00:59:59.999999Z", "--until", "2026-11-02T23:59:59.999999Z") == 1
    month = ("--since", "2026-11-01", "--until", "2026-12-01")
    assert calls(*month, "--where", "customer=o'brien") == 3
    assert calls(*month, "--where", "customer=a\\b") == 3
    assert calls(*month, "--where", "tag:plan=p", "--where", "day=2026-11-02") == 2
    assert calls(*month, "--where", "tag:plan=q") == 0
    by_day = at("costs", "--by", "day", "--json", *month).rows
    assert [row["day"] for row in by_day] == ["2026-11-01", "2026-11-02", "2026-11-03"]


def test_no_calls_are_no_rows(at: Shell, server: StandIn) -> None:
    assert at("costs", "--json").rows == []
    assert at("costs", "--by", "total", "--json").rows == []
    table = at("costs")
    assert (table.code, table.out, table.err) == (0, "", "no calls in this time\n")
    assert at("costs", "--csv").out.startswith("customer,calls,")
    assert at("prices", "missing").err == "every call has a cost\n"


def test_csv_is_exact(at: Shell, server: StandIn) -> None:
    server.store([{"customer": 'a,"b"', "cost_usd": Decimal("0.000000000001"), "input_tokens": 1, "output_tokens": None}])
    (row,) = csv.DictReader(io.StringIO(at("costs", "--csv").out))
    assert (row["customer"], row["cost_usd"], row["input_tokens"], row["output_tokens"]) == ('a,"b"', "0.000000000001", "1", "")


# --- sql ---


def test_sql_prints_tables_json_and_csv(at: Shell, server: StandIn) -> None:
    server.store([{"customer": "acme", "cost_usd": Decimal("0.1")}, {"customer": "", "cost_usd": None}])
    query = "SELECT customer, cost_usd, [1, 2] AS list FROM charges ORDER BY customer DESC"
    assert at("sql", query, "--json").rows == [
        {"customer": "acme", "cost_usd": "0.100000000000", "list": [1, 2]},
        {"customer": "", "cost_usd": None, "list": [1, 2]},
    ]
    assert at("sql", query, "--csv").out == 'customer,cost_usd,list\nacme,0.100000000000,"[1, 2]"\n,,"[1, 2]"\n'
    table = at("sql", query)
    assert "NULL" in table.out
    assert table.err == "2 rows in 2 ms\n"
    kinds = "SELECT 0.5::Float64 AS f, [0.5] AS fs, 18446744073709551615 AS u, 1.10::Decimal(9, 2) AS d, NULL AS n, 'x' AS s"
    assert at("sql", kinds, "--json").rows == [{"f": 0.5, "fs": [0.5], "u": 2**64 - 1, "d": "1.10", "n": None, "s": "x"}]
    nothing = at("sql", "SELECT 1 AS x WHERE 0")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "0 rows in 2 ms\n")
    assert at("sql", "SELECT 1 AS x WHERE 0", "--json").rows == []


def test_sql_binds_parameters_and_reads_stdin(at: Shell) -> None:
    at.monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT {name:String} AS name, {n:Int64} + 1 AS n"))
    assert at("sql", "-", "-p", "name=it's = \\ ok", "-p", "n=41", "--json").rows == [{"name": "it's = \\ ok", "n": 42}]


def test_a_query_that_fails_says_why_and_what_to_do(at: Shell) -> None:
    result = at("sql", "SELECT nonsense FROM charges")
    assert (result.code, result.out) == (1, "")
    assert "nonsense" in result.err
    assert "DESCRIBE charges lists the columns" in result.err


# --- which ledger ---


def test_the_server_that_holds_the_directory_is_found_by_its_file(shell: Shell, server: StandIn, tmp_path: Path) -> None:
    data = tmp_path / "ledger"
    data.mkdir()
    (data / "server.json").write_text(json.dumps({"url": server.url, "pid": os.getpid()}))
    assert shell("sql", "SELECT 7 AS x", "--json", "--data", str(data)).rows == [{"x": 7}]
    shell.monkeypatch.setenv("TALLYSTICK_DATA", str(data))
    assert shell("sql", "SELECT 8 AS x", "--json").rows == [{"x": 8}]
    shell.monkeypatch.setenv("TALLYSTICK_URL", "http://127.0.0.1:9")
    assert shell("sql", "SELECT 9", "--json").code == 1
    assert shell("sql", "SELECT 9 AS x", "--json", "--data", str(data)).rows == [{"x": 9}]


def test_something_that_is_no_tallystick_is_told(shell: Shell, server: StandIn) -> None:
    where = urlsplit(server.url)
    result = shell("costs", "--url", f"http://{where.netloc}/elsewhere")
    assert result.code == 1
    assert "answered something other than JSON" in result.err
    assert "is this a tallystick server?" in result.err


# --- prices ---


def test_prices_are_listed_and_explained(shell: Shell) -> None:
    row = next(row for row in shell("prices", "list", "openai/gpt-5-mini", "--json").rows if row["model"] == "openai/gpt-5-mini")
    assert {name: Decimal(row[name]) for name in ("input", "cache_read", "output")} == {
        "input": Decimal("0.25"),
        "cache_read": Decimal("0.025"),
        "output": Decimal(2),
    }
    explained = shell("prices", "show", row["price_id"], "--json").rows
    assert explained[0]["price_id"] == row["price_id"]
    assert Decimal(explained[0]["output_usd_per_million"]) == 2
    assert explained[0]["source"].startswith("genai-prices")
    assert row["price_id"] in shell("prices", "show", row["price_id"]).out
    for args in (("show", "no,such,price"), ("list", "no-such-model")):
        result = shell("prices", *args)
        assert (result.code, result.out) == (1, "")
        assert args[1] in result.err


def test_a_file_of_prices_is_checked_and_used(shell: Shell, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    text = "prices:\n  models:\n    - model: house-70b\n      per_million_tokens:\n        input: 0.4\n        output: 1.2\n"
    good.write_text(text)
    bad.write_text(text.replace("0.4", "cheap"))
    result = shell("prices", "check", str(good))
    assert (result.code, result.out) == (0, f"{good}: fine, 1 models priced\n")
    result = shell("prices", "check", str(bad))
    assert (result.code, result.out) == (1, "")
    assert f"{bad}:5" in result.err
    assert "input" in result.err
    (row,) = shell("prices", "list", "house-70b", "--config", str(good), "--json").rows
    assert (Decimal(row["input"]), Decimal(row["output"])) == (Decimal("0.4"), Decimal("1.2"))


# --- keys ---


def test_a_key_is_shown_once_and_can_be_revoked(shell: Shell, tmp_path: Path) -> None:
    shell.monkeypatch.setenv("TALLYSTICK_DATA", str(tmp_path / "new"))
    (made,) = shell("keys", "create", "--tenant", "acme", "--json").rows
    assert set(made) == {"tenant", "role", "key"}
    plain = shell("keys", "create", "--tenant", "ops", "--role", "operator")
    assert re.fullmatch(r"ts_\S{40,}\n", plain.out)
    keys = shell("keys", "list", "--json").rows
    assert [(key["tenant"], key["role"], key["revoked_at"]) for key in keys] == [
        ("acme", "member", None),
        ("ops", "operator", None),
    ]
    store = KeyStore(tmp_path / "new")
    assert shell("keys", "revoke", keys[0]["id"]).code == 0
    assert store.find(made["key"]) is None
    found = store.find(plain.out.strip())
    assert found is not None
    assert (found.tenant, found.operator) == ("ops", True)
    for shown in (shell("keys", "list").out, shell("keys", "list", "--json").out, (tmp_path / "new" / "keys.json").read_text()):
        assert made["key"] not in shown
        assert made["key"].split("_", 2)[2] not in shown
        assert "acme" in shown
    for nobody in ("k9", keys[0]["id"]):
        unknown = shell("keys", "revoke", nobody)
        assert unknown.code == 1
        assert f"no key in force has the id {nobody!r}" in unknown.err


# --- doctor ---


def test_doctor_says_what_is_well_and_what_isnt(at: Shell, server: StandIn) -> None:
    server.store([{"cost_usd": Decimal(1), "input_tokens": 750}, {"cost_usd": None, "input_tokens": 250}])
    server.status |= {"received_spans": 12_000, "stored_calls": 9_000, "dropped_spans": {"no_model_call": 3_000}}
    checks = {check["what"]: check for check in at("doctor", "--json").rows}
    assert checks["priced"]["found"] == "75.0 % of tokens and 50.0 % of calls in 30 days"
    assert checks["priced"]["state"] == "warn"
    assert "prices missing" in checks["priced"]["advice"]
    assert checks["received"]["found"] == "12,000 spans, 9,000 calls stored"
    assert checks["dropped"]["found"] == "3,000 no model call"
    assert "rejected" not in checks
    assert {check["state"] for check in checks.values()} <= {"ok", "warn", "fail"}
    server.status |= {"rejected_spans": {"time_in_the_future": 5}, "failed_batches": 2, "last_failure": "disk full"}
    shown = at("doctor").out
    assert "rejected: 5 time in the future" in shown
    assert "failed inserts: 2, last: disk full" in shown


def test_doctor_fails_when_the_server_takes_no_spans_or_isnt_there(at: Shell, server: StandIn) -> None:
    server.ready = False
    result = at("doctor")
    assert result.code == 1
    assert f"{server.url} is up and accepts no spans" in result.out
    result = at("doctor", "--url", "http://127.0.0.1:9")
    assert result.code == 1
    assert "nothing answers at http://127.0.0.1:9" in result.out


# --- demo ---


@pytest.fixture
def demo(at: Shell, server: StandIn, traces: list[Path]) -> Shell:
    """`tallystick demo`, with the stand-in for its server and small traces for its traffic."""

    @contextmanager
    def stand_in(data: Path, *, keep: bool) -> Iterator[Any]:
        yield demo_module._Server(url=server.url, process=None)  # type: ignore[arg-type]

    at.monkeypatch.setattr(demo_module, "_server", stand_in)
    at.monkeypatch.setattr(demo_module, "shipped", lambda: traces)
    return at


def test_the_demo_shows_what_it_cost_and_proves_it(demo: Shell) -> None:
    result = demo("demo")
    assert result.code == 0, result.err
    assert "stored 1,799 calls" in result.out
    assert "checked: 1,799 calls in" in result.out
    assert "every token and every cent as in the trace files" in result.out
    for shown in ("northwind-freight", "code-review", "planner", "claude-sonnet-4-5-20250929", "unpriced", "% of tokens"):
        assert shown in result.out


@pytest.mark.parametrize("wrong", ["0.01", "0.00001", "-0.01"])
def test_the_demo_fails_when_a_single_call_costs_otherwise(demo: Shell, server: StandIn, wrong: str) -> None:
    server.overcharge = Decimal(wrong)
    result = demo("demo")
    assert result.code == 1
    assert "the ledger disagrees with the trace files in" in result.err
    assert "cost_usd" in result.err


def test_the_demo_leaves_a_directory_in_use_alone(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    result = shell("demo", "--data", str(tmp_path / "mine"))
    assert result.code == 1
    assert "isn't empty" in result.err
