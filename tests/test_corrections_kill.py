"""kill -9 in the middle of a repricing: at the next start all of it stands, or none of it.

`TALLYSTICK_KILLS` says how often it is killed at any moment (2), beside those at which it is most likely to be wrong.
"""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from clickhouse import ClickHouseCluster
from server import CLEAN

KILLS = int(os.environ.get("TALLYSTICK_KILLS", "2"))
CALLS = 40
"""Over two months: as many partitions are entered at once."""

PROCESS = """
import contextlib, json, os, signal, sys, threading, time
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
sys.path.insert(0, {tests!r})
from corrected import SINCE_NS, UNTIL_NS, Call, book, enter, totals
from tallystick.attribution.priced_calls import Which
from tallystick.attribution.reprice import reprice
from tallystick.ingest.migrate import migrate
from tallystick.ingest import turns
from tallystick.server.stores import open_ledger
from tallystick.settings import Settings
from tallystick.server.corrections import open_corrections

number, place, seconds = json.loads(sys.argv[2])
die = lambda: os.kill(os.getpid(), signal.SIGKILL)
rates = [{{"lab-a": (Decimal(usd), Decimal(usd))}} for usd in (1, 3)]
# The dead one is waited for no longer than it takes here.
turns._LEASE_S = 0.5
with contextlib.closing(open_ledger(Settings.load(data=Path(sys.argv[1])))) as store:
    fresh = migrate(store, 0)
    client = store.client()
    if fresh:
        calls = [Call(number, "lab-a", 1000, 1000, None) for number in range({calls})]
        enter(client, "t", [replace(call, cost=call.price(rates[1])) for call in calls])
    corrections = open_corrections(store, turns.open_turns(store))
    made = sum(one.entries for one in corrections.all(10_000))
    stand = client.query("SELECT countIf(correction != ''), uniqIf(toYYYYMM(started_at), correction != '') FROM ledger").first_row
    left = client.query("SELECT count() FROM corrections FINAL WHERE state = 'entering'").first_row[0]
    print(json.dumps([made, *stand, left, *map(str, totals(client, "t"))]), flush=True)
    seen = 0

    def dying(work):
        def wrapped(statement, *rest, **options):
            global seen
            result = work(statement, *rest, **options)
            seen += place in str(statement)
            if place and seen == number:
                die()
            return result
        return wrapped

    client.command, client.raw_insert = dying(client.command), dying(client.raw_insert)
    if seconds:
        threading.Thread(target=lambda: (time.sleep(seconds), die()), daemon=True).start()
    for turn in range(100 if place or seconds else 0):
        cheap = totals(client, "t").cost < {calls} * Decimal("0.004")
        reprice(corrections, book(rates[cheap]), Which(SINCE_NS, UNTIL_NS, tenant="t"), reason="x", author="")
"""


def outcome(data: Path, env: Mapping[str, str], moments: Sequence[tuple[int, str, float]]) -> int:
    """How often what stood changed, over processes that are killed at these moments: after so many statements with this text in it, or seconds."""
    code = PROCESS.format(tests=str(Path(__file__).parent), calls=CALLS)
    changed, before = 0, None
    for moment in moments:
        process = subprocess.run(
            [sys.executable, "-c", code, str(data), json.dumps(moment)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**CLEAN, **env},
        )
        assert process.returncode == (-signal.SIGKILL if moment[1] or moment[2] else 0), process.stderr
        made, entries, months, left, calls, priced, tokens, _, cost = json.loads(process.stdout)
        assert left == 0
        assert entries == made
        assert months in (0, 2)
        assert (int(calls), int(priced), int(tokens)) == (CALLS, CALLS, 2000 * CALLS)
        assert Decimal(cost) in (CALLS * Decimal("0.002"), CALLS * Decimal("0.006"))
        changed += before not in (None, cost)
        before = cost
    return changed


def test_all_or_none_of_a_run_stands_whenever_it_is_killed(tmp_path: Path) -> None:
    chance = random.Random(7)
    moments: list[tuple[int, str, float]] = [
        (1, "INTO corrections", 0),
        (1, "ATTACH PARTITION", 0),
        (2, "ATTACH PARTITION", 0),
        (2, "INTO corrections", 0),
        *((0, "", chance.uniform(0.01, 1.5)) for _ in range(KILLS)),
        (0, "", 0),
    ]
    assert outcome(tmp_path / "data", {}, moments)


def test_on_shards_too(tmp_path: Path) -> None:
    """There the next process has to wait until the dead one's turn is taken away."""
    entered = "INSERT INTO ledger\nSELECT * FROM correction_"
    moments = [(1, "INTO corrections", 0.0), (1, entered, 0.0), (2, "INTO corrections", 0.0), (0, "", 0.0)]
    with ClickHouseCluster(tmp_path / "clickhouse") as shards:
        assert outcome(tmp_path / "data", shards.env(), moments)
