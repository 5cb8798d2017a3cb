"""The tracer provider that the model spans come from: the application's, or one of ours that makes way for it."""

from collections.abc import Callable
from typing import Any

import wrapt
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider, sampling

from tallystick.collectors.failures import contained, warn_once
from tallystick.collectors.sampling import record_unsampled, record_unsampled_of


class MadeProvider(TracerProvider):
    """A provider for applications without one, which hands over to the one that the application sets later.

    OpenTelemetry takes a global provider once; a second is refused with a warning. An application that imports
    `tallystick.auto` first and sets up its own tracing afterwards would lose it. Its provider gets our processor
    then, and all tracers, also those already handed out, go to it.
    """

    def __init__(self, processor: SpanProcessor, sampler: sampling.Sampler | None) -> None:
        super().__init__(sampler=sampler, shutdown_on_exit=False)
        self._ours = processor
        self._successor: TracerProvider | None = None
        super().add_span_processor(processor)

    def make_way(self, successor: TracerProvider) -> None:
        successor.add_span_processor(self._ours)
        self._successor = successor
        record_unsampled(successor, self._ours)

    @property
    def handed_over(self) -> bool:
        return self._successor is not None

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        if self._successor is not None:
            return self._successor.get_tracer(*args, **kwargs)
        own = super().get_tracer(*args, **kwargs)
        with contained("recording what is sampled out"):
            record_unsampled_of(own, self._ours)
        return _Tracer(
            own,
            lambda: self._successor.get_tracer(*args, **kwargs) if self._successor is not None else None,
        )

    @property
    def resource(self) -> Resource:
        return self._successor.resource if self._successor else super().resource

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        if self._successor is not None:
            self._successor.add_span_processor(span_processor)
        else:
            super().add_span_processor(span_processor)

    def shutdown(self) -> None:
        if self._successor is not None:
            self._successor.shutdown()
        super().shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        if self._successor is not None:
            return self._successor.force_flush(timeout_millis)
        return super().force_flush(timeout_millis)


class _Tracer(trace.ProxyTracer):
    """A tracer of our provider until there is a successor, then one of the successor's."""

    def __init__(self, own: trace.Tracer, successors: Callable[[], trace.Tracer | None]) -> None:
        self._own = own
        self._successors = successors
        self._replacement: trace.Tracer | None = None

    @property
    def _tracer(self) -> trace.Tracer:
        """What `ProxyTracer` sends each call to, also that of a function decorated long before."""
        if self._replacement is None:
            self._replacement = self._successors()
        return self._replacement or self._own


def attach(processor: SpanProcessor, sampler_given: bool) -> str:
    """Adds `processor` to the global provider, made if there is none yet. Returns `reused`, `made` or `unusable`."""
    existing = trace.get_tracer_provider()
    if isinstance(existing, trace.ProxyTracerProvider):
        made = MadeProvider(processor, None if sampler_given else sampling.ALWAYS_ON)
        trace.set_tracer_provider(made)
        wrapt.wrap_function_wrapper("opentelemetry.trace", "set_tracer_provider", _set_later)
        return "made"
    add = getattr(existing, "add_span_processor", None)
    if add is None:
        warn_once("provider", f"no span processor can be added to {type(existing).__name__}: model calls aren't seen")
        return "unusable"
    add(processor)
    if isinstance(existing, TracerProvider):
        with contained("recording what is sampled out"):
            record_unsampled(existing, processor)
    return "reused"


def _set_later(set_provider: Callable[..., None], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    current = trace.get_tracer_provider()
    given = args[0] if args else kwargs.get("tracer_provider")
    if isinstance(current, MadeProvider) and isinstance(given, TracerProvider) and not current.handed_over:
        with contained("handing over to the application's tracer provider"):
            current.make_way(given)
        return
    set_provider(*args, **kwargs)
