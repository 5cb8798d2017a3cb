"""Whose turn it is to write: decisions over rows, and all of them together under any interleaving of stop, kill, restart and time."""

import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tallystick.ingest.store import read_sql
from tallystick.ingest.turns import LEASE_S, LocalTurns, Row, Silence, first_standing, follows_a_clean_end

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

ROWS = st.lists(
    st.builds(Row, st.sampled_from("abcde"), st.sampled_from(["claimed", "claimed", "released", "withdrawn", "revoked"])),
    max_size=12,
).map(lambda rows: [row for i, row in enumerate(rows) if row.what not in ("claimed", "alive") or row not in rows[:i]])


@dataclass
class Server:
    """What several writers share: the rows, the ledger, and the statements that run."""

    rows: list[Row] = field(default_factory=list)
    ledger: list[str] = field(default_factory=list)
    running: list[int] = field(default_factory=list)
    starts: int = 0
    """How often it was restarted: a request of before is an error."""


@dataclass
class Writer:
    """Enters one span, which every other one has, too, until it is sure that it stands. Each `yield` is a moment at which anything may happen."""

    number: int
    server: Server
    done: bool = False

    def steps(self) -> Generator[None, None, None]:
        turn = 0
        while not self.done:
            turn += 1
            mine = f"{self.number}.{turn}"
            yield from self._try(mine)

    def _try(self, mine: str) -> Generator[None, None, None]:
        server = self.server
        begun = server.starts
        server.rows.append(Row(mine, "claimed"))
        while True:
            yield
            rows = list(server.rows)
            if Row(mine, "claimed") not in rows or Row(mine, "revoked") in rows:
                return
            if first_standing(rows) == mine:
                if follows_a_clean_end(rows, mine):
                    break
                yield
                if not server.running:
                    break
        yield
        stands = "span" in server.ledger
        yield
        if server.starts != begun:
            return
        if not stands:
            # The statement is the server's from here: it goes on, whatever becomes of who sent it.
            server.running.append(self.number)
            statement = self._statement(mine)
            for _ in statement:
                yield
            if server.starts != begun:
                return
        yield
        if first_standing(server.rows) == mine:
            server.rows.append(Row(mine, "released"))
            self.done = True

    def _statement(self, mine: str) -> Generator[None, None, None]:
        begun = self.server.starts
        yield
        enters = first_standing(self.server.rows) == mine
        yield
        # Of one that had begun to enter, another server may still hold a part when the first is up again.
        if enters or self.server.starts == begun:
            if enters:
                self.server.ledger.append("span")
            yield
            self.server.running.remove(self.number)


BURSTS = st.lists(
    st.tuples(st.one_of(st.integers(0, 2), st.sampled_from(["revoke", "restart"])), st.integers(1, 12)), max_size=14
)


@given(BURSTS)
@settings(max_examples=1500, deadline=None)
def test_nothing_is_doubled_and_what_was_acknowledged_stands(bursts: list[tuple[int | str, int]]) -> None:
    """Who is never scheduled again was killed; who is late was stopped. A lease may end at any moment, however wrong that is."""
    server = Server()
    writers = [Writer(number, server) for number in range(3)]
    steps = [writer.steps() for writer in writers]
    for choice in [who for who, times in bursts for _ in range(times)]:
        match choice:
            case int():
                next(steps[choice], None)
            case "revoke":
                first = first_standing(server.rows)
                if first is not None:
                    server.rows.append(Row(first, "revoked"))
            case _:
                server.rows.clear()
                server.starts += 1
        assert server.ledger.count("span") <= 1
        assert "span" in server.ledger or not any(writer.done for writer in writers)


@given(ROWS)
def test_the_first_that_has_not_ended(rows: list[Row]) -> None:
    first = first_standing(rows)
    standing = [
        row.claim
        for row in rows
        if row.what == "claimed" and not any(r.claim == row.claim and r.what not in ("claimed", "alive") for r in rows)
    ]
    assert first == (standing[0] if standing else None)


@given(ROWS, st.sampled_from("abcde"))
def test_an_end_stays_an_end(rows: list[Row], claim: str) -> None:
    """Whatever comes later: who has lost the turn has lost it for good."""
    if first_standing(rows) != claim and Row(claim, "claimed") in rows:
        ended = any(row.claim == claim and row.what not in ("claimed", "alive") for row in rows)
        assert not ended or first_standing([*rows, Row("z", "claimed")]) != claim


def test_a_clean_end() -> None:
    held, gone = [Row("a", "claimed"), Row("a", "released")], [Row("b", "claimed"), Row("b", "withdrawn")]
    mine = [Row("m", "claimed")]
    assert follows_a_clean_end([*held, *mine], "m")
    assert follows_a_clean_end([*held, *gone, *mine], "m")
    assert not follows_a_clean_end(mine, "m")
    assert not follows_a_clean_end([*gone, *mine], "m")
    assert not follows_a_clean_end([*held, Row("a", "revoked"), *mine], "m")
    assert not follows_a_clean_end([*held, Row("b", "claimed"), Row("b", "revoked"), *mine], "m")


def test_silence_is_what_was_seen_without_a_gap() -> None:
    silence = Silence()
    assert [silence.lasts("a", 0, False, now) for now in (10.0, 11.0, 12.5)] == [0, 1.0, 2.5]
    assert silence.lasts("a", 0, True, 13.0) == 0, "a statement runs"
    assert silence.lasts("a", 0, False, 14.0) == 1.0
    assert silence.lasts("a", 1, False, 14.5) == 0, "it lives"
    assert silence.lasts("b", 1, False, 15.0) == 0, "another has the turn"
    assert silence.lasts("b", 1, False, 15.0 + LEASE_S) == 0, "the looker itself was stopped"


@pytest.fixture(scope="module")
def turns_table(chdb_client: "Client") -> "Client":
    return chdb_client


@given(ROWS)
@settings(max_examples=40, deadline=None)
def test_the_engine_decides_alike(turns_table: "Client", rows: list[Row]) -> None:
    turns_table.command("TRUNCATE TABLE turns")
    for row in rows:
        turns_table.command(f"INSERT INTO turns (claim, what, who) SELECT '{row.claim}', '{row.what}', ''")
    found = turns_table.query(read_sql("turn")).result_rows
    assert (found[0][0] if found else None) == first_standing(rows)
    assert [
        Row(*row) for row in turns_table.query("SELECT claim, toString(what) FROM turns SETTINGS max_threads = 1").result_rows
    ] == rows


def test_embedded_it_is_a_lock() -> None:
    turns, order = LocalTurns(), []

    def other() -> None:
        with turns.take():
            order.append("other")

    waiting = threading.Thread(target=other)
    with turns.take() as ours:
        assert ours == "1"
        waiting.start()
        order.append("first")
    waiting.join()
    assert order == ["first", "other"]
