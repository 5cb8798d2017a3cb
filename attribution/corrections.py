"""Runs of corrections: entries that are appended to the ledger together, or not at all. What they are: docs/corrections.md.

A run's entries are made in a table beside the ledger, work.corrected, and attached from there in one step, all months at once. What
a process that is killed in that step leaves of them is taken away at the next start (`Corrections.recover`).
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.attribution.priced_calls import period
from tallystick.attribution.sql_files import fill, insert_json, scalar
from tallystick.schema.dialects import quote

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

Kind = Literal["reprice", "void", "allocation", "trueup", "undo"]

WHO: Final = ("customer", "feature", "agent", "team", "user", "session", "service", "environment")
WHAT: Final = ("provider", "request_model", "response_model", "operation", "service_tier")


_LARGEST: Final = Decimal(999_999)
"""USD of one entry: the ledger's cost has six digits before the point."""

_DECIMALS: Final = Decimal("1e-12")
_MOST_CORRECTED: Final = 500_000
"""Corrections that a run looks at together: what it takes of memory doesn't grow with the ledger."""

_LIMITS: Final = "SETTINGS max_memory_usage = 2000000000"


@dataclass(frozen=True)
class Line:
    """An entry of an allocation or trueup. started_at: aware, the day or hour it belongs to; cost_usd: at most 12 decimals.

    who: any of WHO; what: any of WHAT. Others raise ValueError when the line is appended. An amount that is too large for one
    entry becomes several.
    """

    started_at: datetime
    cost_usd: Decimal
    tenant: str
    who: Mapping[str, str]
    what: Mapping[str, str]
    tags: Mapping[str, str]


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


class AlreadyMade(ValueError):
    """`made`, with the same key, stands and isn't undone."""

    def __init__(self, made: Made) -> None:
        super().__init__(f"{made.key!r} was made already: {_said(made)}, by {made.author or 'nobody named'}")
        self.made = made


class Busy(RuntimeError):
    """Another run is under way; it ends by itself."""

    def __init__(self) -> None:
        super().__init__("another correction is under way")


class NotUndoable(ValueError):
    """The run can't be undone as things stand; the message says why."""


class NotMade(RuntimeError):
    """The engine failed, its disk is full say. Nothing was entered, unless the list of runs says otherwise."""


