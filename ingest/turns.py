"""Whose turn it is: looking into the ledger and entering what follows from it is done by one writer at a time, of all processes.

Two batches may hold the same span, or two spans of one call, at the same time. The server itself says who may enter: claims are rows
of table `turns`, in the order in which they came, and a statement that enters carries the condition that the first claim standing is its own,
which the server evaluates before it reads anything. docs/decisions/0011-turns.md has the proof.
"""

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Final, NamedTuple, Protocol

from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.summary import QuerySummary

from tallystick.ingest.cluster import Kind
from tallystick.ingest.errors import StoreError, StoreUnavailable
from tallystick.ingest.store import Store, read_sql, scalar
from tallystick.schema.dialects import quote

log = logging.getLogger(__name__)

LEASE_S: Final = 15.0
"""Who has a claim and gives no sign of life for so long was stopped or is dead. As long as this a death stops all others."""

_SIGN_S: Final = 3.0
"""Between two signs of life. A turn takes a third of a second as a rule, and half a minute where the machine is overloaded and the batch full of
suspects: if it were taken for dead then, writers would revoke each other's turns for ever."""

_GAP_S: Final = 2.0
"""Between two looks further apart than this, anything may have happened (whoever waits was stopped itself): the lease begins anew."""

_PATIENCE_S: Final = 120.0
"""How long a turn is waited for: eight dead ones in a row, and less than the five minutes after which Kafka takes a silent consumer's partitions."""

_FIRST_WAIT_S: Final = 0.005
_LONGEST_WAIT_S: Final = 0.05
"""A look costs a millisecond of CPU; a turn that is free is seen after a sixth of its length at most."""


class Turns(Protocol):
    """Taken by everything that enters calls or corrections upon what it saw in the ledger."""

    shared: ClassVar[bool]
    """Whether other processes take them, too."""

    def take(self) -> AbstractContextManager[str]:
        """Wait for the turn and hold it. Yields an SQL condition that every statement which enters something must carry in its WHERE.

        Raises StoreUnavailable where it doesn't come in time and, at the end, where the turn was lost: then it isn't known what was entered.
        Do it again: what stands isn't doubled.
        """
        ...


class LocalTurns:
    """Of the one process that holds a data directory."""

    shared: ClassVar[bool] = False

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def take(self) -> Generator[str, None, None]:
        with self._lock:
            yield "1"


def open_turns(store: Store) -> Turns:
    """For a process: all that writes in it takes them from here. Raises StoreUnavailable."""
    return LocalTurns() if store.dialect.kind is Kind.EMBEDDED else ServerTurns(store)


class Row(NamedTuple):
    """Of table `turns`. what: claimed, alive, released (it was held until then, and everything entered before), withdrawn (never held) or revoked."""

    claim: str
    what: str


def first_standing(rows: Sequence[Row]) -> str | None:
    """Whose turn it is: the first claim that hasn't ended. The same as schema/sql/turn.sql asks."""
    ended = {row.claim for row in rows if row.what not in ("claimed", "alive")}
    return next((row.claim for row in rows if row.what == "claimed" and row.claim not in ended), None)


def follows_a_clean_end(rows: Sequence[Row], mine: str) -> bool:
    """Whether everything that was entered before `mine` is known to have ended: its predecessor released the turn by itself.

    Not known where that one was revoked, or where nothing is known of it: the server may have been killed in the midst of its statement.
    """
    ends: dict[str, set[str]] = {}
    for row in rows:
        ends.setdefault(row.claim, set()).add(row.what)
    claims = [row.claim for row in rows if row.what == "claimed"]
    for before in reversed(claims[: claims.index(mine)]):
        if "revoked" in ends[before]:
            return False
        if "released" in ends[before]:
            return True
    return False


class Silence:
    """How long the same claim was first without a sign of life, as one who looks again and again sees it. Times are of the looker's steady clock."""

    def __init__(self) -> None:
        self._of: tuple[str, int] | None = None
        self._since = self._last = 0.0

    def lasts(self, first: str, signs: int, entering: bool, now: float) -> float:
        """Seconds. signs: of life that it gave until now; entering: whether a statement that enters something is running, whoever's."""
        if (first, signs) != self._of or entering or now - self._last > _GAP_S:
            self._of, self._since = (first, signs), now
        self._last = now
        return now - self._since


