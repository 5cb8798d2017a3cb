"""Senders as exporters are: each request until it is acknowledged, some twice, to whichever receiver answers; and what must be stored of them."""

import threading
import time
from collections.abc import Sequence

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp import request, span

SINGLE, PAIRED = 20, 10
"""Calls that begin in one request. A paired one is told of by two spans, the other of which comes with the next request."""

TOKENS = 1100
"""Of each call."""


class Sender(threading.Thread):
    """Sends its requests, one after another, each until it is acknowledged; every second one again, as an exporter does that missed the answer.

    name: of no other sender. urls: of receivers; one that doesn't answer is left for the next. pause_s: between two requests.
    """

    def __init__(self, name: str, urls: Sequence[str], pause_s: float = 0.0) -> None:
        super().__init__(name=name, daemon=True)
        self._urls = list(urls)
        self._pause_s = pause_s
        self._began_ns = time.time_ns() - 600_000_000_000
        self._stopping = threading.Event()
        self.acknowledged = 0
        """Requests."""
        self.sent = 0
        """Requests, each time that they were sent."""
        self.cut_off = 0
        """Requests that were left without an answer."""
        self.held_off = 0
        """Requests that were answered 503."""
        self.failure = ""

    def run(self) -> None:
        with httpx.Client(timeout=30, trust_env=False) as http:
            while not self._stopping.is_set():
                body = self.request(self.acknowledged).SerializeToString()
                for _ in range(1 + self.acknowledged % 2):
                    self._deliver(http, body)
                self.acknowledged += 1
                time.sleep(self._pause_s)

    def _deliver(self, http: httpx.Client, body: bytes) -> None:
        while True:
            self.sent += 1
            try:
                answer = http.post(f"{self._urls[0]}/v1/traces", content=body, headers={"content-type": "application/x-protobuf"})
            except httpx.ConnectError:
                self._urls.append(self._urls.pop(0))
                time.sleep(0.05)
                continue
            except httpx.TransportError:
                self.cut_off += 1
                continue
            if answer.status_code == 200 and not answer.content:
                return
            if answer.status_code != 503:
                self.failure = f"{answer.status_code} {answer.text[:200]}"
            elif not int(answer.headers["retry-after"]) > 0:
                self.failure = f"503 without Retry-After: {answer.headers}"
            self.held_off += 1
            self._urls.append(self._urls.pop(0))
            time.sleep(0.05)

    def finish(self, within_s: float = 60) -> None:
        """Stop once what is under way is acknowledged."""
        self._stopping.set()
        self.join(within_s)
        assert not self.is_alive(), f"{self.name} waits for an acknowledgement"
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
        return [f"single-{self.name}-{number}-{i}" for i in range(SINGLE)]

    def _paired(self, number: int) -> list[str]:
        return [f"paired-{self.name}-{number}-{i}" for i in range(PAIRED)]

    def _start(self, number: int, i: int) -> int:
        return self._began_ns + (number * (SINGLE + PAIRED) + i) * 1_000_000


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
"""Of each call, by its trace: how often it counts, its tokens, and the most entries that one of its spans has."""
