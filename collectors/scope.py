"""Who a model call is for: `scope`, kept in the OpenTelemetry context of the running task or thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import quote

from opentelemetry.context import Context, attach, create_key, get_current, get_value, set_value

from tallystick.collectors.around import Around
from tallystick.collectors.failures import contained
from tallystick.schema import names

_KEY: Final = create_key("tallystick.scope")

MAX_BAGGAGE_ENTRIES: Final = 64
MAX_BAGGAGE_VALUE: Final = 256
"""Incoming baggage is written by strangers: further entries are ignored, longer values cut (in characters)."""


@dataclass(frozen=True, slots=True)
class _Frame:
    """One entered scope. Which scope is entered is kept in the context alone, so a `scope` object may be shared."""

    attributes: Mapping[str, str]
    owner: "scope"
    outer: "_Frame | None"


class scope(Around):
    """Says for whom the model calls inside are made: a context manager and a decorator, sync and async.

    Nested scopes merge: what the inner one sets wins, the rest is inherited. `None` sets nothing. Other keywords are
    free tags. A decorated generator or async generator has the scope while it runs, not between its steps.
    Like every context variable, a scope reaches tasks started inside it and `asyncio.to_thread`, but not threads
    started by hand, unless these run in `contextvars.copy_context()`.
    """

    __slots__ = ("_own",)

    def __init__(
        self,
        *,
        customer: str | None = None,
        feature: str | None = None,
        agent: str | None = None,
        team: str | None = None,
        user: str | None = None,
        session: str | None = None,
        **tags: str | int | float | bool | None,
    ) -> None:
        self._own: dict[str, str] = {}
        with contained("reading a scope"):
            given = dict(zip(names.SCOPE_KEYS, (customer, feature, agent, team, user, session), strict=True))
            given |= {names.TAG_PREFIX + name: value for name, value in tags.items()}  # type: ignore[misc]
            # A lone surrogate can't be encoded, and would take the whole span with it.
            self._own = {key: str(value).encode(errors="replace").decode() for key, value in given.items() if value is not None}

    def __enter__(self) -> Self:
        current = get_current()
        outer = cast(_Frame | None, current.get(_KEY))
        attributes = {**outer.attributes, **self._own} if outer else self._own
        attach(set_value(_KEY, _Frame(attributes, self, outer), current))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # Not `detach` of a token: a generator may be closed in another context than it was started in, where a token
        # is refused with a stack trace in the log. There the scope isn't entered, and nothing is to be left.
        current = get_current()
        frame = cast(_Frame | None, current.get(_KEY))
        if frame is not None and frame.owner is self:
            attach(set_value(_KEY, frame.outer, current))


def is_attribution(name: str) -> bool:
    """Whether `name` may come in as baggage: one of the scope's keys or a tag, never the tenant."""
    return name in names.SCOPE_KEYS or name.startswith(names.TAG_PREFIX)


def attribution(context: Context | None = None) -> dict[str, str]:
    """Attribute name → value of whom a call in `context` (default: the current one) is for.

    Incoming baggage with allow-listed names, overridden by the scope. Where `context` was made from scratch by the
    caller and holds no scope, the scope of the running task counts.
    """
    from opentelemetry import baggage

    found = {name: str(value)[:MAX_BAGGAGE_VALUE] for name, value in baggage.get_all(context).items() if is_attribution(name)}
    if len(found) > MAX_BAGGAGE_ENTRIES:
        found = dict(list(found.items())[:MAX_BAGGAGE_ENTRIES])
    frame = cast(_Frame | None, get_value(_KEY, context) or get_value(_KEY))
    if frame is not None:
        found.update(frame.attributes)
    return found


def outgoing_baggage() -> str:
    """The value of a W3C `baggage` header with the current attribution, for requests to services of your own.

    Nothing is sent by itself, so that no model provider gets it. Empty outside of a scope.
    """
    return ",".join(f"{quote(name)}={quote(value)}" for name, value in attribution().items())
