"""No text of a prompt or an answer is sent, whatever an instrumentation recorded; the ledger doesn't miss it."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from server import CLEAN, Server

from tallystick.collectors import content
from tallystick.collectors.content import Outgoing, outgoing, redact, with_content
from tallystick.schema.dialects import attributes as content_attributes
from tallystick.schema.dialects import content as rows
from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

SPANS = Path(__file__).parent / "spans"
RECORDINGS = sorted(path for path in SPANS.glob("*/*.json") if path.parent.name != "_documented")
SAID = re.compile(
    r"Hello world|\bhi\b|\bhello\b|w0 w1|Paris|Get weather|fake \d\d\d|Traceback|Request timed out|\bthinking about\b",
    re.IGNORECASE,
)
"""What the calls of the recordings asked and were answered, and what their exceptions said."""


@pytest.fixture
def redacting() -> Iterator[None]:
    yield
    content._redactor = None


def value(of: AnyValue) -> Any:
    kind = of.WhichOneof("value")
    if kind == "array_value":
        return tuple(value(item) for item in of.array_value.values)
    if kind == "kvlist_value":
        return attributes(of.kvlist_value.values)
    return getattr(of, kind) if kind else None


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: value(pair.value) for pair in pairs}


def recorded(path: Path) -> list[ReadableSpan]:
    """The spans of a recording, as the SDK would hand them to us."""
    request = ExportTraceServiceRequest()
    json_format.ParseDict(_hex_to_base64(json.loads(path.read_text())["otlp"]), request, ignore_unknown_fields=True)
    return [
        _readable(span, Resource(attributes(of.resource.attributes)), InstrumentationScope(under.scope.name))
        for of in request.resource_spans
        for under in of.scope_spans
        for span in under.spans
    ]


def _hex_to_base64(otlp: Any) -> Any:
    import base64

    if isinstance(otlp, list):
        return [_hex_to_base64(item) for item in otlp]
    if isinstance(otlp, dict):
        return {
            key: base64.b64encode(bytes.fromhex(item)).decode()
            if key in {"traceId", "spanId", "parentSpanId"}
            else _hex_to_base64(item)
            for key, item in otlp.items()
        }
    return otlp


def _readable(span: Span, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    def context(of: bytes) -> SpanContext:
        return SpanContext(int.from_bytes(span.trace_id), int.from_bytes(of), False, TraceFlags(1))

    return ReadableSpan(
        name=span.name,
        context=context(span.span_id),
        parent=context(span.parent_span_id) if span.parent_span_id else None,
        resource=resource,
        attributes=attributes(span.attributes),
        events=[Event(event.name, attributes(event.attributes), event.time_unix_nano) for event in span.events],
        kind=SpanKind(max(span.kind - 1, 0)),
        status=Status(StatusCode(span.status.code), span.status.message or None)
        if span.status.code == 2
        else Status(StatusCode(span.status.code)),
        start_time=span.start_time_unix_nano,
        end_time=span.end_time_unix_nano,
        instrumentation_scope=scope,
    )


def sent(spans: list[ReadableSpan]) -> ExportTraceServiceRequest:
    return encode_spans([outgoing(span) for span in spans])


def test_the_recordings_hold_what_was_said() -> None:
    """Else the next test would prove nothing."""
    holding = [path for path in RECORDINGS if SAID.search(str(encode_spans(recorded(path))))]
    assert len({path.parent.name for path in holding}) > 10
    assert len(holding) > 150


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_nothing_that_was_said_is_sent(path: Path) -> None:
    told = str(sent(recorded(path)))
    assert not SAID.search(told), SAID.findall(told)


def test_the_ledger_is_the_same_without_content(server: Server) -> None:
    whole, stripped = server.key("whole"), server.key("stripped")
    spans = [span for path in RECORDINGS for span in recorded(path)]
    server.post_all([encode_spans(spans)], whole)
    server.post_all([sent(spans)], stripped)
    query = "SELECT * EXCEPT (tenant, entered_at) FROM charges ORDER BY trace_id, span_id, entry, response_id, calls"
    one, other = server.sql(query, whole), server.sql(query, stripped)
    assert len(one) > 150
    assert other == one


def made(attributes: Mapping[str, Any], resource: Mapping[str, Any] | None = None, **more: Any) -> ReadableSpan:
    return ReadableSpan(
        "chat gpt-4o", resource=Resource(dict(resource or {})), attributes=dict(attributes), start_time=1, end_time=2, **more
    )


def kept(span: Outgoing) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_what_is_no_content_stays() -> None:
    attributes = {
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 12,
        "gen_ai.usage.prompt_tokens": 12,
        "gen_ai.response.finish_reasons": ("stop", "tool_calls"),
        "gen_ai.tool.name": "get_weather",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "get_weather",
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.raw": json.dumps({f"tokens_{number}": number for number in range(100)}),
        "tallystick.tag.prompt_version": "v" * 300,
        "user.id": "u",
        "app.retries": 3,
        "app.name": "short",
        "app.ratio": 0.5,
        "app.on": True,
    }
    assert kept(outgoing(made(attributes))) == attributes


@pytest.mark.parametrize(
    ("name", "given", "left"),
    [
        ("output.value", {"id": "chatcmpl-1", "model": "m", "usage": {"prompt_tokens": 1, "note": "secret", "d": {"x": 2}}, "choices": ["secret"]},
         {"id": "chatcmpl-1", "model": "m", "usage": {"prompt_tokens": 1, "d": {"x": 2}}}),
        ("output.value", {"generations": [[{"message": {"id": "resp_2", "text": "secret"}}]]}, {"id": "resp_2"}),
        ("gen_ai.output.messages", [{"parts": [{"content": "secret"}], "finish_reason": "stop"}], {"finish_reason": "stop"}),
        ("llm.invocation_parameters", {"model": "m", "stream": True, "instructions": "secret"}, {"model": "m", "stream": True}),
        ("metadata", {"customer": "Acme Ltd", "note": "secret"}, {"customer": "Acme Ltd"}),
        ("output.value", {"text": "secret"}, None),
        ("gen_ai.input.messages", {"usage": {"prompt_tokens": 1}}, None),
    ],
)  # fmt: skip
def test_of_recorded_json_what_the_ledger_reads_stays(name: str, given: Any, left: Any) -> None:
    sent = kept(outgoing(made({name: json.dumps(given)}))).get(name)
    assert (json.loads(sent) if sent else None) == left


@pytest.mark.parametrize(
    ("message", "left"),
    [
        ("CancelledError: while asked about secret", "cancel"),
        ("Request timed out. Connection to secret lost", "timed out connection"),
        ("Error code: 400 - {'message': 'secret is no valid prompt'}", None),
    ],
)
def test_of_a_message_the_kind_of_ending_stays(message: str, left: str | None) -> None:
    event = Event("exception", {"exception.type": "x.Y", "exception.message": message, "exception.stacktrace": message}, 1)
    span = outgoing(
        made({"langfuse.observation.status_message": message}, events=[event], status=Status(StatusCode.ERROR, message))
    )
    assert span.status.description == left
    assert kept(span).get("langfuse.observation.status_message") == left
    assert dict(span.events[0].attributes or {}) == {"exception.type": "x.Y"} | ({"exception.message": left} if left else {})
    assert span.events[0].timestamp == 1


def test_events_and_links_keep_their_place_only() -> None:
    context = SpanContext(1, 2, False, TraceFlags(1))
    span = made(
        {}, events=[Event("gen_ai.user.message", {"content": "secret", "n": 1}, 5)], links=[Link(context, {"a": "secret"})]
    )
    sent = outgoing(span)
    assert [(event.name, dict(event.attributes or {}), event.timestamp) for event in sent.events] == [
        ("gen_ai.user.message", {}, 5)
    ]
    assert [(link.context, dict(link.attributes or {})) for link in sent.links] == [(context, {})]


def test_on_the_resource_too() -> None:
    resource = {"service.name": "s", "process.command_line": "python -c secret", "process.pid": 1, "app.prompt": "secret"}
    assert dict(outgoing(made({}, resource)).resource.attributes) == {"service.name": "s", "process.pid": 1}


def test_what_other_exporters_have_is_not_touched() -> None:
    span = made({"input.value": "secret"}, events=[Event("e", {"a": "b"})])
    outgoing(span)
    assert dict(span.attributes or {}) == {"input.value": "secret"}
    assert dict(span.events[0].attributes or {}) == {"a": "b"}


TEXT = st.text(min_size=1, max_size=40).map(lambda text: f"SECRET{text}SECRET")
PATTERNS = [row.attribute for row in rows() if row.keep != "all"]


@given(
    st.dictionaries(
        st.sampled_from(PATTERNS).flatmap(lambda row: st.text("abz019._", max_size=5).map(lambda part: row.replace("*", part))),
        TEXT | TEXT.map(lambda text: json.dumps({"a": text, "usage": {"b": text, text: [text]}})) | st.lists(TEXT, max_size=3),
        max_size=6,
    )
)
def test_listed_names_carry_no_text(attributes: dict[str, Any]) -> None:
    known = {row.attribute for row in content_attributes()}
    sent = outgoing(made({key: value for key, value in attributes.items() if key not in known or key in PATTERNS}))
    assert "SECRET" not in str(kept(sent))


@given(
    st.text("abcdefg.", min_size=1, max_size=20),
    st.text(min_size=257, max_size=600) | st.lists(st.text(min_size=100, max_size=120), min_size=3),
)
def test_what_nobody_knows_is_content_if_it_is_long(name: str, value: Any) -> None:
    assert kept(outgoing(made({f"app.{name}": value}))) == {}
    assert kept(outgoing(made({f"app.{name}": {"nested": value}}))) == {}


def test_redaction(redacting: None) -> None:
    seen: list[tuple[str, str]] = []

    @redact
    def without_mail(name: str, text: str) -> str | None:
        seen.append((name, text))
        return None if "drop" in text else re.sub(r"\S+@\S+", "…", text)

    message = {"finish_reason": "stop", "drop": 1}
    event = Event("gen_ai.user.message", {"content": "mail a@b", "n": 1}, 1)
    sent = with_content(
        made(
            {
                "gen_ai.input.messages": ({"role": "user", "content": "a@b asks"},),
                "gen_ai.output.messages": json.dumps([message]),
                "input.value": "drop it",
                "gen_ai.request.model": "m@m",
                "app.note": "c@d",
                "gen_ai.usage.input_tokens": 1,
            },
            events=[event],
            status=Status(StatusCode.ERROR, "e@f failed"),
        )
    )
    assert kept(sent) == {
        "gen_ai.input.messages": [{"role": "user", "content": "… asks"}],
        "gen_ai.output.messages": '{"finish_reason": "stop"}',
        "gen_ai.request.model": "m@m",
        "app.note": "c@d",
        "gen_ai.usage.input_tokens": 1,
    }
    assert dict(sent.events[0].attributes or {}) == {"content": "mail …", "n": 1}
    assert sent.status.description == "… failed"
    assert {name for name, _ in seen} == {
        "gen_ai.input.messages", "gen_ai.output.messages", "input.value", "gen_ai.user.message.content", "status.description",
    }  # fmt: skip


def test_a_redactor_that_raises_sends_nothing(redacting: None, caplog: pytest.LogCaptureFixture) -> None:
    @redact
    def broken(name: str, text: str) -> str:
        raise ValueError(text)

    event = Event("gen_ai.user.message", {"content": "secret"}, 1)
    sent = with_content(made({"input.value": "secret", "gen_ai.request.model": "m"}, events=[event]))
    assert kept(sent) == {"gen_ai.request.model": "m"}
    assert dict(sent.events[0].attributes or {}) == {}
    assert "secret" not in caplog.text


SERVICE = """
import sys, tallystick, tallystick.auto, openai
if len(sys.argv) > 2:
    @tallystick.redact
    def upper(name, text):
        return text.upper()
