"""A directory's ledger in a server and in two shards: the same answers to the last decimal, whatever is killed on the way.

`TALLYSTICK_KILLS` says how often the mover is killed at a random statement (2), beside two kills of a shard.
"""

import os
import random
import re
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from click.testing import CliRunner
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster
from clickhouse_connect.driver.exceptions import StreamFailureError
from hypothesis import given
from hypothesis import strategies as st
from moved import CALLS, TENANTS, answers, make, move

from tallystick.cli import cli
from tallystick.ingest.migrate import migrate, migrations
from tallystick.ingest.move import Entered, Mover
from tallystick.ingest.pieces import comparison, pieces, tables
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import Store, scalar
from tallystick.ingest.turns import open_turns

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

KILLS = int(os.environ.get("TALLYSTICK_KILLS", "2"))

NOT_MOVED = {"migrations", "turns", "instrumentations", "moves"}
"""Tables that are about a store and not about calls. A new one is either here and in schema/sql/move_tables.sql, or is moved."""


class Directory:
    """A filled one, and what it answers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: list[Any] = make(path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Directory:
    return Directory(tmp_path_factory.mktemp("moved") / "data")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("server") / "one") as running:
        yield running


@pytest.fixture
def store(server: ClickHouse) -> Iterator[ServerStore]:
    """An empty ledger on the server."""
    server.ask("DROP DATABASE IF EXISTS tallystick SYNC")
    with closing(ServerStore(server.url(), server.password)) as opened:
        migrate(opened, 0)
        yield opened


def settings(password: str, **more: str) -> dict[str, str]:
    return {"TALLYSTICK_CLICKHOUSE_PASSWORD": password, "TALLYSTICK_RETENTION_DAYS": "0", **more}


def rows_of(store: Store) -> int:
    return int(scalar(store.client(), "SELECT count() FROM ledger"))


def test_killed_anywhere_it_goes_on_and_doubles_nothing(directory: Directory, tmp_path: Path) -> None:
    chance = random.Random(8)
    with ClickHouseCluster(tmp_path / "cluster") as cluster:
        arguments = ("--to", cluster.url(), "--data", str(directory.path))
        env = settings(cluster.password, TALLYSTICK_CLICKHOUSE_CLUSTER=CLUSTER)
        killed = 0
        for kill in range(KILLS + 2):
            shard = cluster.shards[1 - kill % 2] if kill >= KILLS else None
            victim = shard._process.pid if shard else 0
            # Some eighty statements bring the schema into being; then a piece takes about ten.
            at = chance.randrange(20, 260)
            done = move(*arguments, env=env, die_at=at, after=chance.random() < 0.5, victim=victim)
            if shard is not None:
                shard.restart()
                assert done.returncode in (0, 1), done.stderr
                assert not done.returncode or "run the same command again" in done.stderr or "ClickHouse at" in done.stderr, (
                    done.stderr
                )
            else:
                assert done.returncode in (0, -signal.SIGKILL), done.stderr
            killed += bool(done.returncode)
        assert killed
        done = move(*arguments, env=env)
        assert done.returncode == 0, done.stderr
        assert "missing" not in done.stdout
        with closing(ServerStore(cluster.url(), cluster.password, cluster=CLUSTER)) as target:
            assert answers(target) == directory.answers
            spread = target.client().query("SELECT _shard_num, count() FROM ledger GROUP BY _shard_num").result_rows
            assert len(spread) == 2
        again = move(*arguments, env=env)
        assert again.returncode == 0, again.stderr
        assert "entered 0 rows" in again.stderr
        assert "moved here before: " in again.stderr


def test_an_answer_that_breaks_off_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise StreamFailureError("Stream failed during read (connection closed by server)")

    monkeypatch.setattr("tallystick.server.moving.both", broken)
    told = CliRunner().invoke(cli, ["migrate", "--to", "clickhouse://db:8123/tallystick", "--data", str(tmp_path)])
    assert told.exit_code == 1
    assert "error: ClickHouse went away while it answered" in told.output
    assert "run the same command again" in told.output


def test_a_server_answers_as_the_directory_did(directory: Directory, server: ClickHouse, store: ServerStore) -> None:
    done = move("--to", server.url(), "--data", str(directory.path), env=settings(server.password))
    assert done.returncode == 0, done.stderr
    assert answers(store) == directory.answers
    ((source, state, entries, calls),) = (
        store.client().query("SELECT source, toString(state), entries, calls FROM moves FINAL").result_rows
    )
    assert (state, entries, calls) == ("moved", scalar(store.client(), "SELECT count() FROM ledger"), CALLS)
    assert source.endswith(f":{directory.path}")


def test_what_is_lost_at_the_target_is_found_and_moved_again(
    directory: Directory, server: ClickHouse, store: ServerStore
) -> None:
    arguments = ("--to", server.url(), "--data", str(directory.path))
    assert move(*arguments, env=settings(server.password)).returncode == 0
    lost = scalar(store.client(), "SELECT count() FROM ledger WHERE customer = 'c3' AND tenant = 'acme'")
    store.client().command("ALTER TABLE ledger DELETE WHERE customer = 'c3' AND tenant = 'acme' SETTINGS mutations_sync = 2")
    # One amount that is another, in a row that is there.
    store.client().command(
        "ALTER TABLE ledger UPDATE cost_usd = cost_usd + 0.000000000001 WHERE trace_id = unhex(leftPad('2', 32, '0')) SETTINGS mutations_sync = 2"
    )
    found = move(*arguments, "--verify-only", env=settings(server.password))
    assert found.returncode == 1
    assert f"{lost + 1:,} rows of the directory aren't at the target" in found.stderr
    before = rows_of(store)
    moved = move(*arguments, env=settings(server.password))
    assert f"entered {lost + 1:,} rows" in moved.stderr
    assert rows_of(store) > before


def test_other_data_at_the_target_is_kept(directory: Directory, server: ClickHouse, store: ServerStore) -> None:
    store.client().command(
        "INSERT INTO ledger (entry, calls, tenant, started_at, trace_id, span_id, cost_usd) VALUES ('call', 1, 'acme', '2026-09-10 00:00:00', 't', 's', 3)"
    )
    store.client().command(
        "INSERT INTO reported_outcomes SELECT 'acme', 'o\\'0', '2026-10-01 00:00:00', 'newer', 1, 1, '', '', '', '', '', map(), '2026-12-01 00:00:01'"
    )
    done = move("--to", server.url(), "--data", str(directory.path), env=settings(server.password))
    assert done.returncode == 0, done.stderr
    assert "held 1 entries before; they are kept" in done.stderr
    assert "all, and 1 more" in done.stdout
    assert rows_of(store) == 1 + sum(int(text.strip("(),")) for text in directory.answers[-2])
    assert scalar(store.client(), "SELECT outcome FROM reported_outcomes FINAL WHERE id = 'o\\'0'") == "newer"


def test_calls_that_both_were_told_of_count_once(directory: Directory, server: ClickHouse, store: ServerStore) -> None:
    """A sender had no answer from the old one, and sent them again to the new one, where another span tells of the second.

    Both were repriced in the directory.
    """
    entry = """INSERT INTO ledger (entry, calls, tenant, customer, input_tokens, started_at, trace_id, span_id, cost_usd, entered_at)
        SELECT {entry:String}, {sign:Int8}, {tenant:String}, 'c3', {sign:Int8} * 1000,
        toDateTime64('2026-08-30 00:00:00', 9, 'UTC') + toIntervalHour(intDiv({number:UInt64}, 2)), unhex(leftPad(hex({number:UInt64} + 1), 32, '0')),
        unhex(leftPad(hex({number:UInt64} + 1), 16, '0')), {sign:Int8} * toDecimal64(5, 12), {at:String}"""
    stands, voided = 24, 31
    for number, kind, sign, at in ((stands, "call", 1, "00"), (voided, "call", 1, "00"), (voided, "void", -1, "09")):
        values = {"number": number, "entry": kind, "sign": sign, "tenant": TENANTS[number % 4], "at": f"2026-11-10 00:00:{at}"}
        store.client().command(entry, parameters=values)
    for again in (False, True):
        done = move("--to", server.url(), "--data", str(directory.path), env=settings(server.password))
        assert done.returncode == 0, done.stderr
        assert ("2 calls had been sent to the target, too" in done.stderr) is not again
    for number, last in ((stands, 1), (voided, 0)):
        for as_of, calls in (("2026-11-09", 1), ("2026-11-10 00:00:05", 1), ("2027-01-01", last)):
            counted = f"""SELECT sum(calls), sum(input_tokens), sum(cost_usd) FROM ledger
                WHERE trace_id = unhex(leftPad(hex({number + 1}), 32, '0')) AND entered_at < '{as_of}'"""
            ((found, tokens, cost),) = store.client().query(counted).result_rows
            assert (found, tokens) == (calls, 1000 * calls)
            assert calls or cost == Decimal(0)


@pytest.mark.parametrize("rows", [7, 100, 10**6])
def test_pieces_are_all_of_a_table_once(chdb_client: "Client", rows: int) -> None:
    chdb_client.command(
        "INSERT INTO ledger (entry, tenant, started_at) SELECT 'trueup', concat('pieces', toString(number % 3)), "
        "toDateTime64('2031-01-31 23:59:00', 9, 'UTC') + toIntervalSecond(number % 50 * 2) FROM numbers(400)"
    )
    for table in tables(chdb_client, None, datetime(2026, 1, 1, tzinfo=UTC)):
        found = list(pieces(chdb_client, table, rows))
        counts = [scalar(chdb_client, f"SELECT count() FROM {table.source} WHERE {piece.condition}") for piece in found]
        assert sum(counts) == scalar(chdb_client, f"SELECT count() FROM {table.source}")
        assert sum(piece.rows for piece in found) == sum(counts)
    chdb_client.command("ALTER TABLE ledger DELETE WHERE startsWith(tenant, 'pieces') SETTINGS mutations_sync = 2")


def test_a_minute_of_full_load_is_cut(chdb_client: "Client") -> None:
    chdb_client.command(
        "INSERT INTO ledger (entry, tenant, started_at) SELECT 'trueup', 'a full minute', "
        "toDateTime64('2032-03-01 12:00:00', 9, 'UTC') + toIntervalMillisecond(cityHash64(number) % 60000) FROM numbers(4000)"
    )
    (ledger,) = (table for table in tables(chdb_client, None, datetime(2026, 1, 1, tzinfo=UTC)) if table.name == "ledger")
    sizes = [piece.rows for piece in pieces(chdb_client, ledger, 100) if "203203" in piece.partition]
    chdb_client.command("ALTER TABLE ledger DELETE WHERE tenant = 'a full minute' SETTINGS mutations_sync = 2")
    assert sum(sizes) == 4000
    assert max(sizes) < 160


def test_what_is_replaced_is_cut_by_its_own_key(chdb_client: "Client") -> None:
    keys = {table.name: table.key for table in tables(chdb_client, None, datetime(2026, 1, 1, tzinfo=UTC))}
    assert keys["ledger"] == ("tenant", "started_at")
    assert keys["flows"][:2] == ("toStartOfHour(received_at)", "source")


def test_no_table_is_forgotten(chdb_client: "Client") -> None:
    made = {
        name
        for migration in migrations()
        for statement in migration.statements
        for name in re.findall(r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+)", statement)
    }
    moved = tables(chdb_client, None, datetime(2026, 1, 1, tzinfo=UTC))
    assert {table.name for table in moved} == (made | {"migrations"}) - NOT_MOVED
    assert {"ledger", "prices", "corrections", "reported_outcomes", "flows"} <= {table.name for table in moved}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=4))
def test_keys_are_compared_as_tuples_are(values: list[tuple[int, int]]) -> None:
    key, bound = [str(one) for one, _ in values], [str(other) for _, other in values]
    with closing(sqlite3.connect(":memory:")) as engine:
        for operator, expected in (
            (">", [o for o, _ in values] > [o for _, o in values]),
            ("<=", [o for o, _ in values] <= [o for _, o in values]),
        ):
            assert bool(engine.execute(f"SELECT {comparison(key, bound, operator)}").fetchone()[0]) is expected


class Lost:
    """Turns that another has by the time the statement starts."""

    shared: ClassVar[bool] = True

    @contextmanager
    def take(self) -> Iterator[str]:
        yield "(SELECT count() FROM turns) = 1"


def test_a_lost_turn_enters_nothing(store: ServerStore) -> None:
    """The statement that enters carries its condition: whoever was stopped for too long enters nothing."""
    host = store.each_host("system")[0]
    for statement in (
        "CREATE DATABASE IF NOT EXISTS tallystick_shard",
        "CREATE OR REPLACE TABLE tallystick_shard.ledger AS tallystick.ledger",
        "INSERT INTO tallystick_shard.ledger (entry, tenant, started_at) VALUES ('trueup', 'acme', '2026-10-01 00:00:00')",
    ):
        host.command(statement)
    source = store.each_host("tallystick_shard")[0]
    try:
        (table,) = tables(source, None, datetime(2026, 1, 1, tzinfo=UTC))
        (piece,) = pieces(source, table)
        Mover(source, store.client(), Lost()).move(piece)
        assert rows_of(store) == 0
        assert Mover(source, store.client(), open_turns(store)).move(piece) == Entered(1, 0)
        assert rows_of(store) == 1
    finally:
        host.command("DROP DATABASE tallystick_shard SYNC")
