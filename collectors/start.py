"""What `import tallystick.auto` does, and how it is doing since."""

import atexit
import inspect
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from tallystick.collectors.content import WITH_CONTENT, outgoing, with_content
from tallystick.collectors.failures import contained
from tallystick.collectors.instrumentations import Choice, Instrumentations, State
from tallystick.collectors.instrumentations import installed_instrumentations as _installed
from tallystick.collectors.losses import observe as observe_losses
from tallystick.collectors.settings import Kafka, Settings, read
from tallystick.collectors.span_queue import EXIT_S, Counts, Sender, SpanQueue

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Status:
    """How the collector in this process is doing."""

    server: str
    """Where model spans go, as it may be shown."""
    provider: str
    """The tracer provider was `reused`, `made`, or is `unusable`; `off` by OTEL_SDK_DISABLED."""
    instrumented: dict[str, tuple[str, State]]
    """Imported library → its instrumentation and what became of it."""
    observed: dict[str, str]
    """Imported library → whether its calls are observed below that (`on`), or why not."""
    spans: Counts


@dataclass(frozen=True, slots=True)
class _Collector:
    settings: Settings
    queue: SpanQueue
    instrumentations: Instrumentations | None
    provider: str


# A notebook may reload this module, which must neither start nor hook anything a second time.
_started: _Collector | None = globals().get("_started")
_observing = bool(globals().get("_observing"))
_beginning = threading.Lock()
_starting = threading.Lock()


def start() -> None:
    """Once in a process. Opens no connection, imports no client library."""
    global _started  # noqa: PLW0603 - one collector for the one global tracer provider
    with _starting:
        if _started is None:
            _started = _start(read(os.environ))


def _start(settings: Settings) -> _Collector:
    queue = SpanQueue(settings, lambda: _connect(settings), with_content if settings.capture_content else outgoing)
    if settings.disabled:
        return _Collector(settings, queue, None, "off")
    from tallystick.collectors.carriers.hooks import watch
    from tallystick.collectors.endings import send_before_the_end
    from tallystick.collectors.processor import ModelSpanProcessor
    from tallystick.collectors.propagation import keep_attribution_in
    from tallystick.collectors.provider import attach

    provider = attach(ModelSpanProcessor(queue), settings.sampler_given)
    # A provider of the application may not be shut down at exit, and doing it twice is harmless.
    atexit.register(queue.stop)
    with contained("watching for the end of the process"):
        send_before_the_end(queue)
    with contained("counting losses"):
        observe_losses(queue.counts)
    with contained("keeping attribution out of requests"):
        keep_attribution_in(settings.trust_baggage in ("", "all"))
    with contained("passing scopes on"):
        watch(settings)
    with contained("recognising caches"):
        from tallystick.collectors.caches import hooks

        hooks.watch()
    if settings.capture_content:
        for name, value in WITH_CONTENT.items():
            os.environ.setdefault(name, value)
    instrumentations = Instrumentations(settings.left_off)
    instrumentations.watch()
    observe(settings)
    return _Collector(settings, queue, instrumentations, provider)


def _connect(settings: Settings) -> Sender:
    # In the thread of the queue: the HTTP client and Kafka's take longer to import than all the rest.
    if settings.kafka is not None:
        return _connect_to_kafka(settings.kafka)
    import netrc  # noqa: F401 - requests would, with its first request, when a fork no longer waits for imports

    from tallystick.collectors.delivery import Delivery

    return Delivery(settings)


def _connect_to_kafka(settings: Kafka) -> Sender:
    try:
        from tallystick.collectors.kafka import KafkaDelivery
    except ImportError as error:
        raise ImportError("TALLYSTICK_KAFKA needs kafka-python: pip install 'tallystick[kafka]'") from error
    return KafkaDelivery(settings)


def observe(settings: Settings) -> None:
    """Once in a process: client libraries are hooked into when they are imported. Guards need that without an export, too."""
    global _observing
    # A second hook would see each call twice.
    with _beginning:
        first, _observing = not _observing, True
    if first:
        with contained("observing clients"):
            from tallystick.collectors.calls import bedrock, cohere, google, methods, mistral, stainless, vllm

            stainless.watch(settings.ask_usage)
            if not settings.left_off & {"*", "vllm"}:
                vllm.watch()
            methods.watch((bedrock.CLIENT, cohere.CLIENT, google.CLIENT, mistral.CLIENT), _makes_spans_of)


def _makes_spans_of(distribution: str) -> bool:
    instrumentations = _started.instrumentations if _started is not None else None
    return instrumentations is not None and instrumentations.makes_spans_of(distribution)


def status() -> Status | None:
    """None where `tallystick.auto` wasn't imported in this process, or failed."""
    if _started is None:
        return None
    states = _started.instrumentations.states if _started.instrumentations else {}
    return Status(_started.settings.server, _started.provider, dict(states), _observed(), _started.queue.counts())


def _observed() -> dict[str, str]:
    from tallystick.collectors.calls import methods, stainless

    return stainless.observed | methods.observed


def flush(timeout_s: float = 10.0) -> bool:
    """Sends what is waiting now, as at the end of a job in a process that is frozen or killed; False if that failed."""
    return _started is None or _started.queue.flush(timeout_s)


def flushed(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, a handler or a job, whose model calls are sent when it returns or raises: within two seconds, or later.

    For processes that are frozen between invocations or killed after a job. A coroutine function's are sent in a thread.
    """

    if inspect.iscoroutinefunction(function):
        from asyncio import to_thread

        @wraps(function)
        async def job(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            finally:
                with contained("sending at the end of a job"):
                    await to_thread(flush, EXIT_S)

        return cast(Callable[P, R], job)

    @wraps(function)
    def handler(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        finally:
            with contained("sending at the end of a job"):
                flush(EXIT_S)

    return handler


def installed_instrumentations() -> list[Choice]:
    """For each known client library: installed, seen by what, and why. For `doctor`, in any process."""
    return _installed(os.environ, read(os.environ).left_off)
