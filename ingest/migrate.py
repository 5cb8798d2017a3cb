"""Numbered migrations, forward only, of a data directory or of each server; an older ledger is upgraded."""

import logging
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Final, NamedTuple

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.cluster import (
    DATABASE,
    SHARD,
    SHARDED_BY,
    VIEWS_OF_SHARDS,
    Kind,
    Topology,
    distributed,
    on_cluster,
    placed,
)
from tallystick.ingest.errors import NewerData, StoreMisconfigured
from tallystick.ingest.store import Store, error_name, read_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

log = logging.getLogger(__name__)

_CREATE: Final = """CREATE TABLE IF NOT EXISTS migrations (number UInt16, name String, applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = MergeTree ORDER BY number SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"""


VIEWS: Final = ("charges", "outcomes", "price_rates", "probe_figures")
"""Of schema/sql: what users query. Made anew at each start."""

_COLUMNS: Final = """SELECT groupArray((name, type, default_kind, default_expression)) FROM
(SELECT * FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position)"""


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


def migrate(store: Store, retention_days: int | None) -> list[str]:
    """Bring the ledger to the present schema; names of the migrations that were applied. Raises NewerData, StoreError.

    retention_days: after how many days calls are deleted; 0 keeps them, None leaves it as it is.
    A process that is killed in between repeats the last one, and two may do it at once: each statement may run twice.
    """
    to, known = store.dialect, migrations()
    if to.kind is not Kind.EMBEDDED:
        for client in store.each_host("system"):
            for database in to.databases:
                client.command(f"CREATE DATABASE IF NOT EXISTS {database}{on_cluster(to)}")
    hosts = store.each_host()
    for client in hosts:
        client.command(placed(_CREATE, to))
        if max(_done(client), default=0) > len(known):
            raise NewerData(f"the ledger has schema {max(_done(client))}, this version knows {len(known)}: upgrade tallystick")
    applied: dict[str, None] = {}
    for client in hosts:
        applied |= dict.fromkeys(_apply(client, known, to))
    for client, shard in zip(hosts, store.each_host(to.rows), strict=True):
        # A shard's views are of its own tables, by the names that its database has for them.
        for view in VIEWS_OF_SHARDS:
            shard.command(placed(read_sql(view), to))
        if to.kind is Kind.CLUSTER:
            _stand_for_shards(client, to)
        for view in VIEWS:
            if view not in VIEWS_OF_SHARDS:
                client.command(placed(read_sql(view), to))
        if retention_days is not None:
            _set_retention(client, retention_days, to)
    return list(applied)


def require_schema(store: Store) -> None:
    """That the ledger has what this version needs. One of a newer version does: migrations add, and take nothing away. Raises StoreMisconfigured."""
    known = len(migrations())
    for client in store.each_host():
        try:
            done = _done(client)
        except ClickHouseError as error:
            if error_name(error) not in {"UNKNOWN_TABLE", "ACCESS_DENIED"}:
                raise
            done = set()
        if not done.issuperset(range(1, known + 1)):
            raise StoreMisconfigured(
                f"the ledger has schema {max(done, default=0)}, this version needs {known}",
                "run `tallystick migrate` of this version",
            )
        if max(done) > known:
            log.warning("the ledger has schema %d, this version knows %d: it works with what it knows", max(done), known)


def _done(client: "Client") -> set[int]:
    return {int(row[0]) for row in client.query("SELECT number FROM migrations").result_rows}


def _apply(client: "Client", known: Sequence[Migration], to: Topology) -> Iterator[str]:
    done = _done(client)
    for migration in known:
        if migration.number in done:
            continue
        for statement in migration.statements:
            client.command(placed(statement, to))
        client.command(
            "INSERT INTO migrations (number, name) VALUES ({number:UInt16}, {name:String})",
            parameters={"number": migration.number, "name": migration.name},
        )
        yield f"{migration.number:04} {migration.name}"


def _stand_for_shards(client: "Client", to: Topology) -> None:
    """Make the Distributed tables that aren't there or lack a column."""
    for table in (*SHARDED_BY, *VIEWS_OF_SHARDS):
        columns = [
            client.query(_COLUMNS, parameters={"database": database, "table": table}).result_rows
            for database in (DATABASE, SHARD)
        ]
        if columns[0] != columns[1]:
            client.command(distributed(table, to))


def _set_retention(client: "Client", days: int, to: Topology) -> None:
    """Delete calls that started, outcomes that came and probes' requests of runs that started longer ago; 0 keeps them."""
    database = "currentDatabase()" if to.kind is Kind.EMBEDDED else f"'{to.rows}'"
    for table, column in (("ledger", "started_at"), ("reported_outcomes", "at"), ("probe_requests", "started_at")):
        question = f"SELECT create_table_query FROM system.tables WHERE database = {database} AND name = {{table:String}}"  # noqa: S608
        present = str(client.query(question, parameters={"table": table}).result_rows[0][0])
        wanted = f"TTL toDateTime({column}) + toIntervalDay({days})" if days else ""
        if wanted and wanted not in present:
            client.command(placed(f"ALTER TABLE {table} MODIFY {wanted} SETTINGS materialize_ttl_after_modify = 0", to))
        elif not wanted and f"TTL toDateTime({column})" in present:
            client.command(placed(f"ALTER TABLE {table} REMOVE TTL", to))
