"""Cost survives sampling: a model's span is recorded for us also where the application samples its trace out."""

import threading
from typing import Any, Final

import wrapt
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, Tracer, TracerProvider, sampling

from tallystick.collectors.failures import contained, report
from tallystick.collectors.processor import is_model_span

MODEL_SCOPES: Final = (
    "com.anthropic.sdk",
    "gcp.vertex.agent",
    "langfuse-sdk",
    "langsmith",
    "litellm",
    "logfire.anthropic",
    "logfire.google_genai",
    "logfire.openai",
    "openinference.",
    "openlit.",
    "opentelemetry.instrumentation.alephalpha",
    "opentelemetry.instrumentation.anthropic",
    "opentelemetry.instrumentation.bedrock",
    "opentelemetry.instrumentation.cohere",
    "opentelemetry.instrumentation.crewai",
    "opentelemetry.instrumentation.genai.",
    "opentelemetry.instrumentation.google_genai",
    "opentelemetry.instrumentation.google_generativeai",
    "opentelemetry.instrumentation.groq",
    "opentelemetry.instrumentation.haystack",
    "opentelemetry.instrumentation.langchain",
    "opentelemetry.instrumentation.llamaindex",
    "opentelemetry.instrumentation.mistralai",
    "opentelemetry.instrumentation.ollama",
    "opentelemetry.instrumentation.openai",
    "opentelemetry.instrumentation.replicate",
    "opentelemetry.instrumentation.sagemaker",
    "opentelemetry.instrumentation.together",
    "opentelemetry.instrumentation.transformers",
    "opentelemetry.instrumentation.vertexai",
    "opentelemetry.instrumentation.voyageai",
    "opentelemetry.instrumentation.watsonx",
    "opentelemetry.instrumentation.writer",
    "opentelemetry.util.genai",
    "pydantic-ai",
    "strands.",
    "vllm",
)
"""How the names of instrumentation scopes begin whose spans are models'. Of other scopes a span counts by its attributes at
the start; those of these mostly come later."""

_here = threading.local()
"""Trace id of the span that this thread is about to start although its sampler dropped it."""


def record_unsampled(provider: TracerProvider, ours: SpanProcessor) -> None:
    """Makes `provider`'s tracers, present and future ones, record for `ours` the model spans that its sampler drops.

    The sampled flag stays off, so that children are sampled as before, and no other processor sees the span: some don't
    look at the flag. The sampler of the provider itself isn't touched.
    """

    def get_tracer(get: Any, _: object, args: Any, kwargs: Any) -> trace.Tracer:
        tracer: trace.Tracer = get(*args, **kwargs)
        with contained("recording what is sampled out"):
            record_unsampled_of(tracer, ours)
        return tracer

    wrapt.wrap_function_wrapper(provider, "get_tracer", get_tracer)
    for tracer in list(provider._tracers.values()):
        record_unsampled_of(tracer, ours)


def record_unsampled_of(tracer: trace.Tracer, ours: SpanProcessor) -> None:
    """`record_unsampled` for one tracer, once however often it is called."""
    if isinstance(tracer, Tracer) and not isinstance(tracer.sampler, _Recording):
        of_models = tracer._instrumentation_scope.name.startswith(MODEL_SCOPES)
        tracer.span_processor = _Routed(tracer.span_processor, ours)  # type: ignore[assignment]  # one method is called of it
        tracer.sampler = _Recording(tracer.sampler, of_models)


class _Recording(sampling.Sampler):
    """The decisions of `inner`, except that a model's span is recorded instead of dropped."""

    def __init__(self, inner: sampling.Sampler, of_models: bool) -> None:
        self._inner = inner
        self._of_models = of_models

    def should_sample(self, *args: Any, **kwargs: Any) -> sampling.SamplingResult:
        # As it is called, and no more: a sampler of the application may not take every argument there is.
        result = self._inner.should_sample(*args, **kwargs)
        if result.decision is sampling.Decision.DROP:
            try:
                # The SDK passes them by place: parent context, trace id, name, kind, attributes, links.
                attributes = args[4] if len(args) > 4 else kwargs.get("attributes")
                if self._of_models or (attributes and is_model_span(attributes)):
                    recorded = sampling.SamplingResult(sampling.Decision.RECORD_ONLY, attributes, result.trace_state)
                    _here.dropped = args[1] if len(args) > 1 else kwargs["trace_id"]
                    return recorded
            except Exception as error:
                report("recording what is sampled out", error)
        return result

    def get_description(self) -> str:
        return self._inner.get_description()


class _Routed(SpanProcessor):
    """Sends a span that starts to all processors, or to `ours` alone, where it stays until its end."""

    def __init__(self, everyone: SpanProcessor, ours: SpanProcessor) -> None:
        self._everyone = everyone
        self._ours = ours

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        processor = self._everyone
        if (dropped := getattr(_here, "dropped", None)) is not None:
            _here.dropped = None
            if span.context is not None and span.context.trace_id == dropped:
                processor = self._ours
        # Not by the sampled flag: an application may record unsampled spans for its own processors.
        span._span_processor = processor
        processor.on_start(span, parent_context)

    # Not reached while spans keep their processor in `_span_processor`; an SDK that renames it shows all of them to everyone.
    def _on_ending(self, span: Span) -> None:
        self._everyone._on_ending(span)

    def on_end(self, span: ReadableSpan) -> None:
        self._everyone.on_end(span)
