"""The W3C `baggage` header: what of it is attribution, how that is read, and how it is written beside what others say.

https://www.w3.org/TR/baggage/
"""

from collections.abc import Iterable, Mapping
from typing import Final, cast
from urllib.parse import quote, unquote_plus

from tallystick.schema import names

NAME: Final = "baggage"

MAX_ENTRIES: Final = 64
MAX_VALUE: Final = 256
MAX_HEADER: Final = 8192
"""Incoming baggage is written by strangers: of the header these bytes are read, further entries are ignored, longer values
cut (in characters). What leaves keeps to the same, as the receiver may be another version or another product."""

Headers = Mapping[str, str | bytes] | Iterable[tuple[str | bytes, str | bytes]]
"""Of a request or a message: by name, or in pairs as Kafka and ASGI have them."""


def is_attribution(name: str) -> bool:
    """Whether `name` may come in as baggage: one of the scope's keys or a tag, never the tenant."""
    return name in names.SCOPE_KEYS or (name.startswith(names.TAG_PREFIX) and len(names.TAG_PREFIX) < len(name) <= MAX_VALUE)


def header_in(headers: Headers | None) -> str:
    """The value of `baggage` in `headers`, several joined, empty where there is none."""
    pairs = cast(Iterable[tuple[str, str]], headers.items() if isinstance(headers, Mapping) else headers or ())
    return ",".join(text(value) for name, value in pairs if text(name).lower() == NAME)


def text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def read(header: str) -> dict[str, str]:
    """Attribute name → value of the attribution in a header. Malformed entries and those of others are left out."""
    if len(header) > MAX_HEADER:
        header = header[:MAX_HEADER].rpartition(",")[0]
    found: dict[str, str] = {}
    for member in header.split(","):
        name, equals, value = member.partition(";")[0].partition("=")
        # In some servers' headers a byte that isn't UTF-8 is a lone surrogate, which no exporter can encode.
        name = _without_surrogates(unquote_plus(name.strip()))
        if equals and len(found) < MAX_ENTRIES and is_attribution(name):
            found[name] = _without_surrogates(unquote_plus(value.strip()))[:MAX_VALUE]
    return found


def merge(header: str, attributes: Mapping[str, str]) -> str:
    """`header` with those `attributes` that it doesn't name: what an application writes by hand stays as it is.

    Attributes that would make it longer than the specification allows for are left out, the last ones first.
    """
    members = [member for member in header.split(",") if member.strip()]
    named = {unquote_plus(member.partition(";")[0].partition("=")[0]).strip() for member in members}
    length = len(header)
    for name, value in attributes.items():
        member = f"{quote(name, errors='replace')}={quote(value[:MAX_VALUE], errors='replace')}"
        if name not in named and len(members) < MAX_ENTRIES and length + len(member) < MAX_HEADER:
            members.append(member)
            length += len(member) + 1
    return ",".join(members)


def _without_surrogates(value: str) -> str:
    return value if value.isascii() else value.encode(errors="replace").decode()
