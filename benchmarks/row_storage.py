"""The same questions to the ledger and to PostgreSQL, with rows, columns and indexes as LiteLLM's proxy keeps them (its LiteLLM_SpendLogs).

    python benchmarks/row_storage.py [--calls 5000000]

The very same calls are in both. PostgreSQL has 2 GB of shared buffers, 256 MB to sort in, parallel workers, statistics and a warm cache;
feature is a column of its own here, where LiteLLM would have it in JSON. The median of five, after one; answers are compared.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from questions import DAYS, FIFTY_SKEWED, START_S, fill

from tallystick.attribution.spend import spend
from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from postgres import postgres

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

TABLE = """
CREATE TABLE spend_logs
(
    request_id text PRIMARY KEY, call_type text, api_key text, spend double precision, total_tokens int, prompt_tokens int, completion_tokens int,
    "startTime" timestamp(3), "endTime" timestamp(3), "completionStartTime" timestamp(3), model text, model_group text, custom_llm_provider text,
    "user" text, metadata jsonb, cache_hit text, team_id text, end_user text, agent_id text, feature text, session_id text, status text
);
"""
INDEXES = """
CREATE INDEX ON spend_logs ("startTime");
CREATE INDEX ON spend_logs ("startTime", request_id);
CREATE INDEX ON spend_logs (end_user);
CREATE INDEX ON spend_logs (session_id);
"""
ROWS = """
SELECT
    response_id, operation, 'sk-1', cost_usd, input_tokens + cache_read_tokens + output_tokens, input_tokens + cache_read_tokens, output_tokens,
    formatDateTime(started_at, '%F %T.%f'), formatDateTime(ended_at, '%F %T.%f'),
    formatDateTime(addNanoseconds(started_at, toInt64(ttft_ms * 1e6)), '%F %T.%f'), response_model, request_model, provider, user,
    toJSONString(map('cache_read_input_tokens', cache_read_tokens)), cache_hit, team, customer, agent, feature, session, status
FROM charges
WHERE started_at >= fromUnixTimestamp({since}) AND started_at < fromUnixTimestamp({until})
"""
MONTH = "\"startTime\" >= to_timestamp({since}) AT TIME ZONE 'UTC' AND \"startTime\" < to_timestamp({until}) AT TIME ZONE 'UTC'"


def questions() -> dict[str, tuple[tuple[str, dict[str, Any]], str]]:
    """By their names: for the ledger with what binds to it, and for PostgreSQL; the first column of each answer names the group."""
    since, until = START_S * 10**9, (START_S + DAYS * 86_400) * 10**9
    when = MONTH.format(since=START_S, until=START_S + DAYS * 86_400)
    days = f"toDate(started_at) >= toDate({START_S // 86_400})"
    return {
        "spend by customer, feature and agent, 30 days": (
            spend(["customer", "feature", "agent"], since, until),
            "SELECT end_user, feature, agent_id, count(*), sum(prompt_tokens), sum(completion_tokens), sum(spend) FROM spend_logs "
            f"WHERE {when} GROUP BY 1, 2, 3",
        ),
        "one customer's spend by feature and day, 30 days": (
            spend(["feature", "day"], since, until, where={"customer": "customer-7"}),
            "SELECT feature, date_trunc('day', \"startTime\"), count(*), sum(prompt_tokens), sum(completion_tokens), sum(spend) FROM spend_logs "
            f"WHERE {when} AND end_user = 'customer-7' GROUP BY 1, 2",
        ),
        "spend by model, 30 days": (
            spend(["model"], since, until),
            f"SELECT model, count(*), sum(prompt_tokens), sum(completion_tokens), sum(spend) FROM spend_logs WHERE {when} GROUP BY 1",
        ),
        "p95 time to first token by model, 30 days": (
            ("SELECT request_model, quantileTDigest(0.95)(ttft_ms) FROM charges GROUP BY request_model", {}),
            'SELECT model, percentile_cont(0.95) WITHIN GROUP (ORDER BY extract(epoch FROM "completionStartTime" - "startTime")) '
            f"FROM spend_logs WHERE {when} GROUP BY 1",
        ),
        "budgets: each customer, feature, agent and team, this month": (
            (
                f"SELECT [customer], sum(cost_usd) FROM charges WHERE {days} GROUP BY customer UNION ALL "
                f"SELECT [feature, agent, team], sum(cost_usd) FROM charges WHERE {days} GROUP BY feature, agent, team",
                {},
            ),
            "SELECT end_user, feature, agent_id, team_id, sum(spend) FROM spend_logs "
            f"WHERE {when} GROUP BY GROUPING SETS ((end_user), (feature, agent_id, team_id))",
        ),
    }


def copy(client: "Client", connection: "psycopg.Connection[Any]") -> None:
    with connection.cursor().copy("COPY spend_logs FROM STDIN (FORMAT csv)") as into:
        for day in range(DAYS):
            since = START_S + day * 86_400
            into.write(client.raw_query(ROWS.format(since=since, until=since + 86_400), fmt="CSV"))


def median_ms(ask: Callable[[], Any]) -> tuple[float, int]:
    """Milliseconds, and how many rows came."""
    rows = len(ask())
    times = []
    for _ in range(5):
        began = time.monotonic()
        ask()
        times.append((time.monotonic() - began) * 1000)
    return statistics.median(times), rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=5_000_000)
    calls = options.parse_args().calls
    with tempfile.TemporaryDirectory() as data, open_store(Path(data)) as store:
        client = store.client()
        migrate(store, 0)
        fill(client, calls, START_S, FIFTY_SKEWED)
        size = client.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE table = 'ledger' AND active").first_row[0]
        server = postgres()
        url = server.fresh().replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET shared_buffers = '2GB'")
        server.stop()
        server.start()
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "SET work_mem = '256MB'; SET maintenance_work_mem = '1GB'; SET max_parallel_workers_per_gather = 2; SET TimeZone = 'UTC'"
            )
            connection.execute(TABLE)
            copy(client, connection)
            connection.execute(INDEXES)
            connection.execute("VACUUM ANALYZE spend_logs")
            row = connection.execute("SELECT count(*), pg_total_relation_size('spend_logs') FROM spend_logs").fetchone()
            assert row
            print(
                f"{row[0]:,} calls in both: {size / calls:.0f} bytes each in the ledger, {row[1] / calls:.0f} in PostgreSQL with its indexes"
            )
            with store.reader(None, READER_SETTINGS) as reader:
                for name, ((sql, params), row_sql) in questions().items():
                    ours, answers = median_ms(lambda sql=sql, params=params: reader.query(sql, parameters=params).result_rows)
                    theirs, others = median_ms(lambda row_sql=row_sql: connection.execute(row_sql).fetchall())
                    assert answers == others, (name, answers, others)
                    print(f"{ours:8.1f} ms, PostgreSQL {theirs:8.1f} ms: {theirs / ours:6.1f} times as long  {name}", flush=True)


if __name__ == "__main__":
    main()
