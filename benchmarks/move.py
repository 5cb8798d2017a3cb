"""A directory's ledger into a ClickHouse server, and into two shards: rows a second, CPU, memory, and how long the comparison takes.

    python benchmarks/move.py [--calls 2000000]

Rows are those of benchmarks/questions.py. Both engines and the mover share the machine; CPU is of the mover with the embedded engine in it, and of the
servers. `again`: nothing is left to do, each piece is compared by its hash.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from questions import FIFTY_SKEWED, START_S, fill

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from clickhouse import CLUSTER, ClickHouse, ClickHouseCluster

from tallystick.ingest.migrate import migrate
from tallystick.ingest.move import Mover
from tallystick.ingest.server_store import ServerStore
from tallystick.ingest.store import EmbeddedStore, Store, open_store
from tallystick.ingest.turns import open_turns
from tallystick.server.moving import Plan, compare, enter, plan

TICKS = 100


def cpu_s(pids: list[int]) -> float:
    """CPU of these processes and this one so far."""
    used = 0.0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        used += (int(fields[11]) + int(fields[12])) / TICKS
    mine = resource.getrusage(resource.RUSAGE_SELF)
    return used + mine.ru_utime + mine.ru_stime


def peak_mb(pid: int | str) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) >> 10


def measured(name: str, rows: int, pids: list[int], work: Callable[[], Any]) -> Any:
    began, used = time.monotonic(), cpu_s(pids)
    result = work()
    seconds, cpu = time.monotonic() - began, cpu_s(pids) - used
    print(
        f"  {name:<9}{seconds:6.1f} s, {rows / seconds:9,.0f} rows a second, {cpu / rows * 1e6:5.1f} µs of CPU a row", flush=True
    )
    return result


@contextmanager
def targets(place: Path) -> Iterator[list[tuple[str, ServerStore, list[int]]]]:
    with (
        ClickHouse(place / "one") as one,
        ClickHouseCluster(place / "two") as two,
        closing(ServerStore(one.url(), one.password)) as server,
        closing(ServerStore(two.url(), two.password, cluster=CLUSTER)) as cluster,
    ):
        yield [
            ("one server", server, [one._process.pid]),
            ("two shards", cluster, [shard._process.pid for shard in two.shards]),
        ]


def run(source: Store, target: Store, pids: list[int], planned: Plan) -> None:
    mover = Mover(source.client(), target.client(), open_turns(target))
    came = measured("moved", planned.rows, pids, lambda: enter(mover, planned, lambda _: None))
    assert came.rows == planned.rows
    found = measured("compared", planned.rows, pids, lambda: compare(mover, planned))
    assert not any(one.missing or one.source != one.target for one in found)
    again = measured("again", planned.rows, pids, lambda: enter(mover, planned, lambda _: None))
    assert not again.rows
    print(f"  at most {peak_mb('self')} MB in the mover, {max(peak_mb(pid) for pid in pids)} MB in a server")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--calls", type=int, default=2_000_000)
    options.add_argument("--fill", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.fill:
        with open_store(Path(given.fill)) as store:
            migrate(store, 0)
            fill(store.client(), given.calls, START_S, FIFTY_SKEWED)
        return
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        # In a process of its own: what filling takes of memory isn't the mover's.
        subprocess.run([sys.executable, __file__, "--calls", str(given.calls), "--fill", str(data)], check=True)
        with targets(Path(place)) as found, closing(EmbeddedStore(data)) as source:
            migrate(source, None)
            for name, target, pids in found:
                migrate(target, 0)
                planned = plan(source.client(), target.client(), datetime.now(UTC))
                print(f"{planned.rows:,} rows into {name}")
                run(source, target, pids, planned)


if __name__ == "__main__":
    main()
