"""A bounded queue on disk: messages that no broker takes now, durable before their senders are told so, and read in their order.

A file of SQLite in its write-ahead mode, held by one process. What was put together is one transaction, so that many waiting payloads
share the disk's flush. Its pages are used again, and given back when the queue is empty.
"""

import fcntl
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import lz4.frame

from tallystick.ingest.errors import DataDirectoryInUse, StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE: Final = "spool.sqlite3"

_PAGE_BYTES: Final = 16_384
_FEWEST_PAGES: Final = 16
"""Without a message some are taken already."""
_LOG_BYTES: Final = 16 << 20
"""Bytes of the write-ahead log at which it is written back: what the queue may take beyond its limit, beside one transaction."""

_DAMAGED: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class SpoolFull(StoreUnavailable):
    """The queue or its disk takes nothing more; nothing of what was put is kept."""


class Message(NamedTuple):
    """What is to be written to a topic."""

    value: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int


class Spooled(NamedTuple):
    """A message and its place in the queue: from 1, ascending, never used twice by one process."""

    number: int
    message: Message


@dataclass(frozen=True)
class Waiting:
    """What the queue holds. used: bytes of its file that hold something. refused: messages set aside until the next start."""

    messages: int = 0
    used: int = 0
    refused: int = 0


class Spool:
    """The queue in the directory `data`. Every method may be called from any thread.

    max_bytes: of its file. One that turns out to be damaged is kept under another name, what can be read of it is carried over into a new
    one, and the log says so. clock: seconds since 1970.
    """

    def __init__(self, data: Path, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        """Raises DataDirectoryInUse where another process holds it, StoreUnavailable where the directory can't be used."""
        self._file = data / FILE
        self._most_pages = max(_FEWEST_PAGES, max_bytes // _PAGE_BYTES)
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._next = 1
        self._messages = self._refused = self._pages = 0
        try:
            data.mkdir(parents=True, exist_ok=True)
            # SQLite's own lock is gone while the file is opened anew.
            self._holding = (data / "spool.lock").open("w")
            fcntl.flock(self._holding, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirectoryInUse(f"another process holds {self._file}") from error
        except OSError as error:
            raise StoreUnavailable(f"{data} can't be used: {error.strerror}") from error
        self._do(self._take_back)

    @property
    def max_bytes(self) -> int:
        return self._most_pages * _PAGE_BYTES

    @property
    def waiting(self) -> Waiting:
        """Without a look at the disk."""
        return Waiting(self._messages, self._pages * _PAGE_BYTES, self._refused)

    def put(self, messages: Sequence[Message]) -> None:
        """All or none, in their order. On return they are on disk. Raises SpoolFull."""
        rows = [(one.timestamp_ms, _text(one.headers), _packed(one.value)) for one in messages]

        def insert(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.executemany(
                    "INSERT INTO waiting VALUES (?, ?, ?, ?)", [(number, *row) for number, row in enumerate(rows, self._next)]
                )
            self._next += len(rows)
            self._messages += len(rows)

        self._do(insert)

    def read(self, after: int, max_bytes: int) -> list[Spooled]:
        """The first messages behind a number: at least one if there is any, else about so many bytes. Raises StoreUnavailable."""

        def select(connection: sqlite3.Connection) -> list[Spooled]:
            found: list[Spooled] = []
            size = 0
            for row in connection.execute("SELECT * FROM waiting WHERE number > ? ORDER BY number", (after,)):
                found.append(_spooled(row))
                size += len(found[-1].message.value)
                if size >= max_bytes:
                    break
            return found

        return self._do(select)

    def remove(self, until: int) -> int:
        """Forget the messages up to and with a number. How many there were. Raises StoreUnavailable."""

        def delete(connection: sqlite3.Connection) -> int:
            with _transaction(connection):
                gone = connection.execute("DELETE FROM waiting WHERE number <= ?", (until,)).rowcount
            self._messages -= gone
            if not self._messages and self._pages > _FEWEST_PAGES:
                # It frees a page a step, of which `execute` takes one.
                connection.executescript("PRAGMA incremental_vacuum")
            return gone

        return self._do(delete)

    def refuse(self, number: int) -> None:
        """Set a message aside that no broker will ever take, until the next start. Raises StoreUnavailable."""

        def move(connection: sqlite3.Connection) -> None:
            with _transaction(connection):
                connection.execute("INSERT OR REPLACE INTO refused SELECT * FROM waiting WHERE number = ?", (number,))
                gone = connection.execute("DELETE FROM waiting WHERE number = ?", (number,)).rowcount
            self._messages -= gone
            self._refused += gone

        self._do(move)

    def close(self) -> None:
        with self._lock:
            self._close()
            self._holding.close()

    def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Raises SpoolFull where SQLite can't."""
        with self._lock:
            if self._holding.closed:
                raise StoreUnavailable(f"{self._file} is closed")
            try:
                try:
                    return self._measured(work)
                except (sqlite3.DatabaseError, _Unreadable) as error:
                    if isinstance(error, sqlite3.DatabaseError) and _code(error) not in _DAMAGED:
                        raise
                    self._set_aside(error)
                    return self._measured(work)
            except sqlite3.Error as error:
                # What it believes of the file may be wrong after an error of the disk.
                self._close()
                raise SpoolFull(f"{self._file} takes nothing now: {error}") from error

    def _measured(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection or self._open()
        done = work(connection)
        self._pages = _number(connection, "PRAGMA page_count") - _number(connection, "PRAGMA freelist_count")
        if self._log_bytes() > (_LOG_BYTES if self._messages else _PAGE_BYTES * _FEWEST_PAGES):
            # Not SQLite's own doing after a commit: a full disk would then make a failure of what is committed.
            with suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return done

    def _log_bytes(self) -> int:
        with suppress(OSError):
            return self._file.with_name(f"{FILE}-wal").stat().st_size
        return 0

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            for pragma in (
                f"page_size = {_PAGE_BYTES}",
                "auto_vacuum = INCREMENTAL",
                # Then it needs no file of shared memory.
                "locking_mode = EXCLUSIVE",
                "journal_mode = WAL",
                "synchronous = FULL",
                "wal_autocheckpoint = 0",
                f"max_page_count = {self._most_pages}",
            ):
                connection.execute(f"PRAGMA {pragma}").fetchall()
            connection.executescript(files("tallystick.schema").joinpath("spool.sql").read_text(encoding="utf-8"))
            with _transaction(connection):
                pass
            self._messages = _number(connection, "SELECT count(*) FROM waiting")
            self._refused = _number(connection, "SELECT count(*) FROM refused")
            if self._messages or self._refused:
                said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
                if said != "ok":
                    raise _Unreadable(said)
            last = "SELECT max(coalesce((SELECT max(number) FROM waiting), 0), coalesce((SELECT max(number) FROM refused), 0))"
            self._next = max(self._next, _number(connection, last) + 1)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _take_back(self, connection: sqlite3.Connection) -> None:
        """What no broker took may be taken now: a topic may have other limits."""
        if not self._refused:
            return
        with _transaction(connection):
            connection.execute("INSERT INTO waiting SELECT number + ?, timestamp_ms, headers, value FROM refused", (self._next,))
            connection.execute("DELETE FROM refused")
        self._messages, self._refused = self._messages + self._refused, 0
        self._next = _number(connection, "SELECT max(number) FROM waiting") + 1

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None

    def _set_aside(self, error: Exception) -> None:
        """Raises sqlite3.Error."""
        self._close()
        aside = self._file.with_name(f"spool.damaged-{datetime.fromtimestamp(self._clock(), UTC):%Y%m%dT%H%M%S.%fZ}.sqlite3")
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                self._file.with_name(FILE + suffix).rename(aside.with_name(aside.name + suffix))
        before, carried = self._messages, 0
        connection = self._open()
        for chunk in _chunks(_readable(aside)):
            with _transaction(connection):
                carried += connection.executemany("INSERT OR IGNORE INTO waiting VALUES (?, ?, ?, ?)", chunk).rowcount
        self._messages = carried
        self._next = max(self._next, _number(connection, "SELECT coalesce(max(number), 0) FROM waiting") + 1)
        log.error(
            "the spool is damaged (%s): %d messages that can be read are carried over%s; it is kept as %s",
            error,
            carried,
            f" of {before}" if before else "",
            aside,
        )


class _Unreadable(Exception):
    """What SQLite read isn't what was written."""


def _readable(file: Path) -> Iterator[tuple[int, int, str, bytes]]:
    """Rows of a damaged file that are as they were written: from its beginning and then from its end, each as far as it can be read."""
    seen: set[int] = set()
    for order in ("ASC", "DESC"):
        for table in ("waiting", "refused"):
            with suppress(sqlite3.Error), closing(sqlite3.connect(file)) as connection:
                for row in connection.execute(f"SELECT * FROM {table} ORDER BY number {order}"):  # noqa: S608 both are ours
                    if row[0] in seen:
                        break
                    with suppress(_Unreadable):
                        _spooled(row)
                        seen.add(row[0])
                        yield row


def _chunks(rows: Iterator[tuple[int, int, str, bytes]]) -> Iterator[list[tuple[int, int, str, bytes]]]:
    while chunk := list(islice(rows, 100)):
        yield chunk


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _code(error: sqlite3.Error) -> int:
    """SQLite's own, without what it adds for some."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _packed(value: bytes) -> bytes:
    packed: bytes = lz4.frame.compress(value, content_checksum=True)
    return packed


def _text(headers: Sequence[tuple[str, bytes]]) -> str:
    return json.dumps([(name, value.decode()) for name, value in headers])


def _spooled(row: tuple[int, int, str, bytes]) -> Spooled:
    """Raises _Unreadable."""
    number, timestamp_ms, headers, packed = row
    try:
        value = lz4.frame.decompress(packed)
        pairs = [(name, text.encode()) for name, text in json.loads(headers)]
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise _Unreadable(f"message {number} isn't what was written") from error
    return Spooled(number, Message(value, pairs, timestamp_ms))
