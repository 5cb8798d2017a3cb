"""ClickHouse's Native format as clients of a protocol version read it: the embedded engine writes it for none."""

import re
from typing import Final

BLOCK_INFO: Final = 1
"""Clients that say any protocol version read a block's info before it."""

CUSTOM_SERIALIZATION: Final = 54454
"""From this protocol version on, a byte after each column's type says whether its values are written in a way of their own."""

_INFO: Final = bytes((1, 0, 2, 0xFF, 0xFF, 0xFF, 0xFF, 0))
"""No overflow rows, no bucket (BlockInfo of ClickHouse: pairs of field and value, 0 ends them)."""

_SIZES: Final = {
    **dict.fromkeys(("UInt8", "Int8", "Bool", "Enum8", "Nothing"), 1),
    **dict.fromkeys(("UInt16", "Int16", "Enum16", "Date", "BFloat16"), 2),
    **dict.fromkeys(("UInt32", "Int32", "Float32", "Date32", "DateTime", "IPv4", "Decimal32", "Time"), 4),
    **dict.fromkeys(("UInt64", "Int64", "Float64", "DateTime64", "Decimal64", "Time64", "Interval"), 8),
    **dict.fromkeys(("UInt128", "Int128", "UUID", "IPv6", "Decimal128"), 16),
    **dict.fromkeys(("UInt256", "Int256", "Decimal256"), 32),
}


class UnknownLayout(ValueError):
    """A column whose length in a block isn't known here."""


def for_version(native: bytes, version: int) -> bytes:
    """Blocks as the engine writes them for no protocol version, as a client of this version reads them. Raises UnknownLayout."""
    if version < BLOCK_INFO:
        return native
    custom = b"\0" if version >= CUSTOM_SERIALIZATION else b""
    pieces: list[bytes] = []
    at = 0
    while at < len(native):
        columns, after = _varint(native, at)
        rows, after = _varint(native, after)
        pieces += (_INFO, native[at:after])
        at = after
        for _ in range(columns):
            size, after = _varint(native, at)
            size, named = _varint(native, after + size)
            kind = native[named : named + size].decode()
            end = _column_end(native, named + size, kind, rows)
            pieces += (native[at : named + size], custom, native[named + size : end])
            at = end
    return b"".join(pieces)


def no_rows(columns: list[tuple[str, str]]) -> bytes:
    """The block of an empty answer: names and types, which the engine leaves out."""
    texts = (text.encode() for column in columns for text in column)
    return b"".join((_as_varint(len(columns)), b"\0", *(_as_varint(len(text)) + text for text in texts)))


def _column_end(data: bytes, at: int, kind: str, rows: int) -> int:
    return _values_end(data, at + _prefix(kind), kind, rows) if rows else at


def _prefix(kind: str) -> int:
    """Bytes that stand before a column's values: the version of each LowCardinality in it."""
    name, inner = _parsed(kind)
    return 8 if name == "LowCardinality" else sum(_prefix(part) for part in inner)


def _values_end(data: bytes, at: int, kind: str, rows: int) -> int:  # noqa: PLR0911
    name, inner = _parsed(kind)
    match name:
        case "String":
            for _ in range(rows):
                size, at = _varint(data, at)
                at += size
            return at
        case "Nullable":
            return _values_end(data, at + rows, inner[0], rows)
        case "Array":
            total = _u64(data, at + 8 * rows - 8) if rows else 0
            return _values_end(data, at + 8 * rows, inner[0], total)
        case "Map":
            return _values_end(data, at, f"Array(Tuple({', '.join(inner)}))", rows)
        case "Tuple" | "Nested":
            for part in inner:
                at = _values_end(data, at, part, rows)
            return at if inner else at + rows
        case "LowCardinality":
            return _dictionary_end(data, at, inner[0].removeprefix("Nullable(").removesuffix(")"), rows)
        case "FixedString":
            return at + int(inner[0]) * rows
        case "Decimal":
            digits = int(inner[0])
            return at + (4 if digits < 10 else 8 if digits < 19 else 16 if digits < 39 else 32) * rows
        case _:
            width = _SIZES.get("Interval" if name.startswith("Interval") else name)
            if width is None:
                raise UnknownLayout(kind)
            return at + width * rows


def _dictionary_end(data: bytes, at: int, kind: str, rows: int) -> int:
    if not rows:
        return at
    width = 1 << data[at]
    at = _values_end(data, at + 16, kind, _u64(data, at + 8))
    return at + 8 + _u64(data, at) * width


_INNER: Final = re.compile(r"\w+")


def _parsed(kind: str) -> tuple[str, list[str]]:
    """`Map(String, UInt8)` → `Map`, [`String`, `UInt8`]; names of a tuple's parts are dropped."""
    name, _, rest = kind.partition("(")
    if name not in ("Nullable", "Array", "Map", "Tuple", "LowCardinality", "FixedString", "Decimal", "SimpleAggregateFunction"):
        return name, []
    if name == "SimpleAggregateFunction":
        return _parsed(_parts(rest[:-1])[1])
    parts = _parts(rest[:-1])
    return name, [_unnamed(part) for part in parts] if name == "Tuple" else parts


def _parts(text: str) -> list[str]:
    parts, depth, quote, start, at = [], 0, "", 0, 0
    while at < len(text):
        character = text[at]
        if quote:
            at += character == "\\"
            quote = "" if character == quote else quote
        elif character in "'`":
            quote = character
        elif character == "," and depth == 0:
            parts.append(text[start:at].strip())
            start = at + 1
        else:
            depth += (character == "(") - (character == ")")
        at += 1
    last = text[start:].strip()
    return [*parts, last] if last else parts


def _unnamed(part: str) -> str:
    """`a UInt8` → `UInt8`."""
    if part.startswith("`"):
        return part[part.rindex("` ") + 2 :]
    head, space, rest = part.partition(" ")
    return rest if space and _INNER.fullmatch(head) else part


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _as_varint(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
