"""Where the ledger stands, and what its migrations' plain SQL becomes there."""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

DATABASE: Final = "tallystick"
"""What is asked and written. Not `default`: there the embedded engine takes any table's name for a file's."""

SHARD: Final = "tallystick_shard"
"""On every shard, the tables that hold its rows; in `DATABASE` there stand Distributed ones of the same names."""

_FIRST: Final = "0"
"""A sharding key: all rows stand on the first shard."""

SHARDED_BY: Final[Mapping[str, str]] = {
    # A trace's spans, and so a call and its repetitions, stand on one shard.
    "ledger": "cityHash64(tenant, trace_id)",
    # What replaces an outcome stands where it does: FINAL is each shard's own.
    "reported_outcomes": "cityHash64(tenant, id)",
    # The same of what is told again of a payload.
    "flows": "cityHash64(source, partition, receiver, collector)",
    "prices": _FIRST,
    "corrections": _FIRST,
    "moves": _FIRST,
    # Few rows, which are asked for together.
    "probe_runs": _FIRST,
    "probe_results": _FIRST,
    "probe_requests": _FIRST,
    "measured_prices": _FIRST,
}
"""Tables of a cluster that are Distributed, and by what."""

VIEWS_OF_SHARDS: Final = ("charges", "outcomes")
"""Views of each shard's own rows, with Distributed tables over them: a question is summed up where its rows stand. A view over Distributed tables has
all rows that it asks for sent first."""

OF_ONE_HOST: Final = frozenset({"migrations", "turns", "instrumentations"})
"""Tables that each host has for itself: what it was brought to; and what writers tell each other, of which only the host that all write through is asked."""


class Kind(StrEnum):
    """What answers."""

    EMBEDDED = "embedded"
    SERVER = "server"
    CLUSTER = "cluster"


class Topology(NamedTuple):
    """hosts: `HOST:PORT` of each shard, the first of which all is asked and written through; () embedded. cluster: its name in the servers' remote_servers.

    replicated: tables are Replicated ones, made ON CLUSTER through the first host.
    """

    kind: Kind
    hosts: tuple[str, ...] = ()
    cluster: str = ""
    replicated: bool = False

    @property
    def rows(self) -> str:
        """The database whose tables hold the rows."""
        return SHARD if self.kind is Kind.CLUSTER else DATABASE

    @property
    def databases(self) -> tuple[str, ...]:
        return (DATABASE, SHARD) if self.kind is Kind.CLUSTER else (DATABASE,)

    def database(self, table: str) -> str:
        """Where a migration's table stands."""
        return DATABASE if table in OF_ONE_HOST else self.rows

    @property
    def settings(self) -> dict[str, str | int]:
        """Settings of each request, whoever makes it."""
        if self.kind is Kind.EMBEDDED:
            return {}
        found: dict[str, str | int] = {"session_timezone": "UTC"}
        if self.kind is Kind.CLUSTER:
            # An insert has arrived on its shards when it is acknowledged; what a statement looks up is looked up on all of them; and
            # one that is away is an error, not an answer without its rows.
            found |= {
                "distributed_foreground_insert": 1,
                "distributed_product_mode": "global",
                "prefer_global_in_and_join": 1,
                "skip_unavailable_shards": 0,
            }
        if self.replicated:
            # Whoever looks for what was acknowledged finds it. Sequential consistency knows no parallel quorums.
            found |= {"insert_quorum": "auto", "insert_quorum_parallel": 0, "select_sequential_consistency": 1}
        return found


EMBEDDED: Final = Topology(Kind.EMBEDDED)

_HEAD: Final = re.compile(r"(CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW|ALTER TABLE) (\w+)(?=[\s(])")
_ENGINE: Final = re.compile(r"\bENGINE = (\w*MergeTree)(?:\(([^)]*)\))?")


def placed(statement: str, to: Topology) -> str:
    """A statement of a migration, or one that makes a view, for where the ledger stands. Raises ValueError for one of another kind."""
    if to.kind is Kind.EMBEDDED:
        return statement
    head = _HEAD.match(statement)
    if head is None:
        raise ValueError(f"no migration for a server: {statement[:80]!r}")
    verb, name = head.groups()
    database = DATABASE if verb.endswith("VIEW") and name not in VIEWS_OF_SHARDS else to.database(name)
    rest = statement[head.end() :]
    if to.replicated and verb.startswith("CREATE TABLE"):
        rest = _ENGINE.sub(lambda engine: _replicated(database, name, engine), rest)
    return f"{verb} {database}.{name}{on_cluster(to)}{rest}"


def on_cluster(to: Topology) -> str:
    """What stands behind the name in a statement that is to be done on every host: '' where each is told by itself."""
    return f" ON CLUSTER '{to.cluster}'" if to.replicated else ""


def distributed(table: str, to: Topology) -> str:
    """The statement that makes, or makes anew, the table of `DATABASE` that stands for those of all shards. It holds nothing by itself."""
    key = f", {SHARDED_BY[table]}" if table in SHARDED_BY else ""
    return (
        f"CREATE OR REPLACE TABLE {DATABASE}.{table}{on_cluster(to)} AS {SHARD}.{table} "
        f"ENGINE = Distributed('{to.cluster}', '{SHARD}', '{table}'{key})"
    )


def _replicated(database: str, table: str, engine: re.Match[str]) -> str:
    place = f"'/clickhouse/tables/{{shard}}/{database}/{table}', '{{replica}}'"
    return f"ENGINE = Replicated{engine[1]}({', '.join(filter(None, (place, engine[2])))})"
