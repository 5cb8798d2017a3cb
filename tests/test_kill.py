"""kill -9 under load, again and again: every acknowledged span is stored, once.

`TALLYSTICK_KILLS` says how often (20); the times are the same in every run, as far as the machine lets them be.
"""

import os
import random
import time
from pathlib import Path

from load import TOKENS, TOTALS, Sender
from otlp import trace_hex
from server import Server, free_port

KILLS = int(os.environ.get("TALLYSTICK_KILLS", "20"))
SENDERS = 8


def test_kill(tmp_path: Path) -> None:
    chance = random.Random(20261120)
    server = Server(tmp_path / "data", port=free_port())
    senders = [Sender(str(i), [f"http://127.0.0.1:{server.port}"]) for i in range(SENDERS)]
    for sender in senders:
        sender.start()
    try:
        for kill in range(KILLS):
            if kill % 5 == 4:
                # While it starts: reads its parts, migrates, makes its tables.
                starting = server.launch()
                time.sleep(chance.uniform(0.8, 3))
                starting.kill()
                starting.communicate()
            else:
                server.start()
                time.sleep(chance.uniform(0, 1.5))
                server.kill()
        server.start()
        for sender in senders:
            sender.finish()
        calls = [name for sender in senders for name in sender.calls()]
        traces = {trace_hex(name): name for name in calls}
        stored = {row["trace_id"]: row for row in server.sql(TOTALS)}
    finally:
        server.kill()
    of = [stored.get(trace) for trace in traces]
    lost = sum(row is None or row["calls"] < 1 for row in of)
    doubled = sum(row is not None and (row["calls"] > 1 or row["most_entries"] > 1) for row in of)
    wrong = sum(row is not None and row["total"] != TOKENS for row in of)
    voided = sum(int(row["voids"]) for row in of if row)
    print(
        f"\n{KILLS} kills; {sum(s.acknowledged for s in senders)} requests acknowledged, {sum(s.cut_off for s in senders)} cut off and sent again\n"
        f"{'calls acknowledged':>20}{'stored':>10}{'doubled':>10}{'lost':>10}{'voided by a better span':>26}\n"
        f"{len(traces):>20}{len(traces) - lost:>10}{doubled:>10}{lost:>10}{voided:>26}"
    )
    assert (lost, doubled, wrong) == (0, 0, 0)
    assert voided > 0
    assert len(traces) > KILLS
    assert stored.keys() <= traces.keys()
