"""Numbered migrations, forward only, applied at start; an older data directory is upgraded."""

import re
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from tallystick.ingest.errors import NewerData
from tallystick.ingest.store import read_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_CREATE = """CREATE TABLE IF NOT EXISTS migrations (number UInt16, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = MergeTree ORDER BY number SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"""


VIEWS: Final = ("charges", "outcomes", "price_rates")
"""Of schema/sql: what users query. Made anew at each start."""


class Migration(NamedTuple):
    """One file of schema/migrations."""

    number: int
    name: str
    statements: tuple[str, ...]


def statements(script: str) -> tuple[str, ...]:
    """A script's statements; each ends with `;` at the end of a line. Comment lines are left out."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    return tuple(s.strip() for s in re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE) if s.strip())


def migrations() -> list[Migration]:
    """All of them, in order. Raises ValueError where numbers are missing or doubled."""
    found = []
    for file in files("tallystick.schema").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", file.name)
        if match:
            found.append(Migration(int(match[1]), match[2], statements(file.read_text(encoding="utf-8"))))
    found.sort()
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise ValueError(f"migrations aren't numbered from 1 without gaps: {[m.number for m in found]}")
    return found


def migrate(client: "Client", retention_days: int | None) -> list[str]:
    """Bring the store to the present schema; names of the migrations that were applied. Raises NewerData.

    retention_days: after how many days calls are deleted; 0 keeps them, None leaves it as it is.
    A process that is killed in between repeats the last one: each statement may run twice.
    """
    client.command(_CREATE)
    known = migrations()
    done = {int(row[0]) for row in client.query("SELECT number FROM migrations").result_rows}
    if done and max(done) > len(known):
        raise NewerData(f"the data directory has schema {max(done)}, this version knows {len(known)}: upgrade tallystick")
    applied = []
    for migration in known:
        if migration.number in done:
            continue
        for statement in migration.statements:
            client.command(statement)
        client.command(
            "INSERT INTO migrations (number, name) VALUES ({number:UInt16}, {name:String})",
            parameters={"number": migration.number, "name": migration.name},
        )
        applied.append(f"{migration.number:04} {migration.name}")
    for view in VIEWS:
        client.command(read_sql(view))
    if retention_days is not None:
        _set_retention(client, retention_days)
    return applied


def _set_retention(client: "Client", days: int) -> None:
    """Delete calls that started and outcomes that came longer ago; 0 keeps them."""
    for table, column in (("ledger", "started_at"), ("reported_outcomes", "at")):
        question = "SELECT create_table_query FROM system.tables WHERE database = currentDatabase() AND name = {table:String}"
        present = str(client.query(question, parameters={"table": table}).result_rows[0][0])
        wanted = f"TTL toDateTime({column}) + toIntervalDay({days})" if days else ""
        if wanted and wanted not in present:
            client.command(f"ALTER TABLE {table} MODIFY {wanted} SETTINGS materialize_ttl_after_modify = 0")
        elif not wanted and f"TTL toDateTime({column})" in present:
            client.command(f"ALTER TABLE {table} REMOVE TTL")
