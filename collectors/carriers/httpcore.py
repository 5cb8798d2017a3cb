"""Requests of httpx and httpx2, at the connection pool below them: each hop of a redirect comes here by itself.

Further up, an instrumentation that is turned on later would write its own `baggage` over this one, and httpx would take the
header along to the host of a redirect.
"""

import copy
from collections.abc import Callable
from typing import Any

from tallystick.collectors.carriers.baggage import NAME, text
from tallystick.collectors.carriers.outgoing import OUTGOING
from tallystick.collectors.failures import report


def handle_request(wrapped: Callable[..., Any], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `ConnectionPool.handle_request` and its async twin."""
    if len(args) == 1:
        try:
            args = (_with_baggage(args[0]),)
        except Exception as error:
            report("passing a scope on by httpcore", error)
    return wrapped(*args, **kwargs)


def _with_baggage(request: Any) -> Any:
    value = OUTGOING.to_host(request.url.host.decode("ascii", "replace"), request.headers)
    if value is None:
        return request
    # A copy: the caller may send the same request again, in another scope.
    sent = copy.copy(request)
    sent.headers = [pair for pair in request.headers if text(pair[0]).lower() != NAME] + [(NAME.encode(), value.encode())]
    return sent
