"""Connections of readers are used again, and only as they were: for one tenant, under one set of limits, after no error."""

import contextlib
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from otlp import request, span
from server import Server

from tallystick.attribution.user_sql import READER_SETTINGS, BadQuery, run
from tallystick.ingest.store import Store

OWN = "SELECT groupUniqArray(tenant), count() FROM charges WHERE tenant IN ('acme', 'globex')"
HALF_WRITTEN = "SELECT toUInt8(number = 70000 ? 'x' : '1') FROM numbers(80000)"
"""Fails after it has written rows."""

pytestmark = pytest.mark.usefixtures("ask")  # acme and globex have 120 entries each


def used(store: Store, tenant: str | None, **limits: int) -> Client:
    with store.reader(tenant, {**READER_SETTINGS, **limits}) as reader:
        run(reader, "SELECT 1", None)
        return reader


def test_a_connection_is_used_again(chdb_store: Store) -> None:
    assert used(chdb_store, "again") is used(chdb_store, "again")


def test_but_by_one_at_a_time(chdb_store: Store) -> None:
    with chdb_store.reader("twice", READER_SETTINGS) as first, chdb_store.reader("twice", READER_SETTINGS) as second:
        assert first is not second


@pytest.mark.parametrize("other", ["globex", "ACME", "", None])
def test_never_for_another_tenant(chdb_store: Store, other: str | None) -> None:
    with contextlib.ExitStack() as stack:
        # As many as wait at most: from here on none but these does.
        acme = [stack.enter_context(chdb_store.reader("acme", READER_SETTINGS)) for _ in range(8)]
    assert used(chdb_store, "acme") in acme
    assert used(chdb_store, other) not in acme


def test_never_under_other_limits(chdb_store: Store) -> None:
    short = used(chdb_store, "limits", max_execution_time=1)
    assert used(chdb_store, "limits") is not short
    with chdb_store.reader("limits", {**READER_SETTINGS, "max_execution_time": 1}) as reader:
        assert reader is short
        with pytest.raises(BadQuery) as refused:
            run(reader, "SELECT count() FROM numbers(1000000000000)", None)
        assert refused.value.code == "too_slow"


@pytest.mark.parametrize("error", [BadQuery("code", "message"), ClickHouseError("engine"), KeyboardInterrupt()])
def test_never_after_an_error(chdb_store: Store, error: BaseException) -> None:
    first = used(chdb_store, "failing")
    with contextlib.suppress(type(error)), chdb_store.reader("failing", READER_SETTINGS) as reader:
        assert reader is first
        raise error
    assert used(chdb_store, "failing") is not first


def test_what_a_failed_query_had_written_reaches_nobody(chdb_store: Store) -> None:
    for tenant in ("acme", "globex") * 3:
        # As an engine's error comes that `run` doesn't foresee: nothing has drained the connection.
        with pytest.raises(ClickHouseError), chdb_store.reader(tenant, READER_SETTINGS) as reader:
            reader.raw_query(HALF_WRITTEN, fmt="JSONCompact")
        with chdb_store.reader(tenant, READER_SETTINGS) as reader:
            assert run(reader, OWN, None).rows == [[[tenant], 120]]


@pytest.mark.parametrize(
    "escape",
    [
        "SET readonly = 0",
        "SET log_comment = ''",
        "SET log_comment = 'tenant:globex'",
        "SET max_result_rows = 0",
        "SET max_memory_usage = 0",
        "CREATE TEMPORARY TABLE charges (tenant String)",
        "INSERT INTO tallystick.prices (book) VALUES ('x')",
        "DROP TABLE ledger",
    ],
)
def test_no_session_opens_its_cage_for_the_next(chdb_store: Store, escape: str) -> None:
    with chdb_store.reader("acme", READER_SETTINGS) as reader, pytest.raises(ClickHouseError):
        reader.command(escape)
    # Even if the statement's error were swallowed and the connection went back:
    with chdb_store.reader("acme", READER_SETTINGS) as first:
        try:
            first.command(escape)
        except ClickHouseError:
            first.raw_query("SELECT 1")
    with chdb_store.reader("acme", READER_SETTINGS) as reader:
        assert reader is first
        assert run(reader, OWN, None).rows == [[["acme"], 120]]
        with pytest.raises(BadQuery) as refused:
            run(reader, "SELECT number FROM numbers(100001)", None)
    assert refused.value.code == "too_many_rows"


