"""/v1/charges: every entry once, whatever comes between the pages."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver.client import Client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from otlp import request, span
from pydantic import TypeAdapter
from server import Server

from tallystick.attribution.charges import COLUMNS, Place, charges, place
from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.client import result
from tallystick.ingest.store import Store
from tallystick.server.charges_api import Charge

NOON = datetime(2026, 9, 15, 12, tzinfo=UTC)
SINCE, UNTIL = 1_788_220_800 * 10**9, 1_790_812_800 * 10**9

Row = tuple[int, int, str, str]
"""Seconds after noon, trace, entry, customer: few of each, so that many are alike in some, and some in all."""

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 2), st.sampled_from(["call", "allocation"]), st.sampled_from("ab")), max_size=12
)
_tenants = count()


def enter(client: Client, tenant: str, rows: Sequence[Row]) -> None:
    values = [
        (entry, 1, tenant, customer, NOON + timedelta(seconds=second), trace.to_bytes(16, "big"), bytes(8), NOON)
        for second, trace, entry, customer in rows
    ]
    if values:
        names = ["entry", "calls", "tenant", "customer", "started_at", "trace_id", "span_id", "entered_at"]
        client.insert("ledger", values, column_names=names)


def pages(store: Store, tenant: str, sizes: Iterator[int]) -> Iterator[list[dict[str, Any]]]:
    after: Place | None = None
    while True:
        query = charges(SINCE, UNTIL, after=after, limit=next(sizes))
        with store.reader(tenant, READER_SETTINGS) as reader:
            found = run(reader, query.text, query.params)
        rows = result(((column.name, column.type) for column in found.columns), found.rows, 0).dicts()
        if not rows:
            return
        yield rows
        after = place(rows, after)


def shown(row: dict[str, Any]) -> Row:
    second = datetime.fromisoformat(row["started_at"]).replace(microsecond=0) - NOON
    return int(second.total_seconds()), int(row["trace_id"], 16), row["entry"], row["customer"]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS, st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_every_entry_comes_once_also_where_they_are_all_alike(chdb_store: Store, rows: list[Row], sizes: list[int]) -> None:
    tenant = f"pages-{next(_tenants)}"
    enter(chdb_store.client(), tenant, rows)
    told = [shown(row) for page in pages(chdb_store, tenant, iter(sizes * 20)) for row in page]
    assert sorted(told) == sorted(rows)
    assert [row[0] for row in told] == sorted((row[0] for row in rows), reverse=True)


def test_what_comes_meanwhile_neither_hides_nor_repeats_anything(chdb_store: Store) -> None:
    """New calls come on top, late ones below: each page goes on where the one before ended."""
    client = chdb_store.client()
    enter(client, "pages-live", [(second, 0, "call", "a") for second in range(20)])
    told = []
    for number, page in enumerate(pages(chdb_store, "pages-live", iter([3] * 100))):
        told += [shown(row) for row in page]
        enter(client, "pages-live", [(100 + number, 0, "call", "new"), (0, number, "allocation", "late")])
        if number > 20:
            break
    assert [row for row in told if row[3] == "a"] == [(second, 0, "call", "a") for second in reversed(range(20))]
    assert not [row for row in told if row[3] == "new"]
    assert len(set(told)) == len(told)


def test_the_columns_are_the_views(chdb_client: Client) -> None:
    described = [str(row[0]) for row in chdb_client.query("DESCRIBE charges").result_rows]
    assert sorted(COLUMNS) == sorted(described)
    assert tuple(Charge.model_fields) == COLUMNS


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    made = server.key("charges-acme")
    server.post_all(
        [request(*(span(f"charge-{number}", attributes={"tallystick.customer": f"c{number % 3}"}) for number in range(9)))], made
    )
    return made


def get(server: Server, key: str, **params: Any) -> httpx.Response:
    return server.http.get("/v1/charges", params=params or None, headers={"authorization": f"Bearer {key}"})


def test_entries_are_those_of_sql(server: Server, key: str) -> None:
    told = get(server, key, limit=5000).json()["charges"]
    rows = server.sql(f"SELECT {', '.join(COLUMNS)} FROM charges", key)
    by_span = {row["span_id"]: row for row in rows}
    assert len(told) == len(rows) == 9
    for one in told:
        row = by_span[one["span_id"]]
        for name in COLUMNS:
            expected = bool(row[name]) if name == "streamed" and row[name] is not None else row[name]
            assert one[name] == (str(expected) if name == "cost_usd" else expected), name
    assert TypeAdapter(list[Charge]).validate_python(told)


def test_filters_pages_and_csv(server: Server, key: str) -> None:
    first = get(server, key, where="customer=c1", limit=2)
    second = get(server, key, where="customer=c1", limit=2, cursor=first.json()["next"])
    spans = [one["span_id"] for answer in (first, second) for one in answer.json()["charges"]]
    assert len(set(spans)) == 3
    assert second.json()["next"] is None
    lines = get(server, key, where="customer=c1", format="csv").text.splitlines()
    assert lines[0] == ",".join(COLUMNS)
    assert len(lines) == 4
    assert get(server, key, as_of="2026-01-01").json()["charges"] == []


@pytest.mark.parametrize("params", [{"where": "custmer=x"}, {"since": "never"}, {"cursor": "WyJ4Iix7fV0"}, {"as_of": "x"}])
def test_bad_questions(server: Server, key: str, params: dict[str, str]) -> None:
    answer = get(server, key, **params)
    assert answer.status_code == 400
    assert answer.json()["error"].keys() == {"code", "message", "hint"}
