"""An OTLP request taken apart on the wire, span by span.

Two bytes of payload can take 80 bytes of memory once they are parsed, and one bad text spoils a request of thousands of spans. Here
only one span is ever parsed at a time, and those that can't be read are left out.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from tallystick.ingest.accounts import Account, account
from tallystick.ingest.wire import Span

PIECE_BYTES: Final = 4 << 20
"""The most bytes of one span, resource or scope: as many as OTLP receivers take of a whole request over gRPC."""

DETAILS_A_SPAN: Final = 256
"""Attributes and events a span may have on average (the SDKs' own limit is 128 of each)."""

_SPARE: Final = 16
"""Spans' worth of details, and of fields around spans, that a request of few spans may have."""


class Corrupt(ValueError):
    """The bytes aren't a request."""


class Flood(ValueError):
    """There is more of something than a request may hold. code: as in an error answer."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Sifted:
    """data: the request without the spans in `rejected` (reason → number). spans: how many it holds. accounts: of its resources."""

    data: bytes
    spans: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    accounts: list[Account] = field(default_factory=list)


class Field(NamedTuple):
    """A field on the wire: where it starts, and where its content does and ends. number: 0 for one without a length."""

    number: int
    begin: int
    content: int
    end: int


def sift(data: bytes, most_spans: int) -> Sifted:
    """Leave out the spans of a serialised ExportTraceServiceRequest that can't be read. Raises Corrupt, Flood."""
    sieve = _Sieve(data, most_spans)
    kept = sieve.request()
    if sieve.details > DETAILS_A_SPAN * (sieve.spans + _SPARE):
        raise Flood("too_many_attributes", f"{sieve.details} attributes and events on {sieve.spans} spans")
    return Sifted(data if sieve.whole else b"".join(kept), sieve.spans - sieve.rejected.total(), sieve.rejected, sieve.accounts)


class _Sieve:
    def __init__(self, data: bytes, most_spans: int) -> None:
        self._data, self._most_spans = data, most_spans
        self._fields_left = 4 * (most_spans + _SPARE)
        self.spans = self.details = 0
        self.rejected: Counter[str] = Counter()
        self.accounts: list[Account] = []
        self._first = b""
        """Of the resource's spans the first's id."""
        self.whole = True
        """Nothing was left out."""

    def request(self) -> list[bytes]:
        kept = []
        for one in self._fields(0, len(self._data)):
            kept += [self._data[one.begin : one.end]] if one.number != 1 else framed(1, self._resource_spans(one))
        return kept

    def _resource_spans(self, outer: Field) -> list[bytes]:
        kept: list[bytes] = []
        problem = ""
        resource = Resource()
        before = self.spans, self.rejected.total()
        self._first = b""
        for one in self._fields(outer.content, outer.end):
            if one.number == 2:
                kept += framed(2, self._scope_spans(one))
                continue
            problem = problem or self._problem(one, resource)
            kept.append(self._data[one.begin : one.end])
        if problem:
            kept, resource = self._spoiled(problem, *before), Resource()
        left = self.spans - before[0] - (self.rejected.total() - before[1])
        if left:
            self.accounts.append(account(resource, self._first, left))
        return kept

    def _scope_spans(self, outer: Field) -> list[bytes]:
        kept: list[bytes] = []
        problem = ""
        before = self.spans, self.rejected.total()
        for one in self._fields(outer.content, outer.end):
            if one.number == 2:
                self.spans += 1
                if self.spans > self._most_spans:
                    raise Flood("too_many_spans", f"over {self._most_spans} spans")
                why = self._span(one)
                if why:
                    self.rejected[why] += 1
                    self.whole = False
                    continue
            else:
                problem = problem or self._problem(one, InstrumentationScope())
            kept.append(self._data[one.begin : one.end])
        return self._spoiled(problem, *before) if problem else kept

    def _spoiled(self, problem: str, spans: int, rejected: int) -> list[bytes]:
        """What stands above spans can't be read: reject those that aren't yet, and keep nothing."""
        self.rejected += Counter({problem: self.spans - spans - (self.rejected.total() - rejected)})
        self.whole = False
        return []

    def _span(self, one: Field) -> str:
        span = Span()
        problem = self._parse(one, span)
        self._first = self._first or (b"" if problem else span.span_id)
        self.details += len(span.attributes) + len(span.events)
        self.details += sum(len(event.attributes) for event in span.events)
        return problem

    def _problem(self, one: Field, holder: Resource | InstrumentationScope) -> str:
        """Of a field beside spans, read into `holder`: 1 is the resource or scope, 3 the address of a schema."""
        if one.number == 3:
            return "" if _is_utf8(self._data[one.content : one.end]) else _NOT_UTF8
        if one.number != 1:
            return ""
        problem = self._parse(one, holder)
        self.details += len(holder.attributes)
        return problem

    def _parse(self, one: Field, into: Message) -> str:
        """What hinders it, or ''."""
        if one.end - one.content > PIECE_BYTES:
            return f"over {PIECE_BYTES >> 20} MiB"
        try:
            into.MergeFromString(self._data[one.content : one.end])
        except DecodeError as error:
            text = str(error)
            return _NOT_UTF8 if "UTF-8" in text else "nested too deep" if "Depth" in text else "can't be decoded"
        return ""

    def _fields(self, place: int, end: int) -> Iterator[Field]:
        """Raises Corrupt where a field reaches over the end, Flood where there are too many."""
        for one in fields(self._data, place, end):
            self._fields_left -= 1
            if self._fields_left < 0:
                raise Flood("too_many_spans", f"over {4 * (self._most_spans + _SPARE)} resources, scopes and spans")
            yield one


def fields(data: bytes, place: int, end: int) -> Iterator[Field]:
    """The fields of a message that stands between two places. Raises Corrupt where one reaches over its end."""
    while place < end:
        begin = place
        tag, place = _varint(data, place)
        match tag & 7:
            case 2:
                size, place = _varint(data, place)
                content, place, number = place, place + size, tag >> 3
            case 0:
                (_, place), content, number = _varint(data, place), place, 0
            case 1:
                content, place, number = place, place + 8, 0
            case 5:
                content, place, number = place, place + 4, 0
            case _:
                raise Corrupt("a field of no known kind")
        if place > end or not 0 < tag >> 3 < 1 << 29:
            raise Corrupt("it ends too early" if place > end else "a field's number is out of range")
        yield Field(number, begin, content, place)


def _varint(data: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70 and place < len(data):
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
        shift += 7
    raise Corrupt("a number without an end")


_NOT_UTF8: Final = "a text is not UTF-8"


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def framed(number: int, parts: list[bytes]) -> list[bytes]:
    """A length-delimited field of these parts."""
    size = sum(map(len, parts))
    head = bytearray([number << 3 | 2])
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return [bytes(head), *parts]
