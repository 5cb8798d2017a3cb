"""The rooms: who may import whom, what is in the package, and the names that others depend on."""

import ast
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import click
import pytest

import tallystick
from tallystick.cli import cli
from tallystick.settings import TABLE

ROOT = Path(__file__).parents[1]
ROOMS = {
    "schema": set[str](),
    "collectors": {"schema"},
    "ingest": {"schema"},
    "attribution": {"schema"},
    "alerts": {"schema", "attribution"},
    "probes": {"schema"},
}


def imported(path: Path) -> set[str]:
    """Names of our modules that a file imports, at any place in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{name.name}" for name in node.names} if node.module == "tallystick" else {node.module}
    return {name for name in found if name.split(".")[0] == "tallystick"}


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downwards_only(room: str) -> None:
    for path in (ROOT / room).rglob("*.py"):
        for name in imported(path):
            other = name.split(".")[1] if "." in name else ""
            assert other in ROOMS[room] | {room}, f"{path.relative_to(ROOT)} imports {name}"


def test_rooms_are_linked_not_copied() -> None:
    for room in ROOMS:
        link = ROOT / "src" / "tallystick" / room
        assert link.is_symlink()
        assert link.resolve() == ROOT / room


DATA = (
    "tallystick/py.typed",
    "tallystick/schema/otlp.proto",
    "tallystick/schema/sql/normalise.sql",
    "tallystick/schema/migrations/0001_ledger.sql",
    "tallystick/schema/dialects/attributes.csv",
    "tallystick/schema/engine/users.xml",
    "tallystick/attribution/page.html",
    "tallystick/attribution/queries/spend.sql",
    "tallystick/traffic/data/azure_2023_conv.csv.gz",
    "tallystick/traffic/LICENSE-CC-BY-4.0.txt",
)


def test_wheel_and_sdist_hold_everything(tmp_path: Path) -> None:
    # sdist → wheel, as an installer does it.
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert names.issuperset(DATA), set(DATA) - names
    assert {name.split("/")[0] for name in names} == {"tallystick", wheel.name.rsplit("-py3", 1)[0] + ".dist-info"}
    for room in ROOMS:
        assert f"tallystick/{room}/__init__.py" in names
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "schema/sql/normalise.sql", "src/tallystick/auto.py"} <= kept
    assert not any(name.startswith((".venv", "dist")) for name in kept)


def test_names_that_others_depend_on() -> None:
    assert callable(tallystick.scope)
    assert sorted(cli.list_commands(click.Context(cli))) == ["costs", "demo", "doctor", "keys", "prices", "replay", "sql", "up"]
    assert {row.env for row in TABLE} >= {
        "TALLYSTICK_URL", "TALLYSTICK_DATA", "TALLYSTICK_KEY", "TALLYSTICK_HOST", "TALLYSTICK_PORT", "TALLYSTICK_GRPC_PORT",
        "TALLYSTICK_CONFIG", "TALLYSTICK_RETENTION_DAYS",
    }  # fmt: skip


CHARGES = [
    "entry",
    "calls",
    "tenant",
    "customer",
    "feature",
    "agent",
    "team",
    "user",
    "session",
    "service",
    "environment",
    "tags",
    "provider",
    "request_model",
    "response_model",
    "operation",
    "service_tier",
    "streamed",
    "status",
    "error_type",
    "cache_hit",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "usage_source",
    "started_at",
    "ended_at",
    "ttft_ms",
    "ttft_kind",
    "tpot_ms",
    "price_id",
    "cost_usd",
    "reported_cost_usd",
    "trace_id",
    "span_id",
    "response_id",
]


def test_charges_has_the_columns_it_was_promised_with(chdb_client: object) -> None:
    from clickhouse_connect.driver.client import Client

    assert isinstance(chdb_client, Client)
    found = [row[0] for row in chdb_client.query("DESCRIBE TABLE charges").result_rows]
    assert set(CHARGES) <= set(found)
