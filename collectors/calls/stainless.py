"""The hook into the client libraries that Stainless makes: openai, anthropic, and others of that make.

It stands in `SyncAPIClient.request` and `AsyncAPIClient.request`, below whatever wraps the resources' methods, where there are the
body, the retries, the response and the stream. The Anthropic SDK starts its own span inside of `request`; there it stands in `_request`.
"""

import copy
import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import wraps
from types import ModuleType
from typing import Any, Final

import wrapt

from tallystick.collectors.calls import careful
from tallystick.collectors.calls.answers import from_json
from tallystick.collectors.calls.call import CURRENT, Call
from tallystick.collectors.calls.request import Answered, Refusal, gates
from tallystick.collectors.calls.watched import Body, RawBody, async_watched, watched
from tallystick.collectors.failures import report, warn_once

LIBRARIES: Final = ("openai", "anthropic", "groq", "together", "cerebras.cloud.sdk")
"""Packages with a `_base_client` of this make."""

OPERATIONS: Final = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/responses": "responses",
    "/embeddings": "embeddings",
    "/v1/messages": "messages",
    "/v1/messages?beta=true": "messages",
    "/openai/v1/chat/completions": "chat",
    "/openai/v1/embeddings": "embeddings",
    "/v1/chat/completions": "chat",
    "/v1/completions": "text_completion",
}
"""By the URL of the request's options, which for Azure, Bedrock and Vertex is the same: theirs is made later."""

_RAW_HEADER: Final = "X-Stainless-Raw-Response"

observed: Final[dict[str, str]] = {}
"""Library → `on`, or why its calls aren't seen, of those imported so far."""


class Unfit(Exception):
    """The library isn't of the shape that the hook knows."""


class Observer:
    """Puts the hook into one library."""

    def __init__(self, library: str, ask_usage: bool) -> None:
        self._library = library.partition(".")[0]
        self._ask_usage = ask_usage
        self._streams: tuple[type, ...] = ()

    def install(self, base: ModuleType) -> None:
        """base: the library's `_base_client`. Raises `Unfit`."""
        try:
            sync, asynchronous, common = base.SyncAPIClient, base.AsyncAPIClient, base.BaseClient
            self._streams = (base.Stream, base.AsyncStream)
            name = "_request" if "call" in _parameters(getattr(sync, "_request", None)) else "request"
            for client in (sync, asynchronous):
                if missing := {"cast_to", "options", "stream"} - _parameters(getattr(client, name)):
                    raise Unfit(f"{name} has no {', '.join(sorted(missing))}")
            build = common._build_request
        except AttributeError as error:
            raise Unfit(str(error)) from error
        setattr(sync, name, self._around(getattr(sync, name)))
        setattr(asynchronous, name, self._around_async(getattr(asynchronous, name)))
        common._build_request = _counting(build)

    def _around(self, wrapped: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(wrapped)
        def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = None
            try:
                call, options = self._begin(client, options, kwargs)
            except Answered as answered:
                return answered.result
            except Refusal:
                raise
            except Exception as error:
                report(f"observing a call of {self._library}", error)
            if call is None:
                return wrapped(client, cast_to, options, *args, **kwargs)
            token = CURRENT.set(call)
            try:
                result = wrapped(client, cast_to, options, *args, **kwargs)
            except BaseException as error:
                call.end(error)
                raise
            finally:
                CURRENT.reset(token)
            self._answered(call, result)
            return result

        return request

    def _around_async(self, wrapped: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @wraps(wrapped)
        async def request(client: Any, cast_to: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            call = None
            try:
                call, options = self._begin(client, options, kwargs)
            except Answered as answered:
                return await answered.result if inspect.isawaitable(answered.result) else answered.result
            except Refusal:
                raise
            except Exception as error:
                report(f"observing a call of {self._library}", error)
            if call is None:
                return await wrapped(client, cast_to, options, *args, **kwargs)
            token = CURRENT.set(call)
            try:
                result = await wrapped(client, cast_to, options, *args, **kwargs)
            except BaseException as error:
                call.end(error)
                raise
            finally:
                CURRENT.reset(token)
            self._answered(call, result)
            return result

        return request

    def _begin(self, client: Any, options: Any, kwargs: dict[str, Any]) -> tuple[Call | None, Any]:
        """The call, None where this is no model's, and the options to send."""
        operation = OPERATIONS.get(options.url)
        body = options.json_data
        if operation is None or not isinstance(body, dict) or options.method.lower() != "post":
            return None, options
        call = Call(self._library, operation, body, bool(kwargs.get("stream")))
        call.begin(client.base_url.host if gates else "")
        call.raw = _is_raw(options)
        if self._ask_usage and call.streamed and operation == "chat" and not _tells_usage(call.body) and not call.raw:
            call.body = {**call.body, "stream_options": {**(call.body.get("stream_options") or {}), "include_usage": True}}
            call.asked_usage = True
        if call.body is not body:
            # The application may have made the options itself.
            options = copy.copy(options)
            options.json_data = call.body
        return call, options

    def _answered(self, call: Call, result: Any) -> None:
        call.answered = True
        try:
            if isinstance(result, self._streams):
                self._watch(call, result)
            elif not call.raw and not type(result).__module__.startswith("httpx"):
                call.answer.whole(result)
                call.end()
            elif (response := result.http_response if call.raw else result).is_closed:
                content = response.content
                if call.answer.kept.take(len(content)):
                    call.unread = lambda answer: answer.whole(from_json(content))
                call.end()
            else:
                response.stream = RawBody(response.stream, call, response.headers.get("content-encoding", ""))
        except Exception as error:
            call.end()
            report(f"observing an answer of {self._library}", error)
        call.rest()

    def _watch(self, call: Call, stream: Any) -> None:
        through = watched if isinstance(stream, self._streams[0]) else async_watched
        stream._iterator = through(stream._iterator, call)
        stream.response.stream = Body(stream.response.stream, call)


def watch(ask_usage: bool, left_off: Iterable[str] = ()) -> None:
    """Hooks each library as soon as the application imports it."""
    careful.watch()
    for library in LIBRARIES:
        if library not in left_off:
            wrapt.register_post_import_hook(_hook(library, ask_usage), f"{library}._base_client")


def _hook(library: str, ask_usage: bool) -> Callable[[ModuleType], None]:
    def imported(base: ModuleType) -> None:
        # Runs inside the application's import statement.
        try:
            Observer(library, ask_usage).install(base)
            observed[library] = "on"
        except Unfit as error:
            observed[library] = f"off: this version isn't of a known shape ({error})"
            warn_once(f"observing {library}", f"{library}'s calls aren't observed, only instrumented: {error}")
        except Exception as error:
            observed[library] = f"off: {type(error).__name__}"
            report(f"observing {library}", error)

    return imported


def _counting(wrapped: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(wrapped)
    def build_request(*args: Any, **kwargs: Any) -> Any:
        # Once for each attempt.
        if (call := CURRENT.get()) is not None:
            call.attempts += 1
        return wrapped(*args, **kwargs)

    return build_request


def _parameters(function: Any) -> set[str]:
    return set(inspect.signature(function).parameters) if function is not None else set()


def _tells_usage(body: dict[str, Any]) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def _is_raw(options: Any) -> bool:
    return isinstance(options.headers, dict) and _RAW_HEADER in options.headers