def test_parameters_are_forgotten(chdb_store: Store) -> None:
    with chdb_store.reader("forgetful", READER_SETTINGS) as first:
        assert run(first, "SELECT {p:String}", {"p": "secret"}).rows == [["secret"]]
    with chdb_store.reader("forgetful", READER_SETTINGS) as again:
        assert again is first
        with pytest.raises(ClickHouseError, match="UNKNOWN_QUERY_PARAMETER"):
            again.raw_query("SELECT {p:String}")


def test_few_connections_wait(chdb_store: Store) -> None:
    clients = [used(chdb_store, f"tenant-{number}") for number in range(30)]
    assert sum(is_open(client) for client in clients) == 8
    assert is_open(clients[-1])
    assert not is_open(clients[0])


def is_open(client: Client) -> bool:
    try:
        return bool(client.raw_query("SELECT 1"))
    except Exception:
        return False


def test_twenty_threads_of_several_tenants(chdb_store: Store) -> None:
    busy: set[int] = set()
    lock = threading.Lock()
    entries = {"acme": [["acme"], 120], "globex": [["globex"], 120], "nobody": [[], 0], None: [["acme", "globex"], 240]}

    def ask(seed: int) -> None:
        chance = random.Random(seed)
        tenant = chance.choice(list(entries))
        limits = {**READER_SETTINGS, "max_execution_time": chance.choice([29, 30])}
        with chdb_store.reader(tenant, limits) as reader:
            with lock:
                assert id(reader) not in busy
                busy.add(id(reader))
            try:
                for _ in range(chance.randrange(3)):
                    names, count = run(reader, OWN, None).rows[0]
                    assert [sorted(names), count] == entries[tenant]
                if chance.random() < 0.3:
                    run(reader, chance.choice([HALF_WRITTEN, "SELECT nothing", "SELECT number FROM numbers(100001)"]), None)
            finally:
                with lock:
                    busy.remove(id(reader))

    with ThreadPoolExecutor(20) as pool:
        outcomes = [pool.submit(ask, seed).exception() for seed in range(200)]
    failures = [outcome for outcome in outcomes if outcome is not None]
    assert all(isinstance(failure, BadQuery) for failure in failures), failures
    assert 0 < len(failures) < len(outcomes)


def test_tenants_interleaved_over_http(server: Server) -> None:
    keys = {tenant: server.key(tenant) for tenant in ("readers-a", "readers-b")}
    for tenant, key in keys.items():
        server.post_all(
            [request(span(f"{tenant}-{number}", attributes={"tallystick.customer": tenant})) for number in range(3)], key
        )

    def ask(number: int) -> None:
        tenant = sorted(keys)[number % 2]
        query, check = QUESTIONS[number % len(QUESTIONS)]
        answer = server.http.post("/v1/sql", json={"query": query}, headers={"authorization": f"Bearer {keys[tenant]}"})
        check(answer, tenant)

    with ThreadPoolExecutor(20) as pool:
        for _ in pool.map(ask, range(200)):
            pass


def _rows(answer: httpx.Response, expected: Any) -> None:
    assert answer.status_code == 200, answer.text
    assert answer.json()["rows"] == expected


def _refused(answer: httpx.Response, code: str) -> None:
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


QUESTIONS: list[tuple[str, Callable[[httpx.Response, str], None]]] = [
    ("SELECT tenant, customer, sum(calls) FROM charges GROUP BY ALL", lambda answer, who: _rows(answer, [[who, who, 3]])),
    (HALF_WRITTEN, lambda answer, who: _refused(answer, "cannot_parse_text")),
    ("SELECT DISTINCT tenant FROM charges WHERE tenant != 'x'", lambda answer, who: _rows(answer, [[who]])),
    ("SELECT number FROM numbers(100001)", lambda answer, who: _refused(answer, "too_many_rows")),
    ("SELECT uniqExact(span_id), any(tenant) FROM charges", lambda answer, who: _rows(answer, [[3, who]])),
]
"""An odd number of them, so that each tenant asks each."""
