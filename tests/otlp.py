"""OTLP requests for tests: a good model call, of which a test says only what matters to it."""

import hashlib
import time
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SCOPE = "opentelemetry.instrumentation.genai.openai"

GOOD: dict[str, Any] = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.usage.input_tokens": 1000,
    "gen_ai.usage.output_tokens": 100,
    "gen_ai.response.finish_reasons": ("stop",),
}
"""A call of 1,000 and 100 tokens: 0.15 and 0.60 USD a million, 0.00021 USD."""


def ident(text: str, size: int) -> bytes:
    """The id, of `size` bytes, that stands for a text."""
    return hashlib.blake2b(text.encode(), digest_size=size).digest()


def trace_hex(text: str) -> str:
    """How `charges` shows the trace of a span so named."""
    return ident(text, 16).hex()


def value(given: Any) -> AnyValue:
    match given:
        case bool():
            return AnyValue(bool_value=given)
        case int():
            return AnyValue(int_value=given)
        case float():
            return AnyValue(double_value=given)
        case tuple() | list():
            return AnyValue(array_value=ArrayValue(values=[value(one) for one in given]))
        case AnyValue():
            return given
        case _:
            return AnyValue(string_value=given)


def pairs(attributes: dict[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=name, value=value(given)) for name, given in attributes.items() if given is not None]


def span(
    trace: str,
    name: str | None = None,
    *,
    parent: str | None = None,
    start_ns: int | None = None,
    duration_ns: int = 1_000_000_000,
    error: str = "",
    attributes: dict[str, Any] | None = None,
) -> Span:
    """A model call in the trace named `trace`; `attributes` are added to a good one's, None takes one away. It starts a minute ago."""
    start_ns = time.time_ns() - 60_000_000_000 if start_ns is None else start_ns
    return Span(
        trace_id=ident(trace, 16),
        span_id=ident(name or trace, 8),
        parent_span_id=ident(parent, 8) if parent else b"",
        name="chat gpt-4o-mini",
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + duration_ns,
        attributes=pairs(GOOD | (attributes or {})),
        status=Status(code=Status.STATUS_CODE_ERROR, message=error) if error else None,
    )


def request(*spans: Span, scope: str = SCOPE, resource: dict[str, Any] | None = None) -> ExportTraceServiceRequest:
    """Spans of one instrumentation in one process."""
    made = ExportTraceServiceRequest()
    holder = made.resource_spans.add()
    holder.resource.attributes.extend(pairs({"service.name": "tests"} | (resource or {})))
    inner = holder.scope_spans.add()
    inner.scope.name = scope
    inner.spans.extend(spans)
    return made
