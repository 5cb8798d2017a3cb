"""The engine: one directory, opened by one process, a connection for each thread."""

import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.errors import DataDirectoryInUse, StoreUnavailable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_ENGINE: Final = "engine"
"""Where in the data directory the engine keeps its files."""


def read_sql(name: str) -> str:
    """A statement of schema/sql, without what explains it at its head."""
    text = files("tallystick.schema").joinpath(f"sql/{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


DATABASE: Final = "tallystick"
"""Where the ledger stands. Not `default`: there the embedded engine takes any table's name for a file's."""


class Store:
    """An open data directory. The engine leaves its cache of schemas in the working directory, so that is moved there."""

    def __init__(self, data: Path) -> None:
        """Raises DataDirectoryInUse, or StoreUnavailable where the directory can't be used."""
        self.data = data.resolve()
        try:
            (self.data / _ENGINE).mkdir(parents=True, exist_ok=True)
            self._holding = (self.data / "lock").open("w")
            fcntl.flock(self._holding, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in ("config.xml", "users.xml"):
                text = files("tallystick.schema").joinpath(f"engine/{name}").read_text(encoding="utf-8")
                (self.data / name).write_text(text.replace("{{data}}", escape(str(self.data))), encoding="utf-8")
            # The client hands payloads to the engine in files: not in a place that others read, nor left behind by a kill.
            shutil.rmtree(self.data / "tmp", ignore_errors=True)
            (self.data / "tmp").mkdir(mode=0o700)
            tempfile.tempdir = str(self.data / "tmp")
            os.chdir(self.data)
        except BlockingIOError as error:
            raise DataDirectoryInUse(f"another process holds {self.data}") from error
        except OSError as error:
            raise StoreUnavailable(f"{self.data} can't be used: {error.strerror}") from error
        self._local = threading.local()
        self._clients: list[Client] = []
        self._lock = threading.Lock()
        self.client()

    def client(self) -> "Client":
        """This thread's connection, with all rights."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._connect()
            self._local.client = client
            with self._lock:
                self._clients.append(client)
        return client

    @contextmanager
    def reader(self, tenant: str | None, limits: Mapping[str, int | str]) -> "Iterator[Client]":
        """A connection of its own that can change nothing, sees one tenant (None: all) and can't lift the engine's limits."""
        client = self._connect()
        try:
            if limits:
                client.command("SET " + ", ".join(f"{name} = {value}" for name, value in limits.items()))
            # The row filter in users.xml reads this, and a read-only session can't change it.
            client.command(
                "SET log_comment = {comment:String}", parameters={"comment": "" if tenant is None else f"tenant:{tenant}"}
            )
            client.command("SET readonly = 1")
            yield client
        finally:
            client.close()

    def _connect(self) -> "Client":
        try:
            client = clickhouse_connect.get_client(
                dsn=f"chdb://{self.data / _ENGINE}", chdb_options={"config-file": str(self.data / "config.xml")}
            )
            client.command(f"CREATE DATABASE IF NOT EXISTS {DATABASE}")
            client.command(f"USE {DATABASE}")
        except ClickHouseError as error:
            raise StoreUnavailable(f"{self.data} can't be opened: {str(error)[:300]}") from error
        return client

    def close(self) -> None:
        with self._lock:
            for client in self._clients:
                client.close()
            self._clients.clear()
        self._holding.close()


def error_name(error: ClickHouseError) -> str:
    """What went wrong as the engine names it, `NOT_ENOUGH_SPACE` say. Its message may hold what was sent, and isn't passed on."""
    found = re.findall(r"\(([A-Z][A-Z_0-9]{3,})\)", str(error))
    return found[-1] if found else type(error).__name__


def scalar(client: "Client", query: str) -> Any:
    """The one value that a query answers."""
    return client.query(query).result_rows[0][0]


@contextmanager
def open_store(data: Path) -> Iterator[Store]:
    """A data directory for as long as the block runs."""
    store = Store(data)
    try:
        yield store
    finally:
        store.close()
