"""A writer in a process of its own, as tests stop and kill it: `python writing.py BATCHES`, a file of pickled batches of payloads, entered one after
the other, each until it stands. `STOP_AT` of the environment names a step of the first batch at which it stops itself (SIGSTOP), after it has said so.
"""

import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import UserPrices
from tallystick.ingest.errors import StoreError
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.turns import ServerTurns
from tallystick.ingest.writer import Item, Writer

LEASE_S = 1.0
TENANT = "acme"
RECEIVED_NS = 1_790_000_000_000_000_000


class Stopping:
    """A client that stops its process: "looked", before it sends what enters the batch; "entering", while the server does that; "entered", after it."""

    def __init__(self, client: Any, other: Any, step: str) -> None:
        self._client, self._other, self._step = client, other, step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def command(self, sql: str, **options: Any) -> Any:
        step, self._step = (self._step, "") if sql.startswith("INSERT INTO ledger") else ("", self._step)
        if step == "looked":
            stop(step)
        if step == "entering":
            threading.Thread(target=self._stop_while_it_runs, daemon=True).start()
            # Longer than another one takes to start.
            sql = sql.replace("WHERE problem = ''", "WHERE sleepEachRow(0.2) = 0 AND problem = ''", 1)
            options["settings"] = {"function_sleep_max_microseconds_per_block": 60_000_000}
        done = self._client.command(sql, **options)
        if step == "entered":
            stop(step)
        return done

    def _stop_while_it_runs(self) -> None:
        running = "SELECT count() FROM system.processes WHERE query LIKE 'INSERT INTO ledger%'"
        while not self._other.query(running).result_rows[0][0]:
            time.sleep(0.005)
        stop("entering")


class StoppingStore(ServerStore):
    """One whose connections are `Stopping`."""

    def client(self) -> Any:
        return Stopping(super().client(), self.each_host("system")[0], os.environ.get("STOP_AT", ""))


def stop(step: str) -> None:
    print(step, flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)


def main() -> None:
    store = StoppingStore(
        os.environ["TALLYSTICK_CLICKHOUSE"], os.environ["TALLYSTICK_CLICKHOUSE_PASSWORD"], cluster=os.environ.get("CLUSTER", "")
    )
    writer = Writer(store, PriceBook(UserPrices()), ServerTurns(store, LEASE_S))
    for batch in pickle.loads(Path(sys.argv[1]).read_bytes()):
        until = time.monotonic() + 120
        while True:
            try:
                written = writer.write([Item(data, spans, TENANT, RECEIVED_NS) for data, spans in batch])
                break
            except StoreError as error:
                print("again:", error, file=sys.stderr, flush=True)
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        print(f"entered {written.entered} voided {written.voided}", flush=True)


if __name__ == "__main__":
    main()
