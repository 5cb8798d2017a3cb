"""P11 on every way in: the corpus of escapes over /v1/sql in each format and over ClickHouse's interface, for two tenants."""

import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import httpx
import pytest
from otlp import request, span
from server import Server

from tallystick.attribution.clickhouse_sql import FORMATS
from tallystick.attribution.sql_formats import MEDIA_TYPES, Format
from tallystick.attribution.user_sql_check import VIEWS

ESCAPES = (Path(__file__).parent / "sql_escapes.txt").read_text(encoding="utf-8").splitlines()
TENANTS = ("esc-acme", "esc-globex")

# Refused before anything ran. An error of the engine while it runs would be another.
BEFORE_IT_RUNS = {
    "not_a_select", "not_allowed", "no_such_table", "no_such_function", "name_taken", "lambda_expected", "type_expected", "bad_parameter",
    "syntax_error",
}  # fmt: skip
CODES = {"164", "344", "60", "46", "36", "457", "62", "81", "73"}

# What ClickHouse's clients ask to list tables is answered from what is told to everybody (attribution/catalog.py).
TOLD = re.compile(
    r".*\bsystem`?\.`?(one|tables|columns|settings|databases)\b.*"
    r"|select (version|hostName|FQDN|currentUser|currentDatabase|revision|displayName|serverTimezone)\(\)"
    r"|select charges\.\* replace \(currentUser\(\) as tenant\) from charges"
    r"|show (tables|databases|create view charges)|describe charges|exists table ledger"
    r"|select 1 format Native|select 1 union all select 2 format CSV|\(select 1\) format CSV",
    re.IGNORECASE,
)


@pytest.fixture(scope="module")
def keys(server: Server) -> dict[str, str]:
    keys = {tenant: server.key(tenant) for tenant in TENANTS}
    for tenant, key in keys.items():
        call = span(tenant, attributes={"tallystick.customer": f"{tenant}-secret"})
        assert server.post(request(call), key).status_code == 200
    return keys


def others(tenant: str) -> bytes:
    return next(other for other in TENANTS if other != tenant).encode() + b"-secret"


def looked_at(answer: httpx.Response, tenant: str, server: Server) -> httpx.Response:
    """Nothing that an escape could bring along, whatever the status."""
    for secret in (b"root:", others(tenant), str(server.data).encode()):
        assert secret not in answer.content
    return answer


@pytest.mark.parametrize("tenant", TENANTS)
def test_by_v1_sql_in_every_format(server: Server, keys: dict[str, str], tenant: str) -> None:
    headers = {"authorization": f"Bearer {keys[tenant]}"}
    for query, form, by_header in zip(ESCAPES, cycle(Format), cycle((True, False, False))):
        accept = {"accept": MEDIA_TYPES[form]} if by_header else {}
        params = {} if by_header else {"format": form.value}
        answer = server.http.post("/v1/sql", json={"query": query}, params=params, headers=headers | accept)
        looked_at(answer, tenant, server)
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json"), query
        assert answer.json()["error"]["code"] in BEFORE_IT_RUNS, (query, answer.text)


@pytest.mark.parametrize("tenant", TENANTS)
def test_by_clickhouse_s_interface(server: Server, keys: dict[str, str], tenant: str) -> None:
    told = []
    for query, form in zip(ESCAPES, cycle(sorted(FORMATS))):
        answer = looked_at(clickhouse(server, keys[tenant], query, form), tenant, server)
        if answer.status_code == 200:
            told.append(query)
        else:
            assert answer.headers["x-clickhouse-exception-code"] in CODES, (query, answer.text)
    assert [query for query in told if not TOLD.fullmatch(query)] == []
    assert len(told) < 40


def clickhouse(server: Server, key: str, query: str, form: str = "TSV", **params: str) -> httpx.Response:
    return server.http.post("/", params={"query": query, "default_format": form, **params}, headers={"x-clickhouse-key": key})


@pytest.mark.parametrize("name", ["one", "tables", "columns", "settings", "databases", "data_type_families", "table_engines"])
def test_system_tables_are_what_is_told(server: Server, keys: dict[str, str], name: str) -> None:
    answer = clickhouse(server, keys["esc-acme"], f"SELECT * FROM system.{name}", "JSONCompact").json()
    text = str(answer["data"])
    for secret in ("'ledger'", "'prices'", "'migrations'", "'reported_outcomes'", "'work'", "'log_comment'", str(server.data)):
        assert secret not in text, secret
    if name == "tables":
        assert {row[1] for row in answer["data"]} == VIEWS
    if name == "columns":
        assert {row[1] for row in answer["data"]} == VIEWS


def texts() -> Iterator[str]:
    """The same row by other routes: of this tenant it may come, of the other never."""
    yield "SELECT * FROM charges"
    yield "SELECT * FROM tallystick.charges WHERE tenant = 'esc-globex' OR 1"
    yield "SELECT c.*, o.* FROM charges AS c LEFT JOIN outcomes AS o USING (trace_id)"
    yield "SELECT t.name, c.customer FROM system.tables AS t, charges AS c"
    yield "WITH system AS (SELECT * FROM charges) SELECT * FROM system"
    yield "SELECT customer FROM charges UNION ALL SELECT name FROM system.columns"
    yield "SELECT max(customer), min(customer), groupArray(tenant || '-secret') FROM charges"
    yield "DESC (SELECT customer FROM charges)"
    yield "SELECT * FROM outcomes"
    yield "SELECT * FROM price_rates"


@pytest.mark.parametrize("query", list(texts()))
@pytest.mark.parametrize("form", ["TSV", "Native", "RowBinaryWithNamesAndTypes", "JSON"])
def test_no_row_of_another_comes(server: Server, keys: dict[str, str], query: str, form: str) -> None:
    for tenant in TENANTS:
        assert looked_at(clickhouse(server, keys[tenant], query, form), tenant, server).status_code == 200


@pytest.mark.parametrize(
    "params",
    [
        {"log_comment": ""}, {"log_comment": "tenant:esc-globex"}, {"user": "esc-globex"}, {"role": "esc-globex"}, {"session_id": "esc-globex"},
        {"readonly": "0", "max_result_rows": "1000000000"}, {"database": "default"}, {"param_x": "esc-globex"}, {"quota_key": "esc-globex"},
        {"additional_table_filters": "{}"}, {"password": "x"}, {"query": "SELECT * FROM ledger"}, {"default_format": "Null'; SELECT 1"},
    ],
)  # fmt: skip
def test_no_parameter_leads_to_another(server: Server, keys: dict[str, str], params: dict[str, str]) -> None:
    given = {"query": "SELECT * FROM charges"} | params
    answer = server.http.post("/", params=given, headers={"x-clickhouse-key": keys["esc-acme"]})
    looked_at(answer, "esc-acme", server)


@pytest.mark.parametrize(
    "header", ["X-ClickHouse-User", "X-ClickHouse-Quota", "X-ClickHouse-Database", "X-ClickHouse-Format", "X-Tenant"]
)
@pytest.mark.parametrize("value", ["esc-globex", "tenant:esc-globex", "system", "TSV\tSETTINGS log_comment=''"])
def test_no_header_leads_to_another(server: Server, keys: dict[str, str], header: str, value: str) -> None:
    headers = {"x-clickhouse-key": keys["esc-acme"], header: value}
    looked_at(server.http.post("/", params={"query": "SELECT * FROM charges"}, headers=headers), "esc-acme", server)
