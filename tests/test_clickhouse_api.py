"""ClickHouse's HTTP interface as its clients use it: what they send was read in their sources."""

import csv
import io
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import clickhouse_connect
import httpx
import lz4.block
import pyarrow as pa
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError, DatabaseError
from otlp import request, span
from server import Server

from tallystick.attribution.user_sql_check import VIEWS
from tallystick.server.clickhouse_frames import city_hash_128, framed

STARTED = datetime.now(UTC).replace(microsecond=123000) - timedelta(minutes=2)
STARTED_NS = int(STARTED.timestamp()) * 10**9 + 123_000_000


@pytest.fixture(scope="module")
def keys(server: Server) -> dict[str, str]:
    """Of two tenants with three calls each, their customers named for them."""
    keys = {tenant: server.key(tenant) for tenant in ("ch-acme", "ch-globex")}
    for tenant, key in keys.items():
        calls = [
            span(
                f"{tenant}{n}",
                start_ns=STARTED_NS + n,
                attributes={"tallystick.customer": f"{tenant} {n}", "tallystick.tags": f"n={n}"},
            )
            for n in range(3)
        ]
        assert server.post(request(*calls), key).status_code == 200
    return keys


def ask(
    server: Server, key: str | None, query: str, headers: Mapping[str, str] | None = None, /, **params: Any
) -> httpx.Response:
    """As clients that take their credentials from headers do."""
    credentials = {} if key is None else {"X-ClickHouse-User": "default", "X-ClickHouse-Key": key}
    return server.http.post("/", content=query.encode(), params=params, headers=credentials | dict(headers or {}))


def good(answer: httpx.Response) -> httpx.Response:
    assert answer.status_code == 200, answer.text
    return answer


# clickhouse-connect


@pytest.fixture(params=["password", "token", "uncompressed"])
def client(server: Server, keys: dict[str, str], request: pytest.FixtureRequest) -> Iterator[Client]:
    how: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": int(server.url.rsplit(":", 1)[1]),
        "compress": request.param != "uncompressed",
    }
    how |= {"access_token": keys["ch-acme"]} if request.param == "token" else {"username": "ana", "password": keys["ch-acme"]}
    with closing(clickhouse_connect.get_client(**how)) as client:
        yield client


def test_clickhouse_connect_reads_every_type(client: Client) -> None:
    answer = client.query(
        "SELECT customer, calls, entry, cost_usd, started_at, tags, ttft_ms, streamed, [1, NULL] AS list, (1, 'a') AS pair"
        " FROM charges ORDER BY started_at"
    )
    assert [row[0] for row in answer.result_rows] == ["ch-acme 0", "ch-acme 1", "ch-acme 2"]
    assert answer.result_rows[0][1:5] == (1, "call", Decimal("0.00021"), STARTED.replace(tzinfo=None))
    assert answer.result_rows[0][6:] == (None, None, [1, None], (1, "a"))
    assert client.server_version


def test_clickhouse_connect_binds_and_streams(client: Client) -> None:
    nasty = ["it's", "\\", "\t\n", "{x:String}", "é"]
    params = {"list": nasty, "text": "'\\\t", "when": STARTED, "n": None}
    query = "SELECT {list:Array(String)}, {text:String}, {when:DateTime64(3, 'UTC')}, {n:Nullable(Int8)}"
    assert client.query(query, parameters=params).result_rows == [(nasty, "'\\\t", STARTED.replace(tzinfo=None), None)]
    long = ["x" * 1000] * 60
    assert client.query("SELECT length({list:Array(String)}) AS n", parameters={"list": long}).result_rows == [(60,)]
    with client.query_row_block_stream("SELECT number FROM numbers(100000)") as blocks:
        assert sum(len(block) for block in blocks) == 100_000


def test_clickhouse_connect_reads_frames_and_files(client: Client) -> None:
    assert client.query_df("SELECT customer, calls FROM charges ORDER BY customer")["calls"].tolist() == [1, 1, 1]
    assert client.query_arrow("SELECT customer FROM charges ORDER BY customer").to_pylist()[2] == {"customer": "ch-acme 2"}
    assert client.raw_query("SELECT calls FROM charges LIMIT 1", fmt="CSV") == b"1\n"
    assert client.query("SELECT customer, entry FROM charges WHERE 0").column_names == ("customer", "entry")
    assert client.query("SELECT customer, entry FROM charges LIMIT 0").column_names == ("customer", "entry")


