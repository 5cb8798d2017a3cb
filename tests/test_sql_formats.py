"""Answers to SQL as files: the same values in each, none that a spreadsheet computes, and errors before the first byte."""

import csv
import io
import json
import subprocess
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp import request, span
from server import CLEAN, COMMAND, Server

from tallystick.attribution.csv_cells import safe_cell
from tallystick.attribution.sql_formats import MEDIA_TYPES, Format, file
from tallystick.attribution.user_sql import READER_SETTINGS, BadQuery, QueryTooExpensive
from tallystick.client import Client, Refused
from tallystick.ingest.store import Store
from tallystick.server.sql_api import NotAcceptable, accepted

FILES = [form for form in Format if form is not Format.JSON]
ROWS = """
SELECT entry, calls, customer, tags, started_at, cost_usd, ttft_ms, status::Nullable(Enum8('ok' = 1, 'error' = 2, 'cancelled' = 3)) AS ended
FROM charges ORDER BY started_at, customer LIMIT 7
"""


@pytest.fixture
def filed(ask: Callable[..., Any], chdb_store: Store) -> Callable[..., bytes]:
    def filed(query: str, form: Format, params: dict[str, Any] | None = None, tenant: str = "acme", **settings: int) -> bytes:
        with chdb_store.reader(tenant, {**READER_SETTINGS, **settings}) as reader:
            return file(reader, query, params, form)

    return filed


def arrow(content: bytes) -> pa.Table:
    return pa.ipc.open_stream(content).read_all()


def parquet(content: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(content))


def test_every_format_has_the_same_values(ask: Callable[..., Any], filed: Callable[..., bytes]) -> None:
    told = ask("acme", ROWS)
    names = [column.name for column in told.columns]
    assert len(told.rows) == 7
    lines = [json.loads(line) for line in filed(ROWS, Format.NDJSON).splitlines()]
    assert lines == [dict(zip(names, row, strict=True)) for row in told.rows]
    cells = list(csv.reader(io.StringIO(filed(ROWS, Format.CSV).decode())))
    assert cells[0] == names
    for cell, row in zip(cells[1:], told.rows, strict=True):
        as_text = ["" if v is None else json.dumps(v) if isinstance(v, dict) else str(v) for v in row]
        assert cell == as_text
    for table in (arrow(filed(ROWS, Format.ARROW)), parquet(filed(ROWS, Format.PARQUET))):
        assert table.column_names == names
        assert table.schema.field("cost_usd").type == pa.decimal128(18, 12)
        assert table.schema.field("started_at").type == pa.timestamp("ns", "UTC")
        assert table.schema.field("entry").type == table.schema.field("ended").type == pa.string()
        for mine, row in zip(table.to_pylist(), told.rows, strict=True):
            cost = None if row[5] is None else Decimal(row[5])
            assert (mine["entry"], mine["calls"], mine["customer"], dict(mine["tags"]), mine["cost_usd"]) == (*row[:4], cost)
            assert (mine["ttft_ms"], mine["ended"]) == (row[6], row[7])
            assert mine["started_at"].isoformat(timespec="nanoseconds") == row[4].replace("Z", "+00:00")


@pytest.mark.parametrize("form", FILES)
def test_empty_answers_are_whole_files(filed: Callable[..., bytes], form: Format) -> None:
    content = filed("SELECT entry, cost_usd FROM charges WHERE 0", form)
    match form:
        case Format.CSV:
            assert content == b"entry,cost_usd\n"
        case Format.NDJSON:
            assert content == b""
        case _:
            table = arrow(content) if form is Format.ARROW else parquet(content)
            assert (table.column_names, table.num_rows) == (["entry", "cost_usd"], 0)


