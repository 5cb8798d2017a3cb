"""The named queries on the real tables: right, and fast where they are meant to be."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from elsewhere import Elsewhere

from tallystick.attribution.spend import DIMENSIONS, spend
from tallystick.ingest.migrate import migrate

DAY = 86_400 * 10**9
NOVEMBER = 20_758 * DAY
CALLS = 20_000


@pytest.fixture(scope="module")
def ledger(chdb_client: Client, chdb_path: Path) -> Iterator[Client]:
    """The ledger's table and view with CALLS calls of a day, every tenth unpriced."""
    chdb_client.command("CREATE DATABASE spend_queries")
    client = clickhouse_connect.get_client(dsn=f"chdb://{chdb_path}", database="spend_queries")
    migrate(Elsewhere(client), 0)
    client.command(f"""
        INSERT INTO ledger (entry, calls, tenant, customer, feature, agent, team, tags, provider, request_model, status,
            usage_source,
            started_at, input_tokens, cache_read_tokens, cache_write_5m_tokens, cache_write_1h_tokens, output_tokens, cost_usd)
        SELECT 'call', 1, 'acme', concat('c', toString(number % 7)), concat('f', toString(number % 3)), 'a', 't',
            map('plan', toString(number % 2)), 'openai', 'gpt-5', 'ok', 'provider',
            toDateTime64('2026-11-01 00:00:00', 9, 'UTC') + toIntervalSecond(number * 4), 100, 10, 20, 30, 1,
            if(number % 10 = 0, NULL, toDecimal64('0.001', 12))
        FROM numbers({CALLS})""")
    yield client
    client.command("DROP DATABASE spend_queries")
    client.close()


def test_every_dimension_can_be_asked_of_the_ledger(ledger: Client) -> None:
    for name in [*DIMENSIONS, "tag:plan", "tag:it's"]:
        query = spend([name], NOVEMBER, NOVEMBER + DAY)
        result = ledger.query(query.text, parameters=query.params)
        assert result.column_names[0] == name
        calls = result.column_names.index("calls")
        assert sum(row[calls] for row in result.result_rows) == CALLS, name


def test_buckets_and_coverage_are_right(ledger: Client) -> None:
    query = spend([], NOVEMBER, NOVEMBER + DAY)
    (row,) = ledger.query(query.text, parameters=query.params).named_results()
    assert (row["calls"], row["input_tokens"], row["cache_read_tokens"]) == (CALLS, 100 * CALLS, 10 * CALLS)
    assert (row["cache_write_tokens"], row["output_tokens"], row["tokens"]) == (50 * CALLS, CALLS, 161 * CALLS)
    assert (row["priced_calls"], row["priced_tokens"]) == (CALLS * 9 // 10, 161 * CALLS * 9 // 10)
    assert row["cost_usd"] == Decimal("0.001") * (CALLS * 9 // 10)


@pytest.mark.parametrize(
    "dimensions", [[], ["customer"], ["customer", "feature", "agent", "team"], ["tenant"], ["day", "customer"], ["month"]]
)
def test_spend_by_scope_is_answered_from_the_projection(ledger: Client, dimensions: list[str]) -> None:
    query = spend(dimensions, NOVEMBER, NOVEMBER + DAY, where={"customer": "c1"} if "customer" in dimensions else None)
    plan = "\n".join(str(row[0]) for row in ledger.query("EXPLAIN " + query.text, parameters=query.params).result_rows)
    assert "ReadFromMergeTree (spend)" in plan
