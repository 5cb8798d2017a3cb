"""What a sender posted, checked before anything is kept: size, form and number of spans.

A good payload stays the bytes that arrived. Only one with spans that can't be stored is taken apart, so that the rest of it is kept.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_GUARD_ABOVE = 1 << 20
"""Bytes above which a payload is counted before it is parsed: parsing can take 80 bytes of memory for two bytes of payload."""

_DETAILS_A_SPAN = 512
"""Attributes, events and links a span may have on average before a large payload counts as a flood (the SDKs' own limit is 128 of each)."""


class PayloadError(Exception):
    """The payload can't be taken at all; sending it again won't help.

    status: the HTTP status to answer with. code, message, hint: as in every error answer.
    """

    def __init__(self, status: int, code: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint


@dataclass(frozen=True)
class Limits:
    """What one request may hold: bytes after decompression, and spans."""

    decoded_bytes: int = 32 << 20
    spans: int = 50_000


@dataclass
class Payload:
    """A checked ExportTraceServiceRequest.

    data: its bytes, without the spans in `rejected`. spans: how many spans `data` holds. rejected: reason → number of spans left out.
    """

    data: bytes
    spans: int
    rejected: dict[str, int] = field(default_factory=dict)


def decode(body: bytes, content_type: str, content_encoding: str, limits: Limits) -> Payload:
    """Check one OTLP/HTTP request body. Raises PayloadError."""
    data = decompress(body, content_encoding, limits)
    match content_type.partition(";")[0].strip().lower():
        case "application/x-protobuf" | "application/protobuf":
            return check_protobuf(data, limits)
        case "application/json":
            return _read_json(data, limits)
        case other:
            raise PayloadError(
                415, "unsupported_content_type", f"Content-Type {other or '(none)'!r} is not OTLP.", f"Send {PROTOBUF} or {JSON}."
            )


def decompress(body: bytes, content_encoding: str, limits: Limits) -> bytes:
    """Undo Content-Encoding, reading no further than the limit. gzip may have several members."""
    match content_encoding.strip().lower():
        case "" | "identity":
            window = 0
        case "gzip":
            window = 31
        case "deflate":
            window = 15
        case other:
            raise PayloadError(
                415, "unsupported_encoding", f"Content-Encoding {other!r} is not understood.", "Send gzip or none."
            )
    if not window:
        if len(body) > limits.decoded_bytes:
            raise _too_large(limits)
        return body
    parts, size, rest = [], 0, body
    while rest:
        stream = zlib.decompressobj(window)
        try:
            part = stream.decompress(rest, limits.decoded_bytes - size + 1)
        except zlib.error as error:
            raise PayloadError(
                400, "bad_compression", f"The body isn't {content_encoding}: {error}.", "Check the exporter's compression."
            ) from error
        parts.append(part)
        size += len(part)
        if size > limits.decoded_bytes:
            raise _too_large(limits)
        if not stream.eof:
            raise PayloadError(400, "bad_compression", "The compressed body ends too early.", "Send it again, whole.")
        rest = stream.unused_data.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def check_protobuf(data: bytes, limits: Limits) -> Payload:
    """Check a serialised ExportTraceServiceRequest. Raises PayloadError."""
    if len(data) > _GUARD_ABOVE:
        _guard(data, limits)
    try:
        request = ExportTraceServiceRequest.FromString(data)
    except (DecodeError, RecursionError):
        return _salvage(data, limits)
    spans = _count(request)
    if spans > limits.spans:
        raise _too_many(spans, limits)
    return Payload(data, spans)


def _count(request: Any) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


def _too_large(limits: Limits) -> PayloadError:
    return PayloadError(
        413,
        "too_large",
        f"The body is over {limits.decoded_bytes} bytes when decompressed.",
        "Send smaller batches (OTEL_BSP_MAX_EXPORT_BATCH_SIZE).",
    )


def _too_many(spans: int, limits: Limits) -> PayloadError:
    return PayloadError(
        413, "too_many_spans", f"{spans} spans in one request; at most {limits.spans} are taken.", "Send smaller batches."
    )


def _malformed(what: str) -> PayloadError:
    return PayloadError(
        400,
        "malformed",
        f"The body isn't an ExportTraceServiceRequest: {what}.",
        "Nothing of it was kept. Check the exporter's protocol.",
    )


def _copy_descriptors(change: Callable[[str, descriptor_pb2.FieldDescriptorProto], None]) -> type[Message]:
    """A class of OTLP's request with changed fields, in a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    for module in (common_pb2, resource_pb2, trace_pb2, trace_service_pb2):
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        for message in file.message_type:
            for one in message.field:
                change(message.name, one)
        pool.Add(file)
    return message_factory.GetMessageClass(
        pool.FindMessageTypeByName("opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest")
    )


def _text_as_bytes(message: str, one: descriptor_pb2.FieldDescriptorProto) -> None:
    if one.type == one.TYPE_STRING:
        one.type = one.TYPE_BYTES


def _details_as_bytes(message: str, one: descriptor_pb2.FieldDescriptorProto) -> None:
    if message == "Span" and one.type == one.TYPE_MESSAGE:
        one.type = one.TYPE_BYTES
        one.ClearField("type_name")
    _text_as_bytes(message, one)


_Lenient = _copy_descriptors(_text_as_bytes)
_Outline = _copy_descriptors(_details_as_bytes)


def _guard(data: bytes, limits: Limits) -> None:
    """Count what a large payload holds without building it."""
    try:
        outline: Any = _Outline.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise _malformed("it can't be decoded") from error
    spans = _count(outline)
    if spans > limits.spans:
        raise _too_many(spans, limits)
    details = sum(
        len(span.attributes) + len(span.events) + len(span.links)
        for resource in outline.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    )
    if details > _DETAILS_A_SPAN * (spans + 16):
        raise PayloadError(
            413, "too_many_attributes", f"{details} attributes, events and links on {spans} spans.", "Limit them at the source."
        )


def _salvage(data: bytes, limits: Limits) -> Payload:
    """Leave out the spans whose texts aren't UTF-8, or that are nested too deep, and keep the rest."""
    try:
        lenient: Any = _Lenient.FromString(data)
    except (DecodeError, RecursionError) as error:
        raise _malformed("it can't be decoded") from error
    spans = _count(lenient)
    if spans > limits.spans:
        raise _too_many(spans, limits)
    rejected = 0
    for resource in lenient.resource_spans:
        rejected += _drop_unreadable(resource)
    kept = lenient.SerializeToString()
    ExportTraceServiceRequest.FromString(kept)
    return Payload(kept, spans - rejected, {"a text is not UTF-8": rejected})


def _drop_unreadable(resource: Any) -> int:
    """Remove the spans of one ResourceSpans that can't be read; how many."""
    before = sum(len(scope.spans) for scope in resource.scope_spans)
    if not _readable(resource.resource, resource_pb2.Resource) or not _is_utf8(resource.schema_url):
        resource.Clear()
        return before
    for scope in resource.scope_spans:
        if not _readable(scope.scope, common_pb2.InstrumentationScope) or not _is_utf8(scope.schema_url):
            scope.Clear()
            continue
        good = [span for span in scope.spans if _readable(span, Span)]
        if len(good) < len(scope.spans):
            del scope.spans[:]
            scope.spans.extend(good)
    return before - sum(len(scope.spans) for scope in resource.scope_spans)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _readable(message: Message, strict: type[Message]) -> bool:
    try:
        strict.FromString(message.SerializeToString())
    except DecodeError:
        return False
    return True


def _read_json(data: bytes, limits: Limits) -> Payload:
    """OTLP/JSON to protobuf: ids are hexadecimal there, not base64. A span that can't be read is left out."""
    if len(data) > limits.decoded_bytes // 4:
        raise PayloadError(
            413, "too_large", f"JSON over {limits.decoded_bytes // 4} bytes.", "Send smaller batches, or protobuf."
        )
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not JSON, {error}" if isinstance(error, ValueError) else "nested too deep") from error
    try:
        spans = list(_json_spans(document))
    except (AttributeError, TypeError) as error:
        raise _malformed("resourceSpans, scopeSpans and spans must be lists of objects") from error
    if len(spans) > limits.spans:
        raise _too_many(len(spans), limits)
    rejected: dict[str, int] = {}
    for holder, span in spans:
        problem = _prepare_json_span(span)
        if problem:
            rejected[problem] = rejected.get(problem, 0) + 1
            holder["spans"].remove(span)
    request = ExportTraceServiceRequest()
    try:
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError) as error:
        raise _malformed(str(error)[:200] if isinstance(error, json_format.ParseError) else "nested too deep") from error
    return Payload(request.SerializeToString(), _count(request), rejected)


def _json_spans(document: Any) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(the scopeSpans object, the span in it), over a copy of each list."""
    for resource in document.get("resourceSpans") or []:
        for scope in resource.get("scopeSpans") or []:
            for span in list(scope.get("spans") or []):
                yield scope, span


def _prepare_json_span(span: Any) -> str:
    """Ids to base64, in place; what is wrong with the span, or ''."""
    try:
        for holder in [span, *(span.get("links") or [])]:
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in holder:
                    holder[name] = base64.b64encode(binascii.unhexlify(holder[name] or "")).decode()
        json_format.ParseDict(span, Span(), ignore_unknown_fields=True)
    except (ValueError, TypeError, AttributeError, binascii.Error):
        return "an id is not hexadecimal"
    except json_format.ParseError as error:
        return f"not a span: {str(error)[:120]}"
    except RecursionError:
        return "nested too deep"
    return ""
