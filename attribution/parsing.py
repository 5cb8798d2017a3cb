"""What reads queries without running them: the embedded engine, also where a server of another version runs them.

parseQueryToJSON, which shows everything that a query holds, came with ClickHouse 26.9. What a server is sent is the text that was written anew from
the tree that was checked; should its parser read that in another way, its grants, row filters and read-only mode hold all the same.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

import clickhouse_connect
from clickhouse_connect.driver.httpclient import HttpClient

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

_lock = threading.Lock()


@contextmanager
def parser(reader: "Client") -> "Iterator[Client]":
    """A connection whose engine has parseQueryToJSON: the reader's, where it is embedded, else one to an engine of this process that holds nothing."""
    if not isinstance(reader, HttpClient):
        yield reader
        return
    # What it takes to read a query is bounded by its length: user_sql.check_size.
    with _lock:
        yield _engine()


@cache
def _engine() -> "Client":
    client = clickhouse_connect.get_client(dsn="chdb://:memory:")
    client.command(
        "SET max_execution_time = 10, max_memory_usage = 500000000, max_parser_depth = 300, max_parser_backtracks = 100000"
    )
    client.command("SET readonly = 1")
    return client
