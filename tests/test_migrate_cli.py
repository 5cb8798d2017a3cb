"""`tallystick migrate` from nothing and again, and what it says where a ledger can't be moved."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse import ClickHouse
from server import CLEAN, COMMAND

from tallystick.ingest.migrate import migrations
from tallystick.ingest.store import hold

FILL = """
import sys
from pathlib import Path
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store
with open_store(Path(sys.argv[1])) as store:
    migrate(store, 0)
    for statement in sys.argv[2:]:
        store.client().command(statement)
"""
THREE = """INSERT INTO ledger (entry, calls, tenant, user, started_at, trace_id, span_id, cost_usd)
SELECT 'call', 1, 'acme', repeat(toString(cityHash64(number)), 50),
    toDateTime64('2026-08-30 00:00:00', 9, 'UTC') + toIntervalDay(number * 20), toString(number), 's', 1.5
FROM numbers(3)"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("server") / "one") as running:
        yield running


@pytest.fixture
def empty(server: ClickHouse) -> ClickHouse:
    server.ask("DROP DATABASE IF EXISTS tallystick SYNC")
    return server


def run(*arguments: str, env: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    given = {**CLEAN, "TALLYSTICK_RETENTION_DAYS": "0", **(env or {})}
    return subprocess.run([*COMMAND, "migrate", *arguments], capture_output=True, text=True, env=given, timeout=120, check=False)


def filled(data: Path, *statements: str) -> Path:
    subprocess.run([sys.executable, "-c", FILL, str(data), *statements], env=CLEAN, timeout=120, check=True)
    return data


def to(server: ClickHouse, data: Path, *more: str, role: str = "admin", **env: str) -> "subprocess.CompletedProcess[str]":
    return run(
        "--to", server.url(role), "--data", str(data), *more, env={"TALLYSTICK_CLICKHOUSE_PASSWORD": server.password, **env}
    )


def test_a_server_from_nothing(empty: ClickHouse) -> None:
    before = run("--check", env=empty.env())
    assert before.returncode == 1
    assert "`tallystick migrate`" in before.stderr
    made = run("--json", env=empty.env())
    assert made.returncode == 0, made.stderr
    assert [row["done"] for row in json.loads(made.stdout)] == [f"applied migration {m.number:04} {m.name}" for m in migrations()]
    for again in (run(env=empty.env()), run("--check", env=empty.env())):
        assert (again.returncode, again.stdout) == (0, "nothing is missing\n"), again.stderr
    assert empty.password not in made.stdout + made.stderr + before.stderr


def test_a_directory_from_nothing(tmp_path: Path) -> None:
    place = ("--data", str(tmp_path / "data"))
    before = run("--check", *place)
    assert (before.returncode, (tmp_path / "data").exists()) == (1, False)
    assert "there is no ledger in" in before.stderr
    assert "applied migration 0001 ledger" in run(*place).stdout
    assert run("--check", *place).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--dry-run"],
        ["--verify-only"],
        ["--to", "clickhouse://db", "--check"],
        ["--to", "clickhouse://db", "--dry-run", "--verify-only"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    assert run(*arguments).returncode == 2


def test_what_would_be_moved_is_told_and_nothing_done(empty: ClickHouse, tmp_path: Path) -> None:
    found = to(empty, filled(tmp_path / "data", THREE), "--dry-run", "--json")
    assert found.returncode == 0, found.stderr
    assert {row["table"]: row["rows"] for row in json.loads(found.stdout)}["ledger"] == 3
    assert empty.ask("EXISTS DATABASE tallystick") == "0"


def test_what_is_compared_is_told(empty: ClickHouse, tmp_path: Path) -> None:
    done = to(empty, filled(tmp_path / "data", THREE), "--json")
    assert done.returncode == 0, done.stderr
    months = [row for row in json.loads(done.stdout) if row["table"] == "ledger"]
    assert [(row["month"], row["tenant"], row["calls"], row["cost_usd"], row["found"]) for row in months] == [
        ("202608", "acme", 1, "1.500000000000", "equal"),
        ("202609", "acme", 1, "1.500000000000", "equal"),
        ("202610", "acme", 1, "1.500000000000", "equal"),
    ]
    assert all(row["hash"] == row["target"]["hash"] for row in months)
    assert "TALLYSTICK_KEYS" in done.stderr


def test_calls_that_are_as_good_as_deleted_stay_behind(empty: ClickHouse, tmp_path: Path) -> None:
    late = THREE.replace("'2026-08-30 00:00:00'", "toString(now() - toIntervalDay(41))")
    done = to(empty, filled(tmp_path / "data", late), TALLYSTICK_RETENTION_DAYS="30")
    assert done.returncode == 0, done.stderr
    assert "1 entries have reached the age" in done.stderr
    assert "entered 2 rows" in done.stderr


def test_a_directory_in_use(server: ClickHouse, tmp_path: Path) -> None:
    data = filled(tmp_path / "data")
    with hold(data):
        done = to(server, data)
    assert done.returncode == 1
    assert "another process holds" in done.stderr
    assert "stop `tallystick up` there" in done.stderr


def test_no_directory(server: ClickHouse, tmp_path: Path) -> None:
    done = to(server, tmp_path / "data")
    assert (done.returncode, (tmp_path / "data").exists()) == (1, False)
    assert "there is no ledger in" in done.stderr


def test_a_newer_directory(server: ClickHouse, tmp_path: Path) -> None:
    done = to(server, filled(tmp_path / "data", "INSERT INTO migrations (number, name) VALUES (999, 'later')"))
    assert done.returncode == 1
    assert "the ledger has schema 999" in done.stderr


def test_a_user_without_rights(empty: ClickHouse, tmp_path: Path) -> None:
    done = to(empty, filled(tmp_path / "data"), role="reader")
    assert done.returncode == 1
    assert "ACCESS_DENIED" in done.stderr
    assert "tallystick_admin" in done.stderr


def test_no_address(tmp_path: Path) -> None:
    done = run("--to", "clickhouse://me:secret@db:8123/tallystick", "--data", str(filled(tmp_path / "data")))
    assert done.returncode == 1
    assert "TALLYSTICK_CLICKHOUSE_PASSWORD" in done.stderr
    assert "secret" not in done.stderr


def test_a_damaged_directory(empty: ClickHouse, tmp_path: Path) -> None:
    """All that can be read is moved; that there is more is said."""
    data = filled(tmp_path / "data", THREE)
    part = max((data / "engine").rglob("202609_*/data.bin"), key=lambda file: file.stat().st_size)
    content = bytearray(part.read_bytes())
    at = len(content) // 2
    content[at : at + 16] = bytes(byte ^ 0xFF for byte in content[at : at + 16])
    part.write_bytes(content)
    done = to(empty, data)
    assert done.returncode == 1
    assert "the directory can't be read: " in done.stderr
    assert "restore the directory from a backup" in done.stderr
    part.unlink()
    done = to(empty, data)
    assert done.returncode == 1
    assert "the engine couldn't read a part of the directory" in done.stderr
    assert "restore it from a backup" in done.stderr
    assert empty.ask("SELECT count() FROM tallystick.ledger") == "2"
