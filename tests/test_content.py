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
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from server import CLEAN, Server

from tallystick.collectors import content
from tallystick.collectors.content import Outgoing, outgoing, redact, with_content
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
    requests = [(encode_spans(spans), sent(spans)) for spans in map(recorded, RECORDINGS)]
    server.post_all((request for request, _ in requests), whole)
    server.post_all((request for _, request in requests), stripped)
    query = "SELECT * EXCEPT (tenant, entered_at, error_type) FROM charges ORDER BY trace_id, span_id, entry, response_id, calls"
    one, other = server.sql(query, whole), server.sql(query, stripped)
    assert len(one) > 150
    assert other == one
