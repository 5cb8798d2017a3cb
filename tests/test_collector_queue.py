"""The queue of ended spans: bounded, patient, and exact in what it counts."""

import os
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTracePartialSuccess, ExportTraceServiceResponse
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from tallystick.collectors import span_queue
from tallystick.collectors.delivery import Delivery
from tallystick.collectors.losses import Loss
from tallystick.collectors.processor import ModelSpanProcessor
from tallystick.collectors.settings import read
from tallystick.collectors.span_queue import Counts, Outcome, SpanQueue
from tallystick.testing.receiver import SpanReceiver

KEPT = {"OTEL_BSP_SCHEDULE_DELAY": "1"}


class Server:
    """Stands in for `Delivery`: answers as told, and holds each batch until `open` is set."""

    def __init__(self, answer: Callable[[Sequence[ReadableSpan]], Outcome]) -> None:
        self.rejected = 0
        self.error = ""
        self.open = threading.Event()
        self.asked = threading.Event()
        self.batches: list[list[str]] = []
        self._answer = answer

    def send(self, batch: Sequence[ReadableSpan]) -> Outcome:
        self.batches.append([span.name for span in batch])
        self.asked.set()
        self.open.wait(10)
        outcome = self._answer(batch)
        self.error = "" if outcome is Outcome.STORED else "told so"
        return outcome

    def close(self) -> None:
        self.open.set()


def ended(name: str, **attributes: str) -> ReadableSpan:
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span(name, attributes=attributes)
    span.end()
    assert isinstance(span, ReadableSpan)
    return span


def spans(count: int) -> list[ReadableSpan]:
    return [ended(str(number)) for number in range(count)]


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


def to(receiver: SpanReceiver, **environ: str) -> SpanQueue:
    settings = read({"TALLYSTICK_URL": receiver.url, **KEPT, **environ})
    return SpanQueue(settings, lambda: Delivery(settings))


