"""kill -9 at any moment: what was acknowledged is stored, once.

`TALLYSTICK_KILLS` says how often (20); `TALLYSTICK_KILL_TABLE` names a file for the table.
"""

import os
import random
import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp import request, span
from server import Server, free_port

KILLS = int(os.environ.get("TALLYSTICK_KILLS", "20"))
SENDERS = 6
SPANS = 40
"""Calls in a request; every eighth is told of by a second span, in the request after it."""


def batch(sender: int, number: int, begun_ns: int) -> tuple[ExportTraceServiceRequest, int]:
    """A request that is the same whenever it is made, and how many calls are told of for the first time in it."""
    start_ns = begun_ns + number * 1_000_000
    names = [f"{sender}/{number}/{i}" for i in range(SPANS)]
    calls = [span(name, start_ns=start_ns, attributes={"gen_ai.response.id": name}) for name in names]
    twice = [f"{sender}/{number - 1}/{i}" for i in range(0, SPANS, 8)] if number else []
    made = request(*calls)
    again = [
        span(
            f"again {name}",
            start_ns=start_ns - 1_000_000 - 500,
            duration_ns=1_000_001_000,
            attributes={"gen_ai.response.id": name},
        )
        for name in twice
    ]
    made.MergeFrom(request(*again, scope="openinference.instrumentation.langchain"))
    return made, len(calls)


class Sender(threading.Thread):
    """Sends its requests in order, each until it is acknowledged, whatever happens to the server."""

    def __init__(self, number: int, port: int, begun_ns: int) -> None:
        super().__init__(daemon=True)
        self.number, self.port, self.begun_ns = number, port, begun_ns
        self.stopping = threading.Event()
        self.sent = self.acknowledged = self.calls = 0

    def run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as client:
            while not self.stopping.is_set():
                made, calls = batch(self.number, self.acknowledged, self.begun_ns)
                body = made.SerializeToString()
                while True:
                    self.sent += 1
                    try:
                        url = f"http://127.0.0.1:{self.port}/v1/traces"
                        answer = client.post(url, content=body, headers={"content-type": "application/x-protobuf"})
                    except httpx.TransportError:
                        time.sleep(0.05)
                        continue
                    if answer.status_code == 503:
                        time.sleep(0.1)
                        continue
                    assert answer.status_code == 200, answer.text
                    break
                self.acknowledged += 1
                self.calls += calls


def test_kill_at_any_moment_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    chance = random.Random(20261120)
    port = free_port()
    begun_ns = time.time_ns() - 3_600_000_000_000
    server = Server(tmp_path / "data", port=port)
    senders = [Sender(number, port, begun_ns) for number in range(SENDERS)]
    with server:
        for sender in senders:
            sender.start()
        for _ in range(KILLS):
            # Between the first milliseconds of a start and some commits later.
            time.sleep(chance.uniform(0.0, 1.2))
            server.kill()
            server.start()
        for sender in senders:
            sender.stopping.set()
        for sender in senders:
            sender.join(60)
            assert not sender.is_alive()
        rows = server.sql(
            "SELECT trace_id, span_id, sum(calls) AS calls, countIf(entry = 'call') AS entered, sum(cost_usd) AS cost "
            "FROM charges GROUP BY trace_id, span_id"
        )
        total = server.sql("SELECT sum(calls) AS calls, sum(cost_usd) AS cost, count() AS entries FROM charges")[0]
    calls = sum(sender.calls for sender in senders)
    # A call may stand by either of the two spans that tell of it.
    doubled = sum(row["entered"] > 1 or row["calls"] > 1 for row in rows)
    lost = calls - total["calls"] if total["calls"] < calls else 0
    table = (
        f"kills                    {KILLS:>9,}\n"
        f"requests sent            {sum(s.sent for s in senders):>9,}\n"
        f"requests acknowledged    {sum(s.acknowledged for s in senders):>9,}\n"
        f"calls acknowledged       {calls:>9,}\n"
        f"calls stored             {total['calls']:>9,}\n"
        f"spans of calls told twice{sum(s.acknowledged - 1 for s in senders) * (SPANS // 8):>9,}\n"
        f"entries                  {total['entries']:>9,}\n"
        f"lost                     {lost:>9,}\n"
        f"doubled                  {doubled:>9,}\n"
    )
    if target := os.environ.get("TALLYSTICK_KILL_TABLE"):
        Path(target).write_text(table)
    assert calls > KILLS
    # Every call once, by whichever of its spans; and every cent.
    assert (total["calls"], lost, doubled) == (calls, 0, 0), table
    assert total["cost"] == calls * Decimal("0.00021")
