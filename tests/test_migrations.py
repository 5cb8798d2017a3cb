"""Numbered migrations: forward, repeatable, refused where the directory is newer."""

import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from elsewhere import Elsewhere
from otlp import request, span
from server import Server

from tallystick.ingest.errors import NewerData
from tallystick.ingest.migrate import migrate, migrations, statements
from tallystick.ingest.store import read_sql, scalar

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


@pytest.fixture
def client(chdb_client: "Client", chdb_path: Path) -> "Iterator[Client]":
    """On an empty database of the engine that all tests share."""
    import clickhouse_connect

    chdb_client.command("DROP DATABASE IF EXISTS migrating")
    chdb_client.command("CREATE DATABASE migrating")
    client = clickhouse_connect.get_client(dsn=f"chdb://{chdb_path}", database="migrating")
    yield client
    client.close()
    chdb_client.command("DROP DATABASE migrating")


def tables(client: "Client") -> dict[str, str]:
    """Name → definition."""
    rows = client.query("SELECT name, create_table_query FROM system.tables WHERE database = 'migrating'").result_rows
    return {str(name): str(definition) for name, definition in rows}


def apply(client: "Client", number: int) -> None:
    """As a version would have done that knew no later migration."""
    client.command(
        "CREATE TABLE IF NOT EXISTS migrations (number UInt16, name String, applied_at DateTime64(3) DEFAULT now64(3)) ENGINE = MergeTree ORDER BY number"
    )
    for migration in migrations()[:number]:
        for statement in migration.statements:
            client.command(statement)
        client.command(f"INSERT INTO migrations (number, name) VALUES ({migration.number}, '{migration.name}')")


CALL = """
INSERT INTO ledger (entry, calls, tenant, status, usage_source, started_at, trace_id, span_id, input_tokens, cost_usd)
VALUES ('call', 1, 'acme', 'ok', 'provider', now64(9), unhex('0123456789abcdef0123456789abcdef'), unhex('0123456789abcdef'), 7, 0.000000000001)
"""


def test_a_fresh_directory_and_every_later_start(client: "Client") -> None:
    applied = migrate(Elsewhere(client), 0)
    assert [int(name[:4]) for name in applied] == [m.number for m in migrations()]
    before = tables(client)
    assert {"ledger", "prices", "charges", "migrations"} <= before.keys()
    client.command(CALL)
    assert migrate(Elsewhere(client), 0) == []
    assert tables(client) == before
    assert scalar(client, "SELECT sum(calls) FROM charges") == 1
    assert scalar(client, "SELECT count() FROM migrations") == len(migrations())


@pytest.mark.parametrize("known", range(len(migrations())))
def test_an_older_directory_is_upgraded(client: "Client", known: int) -> None:
    apply(client, known)
    if known:
        client.command(CALL)
    assert len(migrate(Elsewhere(client), 0)) == len(migrations()) - known
    if known:
        rows = client.query("SELECT tenant, calls, input_tokens, toString(cost_usd), trace_id FROM charges").result_rows
        assert [list(row) for row in rows] == [["acme", 1, 7, "0.000000000001", "0123456789abcdef0123456789abcdef"]]


def test_a_start_that_was_killed_in_between(client: "Client") -> None:
    """Each statement of the last migration was run and not noted: it runs again."""
    apply(client, len(migrations()))
    client.command(CALL)
    client.command("TRUNCATE TABLE migrations")
    assert len(migrate(Elsewhere(client), 0)) == len(migrations())
    assert scalar(client, "SELECT sum(calls) FROM charges") == 1


def test_a_newer_directory_is_refused_and_left_alone(client: "Client") -> None:
    migrate(Elsewhere(client), 0)
    client.command("INSERT INTO migrations (number, name) VALUES (9999, 'of_tomorrow')")
    client.command("DROP VIEW charges")
    with pytest.raises(NewerData, match="9999"):
        migrate(Elsewhere(client), 0)
    assert "charges" not in tables(client)


@pytest.mark.parametrize(("table", "column"), [("ledger", "started_at"), ("reported_outcomes", "at")])
def test_retention_is_set_changed_kept_and_removed(client: "Client", table: str, column: str) -> None:
    def ttl() -> str:
        found = re.search(r" TTL (.*?) SETTINGS", tables(client)[table])
        return found[1] if found else ""

    migrate(Elsewhere(client), 0)
    assert ttl() == ""
    for days in (400, 400, 30, 300, 3):
        migrate(Elsewhere(client), days)
        assert ttl() == f"toDateTime({column}) + toIntervalDay({days})"
    migrate(Elsewhere(client), None)
    assert ttl() == f"toDateTime({column}) + toIntervalDay(3)"
    migrate(Elsewhere(client), 0)
    assert ttl() == ""
    client.command(CALL)
    assert scalar(client, "SELECT count() FROM charges") == 1


def test_what_is_older_than_the_retention_is_deleted(client: "Client") -> None:
    migrate(Elsewhere(client), 30)
    client.command(CALL)
    client.command(CALL.replace("now64(9)", "now64(9) - INTERVAL 31 DAY"))
    client.command("OPTIMIZE TABLE ledger FINAL")
    assert scalar(client, "SELECT count() FROM charges") == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", ()),
        ("-- nothing but a comment;\n", ()),
        ("SELECT 1", ("SELECT 1",)),
        ("SELECT 1;\nSELECT 2;\n", ("SELECT 1", "SELECT 2")),
        ("SELECT\n    1;  \n\n\n;\n-- end\n", ("SELECT\n    1",)),
        ("SELECT ';' AS a, 2;\nSELECT 3", ("SELECT ';' AS a, 2", "SELECT 3")),
        ("  -- a; b;\nSELECT 1;\n", ("SELECT 1",)),
        ("SELECT '--' AS a;\n", ("SELECT '--' AS a",)),
    ],
)
def test_statements(script: str, expected: tuple[str, ...]) -> None:
    assert statements(script) == expected


def test_every_statement_may_run_twice() -> None:
    for migration in migrations():
        for statement in migration.statements:
            if statement.startswith("CREATE"):
                assert re.match(r"CREATE (TABLE|VIEW|DATABASE) IF NOT EXISTS|CREATE OR REPLACE", statement), statement[:60]


def test_scripts_of_the_schema_end_in_whole_statements() -> None:
    for file in files("tallystick.schema").joinpath("sql").iterdir():
        assert read_sql(file.name.removesuffix(".sql")).strip(), file.name


def test_a_server_on_a_newer_directory_says_so(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data) as server:
        server.post_all([request(span("kept"))])
        server.stop()
    command = "from pathlib import Path; from tallystick.ingest.store import open_store\nwith open_store(Path({!r})) as s: s.client().command({!r})"
    insert = "INSERT INTO migrations (number, name) VALUES (9999, 'of_tomorrow')"
    python(command.format(str(data), insert))
    process = Server(data).launch()
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    said = (tmp_path / "data.log").read_text()
    assert "upgrade tallystick" in said
    assert "Traceback" not in said
    python(command.format(str(data), "DELETE FROM migrations WHERE number = 9999"))
    with Server(data) as server:
        assert server.sql("SELECT sum(calls) AS calls FROM charges") == [{"calls": 1}]
        server.stop()


def python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
