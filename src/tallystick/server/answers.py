"""What HTTP applications of ours do alike: turn away requests that are made in somebody's name, take spans, and answer errors in one shape."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tallystick.ingest.errors import StoreError
from tallystick.ingest.payload import PayloadError
from tallystick.ingest.receiver import RETRY_AFTER_S, Receiver, router
from tallystick.server.auth import Door
from tallystick.server.operators import senders_only


def error_body(code: str, message: str, hint: str) -> dict[str, dict[str, str]]:
    """What every error answers: a word for programs, a sentence, and what to do."""
    return {"error": {"code": code, "message": message, "hint": hint}}


class Guard:
    """Turns away what a page elsewhere or a proxy sends in somebody's name. Plain ASGI: bodies pass through untouched.

    But for `/`, where a key may be what ClickHouse calls a password: that route looks for itself.
    """

    def __init__(self, app: ASGIApp, door: Door) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/" and self._door.suspicious(Headers(scope=scope)):
            body = error_body(
                "forbidden", "A forwarded request, or one for another host, needs a key.", "Send `Authorization: Bearer KEY`."
            )
            await JSONResponse(body, 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class _Direct(Route):
    """A route without what FastAPI prepares for each request: dependencies, and a stack for what they open. That takes 100 us."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return match, {**found, "route": self}


def take_spans(app: FastAPI, receiver: Receiver) -> None:
    """`POST /v1/traces`, which most requests are by far: FastAPI describes it, and doesn't stand between."""
    described = router(receiver)
    app.include_router(described, **senders_only(None))
    for route in described.routes:
        if isinstance(route, APIRoute):
            app.router.routes.insert(0, _Direct(route.path, route.endpoint, methods=route.methods))


def answer_errors(app: FastAPI) -> None:
    """Those that any application may raise."""

    @app.exception_handler(PayloadError)
    async def payload(request: Request, error: PayloadError) -> JSONResponse:
        return JSONResponse(error_body(error.code, error.message, error.hint), error.status)

    @app.exception_handler(StoreError)
    async def unavailable(request: Request, error: StoreError) -> JSONResponse:
        body = error_body(
            "unavailable",
            "Nothing can be stored now.",
            "Nothing of the request was kept; send it again after Retry-After seconds.",
        )
        return JSONResponse(body, 503, {"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return JSONResponse(error_body("bad_request", f"{where}: {first['msg']}", "See /docs for what is expected."), 422)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        code = {403: "forbidden", 404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        return JSONResponse(error_body(code, str(error.detail), "See /docs for what there is."), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body("internal", "Something went wrong.", "The server's log says what."), 500)
