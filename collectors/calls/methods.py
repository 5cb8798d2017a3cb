"""The hook into client libraries of other makes: which methods send a call, and how the call and its answer are found there.

Each library's module has its `METHODS`. They are as low in the library as body and answer are known, below what instrumentations wrap.
Where no instrumentation of a library is on, the span of the call is made here, with the names of the semantic conventions.
"""

import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from types import ModuleType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import wrapt
from opentelemetry import trace
from opentelemetry.sdk.trace import Span
from opentelemetry.trace import SpanKind, StatusCode

from tallystick.collectors.calls.answers import Answer
from tallystick.collectors.calls.call import CURRENT, Call, is_call
from tallystick.collectors.calls.pieces import Pieces
from tallystick.collectors.calls.request import Answered, Refusal, http_status
from tallystick.collectors.calls.watched import async_watched, watched
from tallystick.collectors.failures import report, warn_once
from tallystick.schema import names

observed: Final[dict[str, str]] = {}
"""Distribution → `on`, or why its calls aren't seen, of those imported so far."""

_SPAN_OPERATIONS: Final = {"converse": "chat", "invoke_model": "chat"}
"""`gen_ai.operation.name` of an operation, where it isn't its own name."""

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
Shape = Literal["call", "async call", "generator", "async generator", "async call of a generator"]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a method was asked for."""

    operation: str
    body: dict[str, Any]
    """With `model`."""
    streamed: bool
    url: str
    """The base URL."""
    provider: str
    """`gen_ai.provider.name`."""
    answer: Answer


def by_keywords(args: tuple[Any, ...], kwargs: dict[str, Any], model: str) -> Arguments:
    return args, {**kwargs, "model": model}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of a client that sends a call."""

    owner: str
    """Class in the module."""
    name: str
    shape: Shape
    asked: Callable[[Any, tuple[Any, ...], dict[str, Any]], Asked | None]
    """Told the client and the arguments; None for what is no call of a model."""
    answered: Callable[["ObservedCall", Any], None] = lambda call, result: call.answer.whole(result)
    """Takes what it can from a result, and watches the stream that is in it. Not asked for generators."""
    renamed: Callable[[tuple[Any, ...], dict[str, Any], str], Arguments] = by_keywords
    """The arguments with another model, which a gate wants."""


@dataclass(frozen=True, slots=True)
class Client:
    """A client library."""

    distribution: str
    methods: Mapping[str, tuple[Method, ...]]
    """By the module that they are in, which is hooked when the application imports it."""


class ObservedCall(Call):
    """A call through one of these methods, which may have a span of its own."""

    __slots__ = ("_provider", "span")

    def __init__(self, client: Client, asked: Asked) -> None:
        super().__init__(client.distribution, asked.operation, asked.body, asked.streamed, asked.answer)
        self._provider = asked.provider
        self.span: trace.Span | None = None

    def begin_in_span(self, host: str, own: bool) -> None:
        """`begin`; own: in a span of its own, unless the current one tells of this call."""
        current = trace.get_current_span()
        if not own or (isinstance(current, Span) and current.is_recording() and is_call(current)):
            self.begin(host)
            return
        operation = _SPAN_OPERATIONS.get(self.operation, self.operation)
        attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": self._provider,
            "gen_ai.request.model": self.model,
        }
        if host:
            attributes["server.address"] = host
        self.span = trace.get_tracer(names.INSTRUMENTATION).start_span(
            f"{operation} {self.model}", kind=SpanKind.CLIENT, attributes=attributes
        )
        self.link(self.span)
        self.begin(host)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the library works for it: an instrumentation's span that starts then is this call's, an HTTP client's is below it."""
        token = CURRENT.set(self)
        try:
            if self.span is None:
                yield
            else:
                with trace.use_span(self.span, record_exception=False, set_status_on_exception=False):
                    yield
        except BaseException as error:
            self.end(error)
            raise
        finally:
            CURRENT.reset(token)

    def end(self, error: BaseException | None = None) -> None:
        answer = self.answer
        if not self.ended and isinstance(answer, Pieces):
            try:
                answer.finish()
            except Exception as failure:
                _unreadable(self.library, failure)
            if not answer.complete:
                self.unread = lambda _: answer.read()
        super().end(error)
        span, self.span = self.span, None
        if span is not None:
            if error is not None and not isinstance(error, GeneratorExit):
                span.set_attribute("error.type", str(http_status(error) or type(error).__qualname__))
                span.set_status(StatusCode.ERROR)
            span.end()