def test_a_full_queue_drops_the_newest_and_counts_them() -> None:
    server = Server(lambda batch: Outcome.STORED)
    queue = SpanQueue(read({**KEPT, "OTEL_BSP_MAX_QUEUE_SIZE": "10", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4"}), lambda: server)
    made = spans(25)
    queue.put(made[0])
    assert server.asked.wait(10)
    for span in made[1:]:
        queue.put(span)
    assert queue.counts() == Counts(waiting=10, exported=0, lost={Loss.QUEUE_FULL: 15}, error="")
    server.open.set()
    assert queue.flush(10)
    assert queue.counts() == Counts(waiting=0, exported=10, lost={Loss.QUEUE_FULL: 15}, error="")
    assert [name for batch in server.batches for name in batch] == [str(number) for number in range(10)]
    assert max(map(len, server.batches)) <= 4


def test_a_batch_is_kept_until_the_server_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_queue, "FIRST_PAUSE_S", 0.001)
    answers = iter([Outcome.KEEP] * 5 + [Outcome.STORED] * 10)
    server = Server(lambda batch: next(answers))
    server.open.set()
    queue = SpanQueue(read(KEPT), lambda: server)
    for span in spans(3):
        queue.put(span)
    while queue.counts().waiting:
        queue.flush(10)
    assert queue.counts() == Counts(waiting=0, exported=3, lost={}, error="")


def test_a_refused_span_takes_no_other_with_it() -> None:
    bad = {"3", "11"}
    server = Server(lambda batch: Outcome.REFUSED if any(span.name in bad for span in batch) else Outcome.STORED)
    queue = SpanQueue(read({"OTEL_BSP_SCHEDULE_DELAY": "60000"}), lambda: server)
    server.open.set()
    for span in spans(16):
        queue.put(span)
    assert queue.flush(10)
    assert (queue.counts().exported, queue.counts().dropped) == (14, 2)


def test_stop_sends_what_is_left_and_takes_no_more() -> None:
    server = Server(lambda batch: Outcome.STORED)
    server.open.set()
    queue = SpanQueue(read({"OTEL_BSP_SCHEDULE_DELAY": "60000"}), lambda: server)
    made = spans(4)
    for span in made[:3]:
        queue.put(span)
    queue.stop()
    queue.put(made[3])
    queue.stop()
    assert queue.counts() == Counts(waiting=0, exported=3, lost={Loss.SHUTDOWN: 1}, error="")


def test_stop_gives_up_on_a_server_that_hangs() -> None:
    server = Server(lambda batch: Outcome.KEEP)
    queue = SpanQueue(read(KEPT), lambda: server)
    queue.put(spans(1)[0])
    assert server.asked.wait(10)
    queue.stop(timeout_s=0.05)
    assert server.open.is_set(), "the send in progress is interrupted"


def test_flush_says_no_while_the_server_is_away() -> None:
    server = Server(lambda batch: Outcome.KEEP)
    server.open.set()
    queue = SpanQueue(read(KEPT), lambda: server)
    assert queue.flush(10), "nothing to send"
    queue.put(spans(1)[0])
    assert not queue.flush(10)
    assert len(server.batches) <= 2, "the first failure is the answer, not the last in the time allowed"
    assert queue.counts() == Counts(waiting=1, exported=0, lost={}, error="told so")
    queue.stop()


def test_a_sender_that_cannot_be_made_counts_instead_of_keeping() -> None:
    def broken() -> Server:
        raise OSError("no certificates")

    queue = SpanQueue(read(KEPT), broken)
    made = spans(2)
    queue.put(made[0])
    queue.flush(10)
    queue.put(made[1])
    assert queue.counts() == Counts(waiting=0, exported=0, lost={Loss.NO_SENDER: 2}, error="")


def test_a_span_ended_while_the_queue_is_held_by_the_same_thread() -> None:
    """As by the garbage collector, which ends the spans of abandoned streams."""
    server = Server(lambda batch: Outcome.STORED)
    queue = SpanQueue(read(KEPT), lambda: server)
    done = threading.Event()

    def nested() -> None:
        with queue._changed:
            queue.put(spans(1)[0])
        done.set()

    threading.Thread(target=nested, daemon=True).start()
    assert done.wait(10)
    server.open.set()
    queue.stop()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_sends_its_own_spans_only(receiver: SpanReceiver) -> None:
    queue = to(receiver, OTEL_BSP_SCHEDULE_DELAY="60000")
    made, begun = spans(2)
    queue.put(made)
    child = os.fork()
    if child == 0:
        queue.put(begun)  # the parent ends it, too
        queue.put(ended("2"))
        queue.put(ended("3"))
        os._exit(0 if queue.flush(10) and queue.counts().exported == 2 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    queue.put(begun)
    assert [span.name for span in receiver.spans] == ["2", "3"]
    assert queue.flush(10)
    assert [span.name for span in receiver.spans] == ["2", "3", "0", "1"]
    queue.stop()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_not_ready_gets_the_spans_later(
    receiver: SpanReceiver, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_queue, "FIRST_PAUSE_S", 0.01)
    # Shorter than the exporter's own first pause, so that it is the queue that tries again.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.2")
    queue = to(receiver)
    receiver.status = status
    queue.put(spans(1)[0])
    assert receiver.wait_for(requests=1)
    receiver.status = 200
    assert receiver.wait_for(spans=1)
    queue.stop()
    assert queue.counts() == Counts(waiting=0, exported=1, lost={}, error="")


@pytest.mark.parametrize("status", [301, 401, 403, 404, 500])
def test_other_answers_are_no_success(receiver: SpanReceiver, status: int) -> None:
    queue = to(receiver)
    receiver.status = status
    queue.put(spans(1)[0])
    assert not queue.flush(10)
    assert queue.counts() == Counts(waiting=1, exported=0, lost={}, error=f"HTTP {status}")
    receiver.status = 200
    queue.stop()
    assert queue.counts() == Counts(waiting=0, exported=1, lost={}, error="")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refusal_is_final(receiver: SpanReceiver, status: int) -> None:
    queue = to(receiver)
    receiver.status = status
    queue.put(spans(1)[0])
    queue.flush(10)
    assert queue.counts() == Counts(waiting=0, exported=0, lost={Loss.REFUSED: 1}, error=f"HTTP {status}")


def test_a_span_that_cannot_be_encoded_is_dropped_alone(receiver: SpanReceiver, caplog: pytest.LogCaptureFixture) -> None:
    queue = to(receiver, OTEL_BSP_SCHEDULE_DELAY="60000")
    for span in [*spans(5), ended("\ud800"), ended("attribute", bad="\ud800", good="x")]:
        queue.put(span)
    queue.stop()
    assert (queue.counts().exported, queue.counts().dropped) == (6, 1)
    assert receiver.spans[-1].attributes == {"good": "x"}
    assert not [record for record in caplog.records if record.name != "tallystick"]


def test_rejected_spans_of_a_partial_success_are_dropped_ones(receiver: SpanReceiver) -> None:
    partial = ExportTracePartialSuccess(rejected_spans=2, error_message="times in 1970")
    receiver.answer = ExportTraceServiceResponse(partial_success=partial).SerializeToString()
    queue = to(receiver, OTEL_BSP_SCHEDULE_DELAY="60000")
    for span in spans(5):
        queue.put(span)
    queue.stop()
    assert (queue.counts().exported, queue.counts().dropped) == (3, 2)


def test_the_wire(receiver: SpanReceiver) -> None:
    queue = to(receiver, TALLYSTICK_KEY="secret-key")
    queue.put(spans(1)[0])
    queue.stop()
    (headers,) = receiver.headers
    assert headers["authorization"] == "Bearer secret-key"
    assert headers["content-encoding"] == "gzip"
    assert headers["content-type"] == "application/x-protobuf"


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, "http://127.0.0.1:4318/v1/traces"),
        ({"TALLYSTICK_URL": "https://t.example/base/"}, "https://t.example/base/v1/traces"),
        ({"TALLYSTICK_URL": "http://t", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://o:1/"}, "http://t/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://o", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x/as-is"}, "http://x/as-is"),
    ],
)
def test_where_spans_go(environ: dict[str, str], endpoint: str) -> None:
    assert read(environ).endpoint == endpoint


def test_secrets_are_not_shown() -> None:
    settings = read({"TALLYSTICK_KEY": "secret-key", "TALLYSTICK_URL": "https://user:secret-word@t.example:8443"})
    assert "secret-key" not in repr(settings)
    assert settings.server == "https://t.example:8443/v1/traces"


@pytest.mark.parametrize("given", ["", "0", "-1", "x", "1.5", "١"])
def test_a_number_that_is_none_is_the_default(given: str) -> None:
    assert read({"OTEL_BSP_MAX_QUEUE_SIZE": given}).max_queue == 4096
    assert read({"OTEL_BSP_SCHEDULE_DELAY": given}).delay_s == 0.5


def test_only_model_spans_are_taken(receiver: SpanReceiver) -> None:
    queue = to(receiver)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(ModelSpanProcessor(queue))
    tracer = provider.get_tracer("test")
    keys = ["gen_ai.request.model", "llm.model_name", "openinference.span.kind", "ai.operationId", "ai.model.id"]
    keys += [
        "langfuse.observation.type",
        "langsmith.span.kind",
        "traceloop.span.kind",
        "litellm.cost.total",
        "anthropic.request.id",
    ]
    for key in [*keys, "http.method", "db.gen_ai.x", "ai.other", "tallystick.customer"]:
        with tracer.start_as_current_span(key) as span:
            span.set_attribute(key, "x")
    provider.shutdown()
    assert [span.name for span in receiver.spans] == keys
