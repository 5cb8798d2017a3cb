"""Milliseconds for all budgets of a tick, over a month of calls in the embedded engine; CPU milliseconds beside, which a busy machine blurs less.

    python benchmarks/budgets.py [--calls 10000000]

Two ledgers of one month of 30 days: 50 skewed customers, and 10,000. The median of nine, after one.
"""

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from questions import FIFTY_SKEWED, fill

from tallystick.alerts.periods import PeriodSpec, Unit, period_at, previous
from tallystick.alerts.spend import Wanted, spends
from tallystick.attribution.user_sql import READER_SETTINGS
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

START = datetime(2026, 9, 1, tzinfo=UTC)
NOW = datetime(2026, 9, 30, 18, tzinfo=UTC)
MONTH = period_at(PeriodSpec(Unit.MONTH), NOW)
LAST_MONTH = previous(PeriodSpec(Unit.MONTH), MONTH)
IN_BERLIN = period_at(PeriodSpec(Unit.MONTH, "Europe/Berlin"), NOW)
DIMENSIONS = ("customer", "feature", "agent", "team")

EACH_OF_FOUR = [Wanted(f"each {name}", MONTH, each=name) for name in DIMENSIONS]
FEW = {
    "each customer, feature, agent and team, this month (aim: 20)": EACH_OF_FOUR,
    "the same, and last month": [
        Wanted(one.budget, period, each=one.each) for period in (MONTH, LAST_MONTH) for one in EACH_OF_FOUR
    ],
    "the same four, this month of Berlin": [Wanted(one.budget, IN_BERLIN, each=one.each) for one in EACH_OF_FOUR],
    "each customer, this month": EACH_OF_FOUR[:1],
}
MANY = {
    "each customer of 10,000, this month (aim: 300)": EACH_OF_FOUR[:1],
    "10,000 budgets of a customer each, this month (aim: 300)": [
        Wanted(f"budget {n}", MONTH, {"customer": (f"customer-{n}",)}) for n in range(10_000)
    ],
}


def measure(reader: "Client", wanted: list[Wanted], *, full: bool = False) -> str:
    def ask(sql: str, params: Any, /) -> Any:
        return reader.query(sql, parameters=params).result_rows

    wall, cpu = [], []
    for _ in range(10):
        began, worked = time.perf_counter(), time.process_time()
        spends(ask, wanted, full=full)
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append((time.process_time() - worked) * 1000)
    return f"{statistics.median(wall[1:]):8.1f} ms, least {min(wall[1:]):7.1f}, CPU {min(cpu[1:]):7.1f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=10_000_000)
    calls = options.parse_args().calls
    with tempfile.TemporaryDirectory() as data, open_store(Path(data)) as store:
        client = store.client()
        migrate(store, 0)
        for customer, questions in ((FIFTY_SKEWED, FEW), ("rand(1) % 10000", MANY)):
            client.command("TRUNCATE TABLE ledger")
            fill(client, calls, int(START.timestamp()), customer)
            parts, groups = client.query(
                "SELECT count(), sum(rows) FROM system.projection_parts WHERE table = 'ledger' AND active"
            ).first_row
            print(f"{calls:,} calls in {parts} parts, {groups:,} rows of the projection")
            with store.reader(None, {**READER_SETTINGS, "max_memory_usage": 4_000_000_000}) as reader:
                for name, wanted in questions.items():
                    print(f"{measure(reader, wanted)}  {name}", flush=True)
                print(
                    f"{measure(reader, EACH_OF_FOUR[:1], full=True)}  each customer, with tokens, calls and coverage", flush=True
                )


if __name__ == "__main__":
    main()
