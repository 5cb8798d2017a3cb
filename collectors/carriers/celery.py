"""Celery's tasks: the scope in which one is called is that in which it is run."""

from collections.abc import Callable
from typing import Any, Final

from tallystick.collectors.carriers.baggage import NAME, read
from tallystick.collectors.carriers.incoming import INCOMING
from tallystick.collectors.carriers.outgoing import OUTGOING
from tallystick.collectors.failures import contained, report
from tallystick.collectors.scope import arrived

_running: Final[dict[str, arrived]] = {}
"""By the id of the task. Celery sends the two signals in the thread, or greenlet, that runs it."""


def publish(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around kombu's `Producer.publish`, below the signal in which an instrumentation writes a `baggage` of its own."""
    try:
        headers = kwargs.get("headers")
        # Of a task's message (protocol 2); Celery's own events and other users of kombu are left alone.
        if isinstance(headers, dict) and "task" in headers and "id" in headers:
            value = OUTGOING.in_message(str(headers.get(NAME) or ""))
            if value is not None:
                kwargs = {**kwargs, "headers": {**headers, NAME: value}}
    except Exception as error:
        report("passing a scope on by Celery", error)
    return wrapped(*args, **kwargs)


def listen(signals: Any) -> None:
    """To the signals of a worker."""
    signals.task_prerun.connect(_begins, weak=False)
    signals.task_postrun.connect(_ends, weak=False)


def _begins(task_id: str, task: Any, **_: Any) -> None:
    with contained("reading the scope of a task"):
        header = getattr(task.request, NAME, None)
        # One that is called in place (`apply`, `task_always_eager`) has no message, and its caller's scope.
        if not task.request.is_eager:
            attributes = read(str(header)) if header and INCOMING.trust.anybody else {}
            _running[task_id] = arrived(attributes).__enter__()


def _ends(task_id: str, **_: Any) -> None:
    with contained("leaving the scope of a task"):
        if entered := _running.pop(task_id, None):
            entered.__exit__(None, None, None)
