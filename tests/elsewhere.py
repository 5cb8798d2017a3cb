"""A ledger in a database of its own, beside the one of the engine that all tests of a process share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tallystick.ingest.cluster import DATABASE, EMBEDDED, Topology

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


class Elsewhere:
    """A store over one connection, whose current database is the ledger's. Its readers aren't caged."""

    def __init__(self, client: "Client", dialect: Topology = EMBEDDED) -> None:
        self._client = client
        self.dialect = dialect
        self.payloads = None

    def client(self) -> "Client":
        return self._client

    def each_host(self, database: str = DATABASE) -> "Sequence[Client]":
        return [self._client]

    @contextmanager
    def reader(self, tenant: str | None, limits: Mapping[str, int | str]) -> "Iterator[Client]":
        yield self._client

    def close(self) -> None:
        self._client.close()
