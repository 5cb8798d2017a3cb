"""Payloads into the engine: it looks for the columns that batches have filled so far, and where another is filled, for that one too."""

import json
import random
from collections.abc import Generator, Iterable, Sequence
from itertools import groupby
from typing import Any

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError
from otlp import request, span
from test_dialects import key_and_scope
from test_recordings import recordings

from tallystick.ingest.payload import JSON, Limits, check_protobuf, decode
from tallystick.ingest.store import EmbeddedStore, scalar
from tallystick.ingest.work import WorkTables
from tallystick.schema.dialects import Attribute, attributes, columns
from tallystick.schema.envelope import batch, envelope

RECEIVED_NS = 1_790_000_000_000_000_000
ALL = frozenset({*columns().texts, *columns().numbers})

OF_ANY_CALL = {"operation_name", "provider", "request_model", "response_model", "input_total", "output", "finish"}
"""What a call of tests/otlp.py fills by itself."""


@pytest.fixture(params=["file", "memory"])
def work(request: pytest.FixtureRequest, chdb_store: EmbeddedStore) -> WorkTables:
    """As of a writer that has just started: embedded, and where the engine is elsewhere."""
    return started(chdb_store, memory=request.param == "memory")


def started(store: EmbeddedStore, *, memory: bool = False) -> WorkTables:
    made = WorkTables(store.client(), None if memory else store.payloads)
    made.ready()
    return made


def batches(payloads: Iterable[bytes]) -> Generator[bytes, None, None]:
    """A `Batch` of each payload."""
    for number, payload in enumerate(payloads):
        yield from batch([envelope(payload, tenant="t", received_unix_nano=RECEIVED_NS, number=number)])


def staged(store: EmbeddedStore, work: WorkTables, payloads: Iterable[bytes]) -> list[Sequence[Any]]:
    work.ready()
    work.stage(batches(payloads))
    return list(store.client().query("SELECT toString(tuple(*)) AS row FROM staged ORDER BY row").result_rows)


def told(one: Attribute, value: Any) -> bytes:
    """A call that has this attribute and next to nothing else, under the instrumentation that means something by it."""
    name, scope = key_and_scope(one.attribute)
    return request(span(one.attribute, attributes={name: value}), scope=scope).SerializeToString()


def recorded() -> list[bytes]:
    return [decode(json.dumps(one.otlp).encode(), JSON, "", Limits(), check_protobuf).data for one in recordings().values()]


def test_what_is_looked_for_grows_with_what_comes(chdb_store: EmbeddedStore, work: WorkTables) -> None:
    """Recordings in any order, alone and together: the rows are those of a statement that looks for everything."""
    payloads = recorded()
    random.Random(20261122).shuffle(payloads)
    given = [payloads[:1], payloads[1:2], payloads[2:5], payloads[5:], payloads[:3]]
    grown = [staged(chdb_store, work, some) for some in given]
    everything = started(chdb_store)
    everything._columns = ALL
    everything.distrust()
    assert grown == [staged(chdb_store, everything, some) for some in given]
    assert sum(map(len, grown)) > len(payloads)
    assert work._columns < ALL


def test_any_attribute_is_found_when_it_first_comes(chdb_store: EmbeddedStore) -> None:
    """Three columns more at a time, the first of each three only ever as an empty text at first."""
    examples = [next(group) for _, group in groupby(attributes(), key=lambda one: one.column)]
    random.Random(20261122).shuffle(examples)
    values: list[Any] = ["", 7, 0.25, True, "7", "true", "x", ("x", "y")]
    steps = [[told(one, value) for one in examples[at : at + 3] for value in values] for at in range(0, len(examples), 3)]
    steps = [more for step in steps for more in (step[:1], step)]
    everything = started(chdb_store)
    everything._columns = ALL
    everything.distrust()
    expected = [staged(chdb_store, everything, step) for step in steps]
    work = started(chdb_store)
    for at, (step, rows) in enumerate(zip(steps, expected, strict=True)):
        assert staged(chdb_store, work, step) == rows
        come = {one.column for one in examples[: 3 * (at // 2) + (3 if at % 2 else 1)]}
        assert come | OF_ANY_CALL == work._columns | OF_ANY_CALL
    assert work._columns == ALL


def test_a_text_begins_where_its_length_ends(chdb_store: EmbeddedStore) -> None:
    """It stands on the wire in one to four bytes."""
    lengths = [0, 1, 126, 127, 128, 129, 16_382, 16_383, 16_384, 16_385, 2_097_151, 2_097_152]
    texts = [("start" + "x" * length)[:length] for length in lengths]
    payloads = [
        request(span(f"{n}", attributes={"tallystick.customer": text})).SerializeToString() for n, text in enumerate(texts)
    ]
    staged(chdb_store, started(chdb_store), payloads)
    rows = chdb_store.client().query("SELECT customer FROM staged ORDER BY number").result_rows
    assert [row[0] for row in rows] == [text[:256] for text in texts]


def test_nothing_is_left_of_a_batch(chdb_store: EmbeddedStore) -> None:
    work = started(chdb_store)
    assert len(staged(chdb_store, work, recorded())) > 1
    assert list(chdb_store.payloads.iterdir()) == []
    with pytest.raises(ClickHouseError):
        work.stage(part for part in [b"\xff\xff"])
    assert list(chdb_store.payloads.iterdir()) == []


def test_it_is_looked_for_once(chdb_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    client = chdb_store.client()
    command, tries = client.command, []

    def counted(sql: str, **options: Any) -> Any:
        tries.extend([sql] if sql.startswith("INSERT INTO staged") else [])
        return command(sql, **options)

    monkeypatch.setattr(client, "command", counted)
    work, payloads = started(chdb_store), recorded()
    for _ in range(2):
        staged(chdb_store, work, payloads)
    assert len(tries) == 3
    assert scalar(client, "SELECT count() FROM staged") > 0
