"""A directory is brought to the present schema, whatever its age."""

from pathlib import Path

import pytest
from clickhouse_connect.driver.client import Client
from otlp import request, span
from server import Server

from tallystick.ingest.errors import NewerData
from tallystick.ingest.migrate import migrate, migrations, statements
from tallystick.ingest.store import Store, scalar


def test_statements_end_at_the_end_of_a_line() -> None:
    script = "-- a comment; with a semicolon;\nSELECT ';' ;\nCREATE TABLE x (a String DEFAULT 'a;b')\nENGINE = Null;\n\nSELECT 2"
    assert statements(script) == ("SELECT ';'", "CREATE TABLE x (a String DEFAULT 'a;b')\nENGINE = Null", "SELECT 2")


def test_migrations_are_numbered_without_gaps_and_may_run_twice() -> None:
    assert [m.number for m in migrations()] == list(range(1, len(migrations()) + 1))
    for migration in migrations():
        for statement in migration.statements:
            assert "IF NOT EXISTS" in statement or "IF EXISTS" in statement, f"{migration.name}: {statement[:60]}"


def test_what_is_done_is_not_done_again(chdb_client: Client) -> None:
    assert migrate(chdb_client, 0) == []
    assert scalar(chdb_client, "SELECT count() FROM migrations") == len(migrations())


def test_a_killed_migration_is_repeated(chdb_client: Client) -> None:
    last = migrations()[-1]
    chdb_client.command(f"DELETE FROM migrations WHERE number = {last.number}")
    assert migrate(chdb_client, 0) == [f"{last.number:04} {last.name}"]


def test_newer_data_is_refused(chdb_client: Client) -> None:
    chdb_client.command("INSERT INTO migrations (number, name) VALUES (999, 'from_the_future')")
    try:
        with pytest.raises(NewerData, match="upgrade"):
            migrate(chdb_client, 0)
    finally:
        chdb_client.command("DELETE FROM migrations WHERE number = 999")


def test_retention_is_set_changed_and_removed(chdb_store: Store) -> None:
    client = chdb_store.client()

    def ttl() -> str:
        query = "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = 'ledger'"
        return str(scalar(client, query)).partition(" TTL ")[2].partition(" SETTINGS")[0]

    try:
        migrate(client, 30)
        assert ttl() == "toDateTime(started_at) + toIntervalDay(30)"
        migrate(client, 7)
        assert ttl() == "toDateTime(started_at) + toIntervalDay(7)"
        migrate(client, None)
        assert ttl() == "toDateTime(started_at) + toIntervalDay(7)", "a command that only reads leaves it as it is"
    finally:
        migrate(client, 0)
    assert ttl() == ""


def test_an_older_directory_is_upgraded_with_its_calls(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data) as server:
        server.post_all([request(span("before the upgrade"))])
        server.stop()
    older = (
        "from pathlib import Path; import sys; from tallystick.ingest.store import open_store\n"
        "with open_store(Path(sys.argv[1])) as store:\n"
        "    c = store.client(); c.command('DROP TABLE prices'); c.command('DELETE FROM migrations WHERE number > 1')\n"
        "    c.command('DROP VIEW charges')\n"
    )
    import subprocess
    import sys

    subprocess.run([sys.executable, "-c", older, str(data)], check=True, cwd=tmp_path)
    with Server(data) as server:
        server.post_all([request(span("after the upgrade")), request(span("before the upgrade"))])
        row = server.sql("SELECT sum(calls) AS calls, countIf(cost_usd IS NOT NULL) AS priced FROM charges")[0]
        assert row == {"calls": 2, "priced": 2}
        assert "applied migration 0002" in server.log()
        server.stop()