from opentelemetry import trace
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, ConsoleSpanExporter
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter()))
client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="k", max_retries=0)
client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "my secret question"}])
try:
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": 5}], extra_body={"quoted": "secret"}, timeout=1e-9)
except openai.APIError:
    pass
"""


def received(*arguments: str, **environ: str) -> tuple[str, str]:
    """What a service sent, and what its own exporter printed."""
    with SpanReceiver() as receiver, ProviderServer() as provider:
        done = subprocess.run(
            [sys.executable, "-c", SERVICE, provider.url, *arguments],
            env={**CLEAN, "TALLYSTICK_URL": receiver.url, "TALLYSTICK_STRICT": "1", **environ},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert len(receiver.spans) == 2
        return str([(dict(span.attributes), span.name, dict(span.resource)) for span in receiver.spans]), done.stdout


def test_a_service_that_records_prompts_for_others_sends_none() -> None:
    sent, own = received(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT="SPAN_ONLY")
    assert "my secret question" in own
    assert "secret" not in sent
    assert "tick" not in sent.replace("tallystick", "")


def test_by_default_nobody_records_any() -> None:
    sent, own = received()
    assert "secret" not in sent + own


def test_content_on_request_redacted() -> None:
    sent, own = received("redacted", TALLYSTICK_CAPTURE_CONTENT="true")
    assert "MY SECRET QUESTION" in sent
    assert "my secret question" in own


def test_the_documentations_example(redacting: None) -> None:
    page = (Path(__file__).parent.parent / "docs" / "collector.md").read_text()
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "redact" in block]
    exec("import re, tallystick\n" + example)
    assert kept(with_content(made({"input.value": "from a@b to c@d"}))) == {"input.value": "from … to …"}
