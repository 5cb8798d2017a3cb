"""A ledger from one store into another: in pieces, each of which stands there as a whole or not at all, compared to the last decimal.

What stands at the target says what is left to do: nothing is remembered beside it that could be wrong after a kill. A row is entered where it doesn't
stand yet, as often as it is there; what the target holds besides is kept.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, cast

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.errors import StoreUnavailable
from tallystick.ingest.pieces import Piece, Table
from tallystick.ingest.store import error_name, read_sql, scalar
from tallystick.schema.dialects import quote

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from tallystick.ingest.turns import Turns

LEDGER: Final = "ledger"

TOKENS: Final = (
    "input", "cache_read", "cache_write_5m", "cache_write_1h", "output", "reasoning", "audio_input", "audio_output", "image_input",
)  # fmt: skip
"""Buckets, in the order of Totals.tokens."""

_CHUNK: Final = 1 << 20
"""Bytes that are read from one engine and sent to the other at once."""

_WHOLE: Final = {
    # A piece is one part, which stands there or doesn't.
    "min_insert_block_size_rows": 10_000_000,
    "min_insert_block_size_bytes": 0,
    "max_insert_threads": 1,
    "parallel_distributed_insert_select": 0,
}

_SOURCE: Final = "the directory can't be read"
_RESTORE: Final = "what was moved stays; if it says so again, restore the directory from a backup"
_TARGET: Final = "the target fails"
_AGAIN: Final = "what was moved stays; run the same command again, and it goes on"

_COUNT: Final = "SELECT count() FROM {{source}} WHERE {{condition}}"

_SIGNED: Final = ("calls", "cost_usd", "reported_cost_usd")
"""Columns that a void has with the opposite sign, beside tokens."""

_TAKEN_BACK: Final = "told of in the ledger that was moved here, too"


class Entered(NamedTuple):
    """What became of a piece. rows: that didn't stand there; told_twice: calls in it that the target had been told of by itself."""

    rows: int = 0
    told_twice: int = 0


class Totals(NamedTuple):
    """Of a month (YYYYMM) and tenant of the ledger, or of another table as a whole ('', ''). hash: of every value of every row, in no order.

    tokens: by TOKENS. Unknown, and what another table doesn't have, is None.
    """

    entries: int = 0
    calls: int | None = None
    tokens: tuple[int | None, ...] = (None,) * len(TOKENS)
    cost_usd: Decimal | None = None
    hash: str = ""


class Compared(NamedTuple):
    """Totals of both sides. missing: entries of the source that don't stand at the target."""

    table: str
    month: str
    tenant: str
    source: Totals
    target: Totals
    missing: int

    @property
    def more(self) -> int:
        """Entries that only the target has."""
        return self.target.entries - self.source.entries + self.missing


