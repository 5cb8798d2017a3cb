"""Spans are read by the engine first: what it can't read is told to who sent it, and nothing beside it suffers."""

import random
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from otlp import span, trace_hex

from tallystick.attribution.prices import PriceBook
from tallystick.ingest.committer import Committer
from tallystick.ingest.errors import PoisonBatch
from tallystick.ingest.payload import Limits, check_frame, check_protobuf
from tallystick.ingest.sift import framed
from tallystick.ingest.store import EmbeddedStore
from tallystick.ingest.writer import Item, Outcome, Writer

CUT = b"\x4a\x7f\x01"
"""An attribute that says it is longer than its span."""


@pytest.fixture
def tenant(request: pytest.FixtureRequest, chdb_store: EmbeddedStore) -> Iterator[str]:
    name: str = request.node.name
    yield name
    chdb_store.client().command(f"ALTER TABLE ledger DELETE WHERE tenant = '{name}' SETTINGS mutations_sync = 1")


def made(*spans: bytes) -> bytes:
    """A request of these spans as they are."""
    return b"".join(framed(1, framed(2, [part for one in spans for part in framed(2, [one])])))


def good(name: str) -> bytes:
    return span(name).SerializeToString()


def item(data: bytes, tenant: str) -> Item:
    checked = check_frame(data, Limits())
    return Item(checked.data, checked.spans, tenant, time.time_ns(), accounts=checked.accounts)


def entered(store: EmbeddedStore, tenant: str) -> list[str]:
    rows = store.client().query(f"SELECT trace_id FROM charges WHERE tenant = '{tenant}' ORDER BY 1").result_rows
    return [row[0] for row in rows]


def test_only_what_cannot_be_read_is_left_out(chdb_store: EmbeddedStore, tenant: str) -> None:
    writer = Writer(chdb_store, PriceBook())
    broken = made(good("first"), good("broken") + CUT, good("last"))
    written = writer.write([item(made(good("before")), tenant), item(broken, tenant)])
    assert written.outcomes == [Outcome(1, {}), Outcome(2, {"can't be decoded": 1})]
    assert (written.entered, written.doubled) == (3, 0)
    assert entered(chdb_store, tenant) == sorted(map(trace_hex, ("before", "first", "last")))


def test_after_such_a_batch_spans_are_checked_first_for_a_minute(
    chdb_store: EmbeddedStore, tenant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    client = chdb_store.client()
    command, staged = client.command, []

    def counted(sql: str, **options: Any) -> Any:
        staged.extend([sql] if sql.startswith("INSERT INTO staged") else [])
        return command(sql, **options)

    monkeypatch.setattr(client, "command", counted)
    writer = Writer(chdb_store, PriceBook(), clock=lambda: now[0])
    # Which columns spans fill is known from then on.
    writer.write([item(made(good("a")), tenant)])
    broken = item(made(good("a"), good("b") + CUT), tenant)
    attempts = []
    for later_s in (0, 59, 59.5, 61):
        now[0] = 1000.0 + later_s
        before = len(staged)
        assert writer.write([broken]).outcomes[0].rejected == {"can't be decoded": 1}
        attempts.append(len(staged) - before)
    assert attempts == [2, 1, 1, 2]


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"tallystick.customer": "MARK"}, "chat"),
        ({"gen_ai.request.model": "x" * 200 + "MARK"}, "chat"),
        ({"tallystick.tag.plan": "MARK"}, "chat"),
        ({"tallystick.tag.MARK": "gold"}, "chat"),
        ({"gen_ai.request.model": None, "gen_ai.response.model": None}, "chat MARK"),
    ],
)
def test_no_text_of_the_ledger_is_garbled(chdb_store: EmbeddedStore, tenant: str, attributes: dict[str, Any], name: str) -> None:
    bad = span("bad", attributes=attributes)
    bad.name = name
    garbled = bad.SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc")
    written = Writer(chdb_store, PriceBook()).write([item(made(garbled, good("beside")), tenant)])
    assert written.outcomes == [Outcome(1, {"a text is not UTF-8": 1})]
    assert entered(chdb_store, tenant) == [trace_hex("beside")]


def test_what_nothing_is_made_of_may_be_anything(chdb_store: EmbeddedStore, tenant: str) -> None:
    note = span("note", attributes={"note": "MARK"}).SerializeToString().replace(b"MARK", b"\xff\xfe\xfd\xfc")
    assert Writer(chdb_store, PriceBook()).write([item(made(note), tenant)]).outcomes == [Outcome(1, {})]
    assert entered(chdb_store, tenant) == [trace_hex("note")]


def test_any_bytes_in_a_span(chdb_store: EmbeddedStore, tenant: str) -> None:
    """Of 200 requests, each with a damaged span between two good ones: every good one is entered once, or its request refused as a whole."""
    dice = random.Random(20261122)
    requests = [made(good(f"{n}-a"), damaged(good(f"{n}-x"), dice), good(f"{n}-b")) for n in range(200)]
    committer = Committer(lambda: Writer(chdb_store, PriceBook()))
    futures: list[Future[Outcome]] = [committer.submit(item(one, tenant)) for one in requests]
    committer.start()
    committer.close()
    stored = entered(chdb_store, tenant)
    refused = 0
    for n, future in enumerate(futures):
        ours = [stored.count(trace_hex(f"{n}-{name}")) for name in "ab"]
        try:
            outcome = future.result(0)
        except PoisonBatch:
            refused += 1
            assert ours == [0, 0]
            continue
        assert ours == [1, 1]
        assert set(check_protobuf(requests[n], Limits()).rejected) <= set(outcome.rejected)
        assert outcome.calls + sum(outcome.rejected.values()) <= 3
    # What the engine refuses, and the same schema in Python doesn't.
    assert refused < 10


def damaged(one: bytes, dice: random.Random) -> bytes:
    data = bytearray(one)
    for _ in range(dice.choice((1, 1, 2, 4))):
        place = dice.randrange(len(data))
        match dice.randrange(4):
            case 0:
                data[place] = dice.randrange(256)
            case 1:
                del data[place : place + dice.randrange(1, 9)]
            case 2:
                data[place:place] = dice.randbytes(dice.randrange(1, 9))
            case _:
                del data[place:]
        data = data or bytearray(CUT)
    return bytes(data)
