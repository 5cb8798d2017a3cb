"""ClickHouse servers that are away, are killed, or refuse: what was acknowledged stays, what wasn't is told, and all goes on by itself."""

import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.cluster import SHARDED_BY
from tallystick.ingest.errors import NewerData, StoreError, StoreMisconfigured, StoreUnavailable
from tallystick.ingest.migrate import migrate, migrations, require_schema
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import EmbeddedStore, Store, error_name, scalar
from tallystick.server.stores import open_ledger
from tallystick.settings import Settings

ROWS = (
    "INSERT INTO ledger (entry, calls, tenant, status, usage_source, started_at, trace_id, span_id, input_tokens, cost_usd) "
    "SELECT 'call', 1, 'acme', 'ok', 'provider', toDateTime64('2026-10-01', 9, 'UTC'), MD5(toString({n} + number)), "
    "unhex(leftPad(hex(number), 16, '0')), 7, toDecimal64('0.000000000001', 12) FROM numbers(50)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("clickhouse") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def store(server: ClickHouse) -> Store:
    """Begun by an older version, with a row, on a server with the present one."""
    opened = ServerStore(server.url(), server.password)
    with pytest.raises(StoreMisconfigured, match="no database"):
        opened.client()
    return opened


def as_of(store: Store, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a version would have done that knew no later migration."""
    from tallystick.ingest import migrate as module

    with monkeypatch.context() as patch:
        known = migrations()[:number]
        patch.setattr(module, "migrations", lambda: known)
        patch.setattr(module, "VIEWS", ("charges",))
        patch.setattr(module, "VIEWS_OF_SHARDS", ("charges",))
        patch.setattr(module, "SHARDED_BY", {name: SHARDED_BY[name] for name in ("ledger", "prices", "corrections")})
        migrate(store, None)


OLDER = 5
"""The schema of 0.1.0: without outcomes, turns, flows."""


def test_an_older_ledger_is_upgraded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    as_of(store, OLDER, monkeypatch)
    store.client().command(ROWS.replace("{n}", "0"))
    with pytest.raises(StoreMisconfigured, match=f"schema {OLDER}.*needs {len(migrations())}") as refused:
        require_schema(store)
    assert "tallystick migrate" in refused.value.hint
    assert len(migrate(store, 400)) == len(migrations()) - OLDER
    require_schema(store)
    assert scalar(store.client(), "SELECT sum(calls) FROM charges") == 50


def test_an_older_cluster_is_upgraded_by_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ClickHouseCluster(tmp_path) as cluster:
        store = ServerStore(cluster.url(), cluster.password, cluster=CLUSTER)
        as_of(store, OLDER, monkeypatch)
        store.client().command(ROWS.replace("{n}", "0"))
        failures: list[Exception] = []

        def another() -> None:
            try:
                migrate(ServerStore(cluster.url(), cluster.password, cluster=CLUSTER), 30)
            except Exception as failure:
                failures.append(failure)

        threads = [threading.Thread(target=another) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert migrate(store, 30) == []
        assert scalar(store.client(), "SELECT sum(calls) FROM charges") == 50
        columns = "SELECT groupArray(name) FROM (SELECT name FROM system.columns WHERE database = '{}' AND table = 'ledger' ORDER BY position)"
        assert scalar(store.client(), columns.format("tallystick")) == scalar(store.client(), columns.format("tallystick_shard"))
        for shard in cluster.shards:
            assert "toIntervalDay(30)" in shard.ask("SHOW CREATE TABLE tallystick_shard.ledger")
            assert shard.ask("SELECT uniqExact(number) FROM tallystick.migrations") == str(len(migrations()))
        # A shard away is no answer without its rows, and nothing is half entered.
        cluster.shards[1].kill()
        for ask in ("SELECT count() FROM ledger", ROWS.replace("{n}", "1000")):
            with pytest.raises(StoreError):
                store.client().command(ask)
        with pytest.raises(StoreError), store.reader("acme", {}) as reader:
            reader.query("SELECT count() FROM charges")
        cluster.shards[1].start()
        assert scalar(store.client(), "SELECT count() FROM ledger WHERE trace_id = MD5('0')") == 1


def test_a_newer_ledger(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Other roles use it, while a rolling upgrade lasts; this version's migrations don't touch it."""
    client = store.client()
    client.command("INSERT INTO migrations (number, name) VALUES (9999, 'of_tomorrow')")
    with pytest.raises(NewerData, match="9999"):
        migrate(store, 0)
    with caplog.at_level(logging.WARNING):
        require_schema(store)
    assert "9999" in caplog.text
    client.command("ALTER TABLE migrations DELETE WHERE number = 9999 SETTINGS mutations_sync = 2")


def test_what_was_acknowledged_outlives_a_kill(server: ClickHouse, store: Store) -> None:
    before = scalar(store.client(), "SELECT count() FROM ledger")
    for kills in range(1, 4):
        store.client().command(ROWS.replace("{n}", str(kills * 100_000)))
        server.kill()
        with pytest.raises(StoreUnavailable, match="doesn't answer"):
            store.client().command("SELECT 1")
        with pytest.raises(StoreUnavailable), store.reader("acme", {}) as reader:
            reader.query("SELECT 1")
        server.start()
        assert scalar(store.client(), "SELECT count() FROM ledger") == before + kills * 50


def test_a_session_ends_with_its_server(server: ClickHouse, store: Store) -> None:
    store.client().command("CREATE TEMPORARY TABLE mine (a Int8) ENGINE = Memory")
    server.restart()
    with pytest.raises(ClickHouseError) as lost:
        store.client().query("SELECT * FROM mine")
    assert error_name(lost.value) == "UNKNOWN_TABLE"


def test_nothing_is_sent_twice(server: ClickHouse, store: Store) -> None:
    """Of a server that ends while it tells of its progress nobody knows what it did: an insert again might be one too many."""
    client, sent = store.each_host("system")[0], []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    sent.append(connection.recv(65536))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nX-ClickHouse-Progress: {}\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        there = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client._backend, "_base_url", f"{there}/")  # type: ignore[attr-defined]
            with pytest.raises(StoreUnavailable):
                client.raw_insert("turns", None, b"a\tb\n", fmt="TabSeparated")
        listening.close()
    assert len(sent) == 1


def settings(server: ClickHouse, **given: object) -> Settings:
    return Settings.load({**server.env(), **{name: str(value) for name, value in given.items()}})


def test_a_server_that_starts_later_is_waited_for(server: ClickHouse, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    server.kill()
    starting = threading.Timer(1.5, server.start)
    starting.start()
    with caplog.at_level(logging.WARNING):
        opened = open_ledger(settings(server))
    starting.join()
    assert f"{server.address} doesn't answer" in caplog.text
    assert "waiting" in caplog.text
    assert scalar(opened.client(), "SELECT 1") == 1
    opened.close()


def test_one_that_stays_away_is_told(server: ClickHouse) -> None:
    gone = settings(server, TALLYSTICK_CLICKHOUSE="clickhouse://tallystick_admin@127.0.0.1:1/tallystick")
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 doesn't answer") as told:
        open_ledger(gone, patience_s=0)
    assert "TALLYSTICK_CLICKHOUSE" in told.value.hint


def test_one_that_refuses_isn_t_waited_for(server: ClickHouse) -> None:
    with pytest.raises(StoreMisconfigured, match=r"tallystick_admin.*AUTHENTICATION_FAILED") as told:
        open_ledger(settings(server, TALLYSTICK_CLICKHOUSE_PASSWORD="wrong-one"))
    assert "TALLYSTICK_CLICKHOUSE_PASSWORD" in told.value.hint
    assert "wrong-one" not in f"{told.value}{told.value.__cause__}"


def test_without_a_server_s_address_it_is_the_directory_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(EmbeddedStore, "__init__", lambda _self, data: opened.append(data))
    assert isinstance(open_ledger(Settings.load({}, data=tmp_path)), EmbeddedStore)
    assert opened == [tmp_path]