def test_clickhouse_connect_is_told_what_there_is(client: Client) -> None:
    assert set(str(client.command("SHOW TABLES")).split()) == VIEWS
    assert client.command("EXISTS TABLE charges") == 1
    assert client.command("EXISTS TABLE ledger") == 0
    described = client.query("DESCRIBE TABLE charges").result_rows
    assert (
        described
        == client.query("SELECT name, type, '', '', comment, '', '' FROM system.columns WHERE table = 'charges'").result_rows
    )
    assert described[1][:2] == ("calls", "Int8")
    assert client.ping()


def test_clickhouse_connect_is_told_why(client: Client) -> None:
    with pytest.raises(DatabaseError, match="There is no table ledger") as refused:
        client.query("SELECT * FROM ledger")
    assert refused.value.code == 60
    with pytest.raises(ClickHouseError):
        client.insert("charges", [[1]], column_names=["calls"])
    with pytest.raises(ClickHouseError):
        client.command("DROP TABLE charges")


def test_a_wrong_key_is_refused(server: Server) -> None:
    with pytest.raises(DatabaseError) as refused:
        clickhouse_connect.get_client(host="127.0.0.1", port=int(server.url.rsplit(":", 1)[1]), username="x", password="wrong")
    assert refused.value.code == 516


# What other clients send


def test_curl(server: Server, keys: dict[str, str]) -> None:
    key = keys["ch-acme"]
    query = "SELECT customer FROM charges ORDER BY 1 LIMIT 1"
    ways = [
        server.http.get("/", params={"query": query, "user": "u", "password": key}),
        server.http.get("/", params={"query": query}, auth=("u", key)),
        server.http.get("/", params={"query": query}, headers={"authorization": f"Bearer {key}"}),
        server.http.post("/", params={"query": "SELECT customer FROM charges"}, content=" ORDER BY 1 LIMIT 1", auth=("", key)),
        server.http.post("/", content=query, auth=("u", key), headers={"content-type": "application/x-www-form-urlencoded"}),
        server.http.post("/", files={"query": (None, query)}, auth=("u", key)),
        server.http.post("/", files={"query": (None, "SELECT {c:String}"), "param_c": (None, "ch-acme 0")}, auth=("u", key)),
    ]
    assert [good(way).text for way in ways] == ["ch-acme 0\n"] * len(ways)
    answer = ask(
        server, key, query, query_id="mine-1", session_id="s", wait_end_of_query=1, role="r", stacktrace=1, database="tallystick"
    )
    assert answer.headers["x-clickhouse-query-id"] == "mine-1"
    assert answer.headers["x-clickhouse-format"] == "TabSeparated"
    assert json.loads(answer.headers["x-clickhouse-summary"]) == {"result_bytes": "10"}
    assert "\n" not in ask(server, key, query, query_id="a\r\nx: y").headers["x-clickhouse-query-id"]


def test_a_browser_gets_the_page(server: Server) -> None:
    page = good(server.http.get("/"))
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"]
    assert server.http.get("/ping").text == "Ok.\n"


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("JSON", "application/json"), ("JSONCompact", "application/json"), ("JSONEachRow", "text/plain"), ("CSVWithNames", "text/csv"),
        ("TabSeparatedWithNamesAndTypes", "text/tab-separated-values"), ("RowBinaryWithNamesAndTypes", "application/octet-stream"),
        ("Parquet", "application/octet-stream"), ("Pretty", "text/plain"), ("XML", "text/plain"), ("Vertical", "text/plain"),
    ],
)  # fmt: skip
def test_formats(server: Server, keys: dict[str, str], form: str, kind: str) -> None:
    key = keys["ch-acme"]
    asked = [
        ask(server, key, f"SELECT 42 AS x FORMAT {form}"),
        ask(server, key, "SELECT 42 AS x", default_format=form),
        ask(server, key, "SELECT 42 AS x", {"X-ClickHouse-Format": form}, default_format="TSV"),
        ask(server, key, f"SELECT 42 AS x -- FORMAT TSV\n\n FORMAT {form};", default_format="TSV"),
    ]
    for answer in asked:
        assert good(answer).headers["content-type"].split(";")[0] == kind
        assert answer.headers["x-clickhouse-format"] == form
        assert answer.headers["x-content-type-options"] == "nosniff"
    if form == "JSONCompact":
        assert asked[0].json()["data"] == [[42]]


