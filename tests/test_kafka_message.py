"""What a message is: the example in tests/messages, which a consumer can be built against, is what a collector sends."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags
from server import Server, rejected

from tallystick.collectors.content import outgoing
from tallystick.collectors.losses import Loss, stamp
from tallystick.collectors.span_queue import Counts
from tallystick.schema.kafka import Received, headers, is_topic, read_headers, received_headers

EXAMPLE = Path(__file__).parent / "messages"


def message() -> ExportTraceServiceRequest:
    """Two calls: one answered, one cancelled."""
    resource = Resource({"service.name": "chat", "service.instance.id": "chat-1"})
    scope = InstrumentationScope("opentelemetry.instrumentation.genai.openai", "1.3b0")

    def call(number: int, **more: object) -> ReadableSpan:
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "content": "never sent"}]}]',
            "tallystick.customer": "acme",
            **more,
        }
        failed = "error.type" in more
        return ReadableSpan(
            "chat gpt-4o",
            context=SpanContext(number << 64 | 1, number, False, TraceFlags(1)),
            resource=resource,
            attributes=attributes,  # type: ignore[arg-type]
            events=[Event("exception", {"exception.type": "asyncio.CancelledError"}, 1_767_225_601_000_000_000)]
            if failed
            else [],
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR) if failed else Status(),
            start_time=1_767_225_600_000_000_000,
            end_time=1_767_225_601_500_000_000,
            instrumentation_scope=scope,
        )

    answered = {"gen_ai.response.id": "chatcmpl-1", "gen_ai.usage.input_tokens": 1_200, "gen_ai.usage.output_tokens": 50}
    batch = [outgoing(call(1, **answered)), outgoing(call(2, **{"error.type": "asyncio.CancelledError"}))]
    stamp(batch, "0123456789abcdef", 7, Counts(waiting=2, exported=95, lost={Loss.QUEUE_FULL: 3}, error=""))
    return encode_spans(batch)


def test_the_example_is_what_is_sent() -> None:
    assert ExportTraceServiceRequest.FromString((EXAMPLE / "collector.binpb").read_bytes()) == message()
    expected = {name: value.encode() for name, value in json.loads((EXAMPLE / "collector.headers.json").read_text()).items()}
    assert dict(headers("collector/0.1.0", 1_767_225_602_000_000_000)) == expected


def test_the_example_is_two_calls_to_the_server(server: Server) -> None:
    key = server.key("example")
    answer = server.post((EXAMPLE / "collector.binpb").read_bytes(), key)
    assert (answer.status_code, rejected(answer)) == (200, 0)
    rows = server.sql("SELECT customer, service, status, input_tokens, output_tokens FROM charges ORDER BY span_id", key)
    assert [tuple(row.values()) for row in rows] == [("acme", "chat", "ok", 1_200, 50), ("acme", "chat", "cancelled", None, None)]


RECEIVED = Received(
    tenant="acme",
    operator=True,
    received_unix_nano=1_767_225_602_000_000_000,
    spans=2,
    receiver="00112233445566ff",
    number=7,
    accepted=95,
    sender="receiver/0.1.0",
    sent_unix_nano=1_767_225_602_000_000_500,
)


def written(message: Received) -> list[tuple[str, bytes]]:
    assert message.received_unix_nano is not None
    assert message.spans is not None
    assert message.number is not None
    assert message.accepted is not None
    assert message.sent_unix_nano is not None
    return received_headers(
        message.sender,
        message.sent_unix_nano,
        tenant=message.tenant,
        operator=message.operator,
        received_unix_nano=message.received_unix_nano,
        spans=message.spans,
        receiver=message.receiver,
        number=message.number,
        accepted=message.accepted,
    )


def test_the_headers_of_a_receiver_are_those_of_the_example() -> None:
    expected = json.loads((EXAMPLE / "receiver.headers.json").read_text())
    assert [(name, value.decode()) for name, value in written(RECEIVED)] == list(expected.items())
    assert read_headers([(name, value.encode()) for name, value in expected.items()]) == RECEIVED


@given(st.text(), st.booleans(), st.lists(st.integers(0, 2**64 - 1), min_size=5, max_size=5))
def test_what_is_written_is_read(tenant: str, operator: bool, numbers: list[int]) -> None:
    received, spans, number, accepted, sent = numbers
    message = Received(tenant, operator, received, spans, "r", number, accepted, "s/1", sent)
    assert read_headers(written(message)) == message


@given(st.lists(st.tuples(st.sampled_from([name for name, _ in written(RECEIVED)]) | st.text(), st.none() | st.binary())))
def test_headers_of_anybody_are_read_without_an_error(given_headers: list[tuple[str, bytes | None]]) -> None:
    said = read_headers(given_headers)
    assert said.content_type
    for number in (said.received_unix_nano, said.spans, said.number, said.accepted, said.sent_unix_nano):
        assert number is None or 0 <= number < 2**64


@pytest.mark.parametrize("nothing", [None, [], [("tallystick-spans", None)], [("tallystick-operator", b"TRUE")]])
def test_a_message_without_headers_is_as_good(nothing: list[tuple[str, bytes | None]] | None) -> None:
    assert read_headers(nothing) == Received()


@pytest.mark.parametrize(
    ("name", "good"), [("tallystick.otlp", True), ("a-b_c.1", True), ("", False), ("..", False), ("ä", False), ("x" * 250, False)]
)
def test_topics(name: str, good: bool) -> None:
    assert is_topic(name) is good
