"""kill -9 under load, again and again: every acknowledged span is stored, once.

`TALLYSTICK_KILLS` says how often (20); the times are the same in every run, as far as the machine lets them be.
"""

import os
import random
import threading
import time
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp import request, span, trace_hex
from server import Server, free_port

KILLS = int(os.environ.get("TALLYSTICK_KILLS", "20"))
SENDERS = 8
SINGLE, PAIRED = 20, 10
"""Calls that begin in one request. A paired one is told of by two spans, the other of which comes with the next request."""


class Sender(threading.Thread):
    """Sends its requests, one after another, each until it is acknowledged; every second one again, as an exporter does that missed the answer."""

    def __init__(self, number: int, url: str) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._number = number
        self._url = url
        self._began_ns = time.time_ns() - 600_000_000_000
        self._stopping = threading.Event()
        self.acknowledged = 0
        """Requests."""
        self.cut_off = 0
        """Requests that a kill left without an answer."""
        self.failure = ""

    def run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30, trust_env=False) as http:
            while not self._stopping.is_set():
                body = self.request(self.acknowledged).SerializeToString()
                for _ in range(1 + self.acknowledged % 2):
                    self._deliver(http, body)
                self.acknowledged += 1

    def _deliver(self, http: httpx.Client, body: bytes) -> None:
        while True:
            try:
                answer = http.post("/v1/traces", content=body, headers={"content-type": "application/x-protobuf"})
            except httpx.ConnectError:
                time.sleep(0.05)
                continue
            except httpx.TransportError:
                self.cut_off += 1
                continue
            if answer.status_code == 200 and not answer.content:
                return
            if answer.status_code != 503:
                self.failure = f"{answer.status_code} {answer.text[:200]}"
            time.sleep(0.05)

    def finish(self) -> None:
        self._stopping.set()
        self.join(60)
        assert not self.is_alive()
        assert not self.failure, self.failure

    def calls(self) -> list[str]:
        """Of all acknowledged requests."""
        return [name for number in range(self.acknowledged) for name in [*self._single(number), *self._paired(number)]]

    def request(self, number: int) -> ExportTraceServiceRequest:
        outer = [span(name, start_ns=self._start(number, i)) for i, name in enumerate(self._single(number))]
        inner: list[Span] = []
        for begun, first in ((number, True), (number - 1, False)):
            for i, name in enumerate(self._paired(begun) if begun >= 0 else []):
                begin = self._start(begun, SINGLE + i)
                if (i % 2 == 0) is first:
                    outer.append(span(name, f"{name}/outer", start_ns=begin))
                else:
                    known = {"gen_ai.usage.cache_read.input_tokens": 500}
                    half = span(name, f"{name}/inner", parent=f"{name}/outer", start_ns=begin, attributes=known)
                    inner.append(half)
        # Of the two, this instrumentation knows less: it doesn't say that nothing was cached.
        made = request(*outer, scope="opentelemetry.instrumentation.anthropic")
        made.MergeFrom(request(*inner, scope="com.anthropic.sdk.python"))
        return made

    def _single(self, number: int) -> list[str]:
        return [f"single-{self._number}-{number}-{i}" for i in range(SINGLE)]

    def _paired(self, number: int) -> list[str]:
        return [f"paired-{self._number}-{number}-{i}" for i in range(PAIRED)]

    def _start(self, number: int, i: int) -> int:
        return self._began_ns + (number * (SINGLE + PAIRED) + i) * 1_000_000


def test_kill(tmp_path: Path) -> None:
    chance = random.Random(20261120)
    server = Server(tmp_path / "data", port=free_port())
    senders = [Sender(i, f"http://127.0.0.1:{server.port}") for i in range(SENDERS)]
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
    wrong = sum(row is not None and row["total"] != 1100 for row in of)
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


TOTALS = """
SELECT trace_id, sum(calls) AS calls, sum(total) AS total, max(entries) AS most_entries, sum(voids) AS voids
FROM
(
    SELECT
        trace_id, span_id, sum(calls) AS calls, sum(input_tokens + ifNull(cache_read_tokens, 0) + output_tokens) AS total,
        countIf(entry = 'call') AS entries, countIf(entry = 'void') AS voids
    FROM charges
    GROUP BY trace_id, span_id
)
GROUP BY trace_id
"""
