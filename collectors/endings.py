"""Ends of processes that `atexit` doesn't see, and the freezing of functions: what is waiting is sent before."""

import inspect
import time
from collections.abc import Callable
from typing import Any, Final

import wrapt

from tallystick.collectors.failures import contained
from tallystick.collectors.span_queue import EXIT_S, SpanQueue

RESERVE_S: Final = 0.2
"""Of the time a function has left, what isn't used for sending."""


def send_before_the_end(queue: SpanQueue) -> None:
    """Hooks each of `HOOKS` once its library is imported, by whomever; at once where it has been. Imports nothing."""
    for module, hook in HOOKS.items():
        wrapt.register_post_import_hook(_contained(hook, queue), module)


def _contained(hook: Callable[[Any, SpanQueue], None], queue: SpanQueue) -> Callable[[Any], None]:
    def imported(module: Any) -> None:
        with contained(f"hooking {module.__name__}"):
            hook(module, queue)

    return imported


def _multiprocessing(util: Any, queue: SpanQueue) -> None:
    """A forked child ends by `os._exit`, after its finalizers."""

    def in_child(queue: SpanQueue) -> None:
        # Low, so that the application's own finalizers come first.
        util.Finalize(queue, queue.stop, exitpriority=-100)

    util.register_after_fork(queue, in_child)
    # Imported within a child, whose hooks have run.
    from multiprocessing.process import parent_process

    if parent_process() is not None:
        in_child(queue)


def _celery(signals: Any, queue: SpanQueue) -> None:
    """The children of the prefork pool end by `os._exit` without finalizers, but give a signal."""

    def ending(**_: Any) -> None:
        with contained("sending at the end of a Celery process"):
            queue.stop()

    signals.worker_process_shutdown.connect(ending, weak=False)


def _uvicorn(server: Any, queue: SpanQueue) -> None:
    """After its graceful shutdown uvicorn raises the signal that it was stopped with again, which kills the process."""
    from asyncio import to_thread

    async def shutdown(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> None:
        await wrapped(*args, **kwargs)
        with contained("sending at the end of uvicorn"):
            await to_thread(queue.flush, EXIT_S)

    wrapt.wrap_function_wrapper(server, "Server.shutdown", shutdown)


def _lambda(bootstrap: Any, queue: SpanQueue) -> None:
    """AWS Lambda's runtime answers one event in this function, and may be frozen as soon as it asks for the next."""
    handle = bootstrap.handle_event_request
    parameters = inspect.signature(handle)

    def handle_event_request(wrapped: Callable[..., Any], _: object, args: Any, kwargs: Any) -> Any:
        try:
            return wrapped(*args, **kwargs)
        finally:
            with contained("sending at the end of an invocation"):
                given = parameters.bind(*args, **kwargs).arguments
                left_s = int(given["epoch_deadline_time_in_ms"]) / 1000 - time.time()
                queue.flush(max(0.0, min(EXIT_S, left_s - RESERVE_S)))

    wrapt.wrap_function_wrapper(bootstrap, "handle_event_request", handle_event_request)


HOOKS: Final[dict[str, Callable[[Any, SpanQueue], None]]] = {
    "multiprocessing.util": _multiprocessing,
    "celery.signals": _celery,
    "uvicorn.server": _uvicorn,
    "awslambdaric.bootstrap": _lambda,
}
"""Module whose import turns it on → what is hooked there."""