class Corrections:
    """Makes runs, one at a time, through one connection. Threads may share it; it is the only one of its data directory.

    clock: aware UTC. voiding: a lock that the ledger's writer holds while it voids calls; the last, short step of a run holds it.
    """

    def __init__(
        self, client: "Client", clock: Callable[[], datetime], voiding: AbstractContextManager[object] | None = None
    ) -> None:
        self._client, self._clock = client, clock
        self._voiding = threading.Lock() if voiding is None else voiding
        self._running = threading.Lock()

    def append(
        self,
        kind: Literal["allocation", "trueup"],
        lines: Iterable[Line],
        *,
        key: str,
        reason: str,
        author: str,
        detail: Mapping[str, object],
    ) -> Made:
        """Enter lines, all or none. key names what they are for (`overhead 2026-10`).

        Raises AlreadyMade, Busy, NotMade, and ValueError where a line can't be entered or there is none.
        """
        rows = [row for line in lines for row in _rows(line)]
        if not rows:
            raise ValueError(f"there is nothing to enter as {kind}")
        with self.run(kind, key=key, reason=reason, author=author, detail=detail) as run:
            run.insert({"entry": kind, **row} for row in rows)
            made = run.enter()
        assert made is not None
        return made

    def undo(self, id: str, *, reason: str, author: str) -> Made:
        """Append the entries of a run again with opposite signs; where one of its calls was voided since, nothing is left to undo.

        Raises KeyError where there is no such run, AlreadyMade (`made` is what undid it) if it is undone, NotUndoable, Busy, NotMade.
        """
        made = self.made(id)
        if made is None:
            raise KeyError(id)
        if made.kind == "undo":
            raise NotUndoable("an undo isn't undone: make the correction anew")
        with self.run("undo", key=f"undo {id}", reason=reason, author=author, undoes=id) as run:
            later = self._later(made)
            for piece in run.pieces(f"correction = {quote(id)}"):
                place = {
                    "id": quote(id),
                    "period": period(piece.since_ns, piece.until_ns),
                    "calls": str(int(made.kind == "reprice")),
                }
                # A difference is one to what was held before: of several runs over a call the last is undone first.
                overtaken = scalar(self._client, fill("overtaken", later=", ".join(map(quote, later)), **place)) if later else ""
                if overtaken:
                    raise NotUndoable(f"{_said(later[overtaken])} corrects the same calls again: undo it first")
                run.opposites(fill("undo_entries", **place))
            undone = run.enter()
            if undone is None:
                raise NotUndoable(f"nothing of {id} is left to undo: its calls have been voided since, or deleted for their age")
        return undone

    def made(self, id: str) -> Made | None:
        """A run; None if there is none."""
        return next(iter(self._made(f"runs.id = {quote(id)}")), None)

    def all(self, limit: int = 100) -> list[Made]:
        """The latest runs, the newest first."""
        return self._made("1", limit)

    def recover(self) -> list[str]:
        """Take away what a killed process left of a run; ids of runs of which nothing stands. To be called at start.

        Raises Busy, ClickHouseError.
        """
        if not self._running.acquire(blocking=False):
            raise Busy
        try:
            return self._recover()
        finally:
            self._running.release()

    @contextmanager
    def run(
        self,
        kind: Kind,
        *,
        reason: str,
        author: str,
        key: str = "",
        book: str = "",
        detail: Mapping[str, object] | None = None,
        undoes: str = "",
    ) -> "Iterator[Run]":
        """A run to be filled and entered in this block; nothing stands unless Run.enter was called. Raises AlreadyMade, Busy, NotMade, ValueError."""
        _check_text("reason", reason, 1, 500)
        _check_text("author", author, 0, 200)
        _check_text("key", key, 0, 200)
        if not self._running.acquire(blocking=False):
            raise Busy
        try:
            self._recover()
            for standing in self._made(f"key = {quote(key)} AND undone_by = ''") if key else ():
                raise AlreadyMade(standing)
            row = {
                "id": secrets.token_hex(4), "kind": kind, "key": key, "at": _moment(self._clock()), "author": author, "reason": reason,
                "book": book, "detail": json.dumps(detail or {}, default=str), "undoes": undoes,
            }  # fmt: skip
            for statement in (
                "CREATE DATABASE IF NOT EXISTS work",
                "DROP TABLE IF EXISTS work.corrected SYNC",
                "CREATE TABLE work.corrected AS ledger",
            ):
                self._client.command(statement)
            yield Run(self._client, self._voiding, row)
        except ClickHouseError as error:
            with contextlib.suppress(ClickHouseError):
                # The embedded engine puts what a failed statement left behind in front of the next answer of its connection.
                self._client.command("SELECT 1")
            with contextlib.suppress(ClickHouseError):
                self._recover()
            raise NotMade(f"the engine failed: {str(error)[:200]}") from error
        finally:
            with contextlib.suppress(ClickHouseError):
                self._client.command("DROP TABLE IF EXISTS work.corrected SYNC")
            self._running.release()

    def _made(self, condition: str, limit: int = 1_000_000) -> list[Made]:
        rows = self._client.query(fill("corrections", condition=condition), parameters={"limit": limit}).result_rows
        return [_run(row) for row in rows]

    def _later(self, made: Made) -> dict[str, Made]:
        """Runs that stand and may have corrected the calls of this one again."""
        if made.kind not in ("reprice", "void"):
            return {}
        since = f"toDateTime64({quote(_moment(made.at))}, 3, 'UTC')"
        condition = f"kind IN ('reprice', 'void') AND undone_by = '' AND at >= {since} AND runs.id != {quote(made.id)}"
        return {other.id: other for other in self._made(condition)}

    def _recover(self) -> list[str]:
        client, dropped = self._client, []
        for id, entries in client.query("SELECT id, entries FROM corrections FINAL WHERE state = 'entering'").result_rows:
            params = {"id": id}
            standing = scalar(client, "SELECT count() FROM ledger WHERE correction = {id:String}", params)
            state = "made" if standing == entries else "dropped"
            if state == "dropped":
                dropped.append(id)
                client.command("ALTER TABLE ledger DELETE WHERE correction = {id:String} SETTINGS mutations_sync = 2", params)
            settle = (
                "INSERT INTO corrections SELECT * REPLACE ({state:String} AS state) FROM corrections FINAL WHERE id = {id:String}"
            )
            client.command(settle, {**params, "state": state})
        return dropped


class Piece(NamedTuple):
    """A part of a period, [since_ns, until_ns), and how many corrections are in it."""

    since_ns: int
    until_ns: int
    corrections: int


