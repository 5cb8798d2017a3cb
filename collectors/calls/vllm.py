"""vLLM inside the process (`vllm.LLM`, `LLMEngine`): a span for each request, made here because nothing else makes one.

vLLM's own `llm_request` spans need its tracing switched on, and carry neither a model nor whom a call is for; those of
`vllm serve` are taken as they are.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import WeakKeyDictionary

import wrapt
from opentelemetry import trace
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.trace import Span, Status, StatusCode

from tallystick.collectors.failures import contained
from tallystick.schema.names import INSTRUMENTATION

MODULE: Final = "vllm.v1.engine.llm_engine"

_open: WeakKeyDictionary[Any, dict[str, Span]] = WeakKeyDictionary()
"""The span of each request that an engine hasn't finished, by request id."""


def watch() -> None:
    """Imports nothing: the engine's steps are seen from when the application imports vLLM."""
    wrapt.register_post_import_hook(_observe, MODULE)


def _observe(module: Any) -> None:
    with contained("observing vLLM"):
        wrappers = {"add_request": _add_request, "step": _step, "abort_request": _abort_request}
        if missing := [name for name in wrappers if not hasattr(module.LLMEngine, name)]:
            raise AttributeError(f"this version of vLLM has no LLMEngine.{missing[0]}")
        for name, wrapper in wrappers.items():
            wrapt.wrap_function_wrapper(module, f"LLMEngine.{name}", wrapper)


def _add_request(add: Callable[..., Any], engine: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    span: Span | None = None
    with contained("opening the span of a request to vLLM"):
        span = _start(engine, args[2] if len(args) > 2 else kwargs.get("params"))
    try:
        result = add(*args, **kwargs)
    except BaseException as error:
        if span is not None:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.set_attribute("error.type", type(error).__name__)
            span.end()
        raise
    with contained("opening the span of a request to vLLM"):
        if span is not None:
            _open.setdefault(engine, {})[str(args[0] if args else kwargs["request_id"])] = span
    return result


def _step(step: Callable[..., Any], engine: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    outputs = step(*args, **kwargs)
    with contained("closing the span of a request to vLLM"):
        spans = _open.get(engine, {})
        for output in outputs:
            if output.finished and (span := spans.pop(output.request_id, None)) is not None:
                _end(span, output)
    return outputs


def _abort_request(abort: Callable[..., Any], engine: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with contained("closing the span of a request to vLLM"):
        spans = _open.get(engine, {})
        for name in args[0] if args else kwargs.get("request_ids", ()):
            if (span := spans.pop(name, None)) is not None:
                span.set_attribute("error.type", "aborted")
                span.set_status(Status(StatusCode.ERROR, "aborted"))
                span.end()
    return abort(*args, **kwargs)


def _start(engine: Any, params: Any) -> Span:
    config = engine.model_config
    name = config.served_model_name
    model = str(name[0] if isinstance(name, list) else name or config.model)
    operation = "embeddings" if type(params).__name__ == "PoolingParams" else "text_completion"
    attributes: dict[str, Any] = {
        gen_ai.GEN_AI_OPERATION_NAME: operation,
        gen_ai.GEN_AI_PROVIDER_NAME: "vllm",
        gen_ai.GEN_AI_REQUEST_MODEL: model,
        gen_ai.GEN_AI_RESPONSE_MODEL: model,
    }
    if (limit := getattr(params, "max_tokens", None)) is not None:
        attributes[gen_ai.GEN_AI_REQUEST_MAX_TOKENS] = limit
    return trace.get_tracer(INSTRUMENTATION).start_span(f"{operation} {model}", attributes=attributes)


def _end(span: Span, output: Any) -> None:
    try:
        span.set_attributes(_told(output))
    finally:
        span.end()


def _told(output: Any) -> dict[str, Any]:
    # No response id: an engine numbers its requests from 0, and calls with equal ids are taken for one.
    told: dict[str, Any] = {}
    if output.prompt_token_ids is not None:
        told[gen_ai.GEN_AI_USAGE_INPUT_TOKENS] = len(output.prompt_token_ids)
    if getattr(output, "num_cached_tokens", None) is not None:
        told["gen_ai.usage.cache_read.input_tokens"] = output.num_cached_tokens
    if isinstance(output.outputs, Sequence):  # of a pooling model it is one vector
        told[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] = sum(len(one.token_ids) for one in output.outputs)
        told[gen_ai.GEN_AI_RESPONSE_FINISH_REASONS] = [one.finish_reason or "error" for one in output.outputs]
    else:
        told[gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS] = 0
    # Kept by the engine only with `disable_log_stats=False`.
    if (latency := getattr(getattr(output, "metrics", None), "first_token_latency", 0)) > 0:
        told["gen_ai.response.time_to_first_chunk"] = latency
    return told
