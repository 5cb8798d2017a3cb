"""The span processor: writes whom a call is for on spans that start, sends model spans that end."""

from collections.abc import Iterable
from functools import partial

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from tallystick.collectors.calls.call import Call, current, of_span
from tallystick.collectors.failures import report
from tallystick.collectors.scope import attribution
from tallystick.collectors.span_queue import SpanQueue
from tallystick.schema.names import MODEL_ATTRIBUTE_PREFIXES


def is_model_span(keys: Iterable[str]) -> bool:
    """Whether a span with attributes of these names tells of a model call."""
    for key in keys:  # noqa: SIM110 - `any` takes twice as long
        if key.startswith(MODEL_ATTRIBUTE_PREFIXES):
            return True
    return False


class ModelSpanProcessor(SpanProcessor):
    """Goes beside whatever processors a provider has: they see all spans as before, with the scope's attributes."""

    def __init__(self, queue: SpanQueue) -> None:
        self._queue = queue

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        # On any span: whether it is a model's isn't known yet, and once it has ended nothing can be written on it.
        try:
            if found := attribution(parent_context):
                given = span.attributes or {}
                span.set_attributes({name: value for name, value in found.items() if name not in given})
            if (call := current()) is not None:
                call.link(span)
        except Exception as error:
            report("writing a scope on a span", error)

    def on_end(self, span: ReadableSpan) -> None:
        try:
            call = of_span(span.context.span_id) if span.context is not None else None
            if call is not None:
                call.hold(partial(self._take, span, call))
            elif is_model_span(span.attributes or ()):
                self._queue.put(span)
        except Exception as error:
            report("taking a span", error)

    def _take(self, span: ReadableSpan, call: Call) -> None:
        call.end()
        self._queue.put(span, call.merged_into)

    def shutdown(self) -> None:
        self._queue.stop()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._queue.flush(timeout_millis / 1000)
