"""What can be put around code: a context manager and a decorator, for functions, coroutines and generators of both kinds."""

import inspect
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from functools import wraps
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

from opentelemetry.context import create_key

KEEPERS: Final = create_key("tallystick.keepers")
"""Of the context: the guards and breakers that were entered. It stands here for those who take it along without them."""

P = ParamSpec("P")
R = TypeVar("R")


class Around:
    """Base of `scope` and its kin, which say how it is entered and left. That it was isn't kept in the object, which may be shared."""

    __slots__ = ()

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """`function` with this around each call; the kind of function (async, generator) is kept."""
        if inspect.isasyncgenfunction(function):
            around = self._around_async_generator
        elif inspect.isgeneratorfunction(function):
            around = self._around_generator
        elif inspect.iscoroutinefunction(function):
            around = self._around_coroutine
        else:
            around = self._around_function
        return cast(Callable[P, R], around(function))

    def _around_function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return decorated

    def _around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def decorated(*args: Any, **kwargs: Any) -> Any:
            with self:
                return await function(*args, **kwargs)

        return decorated

    def _around_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def decorated(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            return (yield from _Steps(self, function(*args, **kwargs)))

        return decorated

    def _around_async_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        async def decorated(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
            generator: AsyncGenerator[Any, Any] = function(*args, **kwargs)
            step = generator.asend(None)
            try:
                while True:
                    with self:
                        item = await step
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as error:
                        step = generator.athrow(error)
                    else:
                        step = generator.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                with self:
                    await generator.aclose()

        return decorated


class _Steps(Generator[Any, Any, Any]):
    """A generator that runs each step of another inside of something. `close` comes from the base class, by way of `throw`."""

    def __init__(self, around: Around, generator: Generator[Any, Any, Any]) -> None:
        self._around = around
        self._generator = generator

    def send(self, value: Any, /) -> Any:
        with self._around:
            return self._generator.send(value)

    def throw(self, *error: Any) -> Any:
        with self._around:
            return self._generator.throw(*error)
