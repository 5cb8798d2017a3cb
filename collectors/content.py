"""Prompts and completions stay in the process: what is taken off a span before it is sent, whoever recorded it for whom.

What counts as content is data (`schema/dialects/content.csv`), and so is what the ledger reads inside of it: a token count that stands
nowhere but in a recorded answer is kept without the answer. Numbers, names and identifiers stay.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.trace import Link, Status

from tallystick.collectors.failures import warn_once

Redactor = Callable[[str, str], str | None]

MAX_TEXT: Final = 256
"""Characters of an attribute that nobody knows, beyond which it is taken for content. The ledger keeps no more of any text."""

ENDINGS: Final = re.compile(
    "(?i)cancel|GeneratorExit|abandoned|KeyboardInterrupt|time.?out|timed out|connection|disconnect|reset by peer"
)
"""The words of an exception's message by which the ledger tells a refusal from a call that was cut short."""

ANYWHERE: Final[Mapping[str, re.Pattern[str]]] = {
    "id": re.compile(r'"id": ?"((?:chatcmpl-|cmpl-|resp_|msg_|gen-)[A-Za-z0-9_-]{1,200})"'),
    "finish_reason": re.compile(r'"finish_reason": ?"(\w{1,40})"'),
}
"""As the ledger finds them, see schema/sql/normalise.sql."""

WITH_CONTENT: Final[Mapping[str, str]] = {
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
    "OPENINFERENCE_HIDE_INPUTS": "false",
    "OPENINFERENCE_HIDE_OUTPUTS": "false",
    "TRACELOOP_TRACE_CONTENT": "true",
}
"""What has instrumentations record content on their spans, where the application wants it sent and doesn't say otherwise."""

_redactor: Redactor | None = None


class Outgoing(ReadableSpan):
    """A span on its way out: a copy, so that what other exporters of the application see isn't touched."""

    def stamp(self, resource: Resource) -> None:
        self._resource = resource


def redact(function: Redactor) -> Redactor:
    """Has `function` look at all content before it is sent, where `TALLYSTICK_CAPTURE_CONTENT=true` sends any.

    It gets the name of an attribute (of an event: `EVENT.ATTRIBUTE`; `status.description`) and a text of it, and returns what to send, or
    None for nothing. It runs in the thread that sends; where it raises, that content is dropped. The last one given counts. Returned as is,
    so that it may stand as a decorator.
    """
    global _redactor  # noqa: PLW0603 - one for the one queue of the process
    _redactor = function
    return function


def outgoing(span: ReadableSpan) -> Outgoing:
    """`span` without content, as it is sent."""
    return _copy(span, _without)


def with_content(span: ReadableSpan) -> Outgoing:
    """`span` with content, as it is sent: redacted, if anyone redacts."""
    return _copy(span, _redacted if _redactor else _whole)


Treatment = Callable[[str, Any], Any]
"""Gives what to send of an attribute by its name and value, None for nothing."""


