"""A ledger of its own for tests of what alerts ask of it."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client
from elsewhere import Elsewhere

from tallystick.ingest.migrate import migrate

BUCKETS = ("input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens", "output_tokens")


@dataclass(frozen=True)
class Entry:
    """A row of the ledger, as far as alerts look at it."""

    at: datetime
    cost: Decimal | None = Decimal("0.01")
    entry: str = "call"
    calls: int = 1
    tenant: str = "default"
    customer: str = ""
    feature: str = ""
    agent: str = ""
    team: str = ""
    user: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    model: str = "gpt-5"
    status: str = "ok"
    tokens: tuple[int | None, int | None, int | None, int | None, int | None] = (100, None, None, None, 10)
    """By BUCKETS."""
    cache_hit: str = ""
    ttft_ms: int | None = None
    trace: int = 0


_COLUMNS = (
    "entry", "calls", "tenant", "customer", "feature", "agent", "team", "user", "tags", "request_model", "status", "started_at", "cost_usd",
    "cache_hit", "ttft_ns", "trace_id", "span_id", *BUCKETS,
)  # fmt: skip


def _row(one: Entry) -> tuple[Any, ...]:
    return (
        one.entry, one.calls, one.tenant, one.customer, one.feature, one.agent, one.team, one.user, dict(one.tags), one.model, one.status, one.at,
        one.cost, one.cache_hit, None if one.ttft_ms is None else one.ttft_ms * 1_000_000, one.trace.to_bytes(16, "big"),
        one.trace.to_bytes(8, "big"), *one.tokens,
    )  # fmt: skip


class Ledger:
    """The ledger's table and view in a database of their own."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def enter(self, entries: Sequence[Entry]) -> None:
        self.client.insert("ledger", [_row(one) for one in entries], column_names=_COLUMNS)

    def forget(self) -> None:
        self.client.command("TRUNCATE TABLE ledger")

    def ask(self, sql: str, params: Mapping[str, Any], /) -> Sequence[Sequence[Any]]:
        return self.client.query(sql, parameters=dict(params)).result_rows


@contextmanager
def a_ledger(server: Client, path: Path) -> Iterator[Ledger]:
    """server: a connection that may make databases; path: where its engine lives."""
    server.command("CREATE DATABASE alerting")
    client = clickhouse_connect.get_client(dsn=f"chdb://{path}", database="alerting")
    migrate(Elsewhere(client), 0)
    try:
        yield Ledger(client)
    finally:
        server.command("DROP DATABASE alerting")
        client.close()
