"""Where the alert ledger lives: a SQLite file or PostgreSQL. Opening, transactions, and what can go wrong with either."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, NotSupportedError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnection

from tallystick.alerts.migrations import UnknownRevision, upgrade

_OUR_FAULT = (IntegrityError, ProgrammingError, DataError, NotSupportedError)
_POSTGRESQL = {"postgres", "postgresql", "postgresql+psycopg"}


class LedgerError(Exception):
    """The alert ledger can't do what was asked."""


class LedgerDown(LedgerError):
    """Locked, full, unreachable or restarting. Call again later: a call that did get through is recognised, not done twice."""


class LedgerAddress(LedgerError):
    """The URL names no database that a ledger can live in: correct it."""


class NewerLedger(LedgerError):
    """A newer version wrote this ledger: upgrade tallystick."""


def default_url(data: Path) -> str:
    """The ledger of one machine: a file in the data directory."""
    return URL.create("sqlite", database=str(data / "alerts.db")).render_as_string()


class Database:
    """Transactions on one ledger, from any thread. An older schema is upgraded at opening.

    url: `sqlite:///FILE` or `postgresql+psycopg://USER:PASSWORD@HOST/NAME`. busy_s: how long a call waits for a lock before it raises LedgerDown.
    Raises LedgerAddress, NewerLedger, LedgerDown.
    """

    def __init__(self, url: str, *, busy_s: float = 10.0) -> None:
        address = _checked(url)
        self.name = address.set(query={}).render_as_string(hide_password=True)
        """The URL as it may be shown."""
        try:
            self._engine = (
                _postgresql(address, busy_s) if address.get_backend_name() == "postgresql" else _sqlite(address, busy_s)
            )
        except ModuleNotFoundError as error:
            raise LedgerAddress(f"{self.name} needs {error.name}: pip install 'tallystick[postgres]'") from None
        self._writing = self._engine.execution_options(tallystick_writes=True)
        try:
            with self.write() as connection:
                upgrade(connection)
        except UnknownRevision as error:
            self.close()
            raise NewerLedger(
                f"the alert ledger {self.name} has schema {error.found}, this version knows up to {error.known}: upgrade tallystick"
            ) from None
        except BaseException:
            self.close()
            raise

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One view of all tables."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """All of it or, on any error, nothing."""
        with self._transaction(self._writing) as connection:
            yield connection

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                yield connection
        except _OUR_FAULT:
            raise
        except DBAPIError as error:
            cause = str(error.orig).strip().partition("\n")[0]
            raise LedgerDown(f"the alert ledger {self.name} can't be used now: {cause}") from None
        except NoConnection:
            raise LedgerDown(f"the alert ledger {self.name} can't be used now: all connections are taken") from None


def _checked(url: str) -> URL:
    try:
        address = make_url(url)
    except ArgumentError:
        # The text isn't repeated: it may hold a password.
        raise LedgerAddress(
            "the alert ledger's URL isn't one: write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        ) from None
    if address.drivername in _POSTGRESQL:
        return address.set(drivername="postgresql+psycopg")
    if address.drivername in {"sqlite", "sqlite+pysqlite"} and address.database not in {None, "", ":memory:"}:
        return address
    raise LedgerAddress(
        f"an alert ledger can't live in {address.drivername}: write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
    )


def _postgresql(address: URL, busy_s: float) -> Engine:
    # A hang must end: a tick that waits for ever says nothing.
    limits = {"connect_timeout": max(2, round(busy_s)), "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    engine = create_engine(
        address,
        connect_args={key: value for key, value in limits.items() if key not in address.query},
        isolation_level="READ COMMITTED",
        pool_pre_ping=True,
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def limit(connection: Any, _: object) -> None:
        connection.execute(f"SET lock_timeout = {round(busy_s * 1000)}")
        connection.execute(f"SET statement_timeout = {round(busy_s * 3000)}")
        connection.commit()

    return engine


def _sqlite(address: URL, busy_s: float) -> Engine:
    engine = create_engine(address, connect_args={"timeout": busy_s}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: object) -> None:
        # The driver would begin transactions by itself, and too late.
        connection.isolation_level = None
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
        _write_ahead(connection, busy_s)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes its lock first: one that has to upgrade from reading fails where another waits.
        writes = connection.get_execution_options().get("tallystick_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _write_ahead(connection: Any, busy_s: float) -> None:
    """Readers beside a writer. The mode stays with the file; where another process writes before it is set, SQLite fails without waiting."""
    end = time.monotonic() + busy_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return
