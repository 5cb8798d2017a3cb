"""A run of corrections under way: its entries are made beside the ledger and enter it together. What a run is: corrections.py."""

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol, Self

from tallystick.attribution.sql_files import fill, insert_json, scalar
from tallystick.schema.dialects import quote

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Kind = Literal["reprice", "void", "allocation", "trueup", "undo"]

BESIDE: Final = "correction_"
"""What tables of runs under way are called, before the run's id."""

_MOST_CORRECTED: Final = 500_000
"""Corrections that a run looks at together: what it takes of memory doesn't grow with the ledger."""

_LONGEST_NOTE: Final = 16 << 20
"""Bytes: an allocation's rule may name thousands of bearers."""

_LIMITS: Final = "SETTINGS max_memory_usage = 2000000000"


class Ledger(Protocol):
    """Where the ledger is kept, as far as corrections need it."""

    @property
    def alone(self) -> bool:
        """Whether no other process can be at it."""
        ...

    def client(self) -> "Client":
        """This thread's connection, that may write."""
        ...

    def delete(self, condition: str, /) -> None:
        """Take entries away, wherever they stand. condition: SQL over the ledger's columns. Raises ClickHouseError."""
        ...


class Turns(Protocol):
    """One at a time, over all processes, looks at what the ledger has and enters something accordingly (ingest/turns.py)."""

    def take(self) -> AbstractContextManager[str]:
        """Waits for its turn. Yields SQL that is true for as long as the turn is ours: what is entered carries it in its WHERE.

        Raises StoreUnavailable, at the end of the block where the turn was lost meanwhile.
        """
        ...


@dataclass(frozen=True)
class Made:
    """A run. key: what it was for, '' if that may be done again; book: the price book's id, '' if none.

    undone_by, undoes: ids of other runs, or ''. detail: what was asked for, as JSON has it.
    """

    id: str
    kind: str
    key: str
    at: datetime
    author: str
    reason: str
    book: str
    entries: int
    cost_usd: Decimal
    undone_by: str
    undoes: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)


class Busy(RuntimeError):
    """Another run is under way, or was made while this one was worked out: do it again."""


class Piece(NamedTuple):
    """A part of a period, [since_ns, until_ns), and how many corrections are in it."""

    since_ns: int
    until_ns: int
    corrections: int


