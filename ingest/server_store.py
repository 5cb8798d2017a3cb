"""A ledger on a ClickHouse server, or on several that are the shards of a cluster, over HTTP."""

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from urllib.parse import urlsplit
from uuid import uuid4

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.httputil import get_pool_manager_options
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import HTTPError, MaxRetryError

from tallystick.ingest.cluster import DATABASE, Kind, Topology
from tallystick.ingest.errors import StoreMisconfigured, StoreUnavailable
from tallystick.ingest.store import Cage, error_name

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

# Of an answer that breaks off it writes a traceback, beside raising an error.
logging.getLogger("clickhouse_connect.driver.httputil").setLevel(logging.ERROR)

_CONNECT_S: Final = 5

_SILENT_S: Final = 60
"""How long a server may say nothing at all. It tells of its progress more often, however long a statement takes."""

_SESSION_S: Final = 1800
"""How long a thread's session, and its temporary tables, outlive its last statement."""

_CONNECTIONS: Final = 64

_READERS: Final = 32
"""Readers that are kept for their tenant's next query: one asks the server for its settings first, which takes several times a short query's own time."""

_AWAY: Final = {
    "74": "CANNOT_READ_FROM_FILE_DESCRIPTOR",
    "75": "CANNOT_WRITE_TO_FILE_DESCRIPTOR",
    "202": "TOO_MANY_SIMULTANEOUS_QUERIES",
    "209": "SOCKET_TIMEOUT",
    "210": "NETWORK_ERROR",
    "236": "ABORTED",
    "242": "TABLE_IS_READ_ONLY",
    "243": "NOT_ENOUGH_SPACE",
    "252": "TOO_MANY_PARTS",
    "279": "ALL_CONNECTION_TRIES_FAILED",
    "285": "TOO_FEW_LIVE_REPLICAS",
    "286": "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE",
    "289": "REPLICA_IS_NOT_IN_QUORUM",
    "319": "UNKNOWN_STATUS_OF_INSERT",
    "373": "SESSION_IS_LOCKED",
    "425": "SYSTEM_ERROR",
    "999": "KEEPER_EXCEPTION",
}
"""Errors of the server, by code, that say nothing of what was asked: later it may work."""

_REFUSED: Final = ("AUTHENTICATION_FAILED", "UNKNOWN_USER", "WRONG_PASSWORD", "REQUIRED_PASSWORD", "IP_ADDRESS_NOT_ALLOWED")


class Address(NamedTuple):
    """Of TALLYSTICK_CLICKHOUSE. hosts: `HOST:PORT`, the first is asked."""

    secure: bool
    user: str
    hosts: tuple[str, ...]


def read_address(url: str) -> Address:
    """From `clickhouse[s]://USER@HOST:PORT[,HOST:PORT…]/tallystick`. Raises StoreMisconfigured."""
    found = re.fullmatch(r"(clickhouses?)://(?:([^@/:]+)(:[^@/]*)?@)?([^@/?#]+)(?:/(\w*))?", url)
    if found is None:
        raise StoreMisconfigured(
            "TALLYSTICK_CLICKHOUSE is no address of a ClickHouse server",
            "clickhouse://USER@HOST:8123/tallystick, over TLS clickhouses://",
        )
    scheme, user, password, hosts, database = found.groups()
    if password is not None:
        raise StoreMisconfigured(
            "TALLYSTICK_CLICKHOUSE holds a password", "put it into TALLYSTICK_CLICKHOUSE_PASSWORD: addresses are logged"
        )
    if database not in (None, "", DATABASE):
        raise StoreMisconfigured(f"TALLYSTICK_CLICKHOUSE names a database {database!r}", f"the ledger's is called {DATABASE}")
    port = 8443 if scheme == "clickhouses" else 8123
    return Address(scheme == "clickhouses", user or "default", tuple(_with_port(host, port) for host in hosts.split(",")))


def _with_port(host: str, port: int) -> str:
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[\w.-]+)(?::(\d{1,5}))?", host)
    if found is None:
        raise StoreMisconfigured(f"TALLYSTICK_CLICKHOUSE names a host {host!r}", "HOST:PORT, several divided by commas")
    return f"{found[1]}:{found[2] or port}"