def test_no_cell_of_a_name_is_a_formula(filed: Callable[..., bytes]) -> None:
    query = """
        SELECT arrayJoin(['=1+1', '+1', '-1', '@a', '\\t=1', '\\r=1', 'a=1', '', '"=1', 'a\\n=1']) AS `=header`, -1.5::Decimal(9, 2) AS d,
            -1::Nullable(Int8) AS i, -0.5::LowCardinality(Nullable(Float64)) AS f, ['=1'] AS list
    """
    cells = list(csv.reader(io.StringIO(filed(query, Format.CSV, allow_suspicious_low_cardinality_types=1).decode(), newline="")))
    assert cells[0] == ["'=header", "d", "i", "f", "list"]
    assert [row[0] for row in cells[1:]] == ["'=1+1", "'+1", "'-1", "'@a", "'\t=1", "'\r=1", "a=1", "", '"=1', "a\n=1"]
    assert {tuple(row[1:]) for row in cells[1:]} == {("-1.5", "-1", "-0.5", '["=1"]')}


@given(st.text())
def test_safe_cells_keep_the_text(text: str) -> None:
    assert safe_cell(text) in (text, f"'{text}")
    assert not safe_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("form", [Format.NDJSON, Format.ARROW, Format.PARQUET])
def test_columns_of_one_name_are_told(filed: Callable[..., bytes], form: Format) -> None:
    with pytest.raises(BadQuery, match="2 columns are called a"):
        filed("SELECT 1 AS a, 2 AS b, a FROM numbers(2)", form)


@pytest.mark.parametrize("form", [Format.ARROW, Format.PARQUET])
@pytest.mark.parametrize("name", ["a b", "`", "\\", "\\`, file('/etc/passwd') AS `x", "'", '"', "é"])
def test_a_name_stays_a_name(filed: Callable[..., bytes], form: Format, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace("`", "\\`")
    content = filed(f"SELECT entry AS `{quoted}` FROM charges ORDER BY started_at LIMIT 1", form)
    table = arrow(content) if form is Format.ARROW else parquet(content)
    assert table.to_pylist() == [{name: "call"}]


@pytest.mark.parametrize("form", FILES)
def test_files_keep_order_tenant_and_parameters(filed: Callable[..., bytes], form: Format) -> None:
    query = "SELECT entry, customer, tenant, started_at AS t FROM charges WHERE feature = {f:String} ORDER BY t DESC, customer LIMIT 500"
    content = filed(query, form, {"f": "globex-feature"}, tenant="globex")
    match form:
        case Format.CSV:
            rows = list(csv.DictReader(io.StringIO(content.decode())))
        case Format.NDJSON:
            rows = [json.loads(line) for line in content.splitlines()]
        case _:
            rows = (arrow(content) if form is Format.ARROW else parquet(content)).to_pylist()
    assert len(rows) > 10
    assert {row["tenant"] for row in rows} == {"globex"}
    times = [str(row["t"]) for row in rows]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("SELECT number, toUInt8(number = 90000 ? 'x' : '1') FROM numbers(99999)", "cannot_parse_text"),
        ("SELECT number FROM numbers(100001)", "too_many_rows"),
        ("SELECT count() FROM numbers(1000000000000)", "too_slow"),
        ("SELECT repeat('x', 1000000) AS x FROM numbers(1000)", "too_much_memory"),
        ("SELECT * FROM ledger", "no_such_table"),
        ("SELECT 1 FORMAT Parquet", "not_allowed"),
        ("SELECT 1 INTO OUTFILE 'x'", "not_allowed"),
    ],
)
def test_what_fails_gives_no_file(filed: Callable[..., bytes], form: Format, query: str, code: str) -> None:
    with pytest.raises(BadQuery) as refused:
        filed(query, form, max_execution_time=1)
    assert refused.value.code == code
    assert isinstance(refused.value, QueryTooExpensive) is code.startswith("too_")
    assert b"7" in filed("SELECT 7 AS x", Format.CSV, max_execution_time=1)


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("*/*", "json"),
        ("", None),
        ("text/csv", "csv"),
        ("TEXT/CSV; charset=utf-8", "csv"),
        ("application/json;q=0.5, text/csv", "csv"),
        ("text/html, text/csv;q=0.2, */*;q=0.1", "csv"),
        ("application/*", "json"),
        ("application/vnd.apache.parquet", "parquet"),
        ("application/x-ndjson, */*;q=0.1", "ndjson"),
        ("text/csv;q=0", None),
        ("text/csv;q=x", None),
        ("image/png", None),
    ],
)
def test_the_accept_header(header: str, form: str | None) -> None:
    if form is None:
        with pytest.raises(NotAcceptable):
            accepted(header)
    else:
        assert accepted(header) == form


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    key = server.key("formats")
    assert server.post(request(span("formats", attributes={"tallystick.customer": "=cmd"})), key).status_code == 200
    return key


