"""What a sender posted, checked before anything is kept: size, form and number of spans.

A good payload stays the bytes that arrived. Only one with spans that can't be stored is taken apart, so that the rest of it is kept.
"""

import base64
import binascii
import contextlib
import json
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tallystick.ingest.accounts import Account, accounts
from tallystick.ingest.sift import DETAILS_A_SPAN, Corrupt, Flood, sift
from tallystick.ingest.wire import Frame, Request

PROTOBUF = "application/x-protobuf"
JSON = "application/json"

_PARSED_WHOLE = 1 << 20
"""Bytes up to which a payload is parsed in one go: parsing can take 80 bytes of memory for two bytes of payload."""

_JSON_OBJECTS = 1_000_000
"""Objects and lists in one JSON body: each takes 70 bytes of memory before anything is known of it."""


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
    accounts: of its resources, what the loss ledger needs.
    """

    data: bytes
    spans: int
    rejected: dict[str, int] = field(default_factory=dict)
    accounts: tuple[Account, ...] = ()


Check = Callable[[bytes, Limits], Payload]
"""Checks a serialised ExportTraceServiceRequest: `check_protobuf` or `check_frame`. Raises PayloadError."""


def decode(body: bytes, content_type: str, content_encoding: str, limits: Limits, check: Check) -> Payload:
    """Check one OTLP/HTTP request body; `check` is for protobuf. Raises PayloadError."""
    data = decompress(body, content_encoding, limits)
    match content_type.partition(";")[0].strip().lower():
        case "application/x-protobuf" | "application/protobuf":
            return check(data, limits)
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
    """Check all of it, as the engine will."""
    return _check(data, limits, spans_too=True)


def check_frame(data: bytes, limits: Limits) -> Payload:
    """Check what stands around the spans, and how many they are. What is wrong inside of one, the engine finds, and `Writer.write` deals with."""
    return _check(data, limits, spans_too=False)


def _check(data: bytes, limits: Limits, *, spans_too: bool) -> Payload:
    if len(data) <= _PARSED_WHOLE:
        with contextlib.suppress(DecodeError):
            if spans_too:
                Request.FromString(data)
            told = tuple(accounts(Frame.FromString(data)))
            spans = sum(one.spans for one in told)
            if spans > limits.spans:
                raise _too_many(spans, limits)
            most = DETAILS_A_SPAN * (spans + 1)
            # A detail takes two bytes at least: a payload as small as this can't have many more than are allowed.
            if len(data) <= 4 * most or _most_details(data) <= most:
                return Payload(data, spans, accounts=told)
    try:
        sifted = sift(data, limits.spans)
    except Corrupt as error:
        raise _malformed(str(error)) from error
    except Flood as error:
        raise PayloadError(413, error.code, f"{error} in one request.", "Send smaller batches.") from error
    return Payload(sifted.data, sifted.spans, dict(sifted.rejected), tuple(sifted.accounts))


def _count(request: Any) -> int:
    return sum(len(scope.spans) for resource in request.resource_spans for scope in resource.scope_spans)


_NO_DETAIL = bytes(set(range(256)) - set(b"\x4a\x5a\xca\xda"))
"""Bytes that aren't the first of the tag of an attribute or event of a span (with the high bit the tag goes on, as only forgers write it)."""


def _most_details(data: bytes) -> int:
    """No fewer than the payload's attributes and events: the bytes that might be a tag of one, counted without making objects."""
    return len(data.translate(None, _NO_DETAIL))


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


def _read_json(data: bytes, limits: Limits) -> Payload:
    """OTLP/JSON to protobuf: ids are hexadecimal there, not base64. A span that can't be read is left out."""
    if len(data) > limits.decoded_bytes // 4:
        raise PayloadError(
            413, "too_large", f"JSON over {limits.decoded_bytes // 4} bytes.", "Send smaller batches, or protobuf."
        )
    if data.count(b"{") + data.count(b"[") > _JSON_OBJECTS:
        raise PayloadError(413, "too_many_attributes", f"Over {_JSON_OBJECTS} objects and lists.", "Send smaller batches.")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"not JSON, {error}" if isinstance(error, ValueError) else "nested too deep") from error
    try:
        scopes = [scope for resource in _list(document, "resourceSpans") for scope in _list(resource, "scopeSpans")]
        spans = [_list(scope, "spans") for scope in scopes]
    except TypeError as error:
        raise _malformed("resourceSpans, scopeSpans and spans must be lists of objects") from error
    number = sum(map(len, spans))
    if number > limits.spans:
        raise _too_many(number, limits)
    for scope in scopes:
        scope.pop("spans", None)
    request = ExportTraceServiceRequest()
    try:
        json_format.ParseDict(document, request, ignore_unknown_fields=True)
    except (json_format.ParseError, RecursionError, DecodeError) as error:
        raise _malformed("nested too deep" if isinstance(error, RecursionError) else str(error)[:200]) from error
    holders = [scope for resource in request.resource_spans for scope in resource.scope_spans]
    if len(holders) != len(spans) or _count(request):
        raise _malformed("names are written resourceSpans, scopeSpans and spans")
    rejected = Counter[str]()
    for holder, listed in zip(holders, spans, strict=True):
        for one in listed:
            try:
                holder.spans.append(_json_span(one))
            except _NotASpan as problem:
                rejected[str(problem)] += 1
    data = request.SerializeToString()
    return Payload(data, number - rejected.total(), dict(rejected), tuple(accounts(Frame.FromString(data))))


def _list(holder: Any, name: str) -> list[Any]:
    """A list in a JSON object, empty where there is none. Raises TypeError."""
    if not isinstance(holder, dict):
        raise TypeError(type(holder))
    found = holder.get(name) or []
    if not isinstance(found, list):
        raise TypeError(type(found))
    return found


class _NotASpan(ValueError):
    """What is wrong with it."""


def _json_span(given: Any) -> Span:
    """Raises _NotASpan."""
    span = Span()
    try:
        for holder in [given, *_list(given, "links")]:
            for name in ("traceId", "spanId", "parentSpanId"):
                if name in holder:
                    holder[name] = base64.b64encode(binascii.unhexlify(holder[name] or "")).decode()
    except (ValueError, TypeError) as error:
        raise _NotASpan("an id is not hexadecimal" if isinstance(given, dict) else "not an object") from error
    try:
        return json_format.ParseDict(given, span, ignore_unknown_fields=True)
    except (RecursionError, DecodeError) as error:
        raise _NotASpan("nested too deep") from error
    except (json_format.ParseError, ValueError, TypeError, AttributeError) as error:
        raise _NotASpan("a field is of another type") from error