class ServerStore:
    """What `Store` promises, of servers. Nothing is sent twice: what has become of a statement whose answer is missing, its sender finds out.

    url: see read_address. cluster: the servers' name for themselves, needed where there are several. ca: of the authority that signed their certificates.
    """

    def __init__(
        self, url: str, password: str = "", *, cluster: str = "", replicated: bool = False, ca: Path | None = None
    ) -> None:
        """Raises StoreUnavailable where the first host doesn't answer, StoreMisconfigured."""
        self._address = read_address(url)
        self.payloads: Final = None
        self.dialect: Final = _topology(self._address.hosts, cluster, replicated)
        self._password = password
        self._pool = _Pool(**get_pool_manager_options(ca_cert=str(ca) if ca else None, maxsize=_CONNECTIONS, retries=0))
        self._local = threading.local()
        self._hosts: dict[tuple[str, str], Client] = {}
        self._readers: OrderedDict[Cage, Client] = OrderedDict()
        self._lock = threading.Lock()
        self._host(self._address.hosts[0], "system")

    def client(self) -> "Client":
        """This thread's connection: a session, which ends when nothing was asked in it for half an hour, or with the server."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            client = self._connect(self._address.hosts[0], DATABASE, {"session_timeout": _SESSION_S}, session=True)
            self._local.client = client
        return client

    def each_host(self, database: str = DATABASE) -> "Sequence[Client]":
        """As Store's; ON CLUSTER, the first host tells the others."""
        hosts = self.dialect.hosts[:1] if self.dialect.replicated else self.dialect.hosts
        return [self._host(host, database) for host in hosts]

    def _host(self, host: str, database: str) -> "Client":
        with self._lock:
            client = self._hosts.get((host, database))
        if client is None:
            client = self._connect(host, database, {})
            with self._lock:
                self._hosts[host, database] = client
        return client

    @contextmanager
    def reader(self, tenant: str | None, limits: Mapping[str, int | str]) -> "Iterator[Client]":
        """As Store's: what binds it goes with each request, there is no session that could be lost with it."""
        cage = Cage(tenant, tuple(limits.items()))
        with self._lock:
            client = self._readers.get(cage)
        if client is None:
            settings = {name: _value(value) for name, value in limits.items()}
            silent_s = int(settings.get("max_execution_time", 0)) + _SILENT_S
            bound = {**settings, "log_comment": cage.comment, "readonly": 1}
            pool = self._pool if tenant is None else cast(PoolManager, _OneTenants(self._pool, tenant))
            client = self._connect(self._address.hosts[0], DATABASE, bound, silent_s=silent_s, pool=pool)
        with self._lock:
            self._readers[cage] = client
            self._readers.move_to_end(cage)
            if len(self._readers) > _READERS:
                self._readers.popitem(last=False)
        yield client

    def _connect(
        self,
        host: str,
        database: str,
        settings: Mapping[str, Any],
        *,
        session: bool = False,
        silent_s: int = _SILENT_S,
        pool: PoolManager | None = None,
    ) -> "Client":
        name, _, port = host.rpartition(":")
        try:
            return clickhouse_connect.get_client(
                interface="https" if self._address.secure else "http",
                host=name.strip("[]"),
                port=int(port),
                username=self._address.user,
                password=self._password,
                database=database,
                settings={**self.dialect.settings, **settings},
                pool_mgr=pool or self._pool,
                autogenerate_session_id=session,
                autogenerate_query_id=False,
                compress=False,
                connect_timeout=_CONNECT_S,
                send_receive_timeout=silent_s,
                query_retries=0,
                client_name="tallystick",
            )
        except ClickHouseError as error:
            raise self._refusal(host, database, error_name(error)) from error

    def _refusal(self, host: str, database: str, name: str) -> StoreMisconfigured | StoreUnavailable:
        if name in _REFUSED:
            return StoreMisconfigured(
                f"ClickHouse at {host} refuses the user {self._address.user!r} ({name})",
                "see TALLYSTICK_CLICKHOUSE and TALLYSTICK_CLICKHOUSE_PASSWORD",
            )
        if name in {"UNKNOWN_DATABASE", "ACCESS_DENIED"}:
            return StoreMisconfigured(
                f"ClickHouse at {host} has no database {database!r} that {self._address.user!r} may use",
                "`tallystick migrate` makes it; grants are in docs/clickhouse.md",
            )
        return StoreUnavailable(f"ClickHouse at {host} can't be asked: {name}")

    def close(self) -> None:
        self._pool.clear()


class _Pool(PoolManager):
    """Connections of all clients. That a server is away is told as such at once: the client would send some statements again by itself."""

    def urlopen(self, method: str, url: str, redirect: bool = True, **kw: Any) -> BaseHTTPResponse:  # type: ignore[override]
        host = urlsplit(url).netloc
        try:
            response = super().urlopen(method, url, redirect=redirect, **kw)
        except HTTPError as error:
            cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
            raise StoreUnavailable(f"ClickHouse at {host} doesn't answer: {type(cause).__name__}") from error
        name = _AWAY.get(response.headers.get("X-ClickHouse-Exception-Code", ""))
        # It ended while it told of its progress.
        if name is None and all(header.lower() == "x-clickhouse-progress" for header in response.headers):
            name = "its answer has no end"
        if name is not None:
            response.close()
            raise StoreUnavailable(f"ClickHouse at {host} can't answer now: {name}")
        return response


class _OneTenants:
    """A pool for one tenant's requests: their id says whose they are. Whatever a statement sets, it can't change that; the server's row filters read it."""

    def __init__(self, pool: PoolManager, tenant: str) -> None:
        self._pool, self._whose = pool, f"tenant:{tenant.encode().hex()}"

    def request(self, method: str, url: str, **kw: Any) -> BaseHTTPResponse:
        return self._pool.request(method, f"{url}&query_id={self._whose}:{uuid4().hex}", **kw)

    def clear(self) -> None:
        self._pool.clear()


def _topology(hosts: tuple[str, ...], cluster: str, replicated: bool) -> Topology:
    if not cluster and (len(hosts) > 1 or replicated):
        raise StoreMisconfigured(
            "a ledger on several servers needs their name", "TALLYSTICK_CLICKHOUSE_CLUSTER: as it stands in their remote_servers"
        )
    if not re.fullmatch(r"[\w.-]*", cluster):
        raise StoreMisconfigured("TALLYSTICK_CLICKHOUSE_CLUSTER is no name of a cluster", "letters, digits, '_', '.' and '-'")
    return Topology(Kind.CLUSTER if cluster else Kind.SERVER, hosts, cluster, replicated)


def _value(literal: int | str) -> int | str:
    """What an SQL literal stands for: in a request's settings there are no quotes."""
    return literal[1:-1] if isinstance(literal, str) and literal.startswith("'") else literal
