"""CPU of the writer for each span under a load that goes on: 64,000 spans a second, one batch of them each, for some minutes of their time.

    python benchmarks/sustained.py [--seconds 200]

A batch is searched for spans that tell of a call of the ledger again, among the calls of the minutes around it: what that takes grows with the
load of three minutes, and no further. CPU is that of all threads, merges included. The load is made in this process, as fast as it is written;
that isn't counted.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from traffic import payload

from tallystick.attribution.prices import PriceBook
from tallystick.ingest.migrate import migrate
from tallystick.ingest.store import open_store
from tallystick.ingest.writer import Item, Writer

REQUESTS, SPANS = 125, 512
STEP_S = 20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=int, default=200)
    seconds = options.parse_args().seconds
    with tempfile.TemporaryDirectory() as data, open_store(Path(data)) as store:
        migrate(store, 0)
        client: Any = store.client()
        writer = Writer(store, PriceBook())
        command, spent = client.command, {"search": 0.0, "all": 0.0}

        def timed(sql: str, *args: Any, **kwargs: Any) -> Any:
            before = time.process_time()
            try:
                return command(sql, *args, **kwargs)
            finally:
                if sql.startswith("INSERT INTO near"):
                    spent["search"] += time.process_time() - before

        client.command = timed
        began_ns = time.time_ns() - 7_200 * 10**9
        for second in range(seconds):
            at = began_ns + second * 10**9
            items = [Item(payload(SPANS, second * REQUESTS + one, at), SPANS, "", at) for one in range(REQUESTS)]
            before = time.process_time()
            writer.write(items)
            spent["all"] += time.process_time() - before
            if (second + 1) % STEP_S == 0:
                spans = STEP_S * REQUESTS * SPANS
                print(
                    f"after {second + 1:4} s, {(second + 1) * REQUESTS * SPANS:11,} spans: {spent['all'] / spans * 1e6:5.1f} us a span, "
                    f"of them the search {spent['search'] / spans * 1e6:4.1f}",
                    flush=True,
                )
                spent = dict.fromkeys(spent, 0.0)


if __name__ == "__main__":
    main()