def _copy(span: ReadableSpan, treated: Treatment) -> Outgoing:
    status = span.status
    if status.description:
        status = Status(status.status_code, treated("status.description", status.description))
    return Outgoing(
        name=span.name[:MAX_TEXT],
        context=span.context,
        parent=span.parent,
        resource=_resource(span.resource, treated),
        attributes=_attributes(span.attributes or {}, treated),
        events=[_event(event, treated) for event in span.events],
        links=[Link(link.context) for link in span.links],
        kind=span.kind,
        status=status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _attributes(given: Mapping[str, Any], treated: Treatment) -> dict[str, Any]:
    # Most are numbers and known names; a number is never content.
    return {
        key: sent
        for key, value in given.items()
        if (sent := value if type(value) in _NUMBERS or _keep(key) == "all" else treated(key, value)) is not None
    }


_NUMBERS: Final = frozenset({int, float, bool})

_resources: dict[tuple[int, Treatment], tuple[Resource, Resource]] = {}
"""Of a process there are few, and each is on all spans: resource's id → it, and what is sent of it."""


def _resource(resource: Resource, treated: Treatment) -> Resource:
    found = _resources.get((id(resource), treated))
    if found is None or found[0] is not resource:
        if len(_resources) >= 16:
            _resources.clear()
        found = _resources[id(resource), treated] = (
            resource,
            Resource(_attributes(resource.attributes, treated), resource.schema_url),
        )
    return found[1]


def _event(event: Event, treated: Treatment) -> Event:
    # All attributes of events may quote, and of none but these anything is read.
    if treated is _whole:
        return event
    kept = {}
    for key, value in (event.attributes or {}).items():
        sent = value if key == "exception.type" else None
        if sent is None and treated is _redacted:
            sent = _asked(f"{event.name}.{key}", value)
        if sent is None and key == "exception.message":
            sent = _without(key, value)
        if sent is not None:
            kept[key] = sent
    return Event(event.name, kept, event.timestamp)


@cache
def _known() -> frozenset[str]:
    from tallystick.schema import dialects

    return frozenset(row.attribute for row in dialects.attributes())


_CHECKED: Final = "short"

_kept: dict[str, str] = {}


def _keep(key: str) -> str:
    """What to keep of the attribute `key`, as in `content.csv`; `short` where nobody knows it."""
    found = _kept.get(key)
    if found is None:
        if len(_kept) >= 4096:  # names with numbers in them
            _kept.clear()
        found = _kept[key] = _looked_up(key)
    return found


def _looked_up(key: str) -> str:
    # Here, because a process that exports nothing needs no tables.
    from tallystick.schema import dialects

    if key == "status.description":
        return "ending"
    rows = dialects.content()
    for row in rows:
        if row.attribute == key:
            return row.keep
    if key in _known() or key.startswith("tallystick."):
        return "all"
    return next((row.keep for row in rows if "*" in row.attribute and fnmatchcase(key, row.attribute)), _CHECKED)


def _without(key: str, value: Any) -> Any:
    keep = _keep(key)
    if keep == "all":
        return value
    if keep == _CHECKED:
        return value if _length(value) <= MAX_TEXT else None
    if not keep or not isinstance(value, str):
        return None
    if keep == "ending":
        return " ".join(dict.fromkeys(found.lower() for found in ENDINGS.findall(value))) or None
    return _members(value, keep.split())


def _length(value: Any) -> int:
    """Characters of the texts in an attribute."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, Mapping):
        return sum(len(str(key)) + _length(item) for key, item in value.items())
    return sum(map(_length, value)) if isinstance(value, Sequence) else 0


def _members(text: str, names: Sequence[str]) -> str | None:
    """Of a JSON object, the members of these names: short texts and numbers, numbers also inside of objects."""
    kept: dict[str, Any] = {}
    for name in names:
        if name.startswith("..") and (found := ANYWHERE[name[2:]].search(text)):
            kept[name[2:]] = found[1]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict):
        for name in names:
            value = document.get(name)
            kept |= {name: value[:MAX_TEXT]} if isinstance(value, str) else {name: _numbers(value)} if value is not None else {}
    return json.dumps(kept) if kept else None


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items() if isinstance(item, int | float | dict)}
    return value if isinstance(value, int | float) else None


def _whole(key: str, value: Any) -> Any:
    return value


def _redacted(key: str, value: Any) -> Any:
    keep = _keep(key)
    if keep == "all" or (keep == _CHECKED and _length(value) <= MAX_TEXT):
        return value
    asked = _asked(key, value)
    return _without(key, value) if asked is None else asked


def _asked(key: str, value: Any) -> Any:
    """What the redactor leaves of it, None for nothing."""
    try:
        return _each_text(key, value, _redactor or _nothing)
    except _Dropped:
        return None
    except Exception as error:
        # Not its message: that may quote what it was to redact.
        warn_once(
            "redact", f"the function given to tallystick.redact raised {type(error).__name__}: what it was given isn't sent"
        )
        return None


def _nothing(key: str, text: str) -> None:
    return None


class _Dropped(Exception):
    """The redactor wants nothing of an attribute sent."""


def _each_text(key: str, value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        sent = redactor(key, value)
        if sent is None:
            raise _Dropped
        return str(sent)
    if isinstance(value, Mapping):
        return {name: _each_text(key, item, redactor) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_each_text(key, item, redactor) for item in value]
    return value