class Mover:
    """Moves pieces over two connections, from one thread.

    Its methods raise StoreUnavailable, which says of which side; what was entered until then isn't doubled by a repetition.
    """

    def __init__(self, source: "Client", target: "Client", turns: "Turns") -> None:
        self._source, self._target, self._turns = source, target, turns

    def move(self, piece: Piece) -> Entered:
        """Enter what doesn't stand there yet."""
        with self._failing(_TARGET):
            if self._stands(piece):
                return Entered()
            self._stage(piece)
            with self._turns.take() as turn:
                return self._enter(piece, turn)

    def missing(self, piece: Piece) -> dict[str, int]:
        """How many rows of it don't stand at the target, by tenant; of tables other than the ledger under ''."""
        with self._failing(_TARGET):
            self._stage(piece)
            fresh = self._fresh(piece)
            tenant = "tenant" if piece.table.name == LEDGER else "''"
            rows: Any = self._target.query(f"SELECT {tenant} AS _of, count() FROM {fresh} GROUP BY _of").result_rows  # noqa: S608
            return dict(rows)

    def compare(self, table: Table, pieces: Iterable[Piece]) -> list[Compared]:
        """Totals of both sides, by month and tenant of the ledger; where they differ, each row of the pieces there is looked for."""
        with self._failing(_TARGET):
            there = _totals(self._target, table)
        with self._failing(_SOURCE):
            here = _totals(self._source, table)
        differing = {month for (month, tenant), totals in here.items() if there.get((month, tenant)) != totals}
        missing: dict[tuple[str, str], int] = {}
        for piece in pieces:
            # A piece of the ledger lies in one month: that is its partition.
            month = piece.partition.strip("()") if table.name == LEDGER else ""
            if month in differing:
                for tenant, rows in self.missing(piece).items():
                    missing[month, tenant] = missing.get((month, tenant), 0) + rows
        return [
            Compared(table.name, *place, here.get(place, Totals()), there.get(place, Totals()), missing.get(place, 0))
            for place in sorted(here.keys() | there.keys())
        ]

    def _stands(self, piece: Piece) -> bool:
        """Whether exactly these rows stand there."""
        count = _filled(_COUNT, piece)
        standing = scalar(self._target, count)
        if not standing or self._read(count) != [(standing,)]:
            return False
        digest = _filled(read_sql("move_digest"), piece)
        return self._read(digest) == list(self._target.query(digest).result_rows)

    def _stage(self, piece: Piece) -> None:
        """The piece into a table of the target's session."""
        columns = ", ".join(f"`{name}` {type_}" for name, type_ in piece.table.columns.items())
        # A session that was lost has lost its tables.
        self._target.command(f"CREATE OR REPLACE TEMPORARY TABLE moving ({columns}) ENGINE = Memory")
        stream = self._stream(_filled("SELECT {{columns}} FROM {{source}} WHERE {{condition}}", piece))
        self._target.raw_insert("moving", list(piece.table.columns), stream, fmt="Native")

    def _stream(self, query: str) -> Generator[bytes, None, None]:
        with self._failing(_SOURCE), cast(IO[bytes], self._source.raw_stream(query, fmt="Native")) as stream:
            while chunk := stream.read(_CHUNK):
                yield chunk

    def _fresh(self, piece: Piece) -> str:
        """The table of the target's session that holds what of the piece doesn't stand there yet."""
        measure = f"max({piece.table.version})" if piece.table.version else "count()"
        self._make("standing", piece, measure=measure)
        if not scalar(self._target, "SELECT count() FROM standing"):
            return "moving"
        newer = f"m.{piece.table.version} > s._standing" if piece.table.version else "m._copy > s._standing"
        self._make("fresh", piece, newer=newer, named=", ".join(f"m.`{name}` AS `{name}`" for name in piece.table.columns))
        return "fresh"

    def _enter(self, piece: Piece, turn: str) -> Entered:
        fresh, told_twice, more = self._fresh(piece), 0, ""
        rows = scalar(self._target, f"SELECT count() FROM {fresh}")  # noqa: S608
        if rows and fresh != "moving" and piece.table.name == LEDGER:
            self._make("told_twice", piece)
            told_twice = scalar(self._target, "SELECT count() FROM told_twice")
        if told_twice:
            opposites = ", ".join(map(_opposite, piece.table.columns))
            more = _filled(read_sql("move_enter_twice"), piece, opposites=opposites, turn=turn)
        if rows:
            listed = piece.table.listed
            into = f"INSERT INTO {piece.table.name} ({listed}) SELECT {listed} FROM {fresh} WHERE {turn}"  # noqa: S608
            self._target.command(f"{into}\n{more}", settings=_WHOLE)
        return Entered(rows, told_twice)

    def _make(self, name: str, piece: Piece, **parts: str) -> None:
        """A table of the target's session."""
        self._target.command(f"DROP TEMPORARY TABLE IF EXISTS {name}")
        self._target.command(_filled(read_sql(f"move_{name}"), piece, **parts))

    def _read(self, query: str) -> list[Any]:
        with self._failing(_SOURCE):
            return list(self._source.query(query).result_rows)

    @contextmanager
    def _failing(self, side: str) -> Iterator[None]:
        try:
            yield
        except ClickHouseError as error:
            raise StoreUnavailable(f"{side}: {error_name(error)}", _AGAIN if side == _TARGET else _RESTORE) from error


def _totals(client: "Client", table: Table) -> dict[tuple[str, str], Totals]:
    """By month and tenant."""
    piece = Piece(table, table.kept, 0)
    if table.name != LEDGER:
        ((entries, *hashes),) = client.query(_filled(read_sql("move_digest"), piece)).result_rows
        return {("", ""): Totals(entries, hash=_hex(hashes))}
    rows = client.query(_filled(read_sql("move_totals"), piece)).result_rows
    return {
        (month, tenant): Totals(entries, calls, tuple(tokens), cost_usd, _hex((city, xxh)))
        for month, tenant, entries, calls, *tokens, cost_usd, city, xxh in rows
    }


def added(hashes: Iterable[str]) -> str:
    """The hash of the rows of several Totals together."""
    pairs = [(int(text[:16], 16), int(text[16:], 16)) for text in hashes]
    return _hex(sum(part) % 2**64 for part in zip(*pairs, strict=True)) if pairs else ""


def _hex(hashes: Iterable[int]) -> str:
    return "".join(f"{value:016x}" for value in hashes)


def _opposite(column: str) -> str:
    """Of an entry's column, what takes the entry back."""
    if column == "entry":
        return "CAST('void', toTypeName(entry))"
    if column == "reason":
        return quote(_TAKEN_BACK)
    return f"-{column}" if column in _SIGNED or column.endswith("_tokens") else f"`{column}`"


def _filled(sql: str, piece: Piece, **more: str) -> str:
    table = piece.table
    parts = {"columns": table.listed, "row": table.row, "source": table.source, "condition": piece.condition, **more}
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], sql)
