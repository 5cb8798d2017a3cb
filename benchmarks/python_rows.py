"""The same work through Python rows: parse, flatten, price and insert with clickhouse-connect; prints us of CPU a span.

Without HTTP, without looking for duplicates, with a dictionary for prices: a lower bound for that way.
"""

import tempfile
import time
from datetime import UTC, datetime
from decimal import Decimal

import clickhouse_connect
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from traffic import MODELS, payload

COLUMNS = {
    "tenant": "LowCardinality(String)", "customer": "LowCardinality(String)", "feature": "LowCardinality(String)",
    "agent": "LowCardinality(String)", "user": "String", "service": "LowCardinality(String)", "environment": "LowCardinality(String)",
    "provider": "LowCardinality(String)", "request_model": "LowCardinality(String)", "response_model": "LowCardinality(String)",
    "operation": "LowCardinality(String)", "service_tier": "LowCardinality(String)", "streamed": "Nullable(UInt8)",
    "status": "LowCardinality(String)", "input_tokens": "Nullable(Int64)", "cache_read_tokens": "Nullable(Int64)",
    "output_tokens": "Nullable(Int64)", "usage_source": "LowCardinality(String)", "started_at": "DateTime64(9, 'UTC')",
    "duration_ns": "UInt64", "ttft_ns": "Nullable(UInt64)", "cost_usd": "Nullable(Decimal(18, 12))", "trace_id": "FixedString(16)",
    "span_id": "FixedString(8)", "parent_span_id": "FixedString(8)", "response_id": "String",
}  # fmt: skip
RATES = {model: (Decimal("0.00000125"), Decimal("0.000000125"), Decimal("0.00001")) for model in MODELS}


def value(any_value: object) -> object:
    kind = any_value.WhichOneof("value")  # type: ignore[attr-defined]
    return getattr(any_value, kind) if kind else None


def rows(body: bytes) -> list[tuple[object, ...]]:
    out = []
    request = ExportTraceServiceRequest.FromString(body)
    for resource_spans in request.resource_spans:
        resource = {a.key: value(a.value) for a in resource_spans.resource.attributes}
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                a = {x.key: value(x.value) for x in span.attributes}
                model = a.get("gen_ai.request.model", "")
                total, read, output = (
                    a.get(f"gen_ai.usage.{n}") for n in ("input_tokens", "cache_read.input_tokens", "output_tokens")
                )
                rate = RATES.get(str(model))
                uncached = None if total is None else total - (read or 0)
                cost = (
                    rate[0] * uncached + rate[1] * (read or 0) + rate[2] * (output or 0)
                    if rate and uncached is not None
                    else None
                )
                ttft = a.get("gen_ai.response.time_to_first_chunk")
                out.append((
                    "default", a.get("tallystick.customer", ""), a.get("tallystick.feature", ""), a.get("tallystick.agent", ""),
                    a.get("tallystick.user", ""), resource.get("service.name", ""), resource.get("deployment.environment.name", ""),
                    a.get("gen_ai.provider.name", ""), model, a.get("gen_ai.response.model", ""), a.get("gen_ai.operation.name", ""),
                    a.get("openai.response.service_tier", ""), a.get("gen_ai.request.stream"), "error" if span.status.code == 2 else "ok",
                    uncached, read, output, "provider" if output is not None else "missing",
                    datetime.fromtimestamp(span.start_time_unix_nano / 1e9, UTC), span.end_time_unix_nano - span.start_time_unix_nano,
                    None if ttft is None else int(ttft * 1e9), cost, span.trace_id, span.span_id, span.parent_span_id,
                    a.get("gen_ai.response.id", ""),
                ))  # fmt: skip
    return out


def main() -> None:
    client = clickhouse_connect.get_client(dsn=f"chdb://{tempfile.mkdtemp()}")
    types = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    client.command(f"CREATE TABLE calls ({types}) ENGINE = MergeTree ORDER BY (tenant, started_at)")
    bodies = [payload(512, seed, time.time_ns()) for seed in range(100)]
    client.insert("calls", rows(bodies[0]), column_names=list(COLUMNS))
    began = time.process_time()
    batch = [row for body in bodies for row in rows(body)]
    client.insert("calls", batch, column_names=list(COLUMNS))
    print((time.process_time() - began) / len(batch) * 1e6)


if __name__ == "__main__":
    main()
