"""The envelope around an OTLP payload: what the payload itself must not be trusted for, written in front of bytes that nobody parses.

Envelopes laid end to end are one valid `Batch` message of `otlp.proto`; a stream of those, each after its length, is what ClickHouse decodes.
"""

from collections.abc import Iterable, Iterator
from typing import Final

COLUMNS: Final = (
    "envelopes Array(Tuple(tenant String, received_unix_nano UInt64, number UInt32, operator Bool, "
    "request Tuple(resource_spans Array(Tuple("
    "resource Tuple(attributes {kv}), "
    "scope_spans Array(Tuple(scope Tuple(name String), spans Array(Tuple("
    "trace_id String, span_id String, parent_span_id String, name String, "
    "start_time_unix_nano UInt64, end_time_unix_nano UInt64, attributes {kv}, "
    "events Array(Tuple(time_unix_nano UInt64, name String, attributes {kv})), "
    "status Tuple(message String, code Int32))))))))))"
).format(kv="Array(Tuple(key String, value String))")
"""The ClickHouse type of a `Batch`: one column."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def envelope(payload: bytes, *, tenant: str, received_unix_nano: int, number: int, operator: bool = False) -> tuple[bytes, bytes]:
    """Wrap one serialised ExportTraceServiceRequest: what goes before it, and itself.

    `number` identifies the request inside its batch, so that what is wrong with its spans can be told to its sender;
    `operator` lets the payload name the tenant itself.
    """
    name = tenant.encode()
    head = (
        b"\x0a" + _varint(len(name)) + name + b"\x10" + _varint(received_unix_nano)
        + b"\x20" + _varint(number) + (b"\x28\x01" if operator else b"")
        + b"\x1a" + _varint(len(payload))
    )  # fmt: skip
    return b"\x0a" + _varint(len(head) + len(payload)) + head, payload


def batch(envelopes: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """One `Batch` of a stream: its length, then its envelopes, in parts that aren't copied."""
    parts = [part for parts in envelopes for part in parts]
    yield _varint(sum(map(len, parts)))
    yield from parts
