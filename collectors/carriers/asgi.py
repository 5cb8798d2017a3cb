"""Requests that an ASGI application is asked: FastAPI, Starlette and Django by themselves, others by `tallystick.asgi`."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tallystick.collectors.carriers.baggage import text
from tallystick.collectors.carriers.incoming import INCOMING, Head, within

Application = Callable[[MutableMapping[str, Any], Callable[..., Any], Callable[..., Any]], Awaitable[None]]


def call(wrapped: Callable[..., Awaitable[None]], _: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[None]:
    """Around `__call__(scope, receive, send)`. A streamed answer and background tasks are part of the call."""
    asked = args[0] if args else kwargs["scope"]
    if asked["type"] == "lifespan":
        return wrapped(*args, **kwargs)
    return within(INCOMING.of(lambda: head(asked)), wrapped, args, kwargs)


def asgi(application: Application) -> Application:
    """`application`, handling each request and websocket with the scope that it brings. For frameworks that aren't known."""

    async def handled(scope: MutableMapping[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        await call(application, None, (scope, receive, send), {})

    return handled


def head(scope: MutableMapping[str, Any]) -> Head:
    headers = scope.get("headers") or ()
    client = scope.get("client")

    def header(name: str) -> str:
        wanted = name.encode("latin-1")
        return ",".join(text(value) for given, value in headers if given == wanted)

    return Head(header, scope.get("path", ""), text(scope.get("query_string", b"")), client[0] if client else None)