class Run:
    """A run under way: what is put in here is entered as a whole by `enter`."""

    def __init__(self, client: "Client", voiding: AbstractContextManager[object], row: dict[str, Any]) -> None:
        self.client, self.id = client, str(row["id"])
        self._voiding, self._row = voiding, row
        self._stamp = {"id": quote(self.id), "reason": quote(row["reason"]), "at": f"toDateTime64({quote(row['at'])}, 3, 'UTC')"}
        # The engine's own clock, by which the writer's voids are dated; an hour of slack, should it be set.
        self._began = str(scalar(client, "SELECT toUnixTimestamp64Milli(now64(3)) - 3600000"))

    def insert(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Entries by column; what isn't named is empty or NULL."""
        stamp = {"correction": self.id, "reason": self._row["reason"], "entered_at": self._row["at"]}
        insert_json(self.client, "work.corrected", ({**row, **stamp} for row in rows))

    def add(self, name: str, /, **parts: str) -> None:
        """Fill work.corrected by a statement of attribution/queries, whose {{id}}, {{reason}} and {{at}} are the run's."""
        self.client.command(f"{fill(name, **self._stamp, **parts)}\n{_LIMITS}")

    def opposites(self, entries: str, entry: str = "entry") -> None:
        """The rows that `entries` selects, whole rows of the ledger, with opposite signs; `entry` is SQL."""
        self.add("enter_opposites", entry=entry, entries=entries)

    def pieces(self, condition: str, since_ns: int = 0, until_ns: int = 2**63 - 1) -> "list[Piece]":
        """The period in parts, in each of which there are few enough corrections with this condition to look at them together."""
        hours = self.client.query(fill("corrected_hours", condition=condition)).result_rows
        return _pieces(hours, since_ns, until_ns)

    def enter(self) -> Made | None:
        """Enter all of it, or, where it is nothing, make no run of it: None. What the writer voided meanwhile is left out."""
        with self._voiding:
            # The writer took back what stood in the ledger, not what stands here.
            self.opposites(fill("voided_meanwhile", began=self._began))
            entries, cost = self.client.query("SELECT count(), sum(cost_usd) FROM work.corrected").result_rows[0]
            if not entries:
                return None
            row = {**self._row, "entries": entries, "cost_usd": str(cost or 0)}
            insert_json(self.client, "corrections", [{**row, "state": "entering"}])
            self.client.command("ALTER TABLE ledger ATTACH PARTITION ALL FROM work.corrected")
            insert_json(self.client, "corrections", [{**row, "state": "made"}])
        at = datetime.fromisoformat(row["at"]).replace(tzinfo=UTC)
        return Made(
            self.id, row["kind"], row["key"], at, row["author"], row["reason"], row["book"], entries, cost or Decimal(0), "", row["undoes"],
            json.loads(row["detail"]),
        )  # fmt: skip


def _rows(line: Line) -> Iterator[dict[str, object]]:
    """Columns of the entries that a line comes to. Raises ValueError."""
    for given, known, name in ((line.who, WHO, "who"), (line.what, WHAT, "what")):
        unknown = sorted(given.keys() - set(known))
        if unknown:
            raise ValueError(f"{name} has no {unknown[0]!r}: there are {', '.join(known)}")
    if line.started_at.tzinfo is None:
        raise ValueError(f"{line.started_at} has no time zone")
    if not line.cost_usd.is_finite() or line.cost_usd != line.cost_usd.quantize(_DECIMALS):
        raise ValueError(f"{line.cost_usd} USD has more than 12 decimals")
    at = line.started_at.astimezone(UTC)
    row = {
        "calls": 0, "started_at": f"{at:%Y-%m-%d %H:%M:%S.%f}", "tenant": line.tenant, "usage_source": "missing", "tags": dict(line.tags),
        **line.who, **line.what,
    }  # fmt: skip
    rest = line.cost_usd
    while rest:
        part = max(-_LARGEST, min(_LARGEST, rest))
        rest -= part
        yield {**row, "cost_usd": f"{part:f}"}


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


def _run(row: Sequence[Any]) -> Made:
    id, kind, key, at, author, reason, book, entries, cost_usd, undone_by, undoes, detail = row
    return Made(
        id, kind, key, at.replace(tzinfo=UTC), author, reason, book, entries, cost_usd, undone_by, undoes, json.loads(detail)
    )


def _said(made: Made) -> str:
    return f"{made.id} ({made.kind}, {made.at:%Y-%m-%d %H:%M} UTC)"


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _check_text(name: str, text: str, least: int, most: int) -> None:
    if not least <= len(text) <= most:
        raise ValueError(f"{name} has {len(text)} characters: {least} to {most} are needed")
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise ValueError(f"{name} has a control character")