def post(server: Server, key: str, query: str, accept: str | None = None, **params: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} | ({"accept": accept} if accept else {})
    return server.http.post("/v1/sql", json={"query": query}, headers=headers, params=params)


@pytest.mark.parametrize("form", FILES)
def test_over_http(server: Server, key: str, form: Format) -> None:
    query = "SELECT customer, calls FROM charges"
    asked = post(server, key, query, accept=MEDIA_TYPES[form])
    assert asked.status_code == 200
    assert asked.headers["content-type"].split(";")[0] == MEDIA_TYPES[form]
    assert asked.headers["content-length"] == str(len(asked.content))
    assert asked.headers["content-disposition"] == f'attachment; filename="answer.{form}"'
    with Client(server.url, key) as client:
        assert client.sql_file(query, format=form) == post(server, key, query, format=form).content == asked.content
        with pytest.raises(Refused) as refused:
            client.sql_file("SELECT * FROM ledger", format=form)
    assert (refused.value.status, refused.value.code) == (400, "no_such_table")
    assert post(server, key, query, accept=MEDIA_TYPES[form], format="json").json()["rows"] == [["=cmd", 1]]


def test_formats_that_are_not_offered(server: Server, key: str) -> None:
    refused = post(server, key, "SELECT 1", accept="image/png")
    assert (refused.status_code, refused.json()["error"]["code"]) == (406, "not_acceptable")
    assert post(server, key, "SELECT 1", format="Native").status_code == 422


def sql(server: Server, key: str, *args: str) -> subprocess.CompletedProcess[bytes]:
    env = {**CLEAN, "TALLYSTICK_KEY": key, "TALLYSTICK_URL": server.url}
    return subprocess.run([*COMMAND, "sql", *args], capture_output=True, env=env, check=False, stdin=subprocess.DEVNULL)


def test_on_the_command_line(server: Server, key: str, tmp_path: Path) -> None:
    query = "SELECT entry, customer, cost_usd FROM charges"
    out = tmp_path / "out"
    done = sql(server, key, query, "--format", "parquet", "-o", str(out))
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"bytes in" in done.stderr
    assert parquet(out.read_bytes()).to_pylist()[0]["customer"] == "=cmd"
    assert arrow(sql(server, key, query, "--format", "arrow").stdout).num_rows == 1
    assert json.loads(sql(server, key, query, "--format", "ndjson").stdout)["customer"] == "=cmd"
    printed = sql(server, key, query, "--format", "csv").stdout
    assert printed.startswith(b"entry,customer,cost_usd\ncall,'=cmd,")
    assert printed == sql(server, key, query, "--csv").stdout
    assert sql(server, key, query, "--csv", "-o", str(out)).returncode == 0
    assert out.read_bytes() == printed
    nowhere = sql(server, key, query, "--csv", "-o", str(tmp_path / "none" / "out"))
    assert (nowhere.returncode, b"No such file" in nowhere.stderr) == (1, True)
    failed = sql(server, key, "SELECT * FROM ledger", "--format", "csv", "-o", str(out))
    assert (failed.returncode, failed.stdout) == (1, b"")
    assert (out.read_bytes(), sorted(tmp_path.iterdir())) == (printed, [out])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--format", "csv", "--json"], b"exclude each other"),
        (["-o", "x"], b"-o needs --format"),
        (["--json", "-o", "x"], b"-o needs --format"),
        (["--format", "xlsx"], b"is not one of"),
    ],
)
def test_wrong_usage(server: Server, key: str, args: list[str], told: bytes) -> None:
    failed = sql(server, key, "SELECT 1", *args)
    assert failed.returncode == 2
    assert told in failed.stderr