class Observer:
    """Puts the hooks into one library."""

    def __init__(self, client: Client, makes_spans_of: Callable[[str], bool]) -> None:
        self._client = client
        self._makes_spans_of = makes_spans_of

    def install(self, module: ModuleType, methods: tuple[Method, ...]) -> None:
        """AttributeError where the library hasn't these methods: nothing is hooked then."""
        around = {
            "call": self._call,
            "async call": self._async_call,
            "generator": self._generator,
            "async generator": self._async_generator,
            "async call of a generator": self._async_call_of_a_generator,
        }
        found = [(getattr(module, method.owner), method) for method in methods]
        hooks = [(owner, method.name, around[method.shape](getattr(owner, method.name), method)) for owner, method in found]
        for owner, name, hook in hooks:
            setattr(owner, name, hook)

    def _begin(
        self, method: Method, client: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[ObservedCall | None, Any, Any]:
        """The call, None where this is no model's, and the arguments to send. A `Refusal` goes through."""
        try:
            asked = method.asked(client, args, kwargs)
            if asked is None or not asked.body.get("model"):
                return None, args, kwargs
            call = ObservedCall(self._client, asked)
            call.begin_in_span(_host(asked.url), self._makes_spans_of(self._client.distribution))
            if call.replaced_model:
                args, kwargs = method.renamed(args, kwargs, call.replaced_model)
        except Refusal:
            raise
        except Exception as error:
            report(f"observing a call of {self._client.distribution}", error)
            return None, args, kwargs
        return call, args, kwargs

    def _answered(self, method: Method, call: ObservedCall, result: Any) -> None:
        call.answered = True
        try:
            method.answered(call, result)
            if not call.streamed:
                call.end()
        except Exception as error:
            # An answer of another shape.
            call.end()
            _unreadable(self._client.distribution, error)
        call.rest()

    def _call(self, wrapped: Callable[..., Any], method: Method) -> Callable[..., Any]:
        @wraps(wrapped)
        def send(client: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                call, args, kwargs = self._begin(method, client, args, kwargs)
            except Answered as answered:
                return answered.result
            if call is None:
                return wrapped(client, *args, **kwargs)
            with call.at_work():
                result = wrapped(client, *args, **kwargs)
            self._answered(method, call, result)
            return result

        return send

    def _async_call(self, wrapped: Callable[..., Any], method: Method) -> Callable[..., Any]:
        @wraps(wrapped)
        async def send(client: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                call, args, kwargs = self._begin(method, client, args, kwargs)
            except Answered as answered:
                return await answered.result if inspect.isawaitable(answered.result) else answered.result
            if call is None:
                return await wrapped(client, *args, **kwargs)
            with call.at_work():
                result = await wrapped(client, *args, **kwargs)
            self._answered(method, call, result)
            return result

        return send

    def _generator(self, wrapped: Callable[..., Any], method: Method) -> Callable[..., Any]:
        @wraps(wrapped)
        def send(client: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            try:
                call, args, kwargs = self._begin(method, client, args, kwargs)
            except Answered as answered:
                yield from answered.result
                return
            if call is None:
                yield from wrapped(client, *args, **kwargs)
                return
            inner = wrapped(client, *args, **kwargs)
            steps = watched(inner, call)
            try:
                with call.at_work():
                    # The request is sent in the first step.
                    first = next(steps, _END)
                call.answered = True
                if first is not _END:
                    yield first
                    yield from steps
            finally:
                inner.close()
                call.end()

        return send

    def _async_call_of_a_generator(self, wrapped: Callable[..., Any], method: Method) -> Callable[..., Any]:
        @wraps(wrapped)
        async def send(client: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                call, args, kwargs = self._begin(method, client, args, kwargs)
            except Answered as answered:
                return await answered.result if inspect.isawaitable(answered.result) else answered.result
            if call is None:
                return await wrapped(client, *args, **kwargs)
            with call.at_work():
                inner = await wrapped(client, *args, **kwargs)
            call.answered = True
            call.rest()
            return _steps(inner, call)

        return send

    def _async_generator(self, wrapped: Callable[..., Any], method: Method) -> Callable[..., Any]:
        @wraps(wrapped)
        async def send(client: Any, *args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            try:
                call, args, kwargs = self._begin(method, client, args, kwargs)
            except Answered as answered:
                async for item in answered.result:
                    yield item
                return
            inner = wrapped(client, *args, **kwargs)
            async for item in inner if call is None else _steps(inner, call):
                yield item

        return send


async def _steps(inner: Any, call: ObservedCall) -> AsyncGenerator[Any, None]:
    """`inner`, watched. A generator again, as the library gives one."""
    steps = async_watched(inner, call)
    try:
        with call.at_work():
            first = await anext(steps, _END)
        call.answered = True
        if first is not _END:
            yield first
            async for item in steps:
                yield item
    finally:
        await inner.aclose()
        call.end()


_END: Final = object()


def watch(clients: tuple[Client, ...], makes_spans_of: Callable[[str], bool]) -> None:
    """Hooks each library as soon as the application imports it. makes_spans_of: whether the spans of a distribution are made here."""
    for client in clients:
        for module, methods in client.methods.items():
            wrapt.register_post_import_hook(_hook(Observer(client, makes_spans_of), client.distribution, methods), module)


def _hook(observer: Observer, distribution: str, methods: tuple[Method, ...]) -> Callable[[ModuleType], None]:
    def imported(module: ModuleType) -> None:
        # Runs inside the application's import statement.
        try:
            observer.install(module, methods)
            observed.setdefault(distribution, "on")
        except AttributeError as error:
            observed[distribution] = f"off: this version isn't of a known shape ({error})"
            warn_once(f"observing {distribution}", f"calls of {distribution} in {module.__name__} aren't observed: {error}")
        except Exception as error:
            observed[distribution] = f"off: {type(error).__name__}"
            report(f"observing {distribution}", error)

    return imported


@lru_cache(maxsize=64)
def _host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _unreadable(library: str, error: Exception) -> None:
    warn_once(f"answer {library}", f"an answer of {library} couldn't be read: {type(error).__name__}: {str(error)[:200]}")
