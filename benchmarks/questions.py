"""Milliseconds for the questions everybody asks, over a month of calls in the embedded engine.

    python benchmarks/questions.py [--calls 10000000]

Rows are made by the engine itself: 50 skewed customers, 8 features, 6 agents, 12 models; 30 days. The median of seven, after one.
"""

import argparse
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tallystick.attribution.spend import spend
from tallystick.attribution.user_sql import READER_SETTINGS, run
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

START_S = 1_790_000_000 // 86_400 * 86_400
DAYS = 30

FIFTY_SKEWED = "toUInt8(least(49, -10 * log(randCanonical(1) + 1e-9)))"
FILL = """
INSERT INTO ledger (entry, calls, tenant, customer, feature, agent, team, user, service, environment, provider, request_model, response_model, operation,
    streamed, status, input_tokens, cache_read_tokens, output_tokens, usage_source, started_at, duration_ns, ttft_ns, price_id, cost_usd,
    trace_id, span_id, parent_span_id, response_id, response_key, process, scope, layer)
SELECT 'call', 1, 'default', concat('customer-', toString({customer})), concat('feature-', toString(rand(2) % 8)),
    concat('agent-', toString(rand(3) % 6)), concat('team-', toString(rand(2) % 3)), concat('user-', toString(rand(4) % 5000)), 'chat', 'production', 'openai',
    concat('model-', toString(rand(5) % 12)) AS model, model, 'chat', 1, if(rand(6) % 100 = 0, 'error', 'ok'), rand(7) % 6000, rand(8) % 2000, rand(9) % 900,
    'provider', fromUnixTimestamp64Nano(toInt64(({start} + {days} * 86400 * number / {calls}) * 1e9), 'UTC'), rand(10) % 9000000000, rand(11) % 2000000000,
    'p', reinterpret(toInt64(rand(12)) * 5, 'Decimal(18, 12)'), toFixedString(unhex(hex(generateUUIDv4())), 16), reinterpret(rand64(13), 'FixedString(8)'),
    reinterpret(rand64(14), 'FixedString(8)'), concat('chatcmpl-', base64Encode(toString(rand64(15)))), rand(15), 'p', 's', 4
FROM numbers({first}, {rows})
"""


def fill(client: "Client", calls: int, start_s: int, customer: str) -> None:
    """That many calls over DAYS from then on; returns when the parts are merged."""
    step = 500_000
    for first in range(0, calls, step):
        rows = min(step, calls - first)
        client.command(FILL.format(customer=customer, start=start_s, days=DAYS, calls=calls, first=first, rows=rows))
    while client.query("SELECT count() FROM system.merges").first_row[0]:
        time.sleep(1)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=10_000_000)
    calls = options.parse_args().calls
    with tempfile.TemporaryDirectory() as data, open_store(Path(data)) as store:
        client = store.client()
        migrate(store, 0)
        began = time.monotonic()
        fill(client, calls, START_S, FIFTY_SKEWED)
        rows, size, parts = client.query(
            "SELECT sum(rows), sum(bytes_on_disk), count() FROM system.parts WHERE table = 'ledger' AND active"
        ).first_row
        print(f"{rows:,} calls in {parts} parts, {size / rows:.1f} bytes each, filled in {time.monotonic() - began:.0f} s")
        since, until = START_S * 10**9, (START_S + DAYS * 86_400) * 10**9
        days = f"toDate(started_at) >= toDate({START_S // 86_400})"
        questions = {
            "spend by customer, feature and agent, 30 days": spend(["customer", "feature", "agent"], since, until),
            "spend by customer and day, 30 days": spend(["customer", "day"], since, until),
            "one customer's spend by feature and day, 30 days": spend(
                ["feature", "day"], since, until, where={"customer": "customer-7"}
            ),
            "spend by feature and day, 30 days": spend(["feature", "day"], since, until),
            "spend by model, 30 days": spend(["model"], since, until),
            "p95 time to first token by model, 30 days": "SELECT request_model, quantileTDigest(0.95)(ttft_ms) FROM charges GROUP BY request_model",
            "budgets: each customer, this month": f"SELECT customer, sum(cost_usd) FROM ledger WHERE {days} GROUP BY customer",
            "budgets: every value of customer, feature, agent, team, this month": "SELECT [customer], sum(cost_usd) FROM ledger "
            f"WHERE {days} GROUP BY customer UNION ALL SELECT [feature, agent, team], sum(cost_usd) FROM ledger WHERE {days} GROUP BY feature, agent, team",
        }
        for name, question in questions.items():
            text, params = (question, {}) if isinstance(question, str) else question
            with store.reader(None, READER_SETTINGS) as reader:
                # Alerts ask the table by themselves: what they ask isn't a user's, and needn't be checked.
                ask = reader.query if name.startswith("budgets") else partial(run, reader)
                ask(text, params)
                times = []
                for _ in range(7):
                    began = time.monotonic()
                    ask(text, params)
                    times.append((time.monotonic() - began) * 1000)
            print(f"{statistics.median(times):8.1f} ms, least {min(times):8.1f}  {name}", flush=True)


if __name__ == "__main__":
    main()