def test_values_look_as_clickhouse_writes_them(server: Server, keys: dict[str, str]) -> None:
    answer = ask(
        server, keys["ch-acme"], "SELECT started_at, cost_usd FROM charges ORDER BY started_at LIMIT 1 FORMAT JSONEachRow"
    )
    assert json.loads(answer.text) == {"started_at": STARTED.strftime("%Y-%m-%d %H:%M:%S.123000000"), "cost_usd": 0.00021}


def test_grafana(server: Server, keys: dict[str, str]) -> None:
    """clickhouse-go over HTTP: Native with a protocol version, then what the plugin's editor asks."""
    how = {
        "default_format": "Native",
        "client_protocol_version": 54460,
        "database": "default",
        "max_execution_time": 60,
        "limit": 1000,
    }
    hello = good(ask(server, keys["ch-acme"], "SELECT displayName(), version(), revision(), timezone()", **how)).content
    assert hello.startswith(
        b"\x01\x00\x02\xff\xff\xff\xff\x00\x04\x01\rdisplayName()\x06String\x00\ntallystick\tversion()\x06String\x00"
    )
    assert b"\nrevision()\x06UInt32\x00" in hello
    for query in (
        "SHOW DATABASES",
        'SHOW TABLES FROM "tallystick"',
        "SELECT name, type, table FROM system.columns",
        "SELECT name, type, table FROM system.columns WHERE database = 'tallystick' AND table = 'charges'",
        "SELECT name, type, table FROM system.columns WHERE database IN ('tallystick')",
        "SELECT toStartOfInterval(started_at, INTERVAL 60 second) AS time, sum(cost_usd) FROM charges"
        " WHERE ( time >= '2020-01-01' ) GROUP BY time ORDER BY time",
        "SELECT * FROM charges",
        "SELECT * FROM charges WHERE 0",
    ):
        assert good(ask(server, keys["ch-acme"], query, **how)).content.startswith(b"\x01\x00\x02\xff\xff\xff\xff\x00"), query


JDBC_TABLES = (
    "SELECT '' AS TABLE_CAT, t.database AS TABLE_SCHEM, t.name AS TABLE_NAME,"
    " if(t.is_temporary = 1, concat('Temporary', t.engine), t.engine) AS TABLE_TYPE, t.comment AS REMARKS,"
    " CAST(null as Nullable(String)) AS TYPE_CAT, d.engine AS TYPE_SCHEM FROM system.tables t JOIN system.databases d"
    " ON system.tables.database = system.databases.name WHERE t.database LIKE '%' AND t.name LIKE '%' AND (t.is_temporary = 0)"
)
JDBC_COLUMNS = (
    "SELECT database AS TABLE_SCHEM, table AS TABLE_NAME, name AS COLUMN_NAME, type AS TYPE_NAME,"
    " toInt32(IF (numeric_scale == 0, NULL, numeric_scale)) as DECIMAL_DIGITS, toInt32(numeric_precision_radix) AS NUM_PREC_RADIX,"
    " toInt32(position(type, 'Nullable(') >= 1 ?1 : 0) as NULLABLE, system.columns.comment AS REMARKS,"
    " system.columns.default_expression AS COLUMN_DEF, character_octet_length::Nullable(Int32) AS CHAR_OCTET_LENGTH,"
    " toInt32(system.columns.position) AS ORDINAL_POSITION FROM system.columns WHERE database LIKE '%' AND table LIKE 'charges'"
    " AND name LIKE '%' ORDER BY TABLE_SCHEM, TABLE_NAME, ORDINAL_POSITION"
)


