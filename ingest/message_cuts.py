"""A checked payload in pieces that each fit a message: cut between spans on the wire, none of which is parsed."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from tallystick.ingest.sift import Field, fields, framed

_FRAMES: Final = 16
"""The most bytes that the tags and lengths of a resource's and a scope's frame take."""


class Piece(NamedTuple):
    """A serialised ExportTraceServiceRequest, and how many spans it holds."""

    data: bytes
    spans: int


class Pieces(NamedTuple):
    """In the order of the payload. too_large: spans that don't fit even alone, with their resource and scope."""

    fitting: list[Piece]
    too_large: int


class _Span(NamedTuple):
    """A span's bytes with its frame, and what stands above it: what its resource and its scope hold beside spans."""

    data: bytes
    resource: bytes
    scope: bytes


def cut(data: bytes, most_bytes: int) -> Pieces:
    """Raises Corrupt where `data` isn't an ExportTraceServiceRequest."""
    fitting: list[Piece] = []
    too_large = 0
    run: list[_Span] = []
    size = 0
    for span in _spans(data):
        alone = len(span.data) + len(span.resource) + len(span.scope) + _FRAMES
        if alone > most_bytes:
            too_large += 1
            continue
        if run and span.resource is run[-1].resource and span.scope is run[-1].scope:
            alone = len(span.data)
        if size + alone > most_bytes:
            fitting.append(_piece(run))
            run, size = [], 0
            alone = len(span.data) + len(span.resource) + len(span.scope) + _FRAMES
        run.append(span)
        size += alone
    if run:
        fitting.append(_piece(run))
    return Pieces(fitting, too_large)


def _spans(data: bytes) -> Iterator[_Span]:
    for resource in fields(data, 0, len(data)):
        if resource.number != 1:
            continue
        head, scopes = _divided(data, resource)
        for scope in scopes:
            inner, spans = _divided(data, scope)
            for span in spans:
                yield _Span(data[span.begin : span.end], head, inner)


def _divided(data: bytes, outer: Field) -> tuple[bytes, list[Field]]:
    """What it says of all that it holds, and what it holds: field 2 of resources and scopes alike."""
    held: list[Field] = []
    head: list[bytes] = []
    for one in fields(data, outer.content, outer.end):
        if one.number == 2:
            held.append(one)
        else:
            head.append(data[one.begin : one.end])
    return b"".join(head), held


def _piece(run: list[_Span]) -> Piece:
    parts: list[bytes] = []
    start = 0
    for end in range(1, len(run) + 1):
        if end == len(run) or run[end].resource is not run[start].resource or run[end].scope is not run[start].scope:
            first = run[start]
            scope = framed(2, [first.scope, *(span.data for span in run[start:end])])
            parts += framed(1, [first.resource, *scope])
            start = end
    return Piece(b"".join(parts), len(run))