class ServerTurns:
    """Of all processes that write through one server. The table holds nothing after its restart: every turn is lost then."""

    shared: ClassVar[bool] = True

    def __init__(self, store: Store, lease_s: float = LEASE_S) -> None:
        """Raises StoreUnavailable. lease_s: of others, as this one sees it."""
        # Not in the writer's session: of that only one statement runs at a time, even where its client is gone.
        self._server = store.each_host()[0]
        self._lease_s = lease_s
        self._all = store.each_host("system")
        self._who = f"{socket.gethostname()}:{os.getpid()}"
        self._rows = "SELECT claim, toString(what) FROM turns SETTINGS max_threads = 1"
        self._first = read_sql("turn")
        self._entering = read_sql("entering")

    @contextlib.contextmanager
    def take(self) -> Generator[str, None, None]:
        mine = uuid.uuid4().hex
        ours = f"({self._first}) = '{mine}'"
        with self._living(mine):
            try:
                self._append(mine, "claimed")
                self._wait(mine)
            except BaseException:
                self._try_to_append(mine, "withdrawn")
                raise
            try:
                yield ours
                released = self._append(mine, "released", f"WHERE {ours}")
            except BaseException:
                # A statement of it may be running on: who comes next looks whether.
                self._try_to_append(mine, "revoked")
                raise
        if not released:
            raise StoreUnavailable("the turn to write was lost: another writer went on meanwhile, or the server was restarted")

    @contextlib.contextmanager
    def _living(self, mine: str) -> Generator[None, None, None]:
        """Gives signs of life while the block runs: from a thread, which stops where the process is stopped."""
        ended = threading.Event()

        def live() -> None:
            while not ended.wait(_SIGN_S):
                self._try_to_append(mine, "alive")

        thread = threading.Thread(target=live, name="tallystick-turn", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _wait(self, mine: str) -> None:
        began, pause, silence = time.monotonic(), _FIRST_WAIT_S, Silence()
        while True:
            rows = [Row(*row) for row in self._server.query(self._rows).result_rows]
            first = first_standing(rows)
            if first is None or not any(row.claim == mine for row in rows) or Row(mine, "revoked") in rows:
                raise StoreUnavailable(
                    "the claim to write was lost: another writer went on meanwhile, or the server was restarted"
                )
            waited_s = time.monotonic() - began
            if first == mine:
                # The rows first: what starts to enter after they were read finds by itself that it may not.
                if follows_a_clean_end(rows, mine) or not self._is_entering():
                    return
            elif self._is_silent(first, rows, silence, waited_s):
                log.warning("a writer held the turn to write for %.0f s without a sign of life: others go on", self._lease_s)
                self._append(first, "revoked")
            if waited_s > _PATIENCE_S:
                raise StoreUnavailable(f"the turn to write didn't come in {_PATIENCE_S:.0f} s")
            time.sleep(pause)
            pause = min(_LONGEST_WAIT_S, pause * 1.5)

    def _is_silent(self, first: str, rows: Sequence[Row], silence: Silence, waited_s: float) -> bool:
        # A statement is a sign, too: it runs on where its sender is dead, and whoever comes next would wait for it anyway.
        entering = waited_s > self._lease_s / 2 and self._is_entering()
        return silence.lasts(first, rows.count(Row(first, "alive")), entering, time.monotonic()) > self._lease_s

    def _is_entering(self) -> bool:
        return any(scalar(client, self._entering) for client in self._all)

    def _append(self, claim: str, what: str, condition: str = "") -> bool:
        """Whether it was, which the condition decides."""
        sql = f"INSERT INTO turns (claim, what, who) SELECT '{claim}', '{what}', {quote(self._who)} {condition}"
        summary = self._server.command(sql)
        return not condition or (isinstance(summary, QuerySummary) and summary.written_rows > 0)

    def _try_to_append(self, claim: str, what: str) -> None:
        with contextlib.suppress(ClickHouseError, StoreError, OSError):
            self._append(claim, what)
