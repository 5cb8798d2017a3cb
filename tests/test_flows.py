"""Rows of the loss ledger: what the check of a payload tells, and what comes of it."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from otlp import request, span

from tallystick.ingest.accounts import Account
from tallystick.ingest.flows import EMPTY, Aside, Became, Flows, Origin, record_aside
from tallystick.ingest.payload import Limits, check_protobuf
from tallystick.ingest.sift import sift
from tallystick.ingest.writer import Item

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

COLLECTOR = {
    "tallystick.collector.id": "00ff",
    "tallystick.collector.batch": 7,
    "tallystick.collector.ended": 20,
    "tallystick.collector.lost": 3,
}


@pytest.fixture
def client(chdb_client: "Client") -> "Iterator[Client]":
    chdb_client.command("TRUNCATE TABLE flows")
    yield chdb_client
    chdb_client.command("TRUNCATE TABLE flows")


def rows(client: "Client", columns: str) -> list[Any]:
    return list(client.query(f"SELECT {columns} FROM flows FINAL ORDER BY ALL").result_rows)


def item(*accounts: Account, spans: int = 5, origin: Origin | None = None) -> Item:
    return Item(b"", spans, "acme", time.time_ns(), False, origin, accounts)


def test_a_collector_tells() -> None:
    body = request(span("a"), span("b"), resource={"service.name": "shop", **COLLECTOR}).SerializeToString()
    (told,) = check_protobuf(body, Limits()).accounts
    assert told == Account("shop", "00ff", 7, 20, 3, told.first, 2)
    assert told.first.to_bytes(8, "big") == request(span("a")).resource_spans[0].scope_spans[0].spans[0].span_id


def test_nobody_tells() -> None:
    (told,) = check_protobuf(request(span("a")).SerializeToString(), Limits()).accounts
    assert told[:5] == (told.service, "", 0, 0, 0)


@pytest.mark.parametrize("lie", ["7", -7, 2.5, True, (1, 2)])
def test_what_makes_no_sense_is_nothing(lie: object) -> None:
    body = request(span("a"), resource={**COLLECTOR, "tallystick.collector.batch": lie}).SerializeToString()
    (told,) = check_protobuf(body, Limits()).accounts
    assert told.batch == 0


@given(st.lists(st.tuples(st.text(max_size=300), st.integers(0, 4)), max_size=4))
def test_taken_apart_it_tells_the_same(resources: list[tuple[str, int]]) -> None:
    whole = request()
    del whole.resource_spans[:]
    for number, (service, spans) in enumerate(resources):
        made = request(*(span(f"{number}-{one}") for one in range(spans)), resource={"service.name": service, **COLLECTOR})
        whole.resource_spans.extend(made.resource_spans)
    body = whole.SerializeToString()
    accounts = check_protobuf(body, Limits()).accounts
    assert tuple(sift(body, 1000).accounts) == accounts
    assert [one.spans for one in accounts] == [spans for _, spans in resources if spans]


def test_a_batch(client: "Client") -> None:
    one = item(Account("shop", "00ff", 7, 20, 3, 1, 4), Account("desk", spans=1), origin=Origin("t", 2, 9, "r", 4, 40))
    Flows(client).write([one], [{"shop": Became(3, 1), "desk": Became(1, 0)}], entered=2, earliest=None)
    assert rows(
        client, "source, partition, offset, receiver, number, accepted, service, collector, batch, spans, calls, rejected"
    ) == [
        ("t", 2, 9, "r", 4, 40, "desk", "", 0, 1, 1, 0),
        ("t", 2, 9, "r", 4, 40, "shop", "00ff", 7, 4, 3, 1),
    ]
    assert rows(client, "sum(entered)") == [(2,)]


def test_delivered_again_it_stands_once(client: "Client") -> None:
    one = item(Account("shop", spans=5), origin=Origin("t", 2, 9))
    flows = Flows(client)
    for entered in (5, 0):
        flows.write([one], [{"shop": Became(5, 0)}], entered=entered, earliest=None)
    assert rows(client, "offset, spans") == [(9, 5)]


def test_requests_are_told_apart(client: "Client") -> None:
    one = item(Account("shop", spans=5))
    for _ in range(2):
        flows = Flows(client)
        flows.write([one, one], [{}, {}], entered=0, earliest=None)
    assert rows(client, "source, number") == [("http", 1), ("http", 1), ("http", 2), ("http", 2)]


def test_a_service_that_the_engine_reads_otherwise_is_counted_all_the_same(client: "Client") -> None:
    Flows(client).write([item(Account("shop", spans=5))], [{"sho": Became(3, 0), "p": Became(1, 1)}], entered=4, earliest=None)
    assert rows(client, "service, spans, calls, rejected") == [("shop", 5, 4, 1)]


def test_countless_resources_are_one_row(client: "Client") -> None:
    many = item(*(Account(f"s{number}", spans=1) for number in range(2000)), spans=2000)
    Flows(client).write([many], [{f"s{number}": Became(1, 0) for number in range(2000)}], entered=0, earliest=None)
    assert rows(client, "service, spans, calls") == [("", 2000, 2000)]


def test_what_never_reaches_the_writer(client: "Client") -> None:
    aside = [
        Aside(Origin("t", 0, 1), "acme", time.time_ns(), "malformed", 12),
        Aside(Origin("t", 0, 2), "acme", time.time_ns(), EMPTY),
    ]
    for _ in range(2):
        record_aside(client, aside)
    assert rows(client, "offset, spans, calls, aside") == [(1, 12, 0, "malformed"), (2, 0, 0, "empty")]
    record_aside(client, [])
