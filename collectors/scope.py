"""Who a model call is for: `scope`, kept in the OpenTelemetry context of the running task or thread."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self, cast

from opentelemetry import baggage
from opentelemetry.context import Context, attach, create_key, get_current, get_value, set_value

from tallystick.collectors.around import Around
from tallystick.collectors.carriers.baggage import MAX_ENTRIES, MAX_VALUE, Headers, header_in, is_attribution, merge, read
from tallystick.collectors.failures import contained
from tallystick.schema import names

_KEY: Final = create_key("tallystick.scope")

# Not in OpenTelemetry's context: an instrumentation that reads a request's headers puts a new one in place of the old.
_arrived: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("tallystick.arrived", default=None)


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
    A scope reaches tasks started inside it, and with `tallystick.auto` threads and jobs of a `ThreadPoolExecutor`.
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

    @classmethod
    def of(cls, headers: Headers | None) -> Self:
        """The scope in the `baggage` header of a message or a request: of a Kafka record, `scope.of(record.headers)`."""
        made = cls()
        with contained("reading baggage"):
            made._own = read(header_in(headers))
        return made

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


class arrived:
    """For a block: what came with the request, message or thread that is being handled, in place of what came before.

    Where a scope says otherwise, that counts: this is what strangers and rules say, a scope is what the code says.
    """

    __slots__ = ("_attributes", "_before")

    def __init__(self, attributes: Mapping[str, str]) -> None:
        self._attributes = attributes

    def __enter__(self) -> Self:
        self._before = _arrived.get()
        _arrived.set(self._attributes)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # In another context than it was entered in, there is nothing to leave.
        if _arrived.get() is self._attributes:
            _arrived.set(self._before)


def anything_arrived() -> bool:
    """Whether the running task or thread has attribution that came with something."""
    return _arrived.get() is not None


def attribution(context: Context | None = None) -> dict[str, str]:
    """Attribute name → value of whom a call in `context` (default: the current one) is for.

    Baggage of the context with allow-listed names, overridden by what arrived with a request (rules, baggage), overridden by the
    scope. Where `context` was made from scratch by the caller and holds no scope, the scope of the running task counts.
    """
    found: dict[str, str] = {}
    if carried := baggage.get_all(context):
        found = {name: str(value)[:MAX_VALUE] for name, value in carried.items() if is_attribution(name)}
        if len(found) > MAX_ENTRIES:
            found = dict(list(found.items())[:MAX_ENTRIES])
    if (came := _arrived.get()) is not None:
        found.update(came)
    frame = cast(_Frame | None, get_value(_KEY, context) or get_value(_KEY))
    if frame is not None:
        found.update(frame.attributes)
    return found


def outgoing_baggage() -> str:
    """The value of a W3C `baggage` header with the current attribution, for what carries none by itself.

    For services of your own: a model provider is nobody to be told. Empty outside of a scope.
    """
    return merge("", attribution())
