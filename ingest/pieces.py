"""What a ledger is moved in: its tables, read from the schema so that none is forgotten, and pieces of them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tallystick.ingest.store import read_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

PIECE_ROWS: Final = 250_000
"""Rows on their way at once: 75 MB of the target's memory, and as much again while they are entered."""

_ENGINE: Final = re.compile(r"(?:Replicated)?(Replacing)?MergeTree(?:\((?:'[^']*', '[^']*'(?:, )?)?(\w*)\))? ")
_EXPIRY: Final = re.compile(r"TTL toDateTime\((\w+)\) \+ toIntervalDay\((\d+)\)")


_COMMAS: Final = re.compile(r", (?![^()]*\))")
"""Between expressions, not within one."""

_OF_A_TIME: Final = re.compile(r"toStartOf\w+\((\w+)\)")
"""Rows that lie in order by the minute are cut between instants: a minute of full load has millions of them."""


@dataclass(frozen=True, eq=False)
class Table:
    """A table that is moved. columns: name → type. key: SQL of what rows are cut by, in the order in which they lie.

    replacing: of rows with one key the last counts, by column `version` or, where that is '', the one that was entered last.
    partition: SQL. kept: SQL, what isn't about to be deleted for its age.
    """

    name: str
    columns: Mapping[str, str]
    key: tuple[str, ...]
    partition: str
    replacing: bool
    version: str
    kept: str

    @property
    def source(self) -> str:
        """As it stands in FROM."""
        return f"{self.name} FINAL" if self.replacing else self.name

    @property
    def listed(self) -> str:
        """All columns, for SQL."""
        return ", ".join(f"`{name}`" for name in self.columns)

    @property
    def row(self) -> str:
        """SQL of what tells a row from all others: all of it, or what it is the last version of."""
        of = ", ".join(self.key) if self.version else self.listed
        return f"(cityHash64(tuple({of})), xxh3(tuple({of})))"


class Piece(NamedTuple):
    """Rows of a table that are moved together: about so many, those with this condition. partition: of all of them, as in SQL."""

    table: Table
    condition: str
    rows: int
    partition: str = ""


def tables(source: "Client", target: "Client | None", now: datetime) -> list[Table]:
    """What is moved. Raises ValueError for a table of which it isn't known how.

    What either side is about to delete for its age, within a day of `now`, isn't.
    """
    theirs = {row.name: row.create for row in _standing(target)} if target else {}
    found = []
    for row in _standing(source):
        made = _ENGINE.match(f"{row.engine} ")
        columns: Any = source.query(
            "SELECT name, type FROM system.columns WHERE database = currentDatabase() AND table = {table:String} ORDER BY position",
            parameters={"table": row.name},
        ).result_rows
        if made is None:
            raise ValueError(f"table {row.name} is moved in no known way: {row.engine}")
        key = tuple(_COMMAS.split(row.key))
        # Of a replacing table rows of one key are one row, whatever their times.
        if not made[1]:
            key = tuple(_OF_A_TIME.sub(r"\1", part) for part in key)
        kept = _kept((row.create, theirs.get(row.name, "")), now)
        found.append(Table(row.name, dict(columns), key, row.partition or "1", bool(made[1]), made[2] or "", kept))
    return found


def pieces(client: "Client", table: Table, rows: int = PIECE_ROWS) -> Iterator[Piece]:
    """A table cut in pieces of about so many rows, in the order in which they lie; none is in two partitions, and rows of one key stay together."""
    for literal, count in client.query(_filled("move_partitions", table, table.kept)).result_rows:
        within = f"{table.kept} AND {table.partition} = {literal}"
        # Up to half as much again is one piece.
        bounds = _boundaries(client, table, within, rows) if count > rows * 3 // 2 else []
        for after, upto in zip([None, *bounds], [*bounds, None], strict=True):
            ends = [comparison(table.key, end, operator) for end, operator in ((after, ">"), (upto, "<=")) if end is not None]
            yield Piece(table, " AND ".join([within, *ends]), rows if upto else count - rows * len(bounds), literal)


def comparison(key: Sequence[str], values: Sequence[str], operator: str) -> str:
    """`key > values` or `key <= values` in the order of rows, written out: of tuples the engine's index knows nothing. values: SQL."""
    (name, *names), (value, *rest) = key, values
    if not names:
        return f"{name} {operator} {value}"
    return f"({name} {operator[0]} {value} OR {name} = {value} AND {comparison(names, rest, operator)})"


class _Standing(NamedTuple):
    name: str
    engine: str
    partition: str
    key: str
    create: str


def _standing(client: "Client") -> list[_Standing]:
    return [_Standing(*row) for row in client.query(read_sql("move_tables")).result_rows]


def _kept(creates: Sequence[str], now: datetime) -> str:
    expiries = [found for create in creates if (found := _EXPIRY.search(create))]
    if not expiries:
        return "1"
    floor = now - timedelta(days=min(int(found[2]) for found in expiries) - 1)
    return f"{expiries[0][1]} >= toDateTime64('{floor:%Y-%m-%d} 00:00:00', 9, 'UTC')"


def _boundaries(client: "Client", table: Table, condition: str, rows: int) -> list[tuple[str, ...]]:
    literals = ", ".join(f"formatRowNoNewline('Values', _{at})" for at, _ in enumerate(table.key))
    named = ", ".join(f"{of} AS _{at}" for at, of in enumerate(table.key))
    key = ", ".join(f"_{at}" for at, _ in enumerate(table.key))
    sql = _filled("move_boundaries", table, condition, literals=literals, named=named, key=key, rows=str(rows))
    return [tuple(row) for row in client.query(sql).result_rows]


def _filled(name: str, table: Table, condition: str, **more: str) -> str:
    parts = {"source": table.source, "partition": table.partition, "condition": condition, **more}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], read_sql(name))
