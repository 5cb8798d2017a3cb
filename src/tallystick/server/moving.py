"""`tallystick migrate --to`: a directory's ledger into a server's, and what came of it."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final, NamedTuple

from tallystick.attribution.sql_files import insert_json
from tallystick.ingest.cluster import DATABASE
from tallystick.ingest.errors import StoreError
from tallystick.ingest.migrate import migrate
from tallystick.ingest.move import LEDGER, Compared, Mover, added
from tallystick.ingest.pieces import Piece, Table, pieces, tables
from tallystick.ingest.store import EmbeddedStore, Store, read_sql, scalar
from tallystick.ingest.turns import LocalTurns
from tallystick.server.corrections import open_corrections
from tallystick.server.stores import open_ledger
from tallystick.settings import Settings

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


_TELL_EVERY_S: Final = 2


class Progress(NamedTuple):
    """Rows that were looked at, of how many, in how many seconds."""

    rows: int
    of: int
    seconds: float

    def __str__(self) -> str:
        rate = self.rows / max(self.seconds, 0.001)
        left = (self.of - self.rows) / max(rate, 1)
        return f"{self.rows:,} of {self.of:,} rows, {rate:,.0f} a second, {left:,.0f} s left"


@dataclass(frozen=True)
class Plan:
    """What a directory holds, cut in pieces. left: entries that are as good as deleted for their age, and stay. damaged: parts that can't be read."""

    pieces: Mapping[Table, Sequence[Piece]]
    left: int
    damaged: tuple[str, ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for cut in self.pieces.values() for piece in cut)


@dataclass
class Entered:
    """What became of a plan. rows: that didn't stand at the target; told_twice: calls that it had been told of by a sender, too."""

    rows: int = 0
    told_twice: int = 0


def plan(source: "Client", target: "Client | None", now: datetime) -> Plan:
    """Raises ClickHouseError. target: whose limits of age count, too."""
    found = tables(source, target, now)
    ledger = next(table for table in found if table.name == LEDGER)
    # What entries speak of stands before they do: prices, and runs of corrections.
    found.sort(key=lambda table: table.name == LEDGER)
    return Plan(
        {table: list(pieces(source, table)) for table in found},
        scalar(source, f"SELECT count() FROM {LEDGER} WHERE NOT ({ledger.kept})"),  # noqa: S608
        tuple(f"{table} {part} ({reason})" for table, part, reason in source.query(read_sql("move_damaged")).result_rows),
    )


class Record(NamedTuple):
    """Of a move, as the target keeps it. state: `moving` until everything of `source` (HOST:DIRECTORY) was found at the target, then `moved`.

    rows: of all tables; entries, calls, cost_usd and hash: of the ledger.
    """

    source: str
    began_at: datetime
    at: datetime
    state: str
    rows: int
    entries: int = 0
    calls: int = 0
    cost_usd: Decimal | None = None
    hash: str = ""


def records(target: Store) -> list[Record]:
    """What was moved there, the latest first."""
    return [Record(*row) for row in target.client().query(read_sql("move_records")).result_rows]


def record(target: Store, of: Record, compared: Iterable[Compared] = ()) -> None:
    """Keep it at the target. compared: what was found there, all of the directory."""
    ledger = [one.source for one in compared if one.table == LEDGER]
    costs = [totals.cost_usd for totals in ledger if totals.cost_usd is not None]
    told = of._replace(
        entries=sum(totals.entries for totals in ledger),
        calls=sum(totals.calls or 0 for totals in ledger),
        cost_usd=sum(costs, Decimal(0)) if costs else None,
        hash=added(totals.hash for totals in ledger),
    )
    moments = {name: f"{getattr(told, name):%Y-%m-%d %H:%M:%S.%f}"[:-3] for name in ("began_at", "at")}
    insert_json(target.client(), "moves", [told._asdict() | moments])


def standing(target: Store) -> int:
    """Entries of its ledger."""
    return int(scalar(target.client(), f"SELECT count() FROM {LEDGER}"))  # noqa: S608


def enter(mover: Mover, planned: Plan, tell: Callable[[Progress], None]) -> Entered:
    """Move what isn't there yet. Raises StoreUnavailable: what was entered until then stands, and a repetition goes on from there."""
    entered = Entered()
    for piece in _told(planned, tell):
        came = mover.move(piece)
        entered.rows += came.rows
        entered.told_twice += came.told_twice
    return entered


def compare(mover: Mover, planned: Plan) -> list[Compared]:
    """All of both sides. Raises StoreUnavailable."""
    return [one for table, cut in planned.pieces.items() for one in mover.compare(table, cut)]


def _told(planned: Plan, tell: Callable[[Progress], None]) -> Iterator[Piece]:
    began = last = time.monotonic()
    rows = 0
    for piece in (piece for cut in planned.pieces.values() for piece in cut):
        yield piece
        rows += piece.rows
        now = time.monotonic()
        if now - last >= _TELL_EVERY_S:
            tell(Progress(rows, planned.rows, now - began))
            last = now


class NoLedger(StoreError):
    """There is none in the directory."""


@contextmanager
def both(settings: Settings, to: Settings, *, prepare: bool) -> Iterator[tuple[Store, Store]]:
    """A directory's ledger and the server's that it is moved to, open. Raises StoreError, NoLedger, ClickHouseError.

    prepare: bring both to the present schema, and take away what a killed run of corrections left of it in the directory.
    """
    if not (settings.data / "engine").is_dir():
        raise NoLedger(f"there is no ledger in {settings.data}", "name its directory with --data")
    with ExitStack() as stack:
        source = EmbeddedStore(settings.data)
        stack.callback(source.close)
        target = open_ledger(to)
        stack.callback(target.close)
        if prepare:
            migrate(source, None)
            open_corrections(source, LocalTurns())
            # How long a ledger that is in use keeps its calls was decided there.
            used = scalar(target.each_host("system")[0], f"EXISTS TABLE {DATABASE}.{LEDGER}")
            migrate(target, None if used else settings.retention_days)
        yield source, target
