"""Runs of corrections: entries that are appended to the ledger together, or not at all. What they are: docs/corrections.md.

A run reads without holding anybody up. Its last step takes a turn (`Turns`), of which there is one at a time over all processes: there it looks
whether another run was made since it began, notes itself as `entering`, enters, and notes itself as `made`. Whoever has the turn and finds a run
that is entering knows that its maker is dead, or has lost the turn and can enter nothing more: what stands of it is taken away.
"""

import contextlib
import json
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.attribution.priced_calls import period
from tallystick.attribution.runs import Busy, Kind, Ledger, Made, Run, Turns, drop_beside, note, number_of_runs
from tallystick.attribution.sql_files import fill, scalar
from tallystick.schema.dialects import quote

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

__all__ = ["WHAT", "WHO", "AlreadyMade", "Busy", "Corrections", "Line", "Made", "NotMade", "NotUndoable", "Run"]

WHO: Final = ("customer", "feature", "agent", "team", "user", "session", "service", "environment")
WHAT: Final = ("provider", "request_model", "response_model", "operation", "service_tier")

_LARGEST: Final = Decimal(999_999)
"""USD of one entry: the ledger's cost has six digits before the point."""

_DECIMALS: Final = Decimal("1e-12")

_LEFT_H: Final = 24
"""Hours after which a table beside the ledger is nobody's any more. Who is alone with the ledger knows at once."""


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


class AlreadyMade(ValueError):
    """`made`, with the same key, stands and isn't undone."""

    def __init__(self, made: Made) -> None:
        super().__init__(f"{made.key!r} was made already: {_said(made)}, by {made.author or 'nobody named'}")
        self.made = made


class NotUndoable(ValueError):
    """The run can't be undone as things stand; the message says why."""


class NotMade(RuntimeError):
    """The engine failed, its disk is full say. Nothing was entered, unless the list of runs says otherwise."""


class Corrections:
    """Makes runs, one at a time. Threads may share it, and several processes may have one each. clock: aware UTC."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime], turns: Turns) -> None:
        self._ledger, self._clock, self._turns = ledger, clock, turns
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
                overtaken = scalar(run.client, fill("overtaken", later=", ".join(map(quote, later)), **place)) if later else ""
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

        Raises Busy, ClickHouseError, and what Turns.take raises.
        """
        with self._alone_here():
            return self._recover()

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
        with self._alone_here():
            try:
                self._recover()
                client = self._ledger.client()
                known = number_of_runs(client)
                for standing in self._made(f"key = {quote(key)} AND undone_by = ''") if key else ():
                    raise AlreadyMade(standing)
                row = {
                    "id": secrets.token_hex(4), "kind": kind, "key": key, "at": _moment(self._clock()), "author": author, "reason": reason,
                    "book": book, "detail": json.dumps(detail or {}, default=str), "undoes": undoes,
                }  # fmt: skip
                with Run(self._ledger, self._turns, row, known) as run:
                    yield run
            except ClickHouseError as error:
                with contextlib.suppress(ClickHouseError):
                    # The embedded engine puts what a failed statement left behind in front of the next answer of its connection.
                    self._ledger.client().command("SELECT 1")
                # What can't be settled now is settled by the next run, or start.
                with contextlib.suppress(Exception):
                    self._recover()
                raise NotMade(f"the engine failed: {str(error)[:200]}") from error

    @contextmanager
    def _alone_here(self) -> Iterator[None]:
        if not self._running.acquire(blocking=False):
            raise Busy("another correction is under way")
        try:
            yield
        finally:
            self._running.release()

    def _made(self, condition: str, limit: int = 1_000_000) -> list[Made]:
        rows = self._ledger.client().query(fill("corrections", condition=condition), parameters={"limit": limit}).result_rows
        return [_run(row) for row in rows]

    def _later(self, made: Made) -> dict[str, Made]:
        """Runs that stand and may have corrected the calls of this one again."""
        if made.kind not in ("reprice", "void"):
            return {}
        since = f"toDateTime64({quote(_moment(made.at))}, 3, 'UTC')"
        condition = f"kind IN ('reprice', 'void') AND undone_by = '' AND at >= {since} AND runs.id != {quote(made.id)}"
        return {other.id: other for other in self._made(condition)}

    def _recover(self) -> list[str]:
        client = self._ledger.client()
        drop_beside(client, "1" if self._ledger.alone else f"metadata_modification_time < now() - INTERVAL {_LEFT_H} HOUR")
        if _runs_that(client, "state = 'entering'"):
            with self._turns.take() as ours:
                # Asked again: who had the turn before may have been making them.
                for id, entries in _runs_that(client, "state = 'entering'"):
                    standing = scalar(client, "SELECT count() FROM ledger WHERE correction = {id:String}", {"id": id})
                    _settle(client, id, "made" if standing == entries else "dropped", entries, ours)
        # Whoever wrote that it is dropped had the turn: nothing of it can come any more, and it can be taken away at leisure.
        dropped = [id for id, _ in _runs_that(client, "state = 'dropped' AND entries != 0")]
        for id in dropped:
            self._ledger.delete(f"correction = {quote(id)}")
            _settle(client, id, "dropped", 0, "1")
        return dropped


def _runs_that(client: "Client", condition: str) -> list[tuple[str, int]]:
    """Ids, and how many entries each was to have."""
    found = client.query(f"SELECT id, entries FROM corrections FINAL WHERE {condition}")  # noqa: S608
    return [(id, entries) for id, entries in found.result_rows]


def _settle(client: "Client", id: str, state: Literal["made", "dropped"], entries: int, ours: str) -> None:
    # Read first: on shards a statement that reads the table would have what says whose turn it is looked up there.
    (row,) = client.query(fill("run_by_id"), parameters={"id": id}).named_results()
    note(client, row, state, entries, row["cost_usd"], ours=ours)


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
