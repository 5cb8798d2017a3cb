"""A local OTLP/HTTP receiver: what did this service export?"""

import gzip
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

Value = str | bool | int | float | bytes | tuple["Value", ...] | None


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it came over the wire. Ids are hex, times UTC nanoseconds."""

    name: str
    scope: str
    trace_id: str
    span_id: str
    parent_span_id: str
    start_ns: int
    end_ns: int
    status_code: int
    attributes: Mapping[str, Value]
    resource: Mapping[str, Value]


class SpanReceiver:
    """Accepts `POST /v1/traces` on loopback. A context manager; `port` 0 takes a free one.

    `status` is what it answers, and may be changed at any time; spans are kept of requests answered with 200 only.
    """

    def __init__(self, port: int = 0, answer: bytes = b"") -> None:
        self.spans: list[ReceivedSpan] = []
        self.headers: list[Mapping[str, str]] = []
        """Of each request, names in lowercase."""
        self.bodies: list[bytes] = []
        """Of each request whose spans were kept, unpacked."""
        self.status = 200
        self.answer = answer
        """Body of the answer: empty, or an encoded ExportTraceServiceResponse."""
        self._changed = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", port), _handler(self._take))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def wait_for(self, spans: int = 0, requests: int = 0, timeout_s: float = 10.0) -> bool:
        """Until so many spans were kept and so many requests came; False if they didn't."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.spans) >= spans and len(self.headers) >= requests, timeout_s)

    def _take(self, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        raw = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        spans = _spans(ExportTraceServiceRequest.FromString(raw))
        with self._changed:
            self.headers.append(headers)
            if self.status == 200:
                self.spans.extend(spans)
                self.bodies.append(raw)
            self._changed.notify_all()
            return self.status, self.answer


def _handler(take: Callable[[Mapping[str, str], bytes], tuple[int, bytes]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Silent: what came is in `spans`."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = take(headers, body) if self.path == "/v1/traces" else (404, b"")
            self.send_response(status)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    return Handler


def _spans(request: ExportTraceServiceRequest) -> list[ReceivedSpan]:
    return [
        ReceivedSpan(
            name=span.name,
            scope=under.scope.name,
            trace_id=span.trace_id.hex(),
            span_id=span.span_id.hex(),
            parent_span_id=span.parent_span_id.hex(),
            start_ns=span.start_time_unix_nano,
            end_ns=span.end_time_unix_nano,
            status_code=span.status.code,
            attributes={pair.key: _value(pair.value) for pair in span.attributes},
            resource={pair.key: _value(pair.value) for pair in of.resource.attributes},
        )
        for of in request.resource_spans
        for under in of.scope_spans
        for span in under.spans
    ]


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return tuple(_value(item) for item in value.array_value.values)
    if kind is None or kind == "kvlist_value":
        return None
    single: Value = getattr(value, kind)
    return single