def test_jdbc(server: Server, keys: dict[str, str]) -> None:
    """ClickHouse's JDBC driver, which DBeaver and Metabase bring along: compressed frames, and its metadata."""
    headers = {"X-ClickHouse-Format": "RowBinaryWithNamesAndTypes", "X-ClickHouse-Database": "default"}
    first = "SELECT currentUser() AS user, timezone() AS timezone, version() AS version LIMIT 1"
    hello = good(ask(server, keys["ch-acme"], first, headers, compress=1, query_id="q"))
    assert unframed(hello.content).startswith(b"\x03\x04user\x08timezone\x07version\x06String\x06String\x06String\x07default")
    tables = good(ask(server, keys["ch-acme"], JDBC_TABLES + " FORMAT JSON")).json()["data"]
    assert {row["TABLE_NAME"] for row in tables} == VIEWS
    assert {(row["TABLE_TYPE"], row["TYPE_SCHEM"]) for row in tables} == {("View", "Atomic")}
    columns = good(ask(server, keys["ch-acme"], JDBC_COLUMNS + " FORMAT JSON")).json()["data"]
    (cost,) = [column for column in columns if column["COLUMN_NAME"] == "cost_usd"]
    assert (cost["DECIMAL_DIGITS"], cost["NUM_PREC_RADIX"], cost["NULLABLE"], cost["REMARKS"][:7]) == (12, 10, 1, "cost by")
    for query in (
        "SELECT name AS TABLE_SCHEM, null AS TABLE_CATALOG FROM system.databases ORDER BY name",
        "SELECT version() as server_version",
        "DESC (SELECT customer, sum(cost_usd) FROM charges WHERE customer = 'x' GROUP BY 1) FORMAT TSKV",
        "DESCRIBE TABLE charges FORMAT TSKV",
        "SELECT name, case_insensitive FROM system.data_type_families dt WHERE alias_to == ''",
        "SELECT name FROM system.table_engines",
        "SHOW CREATE TABLE tallystick.charges",
        "/* DBeaver */ SHOW TABLES",
    ):
        good(ask(server, keys["ch-acme"], query))
    limited = ask(server, keys["ch-acme"], "SELECT number FROM numbers(90000)", max_result_rows=10, result_overflow_mode="break")
    assert good(limited).text.startswith("0\n1\n")


def unframed(data: bytes) -> bytes:
    plain = b""
    while data:
        low, high, method, size, length = struct.unpack_from("<QQBII", data)
        assert (low, high) == city_hash_128(data[16 : 16 + size])
        assert method == 0x82
        plain += lz4.block.decompress(data[25 : 16 + size], uncompressed_size=length)
        data = data[16 + size :]
    return plain


@pytest.mark.parametrize("size", [0, 1, 14, 15, 16, 269, 270, 525, 1 << 20, (1 << 20) + 7])
def test_frames(size: int) -> None:
    data = bytes(n * 7 % 251 for n in range(size))
    assert unframed(framed(data)) == data


@pytest.mark.parametrize(
    ("data", "low", "high"),
    [
        (b"", 0x3DF09DFC64C09A2B, 0x3CB540C392E51E29),
        (b"hello", 0xBBAE8265CD136BEF, 0xF1881D5BA3F4B5EC),
        (b"0123456789", 0xC971B4BE71AEFFA5, 0x26998264D5283DA9),
        (bytes(range(100)), 0x836AD9510A7189D4, 0x92D5FDF90B6D0EF9),
        (bytes(n % 251 for n in range(1000)), 0x44377C873C240F45, 0x9DA1D106CA1C225D),
    ],
)
def test_the_checksum_is_that_of_the_c_library(data: bytes, low: int, high: int) -> None:
    assert city_hash_128(data) == (low, high)


# Who sees what


@pytest.mark.parametrize("form", ["TSV", "Native", "Arrow", "RowBinary", "JSONStringsEachRow", "Parquet"])
def test_a_tenant_sees_its_own(server: Server, keys: dict[str, str], form: str) -> None:
    for mine, other in (("ch-acme", b"ch-globex"), ("ch-globex", b"ch-acme")):
        for query in ("SELECT * FROM charges", "SELECT groupArray(customer), groupArray(tenant) FROM charges WHERE tenant != ''"):
            seen = good(
                ask(server, keys[mine], query, default_format=form, output_format_parquet_compression_method="none")
            ).content
            assert mine.encode() in seen
            assert other not in seen


def test_without_a_key_on_this_machine(server: Server, keys: dict[str, str]) -> None:
    everybody = "SELECT uniqExact(tenant) >= 2 FROM charges WHERE tenant LIKE 'ch-%'"
    assert good(ask(server, None, everybody)).text == "1\n"
    assert good(server.http.get("/", params={"query": everybody}, auth=("default", ""))).text == "1\n"
    for headers in (
        {"host": "evil.example"},
        {"host": "evil.example", "authorization": "Basic ZGVmYXVsdDo="},
        {"host": "evil.example", "x-clickhouse-key": ""},
        {"x-forwarded-for": "1.2.3.4"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "authorization": "Basic ZGVmYXVsdDo="},
    ):
        refused = server.http.get("/", params={"query": everybody}, headers=headers)
        assert (refused.status_code, refused.headers["x-clickhouse-exception-code"]) == (403, "497"), headers
    for headers in ({"host": "evil.example", "x-clickhouse-key": "junk"}, {"host": "evil.example"}):
        assert server.http.post("/v1/sql", json={"query": "SELECT 1"}, headers=headers).status_code == 403
    forwarded = server.http.get(
        "/", params={"query": everybody}, headers={"host": "ledger.example", "x-clickhouse-key": keys["ch-acme"]}
    )
    assert good(forwarded).text == "0\n"


