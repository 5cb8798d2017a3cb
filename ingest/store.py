"""Where the ledger is kept: what a store answers, and the embedded engine, one directory, opened by one process, a connection for each thread."""

import fcntl
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from xml.sax.saxutils import escape

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from tallystick.ingest.cluster import DATABASE, EMBEDDED, Topology
from tallystick.ingest.errors import DataDirectoryInUse, StoreMisconfigured, StoreUnavailable

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_ENGINE: Final = "engine"
"""Where in the data directory the engine keeps its files."""

_IDLE_READERS: Final = 8
"""Readers' connections that wait for their tenant's next query: to open one takes 10 ms, several times a short query's own time."""


def read_sql(name: str) -> str:
    """A statement of schema/sql, without what explains it at its head."""
    text = files("tallystick.schema").joinpath(f"sql/{name}.sql").read_text(encoding="utf-8")
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("--"))


class Cage(NamedTuple):
    """What a reader is bound to. tenant None sees all; limits: settings of the engine, as SQL literals."""

    tenant: str | None
    limits: tuple[tuple[str, int | str], ...]

    @property
    def comment(self) -> str:
        """`log_comment`: the row filter of the engine's users reads it."""
        return "" if self.tenant is None else f"tenant:{self.tenant}"


class Store(Protocol):
    """An open ledger. Threads may share it, but not its connections."""

    @property
    def dialect(self) -> Topology:
        """Where it stands."""
        ...

    @property
    def payloads(self) -> Path | None:
        """A directory of which the engine reads files that this process lays there; None where the engine is elsewhere."""
        ...

    def client(self) -> "Client":
        """This thread's connection, with all rights that the store has; the current database holds the ledger. Raises StoreUnavailable."""
        ...

    def each_host(self, database: str = DATABASE) -> "Sequence[Client]":
        """A connection to each host that is told by itself, without a session: for what is a host's own. Raises StoreUnavailable."""
        ...

    def reader(self, tenant: str | None, limits: Mapping[str, int | str]) -> "AbstractContextManager[Client]":
        """A connection for a block alone that can change nothing, sees one tenant (None: all) and can't lift the engine's limits."""
        ...

    def close(self) -> None: ...


class EmbeddedStore:
    """An open data directory. The engine leaves its cache of schemas in the working directory, so that is moved there."""

    def __init__(self, data: Path) -> None:
        """Raises DataDirectoryInUse, StoreMisconfigured, or StoreUnavailable where the directory can't be used."""
        self.dialect: Final = EMBEDDED
        self.data = data.resolve()
        self.payloads: Final = self.data / "tmp"
        if pattern := set("*?{") & set(str(self.data)):
            raise StoreMisconfigured(
                f"{self.data} can't be used: the engine takes {' and '.join(sorted(pattern))} in a path for a pattern",
                "choose a directory without it (--data, TALLYSTICK_DATA)",
            )
        try:
            self._held = hold(self.data)
            (self.data / _ENGINE).mkdir(exist_ok=True)
            for name in ("config.xml", "users.xml"):
                text = files("tallystick.schema").joinpath(f"engine/{name}").read_text(encoding="utf-8")
                (self.data / name).write_text(text.replace("{{data}}", escape(str(self.data))), encoding="utf-8")
            # The client hands payloads to the engine in files: not in a place that others read, nor left behind by a kill.
            shutil.rmtree(self.payloads, ignore_errors=True)
            self.payloads.mkdir(mode=0o700)
            tempfile.tempdir = str(self.payloads)
            os.chdir(self.data)
        except OSError as error:
            raise StoreUnavailable(f"{self.data} can't be used: {error.strerror}") from error
        self._local = threading.local()
        self._clients: list[Client] = []
        self._idle: list[tuple[Cage, Client]] = []
        self._closed = False
        self._lock = threading.Lock()
        self.client()

    def client(self) -> "Client":
        """This thread's connection."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._connect()
            self._local.client = client
            with self._lock:
                self._clients.append(client)
        return client

    def each_host(self, database: str = DATABASE) -> "Sequence[Client]":
        """This thread's connection: there is one host, and one database."""
        return [self.client()]

    @contextmanager
    def reader(self, tenant: str | None, limits: Mapping[str, int | str]) -> "Iterator[Client]":
        """As Store's. It has been, and will be, used for the same tenant and limits only, and by no block that raised: embedded, what a failed
        query had already written is put before the connection's next answer.
        """
        cage = Cage(tenant, tuple(limits.items()))
        client = self._waiting(cage) or self._open(cage)
        try:
            yield client
        except BaseException:
            client.close()
            raise
        self._keep(cage, client)

    def _waiting(self, cage: Cage) -> "Client | None":
        with self._lock:
            at = next((at for at, (found, _) in enumerate(self._idle) if found == cage), None)
            return None if at is None else self._idle.pop(at)[1]

    def _open(self, cage: Cage) -> "Client":
        client = self._connect()
        try:
            if cage.limits:
                client.command("SET " + ", ".join(f"{name} = {value}" for name, value in cage.limits))
            # What users ask reads no payloads: the role is in users.xml.
            client.command("SET ROLE NONE")
            # The row filter in users.xml reads this, and a read-only session can't change it.
            client.command("SET log_comment = {comment:String}", parameters={"comment": cage.comment})
            client.command("SET readonly = 1")
        except BaseException:
            client.close()
            raise
        return client

    def _keep(self, cage: Cage, client: "Client") -> None:
        with self._lock:
            self._idle.append((cage, client))
            surplus = self._idle[: max(0, len(self._idle) - (0 if self._closed else _IDLE_READERS))]
            del self._idle[: len(surplus)]
        for _, longest_idle in surplus:
            longest_idle.close()

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
            self._closed = True
            for client in [*self._clients, *(client for _, client in self._idle)]:
                client.close()
            self._clients.clear()
            self._idle.clear()
        self._held.close()


def hold(data: Path) -> IO[str]:
    """Keeps the directory, which is made where there is none, for this process until what it returns is closed. Raises DataDirectoryInUse, OSError."""
    data.mkdir(parents=True, exist_ok=True)
    lock = (data / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise DataDirectoryInUse(f"another process holds {data}") from error
    return lock


def error_name(error: ClickHouseError) -> str:
    """What went wrong as the engine names it, `NOT_ENOUGH_SPACE` say. Its message may hold what was sent, and isn't passed on."""
    found = re.findall(r"\(([A-Z][A-Z_0-9]{3,})\)", str(error))
    return found[-1] if found else type(error).__name__


def scalar(client: "Client", query: str) -> Any:
    """The one value that a query answers."""
    return client.query(query).result_rows[0][0]


@contextmanager
def open_store(data: Path) -> Iterator[EmbeddedStore]:
    """A data directory for as long as the block runs."""
    store = EmbeddedStore(data)
    try:
        yield store
    finally:
        store.close()
