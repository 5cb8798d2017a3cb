"""What was lost is counted by its reason, and told: as metrics, to the server, in the log at the end."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from server import CLEAN, Server, rejected

from tallystick.collectors import losses
from tallystick.collectors.content import outgoing
from tallystick.collectors.delivery import Delivery
from tallystick.collectors.losses import Loss, summary
from tallystick.collectors.settings import read
from tallystick.collectors.span_queue import Counts, Outcome, SpanQueue
from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

PROVIDER = TracerProvider(shutdown_on_exit=False)


class Kept:
    """A sender that keeps what it is given, and answers as told."""

    def __init__(self, answer: Callable[[Sequence[ReadableSpan]], Outcome] = lambda batch: Outcome.STORED) -> None:
        self.rejected = 0
        self.error = ""
        self.batches: list[list[ReadableSpan]] = []
        self.open = threading.Event()
        self.open.set()
        self._answer = answer

    def send(self, batch: Sequence[ReadableSpan]) -> Outcome:
        self.open.wait(10)
        self.batches.append(list(batch))
        return self._answer(batch)

    def close(self) -> None:
        self.open.set()


def spans(count: int, name: str = "chat", provider: TracerProvider = PROVIDER) -> list[ReadableSpan]:
    made: list[ReadableSpan] = []
    for _ in range(count):
        span = provider.get_tracer("test").start_span(
            name, attributes={"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o"}
        )
        span.end()
        assert isinstance(span, ReadableSpan)
        made.append(span)
    return made


def queue(sender: Kept, prepare: Any = None, **environ: str) -> SpanQueue:
    settings = read({"OTEL_BSP_SCHEDULE_DELAY": "60000", **environ})
    return SpanQueue(settings, lambda: sender, prepare) if prepare else SpanQueue(settings, lambda: sender)


def put(to: SpanQueue, given: Sequence[ReadableSpan]) -> None:
    for span in given:
        to.put(span)


def told(batch: Sequence[ReadableSpan]) -> tuple[int, int, int]:
    """(number of the batch, ended, lost) as its resource says."""
    first: Any = batch[0].resource.attributes
    assert all(span.resource.attributes == first for span in batch)
    return first["tallystick.collector.batch"], first["tallystick.collector.ended"], first["tallystick.collector.lost"]


def test_each_batch_tells_what_there_was_so_far() -> None:
    sender = Kept(lambda batch: Outcome.REFUSED if any(span.name == "bad" for span in batch) else Outcome.STORED)
    to = queue(sender)
    put(to, spans(3))
    assert to.flush(10)
    put(to, [*spans(1), *spans(1, "bad")])
    assert to.flush(10)
    put(to, spans(2))
    to.stop()
    assert [told(batch) for batch in sender.batches] == [(1, 3, 0), (2, 5, 0), (2, 5, 0), (2, 5, 0), (3, 7, 1)]
    ids = {str(span.resource.attributes["tallystick.collector.id"]) for batch in sender.batches for span in batch}
    assert len(ids) == 1
    assert len(ids.pop()) == 16
    assert to.counts() == Counts(waiting=0, exported=6, lost={Loss.REFUSED: 1}, error="")


def test_resources_stay_apart_and_the_providers_own_is_not_touched() -> None:
    other = TracerProvider(resource=Resource({"service.name": "other"}, "https://schema.example"), shutdown_on_exit=False)
    sender = Kept()
    to = queue(sender)
    put(to, [*spans(2), *spans(2, provider=other), *spans(1)])
    to.stop()
    (batch,) = sender.batches
    assert [span.resource.attributes["service.name"] == "other" for span in batch] == [False, False, True, True, False]
    assert batch[2].resource.schema_url == "https://schema.example"
    assert "tallystick.collector.id" not in other.resource.attributes
    assert len(encode_spans(batch).resource_spans) == 2


def test_a_span_that_cannot_be_prepared_is_counted_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(span: ReadableSpan) -> Any:
        if span.name == "bad":
            raise ValueError
        return outgoing(span)

    monkeypatch.delenv("TALLYSTICK_STRICT", raising=False)
    sender = Kept()
    to = queue(sender, prepare)
    put(to, [*spans(2), *spans(1, "bad"), *spans(1)])
    assert to.flush(10)
    put(to, spans(1, "bad"))
    assert to.flush(10)
    to.stop()
    assert to.counts() == Counts(waiting=0, exported=3, lost={Loss.ENCODING: 2}, error="")


def test_content_is_let_go_of_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a queue of spans would be one of prompts."""
    prepared = threading.Semaphore(0)

    def prepare(span: ReadableSpan) -> Any:
        prepared.release()
        return outgoing(span)

    to = queue(Kept(lambda batch: Outcome.KEEP), prepare, OTEL_BSP_MAX_EXPORT_BATCH_SIZE="2", OTEL_BSP_SCHEDULE_DELAY="1")
    put(to, spans(20))
    for _ in range(20):
        assert prepared.acquire(timeout=10), "all of them, though two are sent at a time"
    assert to.counts().waiting == 20
    to.stop(timeout_s=0)