@pytest.mark.parametrize("authorization", ["Basic !", "Basic /////w==", "Bearer junk", "Basic dTpqdW5r"])
def test_credentials_that_are_none(server: Server, authorization: str) -> None:
    refused = server.http.get("/", params={"query": "SELECT 1"}, headers={"authorization": authorization})
    assert (refused.status_code, refused.headers["x-clickhouse-exception-code"]) == (403, "516")


# Errors and settings


@pytest.mark.parametrize(
    ("query", "status", "name"),
    [
        ("SELEC 1", 400, "SYNTAX_ERROR"),
        ("", 400, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, "SYNTAX_ERROR"),
        ("SELECT nothing FROM charges", 400, "UNKNOWN_IDENTIFIER"),
        ("SELECT * FROM ledger", 404, "UNKNOWN_TABLE"),
        ("SELECT * FROM system.query_log", 404, "UNKNOWN_TABLE"),
        ("SELECT hostname(1)", 404, "UNKNOWN_FUNCTION"),
        ("SHOW TABLES FROM system", 404, "UNKNOWN_DATABASE"),
        ("DESCRIBE ledger", 404, "UNKNOWN_TABLE"),
        ("SELECT 1 FORMAT Template", 404, "UNKNOWN_FORMAT"),
        ("SELECT {p:String}", 400, "BAD_QUERY_PARAMETER"),
        ("DROP TABLE charges", 403, "READONLY"),
        ("SET max_threads = 1", 403, "READONLY"),
        ("SELECT 1 SETTINGS max_threads = 1", 400, "SUPPORT_IS_DISABLED"),
        ("SELECT toUInt8(number = 90000 ? 'x' : '1') FROM numbers(99999)", 400, "CANNOT_PARSE_TEXT"),
        ("SELECT number FROM numbers(100001)", 500, "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT repeat('x', 1000000) FROM numbers(1000)", 500, "MEMORY_LIMIT_EXCEEDED"),
        ("SELECT count() FROM numbers(1000000000000)", 500, "TIMEOUT_EXCEEDED"),
        ("SELECT " + "(" * 300 + "1" + ")" * 300, 400, "TOO_DEEP_RECURSION"),
        ("SELECT 1" + " BETWEEN 1 AND 2" * 30, 400, "TOO_DEEP_RECURSION"),
        ("DESC (SELECT 1" + " BETWEEN 1 AND 2" * 30 + ")", 400, "TOO_DEEP_RECURSION"),
        ("SELECT '" + "x" * 300_000 + "'", 400, "QUERY_IS_TOO_LARGE"),
    ],
)
def test_errors_are_clickhouse_s(server: Server, keys: dict[str, str], query: str, status: int, name: str) -> None:
    failed = ask(server, keys["ch-acme"], query, default_format="Native", max_execution_time=1)
    assert failed.status_code == status
    code = int(failed.headers["x-clickhouse-exception-code"])
    assert failed.text.startswith(f"Code: {code}. DB::Exception: ")
    assert f" ({name}) (version " in failed.text
    assert str(server.data.parent) not in failed.text
    with closing(
        clickhouse_connect.get_client(host="127.0.0.1", port=int(server.url.rsplit(":", 1)[1]), password=keys["ch-acme"])
    ) as client:
        assert client.query("SELECT 7").result_rows == [(7,)]


@pytest.mark.parametrize(
    "setting",
    [
        {"log_comment": ""}, {"log_comment": "tenant:ch-globex"}, {"max_rows_to_read": "1"}, {"additional_table_filters": "{}"},
        {"http_headers_progress_interval_msx": "1"}, {"allow_ddl": "1"}, {"LOG_COMMENT": "x"}, {"format_schema": "/etc/passwd"},
        {"SQL_x": "1"}, {"readonly2": "0"}, {"output_format_schema": "/x"}, {"max_threads = 1, log_comment": "x"},
    ],
)  # fmt: skip
def test_other_settings_are_refused(server: Server, keys: dict[str, str], setting: dict[str, str]) -> None:
    refused = ask(server, keys["ch-acme"], "SELECT count() FROM charges", **setting)
    assert (refused.status_code, refused.headers["x-clickhouse-exception-code"]) == (403, "164"), refused.text


