"""Requests that aiohttp's client sends, and those that its server is asked."""

from collections.abc import Awaitable, Callable
from typing import Any

from tallystick.collectors.carriers.baggage import NAME
from tallystick.collectors.carriers.incoming import INCOMING, Head, within
from tallystick.collectors.carriers.outgoing import OUTGOING
from tallystick.collectors.failures import report


def send(wrapped: Callable[..., Any], request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Around `ClientRequest.send`: a request object is made for each hop, from the caller's headers."""
    try:
        value = OUTGOING.to_host(request.url.raw_host or "", request.headers.items())
        if value is not None:
            request.headers[NAME] = value
    except Exception as error:
        report("passing a scope on by aiohttp", error)
    return wrapped(*args, **kwargs)


def handle(wrapped: Callable[..., Awaitable[Any]], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
    """Around `Application._handle(request)`."""
    request = args[0]

    def head() -> Head:
        headers = request.headers
        return Head(lambda name: ",".join(headers.getall(name, ())), request.path, request.query_string, request.remote)

    return within(INCOMING.of(head), wrapped, args, kwargs)
