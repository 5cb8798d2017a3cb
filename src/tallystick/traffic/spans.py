"""Calls as OpenTelemetry spans: what the official GenAI instrumentations emit, in OTLP's protobuf."""

from collections.abc import Iterable

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from tallystick.schema import names
from tallystick.traffic.calls import Call
from tallystick.traffic.organisation import Feature, Model

_SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
_SERVERS = {
    "openai": "api.openai.com",
    "anthropic": "api.anthropic.com",
    "gcp.gemini": "generativelanguage.googleapis.com",
    "vllm": "inference.internal",
}
_RESPONSE_IDS = {"openai": "chatcmpl-", "anthropic": "msg_", "gcp.gemini": "", "vllm": "cmpl-"}


class Encoder:
    """Encodes calls as bodies of OTLP exports. What all calls of a feature and model share is encoded once and copied."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, str, bool], bytes] = {}

    def request(self, calls: Iterable[Call]) -> bytes:
        """One serialised ExportTraceServiceRequest, with a resource for every service that calls."""
        export = ExportTraceServiceRequest()
        scopes: dict[tuple[str, str], ScopeSpans] = {}
        for call in calls:
            who = call.caller
            key = (who.feature.service, who.model.scope)
            scope = scopes.get(key)
            if scope is None:
                scope = scopes[key] = _scope(export, *key)
            self._add(scope, call)
        return export.SerializeToString()

    def _add(self, scope: ScopeSpans, call: Call) -> None:
        who = call.caller
        key = (who.feature.name, who.model.request_model, who.streamed)
        template = self._templates.get(key)
        if template is None:
            template = self._templates[key] = _template(who.feature, who.model, who.streamed).SerializeToString()
        span = scope.spans.add()
        span.MergeFromString(template)
        span.trace_id, span.span_id = call.trace_id, call.span_id
        span.start_time_unix_nano, span.end_time_unix_nano = call.started_ns, call.ended_ns
        add = span.attributes.add
        add(key="gen_ai.response.id").value.string_value = _RESPONSE_IDS[who.model.provider] + call.span_id.hex()
        prompt_tokens = call.input_tokens + call.cache_read_tokens + call.cache_write_tokens
        add(key="gen_ai.usage.input_tokens").value.int_value = prompt_tokens
        add(key="gen_ai.usage.output_tokens").value.int_value = call.output_tokens
        # The official instrumentations leave a count of zero out.
        if call.cache_read_tokens:
            add(key="gen_ai.usage.cache_read.input_tokens").value.int_value = call.cache_read_tokens
        if call.cache_write_tokens:
            add(key="gen_ai.usage.cache_write.input_tokens").value.int_value = call.cache_write_tokens
        if call.first_chunk_ns is not None:
            add(key="gen_ai.response.time_to_first_chunk").value.double_value = (call.first_chunk_ns - call.started_ns) / 1e9
        add(key=names.CUSTOMER).value.string_value = who.customer
        add(key=names.USER).value.string_value = who.user
        add(key=names.TAG_PREFIX + "plan").value.string_value = who.plan
        if who.session:
            add(key=names.SESSION).value.string_value = who.session


def _scope(export: ExportTraceServiceRequest, service: str, scope: str) -> ScopeSpans:
    resource = export.resource_spans.add()
    for key, text in (
        ("service.name", service),
        ("deployment.environment.name", "production"),
        ("telemetry.sdk.language", "python"),
        ("telemetry.sdk.name", "opentelemetry"),
    ):
        resource.resource.attributes.add(key=key).value.string_value = text
    spans = resource.scope_spans.add(schema_url=_SCHEMA_URL)
    spans.scope.name = scope
    return spans


def _template(feature: Feature, model: Model, streamed: bool) -> Span:
    operation = "generate_content" if model.provider == "gcp.gemini" else "chat"
    span = Span(name=f"{operation} {model.request_model}", kind=Span.SPAN_KIND_CLIENT)
    for key, text in (
        ("gen_ai.operation.name", operation),
        ("gen_ai.provider.name", model.provider),
        ("gen_ai.request.model", model.request_model),
        ("gen_ai.response.model", model.response_model),
        ("server.address", _SERVERS[model.provider]),
        (names.FEATURE, feature.name),
        (names.AGENT, feature.agent),
        (names.TEAM, feature.team),
    ):
        span.attributes.add(key=key).value.string_value = text
    span.attributes.add(key="server.port").value.int_value = 443
    span.attributes.add(key="gen_ai.response.finish_reasons").value.array_value.values.append(AnyValue(string_value="stop"))
    if streamed:
        span.attributes.add(key="gen_ai.request.stream").value.bool_value = True
    if model.provider == "openai":
        span.attributes.add(key="openai.response.service_tier").value.string_value = "default"
    return span
