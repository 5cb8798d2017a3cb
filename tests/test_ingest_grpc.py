"""OTLP/gRPC with the official exporter. (OTLP/HTTP with the official exporter is the collector's tests'.)"""

from collections.abc import Iterator

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from otlp import GOOD
from server import Server


@pytest.fixture(params=["plain", "gzip"])
def compression(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def exporter(server: Server, compression: str) -> Iterator[tuple[OTLPSpanExporter, str]]:
    from grpc import Compression

    key = server.key(f"grpc-{compression}")
    exporter = OTLPSpanExporter(
        endpoint=f"127.0.0.1:{server.grpc_port}",
        insecure=True,
        headers=(("authorization", f"Bearer {key}"),),
        compression=Compression.Gzip if compression == "gzip" else Compression.NoCompression,
        timeout=30,
    )
    yield exporter, key
    exporter.shutdown()


def test_the_official_exporter(exporter: tuple[OTLPSpanExporter, str], server: Server, compression: str) -> None:
    export, key = exporter
    kept = InMemorySpanExporter()
    provider = TracerProvider(
        resource=Resource({"service.name": "by-grpc", "tallystick.customer": "acme"}), shutdown_on_exit=False
    )
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("opentelemetry.instrumentation.genai.openai")
    for _ in range(300):
        with tracer.start_as_current_span("chat gpt-4o-mini", attributes=GOOD):
            pass
    with tracer.start_as_current_span("GET /", attributes={"http.method": "GET"}):
        pass
    spans = kept.get_finished_spans()
    assert export.export(spans) is SpanExportResult.SUCCESS
    assert export.export(spans[:50]) is SpanExportResult.SUCCESS
    found = server.sql(
        "SELECT service, customer, sum(calls) AS calls, sum(input_tokens) AS tokens FROM charges GROUP BY ALL", key
    )
    assert found == [{"service": "by-grpc", "customer": "acme", "calls": 300, "tokens": 300_000}]


def test_a_wrong_key(server: Server) -> None:
    export = OTLPSpanExporter(
        endpoint=f"127.0.0.1:{server.grpc_port}", insecure=True, headers=(("authorization", "Bearer ts_nobody"),), timeout=5
    )
    provider = TracerProvider(shutdown_on_exit=False)
    kept = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with provider.get_tracer("t").start_as_current_span("chat", attributes=GOOD):
        pass
    assert export.export(kept.get_finished_spans()) is SpanExportResult.FAILURE
    export.shutdown()
