"""What guards and breakers have in common: where they hold, and what answers in place of a call that they stop."""

import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

from opentelemetry.context import attach, get_current, get_value, set_value

from tallystick.collectors.around import KEEPERS, Around
from tallystick.collectors.calls.request import Answered, Refusal, Request

Fallback = str | Callable[[Request], Any]
"""A model that is asked instead; or what answers instead, with a value or an awaitable of one."""


class Keeper(Around):
    """Holds calls made inside of it, or all of the process once it is installed. It may be shared and entered more than once."""

    def __init__(self, fallback: Fallback | None) -> None:
        self.fallback = fallback
        self.stopped = 0
        """Calls that were, those that fell back included."""

    def install(self) -> Self:
        """Holds all calls of the process from now on."""
        global _installed  # noqa: PLW0603 - the process is one
        _stand()
        if self not in _installed:
            _installed = (*_installed, self)
        return self

    def uninstall(self) -> None:
        """Takes `install` back."""
        global _installed  # noqa: PLW0603 - the process is one
        _installed = tuple(one for one in _installed if one is not self)

    def __enter__(self) -> Self:
        _stand()
        current = get_current()
        attach(set_value(KEEPERS, _Frame(self, cast(_Frame | None, current.get(KEEPERS))), current))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # As scopes are left: a generator may be closed in another context than it was started in.
        current = get_current()
        frame = cast(_Frame | None, current.get(KEEPERS))
        if frame is not None and frame.owner is self:
            attach(set_value(KEEPERS, frame.outer, current))

    def stop(self, request: Request, refusal: Refusal, instead: Callable[[Request], bool]) -> None:
        """Counts and raises `refusal`, or what the fallback answers.

        instead: whether a request that asks another model may go; then it does, in place of this one, and nothing is raised.
        """
        self.stopped += 1
        fallback = self.fallback if self not in _falling_back.get() else None
        if fallback is None:
            raise refusal
        if not isinstance(fallback, str):
            raise Answered(self._answer(fallback, request, refusal))
        if fallback == request.model:
            raise refusal
        asked, body = request.model, request.body
        request.model, request.body = fallback, {**body, "model": fallback}
        if not instead(request):
            request.model, request.body = asked, body
            raise refusal

    def _answer(self, fallback: Callable[[Request], Any], request: Request, refusal: Refusal) -> Any:
        try:
            with _fall_back(self):
                result = fallback(request)
        except Refusal:
            raise
        except Exception as error:
            # It is the call's failure, and mustn't let the call go.
            raise refusal from error
        return self._awaited(result) if inspect.isawaitable(result) else result

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        with _fall_back(self):
            return await result


@dataclass(frozen=True, slots=True)
class _Frame:
    """One entered keeper, as scopes have it."""

    owner: Keeper
    outer: "_Frame | None"


_installed: tuple[Keeper, ...] = ()

_falling_back: Final[ContextVar[tuple[Keeper, ...]]] = ContextVar("tallystick-fallback", default=())
"""Whose fallback is at work here: what they stop there doesn't fall back again."""

_Kind = TypeVar("_Kind", bound=Keeper)


def standing(kind: type[_Kind]) -> list[_Kind]:
    """Those of the process, then those entered here, the outermost first; each once."""
    found: list[Keeper] = []
    frame = cast(_Frame | None, get_value(KEEPERS))
    while frame is not None:
        if frame.owner not in found:
            found.append(frame.owner)
        frame = frame.outer
    return [one for one in (*(one for one in _installed if one not in found), *reversed(found)) if isinstance(one, kind)]


def _stand() -> None:
    import tallystick.collectors.guard.gate  # noqa: F401 - from now on calls are asked for


@contextmanager
def _fall_back(of: Keeper) -> Iterator[None]:
    token = _falling_back.set((*_falling_back.get(), of))
    try:
        yield
    finally:
        _falling_back.reset(token)
