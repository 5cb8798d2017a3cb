"""Threads and jobs of thread pools, which have the scope, and the guards and breakers, in which they were started or submitted.

Only these: other context variables, and with them the parents of the application's spans, are what they would have been.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from opentelemetry.context import attach, detach, get_value, set_value

from tallystick.collectors.around import KEEPERS
from tallystick.collectors.failures import report
from tallystick.collectors.scope import arrived, attribution

SERVANTS: Final = (
    "concurrent.futures.", "multiprocessing.", "opentelemetry.", "tallystick.", "kafka.", "sentry_sdk.", "ddtrace.",
    "posthog.", "grpc.", "anyio.",
)  # fmt: skip
"""Modules whose threads outlive the request in which they happen to be started: pools, whose jobs bring their own scope,
and what sends in the background."""

Taken = tuple[dict[str, str], object]
"""Whom calls are for, and what they are held by."""


def start(wrapped: Callable[..., Any], thread: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `Thread.start`."""
    try:
        found = _here()
        if any(found) and "run" not in vars(thread) and not _is_servant(thread):
            thread.run = _Run(thread, found)
    except Exception as error:
        report("passing a scope on to a thread", error)
    return wrapped(*args, **kwargs)


def submit(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `ThreadPoolExecutor.submit(function, …)`, by which `map` and an event loop's `run_in_executor` go, too."""
    try:
        if args and any(found := _here()):
            args = (_job, found, *args)
    except Exception as error:
        report("passing a scope on to a thread pool", error)
    return wrapped(*args, **kwargs)


def _job(taken: Taken, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    with _there(taken):
        return function(*args, **kwargs)


def _here() -> Taken:
    return attribution(), get_value(KEEPERS)


@contextmanager
def _there(taken: Taken) -> Iterator[None]:
    attributes, keepers = taken
    with arrived(attributes):
        token = attach(set_value(KEEPERS, keepers))
        try:
            yield
        finally:
            detach(token)


def _is_servant(thread: threading.Thread) -> bool:
    target = getattr(thread, "_target", None)
    return any(str(getattr(of, "__module__", "")).startswith(SERVANTS) for of in (type(thread), target))


class _Run:
    """The `run` of one thread, until it runs: as an attribute of the thread it would keep the thread alive."""

    def __init__(self, thread: threading.Thread, taken: Taken) -> None:
        self._thread = thread
        self._taken = taken

    def __call__(self) -> None:
        thread = self._thread
        del self._thread, thread.run
        with _there(self._taken):
            thread.run()