def test_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr(losses, "get_meter", provider.get_meter)
    sender = Kept()
    sender.open.clear()
    to = queue(sender, OTEL_BSP_MAX_QUEUE_SIZE="3")
    losses.observe(to.counts)
    put(to, spans(5))
    assert points(reader) == {
        ("tallystick.collector.spans", "stored", None): 0,
        ("tallystick.collector.spans", "dropped", "queue_full"): 2,
        ("tallystick.collector.spans", "dropped", "refused"): 0,
        ("tallystick.collector.spans", "dropped", "encoding"): 0,
        ("tallystick.collector.spans", "dropped", "shutdown"): 0,
        ("tallystick.collector.spans", "dropped", "no_sender"): 0,
        ("tallystick.collector.queue.length", None, None): 3,
    }
    sender.open.set()
    to.stop()
    assert points(reader)["tallystick.collector.spans", "stored", None] == 3
    assert points(reader)["tallystick.collector.queue.length", None, None] == 0


def points(reader: InMemoryMetricReader) -> dict[tuple[str, Any, Any], int]:
    data: Any = reader.get_metrics_data()
    return {
        (metric.name, (point.attributes or {}).get("outcome"), (point.attributes or {}).get("reason")): point.value
        for of in data.resource_metrics
        for under in of.scope_metrics
        for metric in under.metrics
        for point in metric.data.data_points
    }


@pytest.mark.parametrize(
    ("counts", "line"),
    [
        (Counts(0, 10, {}, ""), ""),
        (Counts(0, 8, {Loss.QUEUE_FULL: 2}, ""), "2 of 10 model spans were lost: 2 queue full"),
        (
            Counts(3, 5, {Loss.REFUSED: 1, Loss.SHUTDOWN: 1}, "HTTP 503"),
            "5 of 10 model spans were lost: 1 refused, 1 shutdown, 3 not sent before the end",
        ),
    ],
)
def test_the_line_at_the_end(counts: Counts, line: str) -> None:
    assert summary(counts) == line


SERVICE = """
import sys
import tallystick.auto
import openai
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="k", max_retries=0)
for _ in range(3):
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
"""


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (200, ""),
        (
            400,
            "tallystick: a span was refused by SERVER (HTTP 400) and dropped\ntallystick: 3 of 3 model spans were lost: 3 refused (SERVER)\n",
        ),
    ],
)
def test_a_process_says_at_its_end_what_was_lost(status: int, said: str) -> None:
    with SpanReceiver() as receiver, ProviderServer() as provider:
        receiver.status = status
        done = subprocess.run(
            [sys.executable, "-c", SERVICE, provider.url],
            env={**CLEAN, "TALLYSTICK_URL": receiver.url},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.stderr == said.replace("SERVER", f"{receiver.url}/v1/traces")
        for span in receiver.spans:
            assert (span.resource["tallystick.collector.ended"], span.resource["tallystick.collector.lost"]) == (3, 0)


def test_the_server_takes_what_it_is_told(server: Server) -> None:
    """Today it makes nothing of it; what it stores of the calls isn't changed by it."""
    sender = Kept()
    to = queue(sender)
    given = spans(5)
    put(to, given)
    to.stop()
    (batch,) = sender.batches
    plain, with_totals = server.key("plain"), server.key("with-totals")
    answers = [server.post(encode_spans(some), key) for some, key in ((given, plain), (batch, with_totals))]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [rejected(answer) for answer in answers] == [0, 0]
    query = "SELECT * EXCEPT (tenant, entered_at) FROM charges ORDER BY span_id"
    assert server.sql(query, plain) == server.sql(query, with_totals)
    assert len(server.sql(query, plain)) == 5


def test_over_http_the_totals_come_along() -> None:
    with SpanReceiver() as receiver:
        settings = read({"TALLYSTICK_URL": receiver.url})
        to = SpanQueue(settings, lambda: Delivery(settings))
        put(to, spans(2))
        to.stop()
        assert [span.resource["tallystick.collector.batch"] for span in receiver.spans] == [1, 1]
