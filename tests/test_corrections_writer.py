"""Repricing while the writer enters calls and voids them; calls that were told twice too far apart for it."""

import contextlib
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

import pytest
from corrected import book, corrections_of, totals
from otlp import ident, request, span

from tallystick.attribution.priced_calls import Which
from tallystick.attribution.reprice import NothingToReprice, reprice
from tallystick.ingest.store import EmbeddedStore, Store
from tallystick.ingest.turns import LocalTurns
from tallystick.ingest.writer import Item, Writer
from tallystick.server.corrections import Desk, Period, UndoQuestion, VoidQuestion

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

DEAR, CHEAP = ({"lab-a": (Decimal(usd), Decimal(usd))} for usd in (3, 1))
CALL = {"gen_ai.provider.name": "lab", "gen_ai.request.model": "lab-a", "gen_ai.response.model": "lab-a"}
"""Of 1,000 and 100 tokens, as otlp.GOOD has them: 0.0011 USD by the cheap book."""

BATCHES, CALLS = 14, 12


def item(tenant: str, *spans: object) -> Item:
    body = request(*spans)  # type: ignore[arg-type]
    return Item(body.SerializeToString(), len(spans), tenant, time.time_ns())


def batches(tenant: str) -> Iterator[Item]:
    """Calls that one span tells of, and calls of which a second span, inside the first, comes with the next batch and voids it."""
    for number in range(BATCHES + 1):
        spans = []
        if number < BATCHES:
            for call in range(CALLS):
                spans.append(span(f"{tenant} {number} {call}", attributes=CALL))
            for call in range(CALLS):
                spans.append(
                    span(f"{tenant} {number} twice {call}", "outer", start_ns=BEGAN, duration_ns=10**9, attributes=OUTER)
                )
        if number:
            for call in range(CALLS):
                spans.append(
                    span(
                        f"{tenant} {number - 1} twice {call}",
                        "inner",
                        parent="outer",
                        start_ns=BEGAN,
                        duration_ns=10**9,
                        attributes=CALL,
                    )
                )
        yield item(tenant, *spans)


BEGAN = time.time_ns() - 600 * 10**9
OUTER = {**CALL, "gen_ai.usage.output_tokens": None}
"""Knows less than the inner one."""


def which(tenant: str) -> Which:
    return Which(BEGAN - 10**12, time.time_ns() + 10**12, tenant=tenant)


def test_repricing_while_calls_are_entered_and_voided(chdb_store: Store) -> None:
    tenant, client, turns = "repriced meanwhile", chdb_store.client(), LocalTurns()
    corrections = corrections_of(client, turns)
    voided: list[int] = []
    failures: list[BaseException] = []

    def write() -> None:
        try:
            writer = Writer(chdb_store, book(DEAR), turns)
            voided.extend(writer.write([one]).voided for one in batches(tenant))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    runs, prices = 0, [CHEAP, DEAR]
    while thread.is_alive():
        with contextlib.suppress(NothingToReprice):
            runs += reprice(corrections, book(prices[runs % 2]), which(tenant), reason="x", author="").made is not None
    thread.join()
    assert not failures
    assert runs > 2
    reprice(corrections, book(CHEAP), which(tenant), reason="x", author="")
    found = totals(client, tenant)
    calls = 2 * BATCHES * CALLS
    assert sum(voided) == BATCHES * CALLS
    assert found == (calls, calls, 1100 * calls, 1100 * calls, Decimal("0.0011") * calls)
    # Of what was voided nothing is left, in whatever order it came about.
    left = """SELECT count() FROM
    (
        SELECT trace_id, span_id, sum(calls) AS standing, sum(cost_usd) AS cost, sum(input_tokens) AS tokens FROM charges
        WHERE tenant = {tenant:String} GROUP BY ALL HAVING (standing, cost, tokens) NOT IN ((1, 0.0011, 1000), (0, 0, 0))
    )"""
    assert client.query(left, parameters={"tenant": tenant}).result_rows == [(0,)]


@pytest.fixture(autouse=True)
def _in_its_directory(chdb_store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer's engine leaves its cache of schemas where the process works."""
    monkeypatch.chdir(chdb_store.data)


@pytest.fixture
def desk(chdb_client: "Client") -> Desk:
    return Desk(corrections_of(chdb_client), lambda: book(CHEAP))


def test_a_call_that_was_told_twice_long_apart(chdb_store: Store, desk: Desk) -> None:
    """A gateway's call of ten minutes, of which the engine's span begins when it left the queue."""
    tenant = "told twice"
    writer = Writer(chdb_store, book(CHEAP))
    answer = {**CALL, "gen_ai.response.id": "chatcmpl-1"}
    gateway = span("gateway", start_ns=BEGAN, duration_ns=600 * 10**9, attributes={**answer, "gen_ai.usage.output_tokens": None})
    engine = span("engine", start_ns=BEGAN + 400 * 10**9, duration_ns=200 * 10**9, attributes=answer)
    # The same id in another call, as engines draw them from a small range.
    other = span("other", start_ns=BEGAN - 3600 * 10**9, attributes=answer)
    for one, scope in ((gateway, "gateway"), (engine, "engine"), (other, "engine")):
        body = request(one, scope=f"opentelemetry.instrumentation.{scope}").SerializeToString()
        assert writer.write([Item(body, 1, tenant, time.time_ns())]).voided == 0
    client = chdb_store.client()
    assert totals(client, tenant).calls == 3
    question = Period(since="2h", until=None, tenant=tenant, reason="both metered", dry_run=True)
    tried = desk.void_told_twice(question, "ana")
    assert (tried.correction, tried.looked_at, tried.calls) == (None, 3, 1)
    assert [one.trace_id for one in tried.voided] == [ident("gateway", 16).hex()]
    assert totals(client, tenant).calls == 3
    made = desk.void_told_twice(question.model_copy(update={"dry_run": False}), "ana").correction
    assert made is not None
    assert made.author == "ana"
    assert totals(client, tenant) == (2, 2, 2200, 2200, Decimal("0.0022"))
    assert desk.void_told_twice(question, "ana").calls == 0
    desk.undo(made.id, UndoQuestion(reason="no"), "ana")
    assert totals(client, tenant).calls == 3
    assert desk.void_told_twice(question, "ana").calls == 1


def test_an_undone_void_is_a_call_again_for_the_writer(chdb_store: Store, desk: Desk) -> None:
    """A better span that comes then takes its place, and isn't a second call."""
    tenant, client = "voided in vain", chdb_store.client()
    writer = Writer(chdb_store, book(CHEAP))
    outer = span("vain", "outer", start_ns=BEGAN, attributes=OUTER)
    writer.write([item(tenant, outer)])
    ids = {"trace_id": ident("vain", 16).hex(), "span_id": ident("outer", 8).hex()}
    made = desk.void(VoidQuestion(trace_id=ids["trace_id"], span_id=ids["span_id"], reason="x", tenant=tenant), "ana").correction
    assert made is not None
    assert totals(client, tenant).calls == 0
    assert writer.write([item(tenant, outer)]).entered == 0
    desk.undo(made.id, UndoQuestion(reason="x"), "ana")
    written = writer.write([item(tenant, span("vain", "inner", parent="outer", start_ns=BEGAN, attributes=CALL))])
    assert (written.entered, written.voided) == (1, 1)
    assert totals(client, tenant) == (1, 1, 1100, 1100, Decimal("0.0011"))