@pytest.mark.parametrize(
    "setting",
    [
        {"date_time_output_format": "iso', log_comment = '"}, {"date_time_output_format": "iso'"}, {"extremes": "1\\"}, {"limit": ""},
        {"max_result_rows": "1, log_comment = ''"}, {"max_result_rows": "-1"}, {"max_execution_time": "1e9"}, {"max_memory_usage": "x"},
        {"extremes": "nonsense"}, {"max_result_rows": "٣"},
    ],
)  # fmt: skip
def test_values_of_settings_are_values(server: Server, keys: dict[str, str], setting: dict[str, str]) -> None:
    refused = ask(server, keys["ch-acme"], "SELECT count() FROM charges", **setting)
    assert refused.status_code == 400, refused.text
    assert good(ask(server, keys["ch-acme"], "SELECT count() FROM charges")).text == "3\n"


def test_settings_that_are_kept(server: Server, keys: dict[str, str]) -> None:
    key = keys["ch-acme"]
    iso = ask(server, key, "SELECT toDateTime('2026-01-01', 'UTC')", date_time_output_format="iso")
    assert good(iso).text == "2026-01-01T00:00:00Z\n"
    assert good(ask(server, key, "SELECT toDateTime('2026-01-01', 'UTC')")).text == "2026-01-01 00:00:00\n"
    assert ask(server, key, "SELECT number FROM numbers(9)", max_result_rows=5).headers["x-clickhouse-exception-code"] == "396"
    for none in (0, 10**15):
        more = ask(server, key, "SELECT number FROM numbers(100001)", max_result_rows=none)
        assert more.headers["x-clickhouse-exception-code"] == "396"
    assert good(ask(server, key, "SELECT number FROM numbers(9)", limit=2)).text == "0\n1\n"
    assert good(ask(server, key, "SELECT 1", max_threads=64, readonly=0, send_progress_in_http_headers=1)).text == "1\n"


def test_parameters_are_values(server: Server, keys: dict[str, str]) -> None:
    key = keys["ch-acme"]
    assert (
        good(ask(server, key, "SELECT {p:Array(String)}, {q:String}", param_p="['a\\'b']", param_q="a\\tb")).text
        == "['a\\'b']\ta\\tb\n"
    )
    sneaky = "') OR 1 = 1 --"
    assert good(ask(server, key, "SELECT count() FROM charges WHERE customer = {c:String}", param_c=sneaky)).text == "0\n"
    assert ask(server, key, "SELECT * FROM {t:Identifier}", param_t="ledger").status_code == 400
    assert ask(server, key, "SELECT 1", param_x="1").headers["x-clickhouse-exception-code"] == "457"


def test_what_cannot_be_sent(server: Server, keys: dict[str, str]) -> None:
    key = keys["ch-acme"]
    assert ask(server, key, "SELECT 1", decompress=1).status_code == 501
    assert ask(server, key, "SELECT 1", {"content-encoding": "gzip"}).status_code == 501
    assert ask(server, key, "SELECT 1", database="system").headers["x-clickhouse-exception-code"] == "81"
    external = server.http.post(
        "/", params={"query": "SELECT * FROM t", "t_structure": "a UInt8"}, files={"t": ("t", "1")}, auth=("", key)
    )
    assert external.status_code == 501
    unknown = ask(server, key, "SELECT 1::Variant(UInt8, String) AS v FORMAT Native", client_protocol_version=54460)
    assert (unknown.status_code, unknown.headers["x-clickhouse-exception-code"]) == (501, "48")


def test_csv_of_this_interface_is_the_engine_s(server: Server, keys: dict[str, str]) -> None:
    rows = list(csv.reader(io.StringIO(good(ask(server, keys["ch-acme"], "SELECT '=1' AS a FORMAT CSVWithNames")).text)))
    assert rows == [["a"], ["=1"]]
    assert pa.ipc.open_stream(
        good(ask(server, keys["ch-acme"], "SELECT 1 AS a FORMAT ArrowStream")).content
    ).read_all().to_pylist() == [{"a": 1}]