class Run:
    """A run under way: what is put in here is entered as a whole by `enter`.

    row: of table `corrections`, without state, entries and cost_usd. known: how many runs there were when it began.
    """

    def __init__(self, ledger: Ledger, turns: Turns, row: Mapping[str, Any], known: int) -> None:
        """Makes its table, `beside`. Raises ClickHouseError."""
        self.client, self.id = ledger.client(), str(row["id"])
        self.beside = f"{BESIDE}{self.id}"
        self._alone, self._turns, self._row, self._known = ledger.alone, turns, row, known
        self._stamp = {
            "beside": self.beside, "id": quote(self.id), "reason": quote(row["reason"]), "at": f"toDateTime64({quote(row['at'])}, 3, 'UTC')",
        }  # fmt: skip
        # The engine's own clock, by which the writer's voids are dated; an hour of slack, should it be set.
        self._began = str(scalar(self.client, "SELECT toUnixTimestamp64Milli(now64(3)) - 3600000"))
        # Parts can be attached only from a table that is all alike. A Distributed one has no parts, and lends its columns alone.
        engine = "" if self._alone else " ENGINE = MergeTree PARTITION BY toYYYYMM(started_at) ORDER BY (tenant, started_at)"
        self.client.command(f"CREATE TABLE {self.beside} AS ledger{engine}")

    def insert(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Entries by column; what isn't named is empty or NULL."""
        stamp = {"correction": self.id, "reason": self._row["reason"], "entered_at": self._row["at"]}
        insert_json(self.client, self.beside, ({**row, **stamp} for row in rows))

    def add(self, name: str, /, **parts: str) -> None:
        """Add entries by a statement of attribution/queries, whose {{beside}}, {{id}}, {{reason}} and {{at}} are the run's."""
        self.client.command(f"{fill(name, **self._stamp, **parts)}\n{_LIMITS}")

    def opposites(self, entries: str, entry: str = "entry") -> None:
        """The rows that `entries` selects, whole rows of the ledger, with opposite signs; `entry` is SQL."""
        self.add("enter_opposites", entry=entry, entries=entries)

    def pieces(self, condition: str, since_ns: int = 0, until_ns: int = 2**63 - 1) -> "list[Piece]":
        """The period in parts, in each of which there are few enough corrections with this condition to look at them together."""
        hours = self.client.query(fill("corrected_hours", condition=condition)).result_rows
        return _pieces(hours, since_ns, until_ns)

    def enter(self) -> Made | None:
        """Enter all of it, or, where it is nothing, make no run of it: None. What the writer voided meanwhile is left out. Raises Busy."""
        with self._turns.take() as ours:
            if number_of_runs(self.client) != self._known:
                # What is a difference to what the ledger held would be entered twice.
                raise Busy("another correction was made meanwhile")
            # The writer took back what stood in the ledger, not what stands here.
            self.opposites(fill("voided_meanwhile", beside=self.beside, began=self._began))
            entries, cost = self.client.query(f"SELECT count(), sum(cost_usd) FROM {self.beside}").result_rows[0]  # noqa: S608
            if not entries:
                return None
            self._note("entering", entries, cost or Decimal(0), ours)
            if self._alone:
                self.client.command(f"ALTER TABLE ledger ATTACH PARTITION ALL FROM {self.beside}")
            else:
                self.client.command(fill("enter_beside", beside=self.beside, ours=ours))
            self._note("made", entries, cost or Decimal(0), ours)
        row = self._row
        at = datetime.fromisoformat(row["at"]).replace(tzinfo=UTC)
        return Made(
            self.id, row["kind"], row["key"], at, row["author"], row["reason"], row["book"], entries, cost or Decimal(0), "", row["undoes"],
            json.loads(row["detail"]),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Take away what was made beside the ledger; what can't be now is taken away by a later run."""
        with contextlib.suppress(Exception):
            drop_beside(self.client, f"startsWith(name, {quote(self.beside)})")

    def _note(self, state: Literal["entering", "made"], entries: int, cost: Decimal, ours: str) -> None:
        note(self.client, self._row, state, entries, cost, ours=ours)


def note(client: "Client", row: Mapping[str, Any], state: str, entries: int, cost: Decimal, *, ours: str) -> None:
    """Write how a run stands. row: texts of table `corrections`. ours: what `Turns.take` yields. Raises ClickHouseError."""
    texts = {name: quote(row[name]) for name in ("id", "kind", "key", "at", "author", "reason", "book", "detail", "undoes")}
    client.command(
        fill("note_run", state=quote(state), entries=str(entries), cost=f"{cost:f}", ours=ours, **texts),
        settings={"max_query_size": _LONGEST_NOTE},
    )


def number_of_runs(client: "Client") -> int:
    """That were ever begun to be entered."""
    return int(scalar(client, "SELECT count() FROM corrections FINAL"))


def drop_beside(client: "Client", condition: str) -> None:
    """Drop tables of runs. condition: SQL over system.tables. Raises ClickHouseError."""
    for (name,) in client.query(fill("tables_beside", beside=quote(BESIDE), condition=condition)).result_rows:
        client.command(f"DROP TABLE IF EXISTS {name} SYNC")


def _pieces(hours: Iterable[Sequence[Any]], since_ns: int, until_ns: int) -> list[Piece]:
    """hours: (seconds since 1970 at which it begins, corrections), in order."""
    pieces, together = [], 0
    for hour, count in hours:
        begin_ns = hour * 1_000_000_000
        if together and together + count > _MOST_CORRECTED and begin_ns > since_ns:
            pieces.append(Piece(since_ns, begin_ns, together))
            since_ns, together = begin_ns, 0
        together += count
    return [*pieces, Piece(since_ns, until_ns, together)]
