"""CPU of writers and of a ClickHouse server for each span, from checked payloads in memory to stored, priced rows: one writer and two at once.

    python benchmarks/server_writer.py [--spans 200000] [--batch 10000] [--statements]

The server is the one of deploy/clickhouse/run.sh, writers are processes of their own; CPU is the kernel's count of them, merges included. The serial
share is the wall time in which a writer held the turn to write (looking and entering), of all that its batches took: it limits how far writers
scale. --statements prints what each statement of a batch takes of the server's time.
"""

import argparse
import collections
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "tests"))

from clickhouse import ClickHouse
from traffic import payload

from tallystick.attribution.prices import PriceBook
from tallystick.attribution.prices_file import UserPrices
from tallystick.ingest.migrate import migrate
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.turns import ServerTurns
from tallystick.ingest.writer import Item, Writer

REQUEST = 500
TICKS = os.sysconf("SC_CLK_TCK")


class Timed:
    """A client that notes how long each statement takes."""

    def __init__(self, client: object) -> None:
        self._client = client
        self.taken_s: dict[str, list[float]] = collections.defaultdict(list)

    def __getattr__(self, name: str) -> object:
        found = getattr(self._client, name)
        if name not in {"command", "query", "raw_insert"}:
            return found

        def timed(statement: str, *rest: object, **options: object) -> object:
            began = time.monotonic()
            try:
                return found(statement, *rest, **options)
            finally:
                self.taken_s[f"{name} {' '.join(statement.split()[:4])}"].append(time.monotonic() - began)

        return timed


class TimedStore(ServerStore):
    """One whose connection is `Timed`."""

    def __init__(self, url: str, password: str) -> None:
        super().__init__(url, password)
        self.timed = Timed(super().client())

    def client(self) -> Any:
        return self.timed


class TimedTurns(ServerTurns):
    held_s = waited_s = 0.0

    @contextmanager
    def take(self) -> Generator[str, None, None]:
        began = time.monotonic()
        with super().take() as ours:
            got = time.monotonic()
            self.waited_s += got - began
            yield ours
        self.held_s += time.monotonic() - got


def write(number: int, spans: int, batch: int) -> None:
    """In a process of its own: says so when it's ready, waits for a line, writes, prints what it took."""
    store = TimedStore(os.environ["TALLYSTICK_CLICKHOUSE"], os.environ["TALLYSTICK_CLICKHOUSE_PASSWORD"])
    turns = TimedTurns(store)
    writer = Writer(store, PriceBook(UserPrices()), turns)
    began_ns = time.time_ns() - 3600 * 10**9
    items = [
        Item(payload(REQUEST, number * 1_000_000 + i, began_ns + i * REQUEST * 50_000), REQUEST, "acme", time.time_ns())
        for i in range(spans // REQUEST)
    ]
    writer.write([Item(payload(REQUEST, 999_999_000 + number, began_ns), REQUEST, "acme", time.time_ns())])
    store.timed.taken_s.clear()
    turns.held_s = turns.waited_s = 0.0
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, wall = time.process_time(), time.monotonic()
    for first in range(0, len(items), batch // REQUEST):
        writer.write(items[first : first + batch // REQUEST])
    wall = time.monotonic() - wall
    print(time.process_time() - cpu, wall, turns.held_s, turns.waited_s, flush=True)
    for statement, taken in sorted(store.timed.taken_s.items(), key=lambda one: -sum(one[1])):
        print(f"{1000 * sum(taken) / (spans / batch):8.1f} ms a batch  {statement}", flush=True)


def cpu_s(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def quiet(pid: int) -> float:
    """Its CPU once merges have ended."""
    busy = cpu_s(pid)
    while True:
        time.sleep(1)
        if (now := cpu_s(pid)) - busy < 0.05:
            return now
        busy = now


def measure(writers: int, spans: int, batch: int, statements: bool) -> float:
    with tempfile.TemporaryDirectory() as data, ClickHouse(pathlib.Path(data) / "server") as server:
        store = ServerStore(server.url(), server.password)
        migrate(store, 0)
        pid = server.pid
        running = [
            subprocess.Popen(
                [sys.executable, __file__, "--write", str(number), "--spans", str(spans), "--batch", str(batch)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **server.env("ingest")},
            )
            for number in range(writers)
        ]  # fmt: skip
        for process in running:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        before, began = quiet(pid), time.monotonic()
        for process in running:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        told = [process.communicate()[0].splitlines() for process in running]
        wall = time.monotonic() - began
        took = quiet(pid) - before
        stored = int(server.ask("SELECT sum(calls) FROM tallystick.ledger"))
    own_s, wall_s, held_s, waited_s = (
        sum(map(float, column)) for column in zip(*(lines[0].split() for lines in told), strict=True)
    )
    entered = writers * spans
    print(
        f"{writers} writers, batches of {batch}: {took / entered * 1e6:.1f} us a span in the server, {own_s / entered * 1e6:.1f} in the writers; "
        f"{entered / wall:,.0f} spans a second; turn held {held_s / wall_s:.0%} of a writer's time, waited for {waited_s / wall_s:.0%}; "
        f"{stored - writers * REQUEST} of {entered} stored",
        flush=True,
    )
    if statements:
        print("\n".join(told[0][1:]), flush=True)
    return entered / wall


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--spans", type=int, default=200_000, help="of each writer")
    options.add_argument("--batch", type=int, default=10_000)
    options.add_argument("--statements", action="store_true")
    options.add_argument("--write", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.write is not None:
        write(given.write, given.spans, given.batch)
        return
    one, two = (measure(writers, given.spans, given.batch, given.statements) for writers in (1, 2))
    print(f"two writers enter {two / one:.2f} times as many spans a second as one, on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
