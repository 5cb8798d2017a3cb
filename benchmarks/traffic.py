"""Spans for the benchmarks: what the official OpenTelemetry instrumentation writes for an OpenAI call, with our scope on it."""

import random
import string

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

MODELS = ("gpt-5", "gpt-5-mini", "gpt-4o-mini", "o4-mini")
CUSTOMERS, FEATURES, AGENTS, USERS = 50, 8, 6, 5_000
RESOURCE = {
    "service.name": "chat",
    "service.instance.id": "7f1c0a52-9d0e-4a4e-8c55-0e6f6f6b1d3a",
    "deployment.environment.name": "production",
    "telemetry.sdk.language": "python",
    "telemetry.sdk.name": "opentelemetry",
    "telemetry.sdk.version": "1.45.1",
}


def payload(spans: int, seed: int, ends_ns: int) -> bytes:
    """A request of `spans` spans that ended in the second before `ends_ns`. Random ids, as real ones are; about 780 bytes a span."""
    rng = random.Random(seed)
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    for key, value in RESOURCE.items():
        resource_spans.resource.attributes.add(key=key).value.string_value = value
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name, scope_spans.scope.version = "opentelemetry.instrumentation.genai.openai", "1.3b0"
    for _ in range(spans):
        end = ends_ns - rng.randrange(10**9)
        model = rng.choice(MODELS)
        span = scope_spans.spans.add(
            trace_id=rng.randbytes(16), span_id=rng.randbytes(8), parent_span_id=rng.randbytes(8), name=f"chat {model}", kind=3,
            start_time_unix_nano=end - rng.randrange(200_000_000, 8_000_000_000), end_time_unix_nano=end,
        )  # fmt: skip
        # Customers are skewed: the first has a tenth of the calls, the last hardly any.
        customer = min(int(rng.expovariate(0.1)), CUSTOMERS - 1)
        texts = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
            "gen_ai.response.model": f"{model}-2026-07-18",
            "gen_ai.response.id": "chatcmpl-" + "".join(rng.choices(string.ascii_letters + string.digits, k=29)),
            "server.address": "api.openai.com",
            "openai.response.service_tier": "default",
            "tallystick.customer": f"customer-{customer}",
            "tallystick.feature": f"feature-{rng.randrange(FEATURES)}",
            "tallystick.agent": f"agent-{rng.randrange(AGENTS)}",
            "tallystick.user": f"user-{rng.randrange(USERS)}",
        }
        for key, value in texts.items():
            span.attributes.add(key=key).value.string_value = value
        prompt = rng.randrange(200, 6_000)
        numbers = {
            "server.port": 443,
            "gen_ai.usage.input_tokens": prompt,
            "gen_ai.usage.output_tokens": rng.randrange(1, 900),
            "gen_ai.usage.cache_read.input_tokens": prompt // 128 * 64,
        }
        for key, number in numbers.items():
            span.attributes.add(key=key).value.int_value = number
        span.attributes.add(key="gen_ai.request.stream").value.bool_value = True
        span.attributes.add(key="gen_ai.response.time_to_first_chunk").value.double_value = rng.random()
        span.attributes.add(key="gen_ai.response.finish_reasons").value.array_value.values.add(string_value="stop")
    return request.SerializeToString()
