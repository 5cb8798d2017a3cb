"""Requests of requests and urllib3, where urllib3 sends them: each hop of a redirect, and each retry, comes here by itself."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from tallystick.collectors.carriers.baggage import NAME
from tallystick.collectors.carriers.outgoing import OUTGOING
from tallystick.collectors.failures import report


def make_request(wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `HTTPConnectionPool._make_request(connection, method, url, *, headers, …)`, in urllib3 1.26 and 2."""
    try:
        if "headers" in kwargs and len(args) == 3:
            # To an HTTP proxy goes the whole URL, and the pool's host is the proxy's.
            url = args[2]
            host = (urlsplit(url).hostname or "") if url.startswith("http") else pool.host
            kwargs = {**kwargs, "headers": _with_baggage(host, kwargs["headers"])}
    except Exception as error:
        report("passing a scope on by urllib3", error)
    return wrapped(*args, **kwargs)


def _with_baggage(host: str, headers: Any) -> Any:
    value = OUTGOING.to_host(host, headers.items() if headers else ())
    if value is None:
        return headers
    # A copy of the same kind, which may hold a name several times.
    sent = headers.copy() if headers else {}
    for name in [name for name in sent if name.lower() == NAME]:
        del sent[name]
    sent[NAME] = value
    return sent
