"""Seconds to price a month of one model again, over a month of calls in the embedded engine.

    python benchmarks/reprice.py [--calls 10000000]

The ledger is that of benchmarks/questions.py: 12 models, 30 days. Every call of the model changes: first by a dry run, then entered, then
once more when there is nothing left to change, then undone.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

from questions import DAYS, FIFTY_SKEWED, START_S, fill

from tallystick.attribution.priced_calls import Which
from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import read_prices
from tallystick.attribution.reprice import reprice
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store
from tallystick.ingest.turns import open_turns
from tallystick.server.corrections import open_corrections

PRICES = """
prices:
  models:
    - {model: model-3, per_million_tokens: {input: 1.25, cache_read: 0.125, output: 10}}
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=10_000_000)
    calls = options.parse_args().calls
    with tempfile.TemporaryDirectory() as data, open_store(Path(data)) as store:
        client = store.client()
        migrate(store, 0)
        fill(client, calls, START_S, FIFTY_SKEWED)
        filled = getrusage(RUSAGE_SELF).ru_maxrss
        corrections = open_corrections(store, open_turns(store))
        book = PriceBook(read_prices(PRICES))
        which = Which(START_S * 10**9, (START_S + DAYS * 86_400) * 10**9, model="model-3")

        def timed(name: str, work: Callable[[], int]) -> None:
            began, cpu = time.monotonic(), time.process_time()
            entries = work()
            print(
                f"{time.monotonic() - began:6.1f} s ({time.process_time() - cpu:.1f} s of CPU)  {name}: {entries:,} calls changed",
                flush=True,
            )

        def run(dry_run: bool) -> int:
            return reprice(corrections, book, which, reason="benchmark", author="", dry_run=dry_run).changed

        print(f"{calls:,} calls")
        timed("dry run", lambda: run(True))
        timed("entered", lambda: run(False))
        timed("again", lambda: run(False))
        timed("undone", lambda: corrections.undo(corrections.all(1)[0].id, reason="benchmark", author="").entries)
        print(
            f"at most {getrusage(RUSAGE_SELF).ru_maxrss >> 10} MiB of memory, {filled >> 10} of them when the ledger was filled"
        )


if __name__ == "__main__":
    main()
