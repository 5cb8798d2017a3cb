"""Payloads, mutated: never an error of the server's, what is good in them kept, and the counts right."""

import base64
import functools
import gzip
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp import request, span, trace_hex
from server import Server, rejected

from tallystick.ingest.payload import JSON, PROTOBUF, Check, Limits, Payload, PayloadError, check_frame, check_protobuf, decode
from tallystick.ingest.sift import PIECE_BYTES, Corrupt, Flood, sift
from tallystick.ingest.wire import Frame, Request

LIMITS = Limits(decoded_bytes=1 << 20, spans=50)


def spans_of(data: bytes) -> int:
    """As the engine will count them."""
    Request.FromString(data)
    parsed = Frame.FromString(data)
    return sum(len(scope.spans) for resource in parsed.resource_spans for scope in resource.scope_spans)


def good(spans: int = 3) -> bytes:
    made = request(*(span(f"fuzz-{i}", attributes={"tallystick.tag.k": "v"}) for i in range(spans)))
    made.MergeFrom(request(span("elsewhere"), scope="other", resource={"host.name": "h"}))
    return made.SerializeToString()


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good payload with bytes flipped, removed, doubled or replaced, or cut short."""
    data = bytearray(good(draw(st.integers(0, 3))))
    for _ in range(draw(st.integers(1, 6))):
        if not data:
            break
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                data[place] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[place : place + draw(st.integers(1, 40))]
            case 2:
                data[place:place] = data[place : place + draw(st.integers(1, 40))]
            case 3:
                data[place:place] = draw(st.binary(max_size=12))
            case _:
                del data[place:]
    return bytes(data)


def assert_sound(read: Callable[[], Payload]) -> None:
    """Counted right, or refused in words, and nothing else."""
    try:
        payload = read()
    except PayloadError as refusal:
        assert refusal.status in (400, 413, 415)  # noqa: PT017 - what isn't refused is looked at below
        assert all((refusal.code, refusal.message, refusal.hint))  # noqa: PT017
        return
    assert payload.spans == spans_of(payload.data)
    assert all(number > 0 for number in payload.rejected.values())


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.one_of(st.binary(max_size=300), mutated()))
def test_any_bytes_as_protobuf(data: bytes) -> None:
    assert_sound(functools.partial(check_protobuf, data, LIMITS))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_a_frame_that_is_refused_is_refused_with_its_spans_too(data: bytes) -> None:
    def refused(check: Check) -> str:
        try:
            check(data, LIMITS)
        except PayloadError as refusal:
            return refusal.code
        return ""

    assert refused(check_frame) in ("", refused(check_protobuf))


@settings(max_examples=300, deadline=None)
@given(mutated())
def test_taken_apart_or_whole_is_the_same(data: bytes) -> None:
    """What can be parsed in one go is left as it is when it is taken apart."""
    try:
        whole = spans_of(data)
    except Exception:
        return
    try:
        sifted = sift(data, 50)
    except (Corrupt, Flood):
        # Groups, which proto2 had, are skipped by the parser and refused here.
        return
    assert (sifted.data, sifted.spans, dict(sifted.rejected)) == (data, whole, {})


NAMES = (
    "resourceSpans", "resource_spans", "scopeSpans", "scope_spans", "spans", "resource", "scope", "attributes", "key", "value", "intValue",
    "stringValue", "arrayValue", "kvlistValue", "values", "traceId", "spanId", "parentSpanId", "startTimeUnixNano", "endTimeUnixNano",
    "events", "links", "status", "name",
)  # fmt: skip
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["aa" * 16, "bb" * 8, "1", "-1"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(json_values)
def test_any_json(document: Any) -> None:
    for wrapped in (
        document,
        {"resourceSpans": [{"scopeSpans": [{"spans": [document, document]}]}]},
        {"resourceSpans": [document]},
    ):
        assert_sound(functools.partial(decode, json.dumps(wrapped).encode(), JSON, "", LIMITS, check_protobuf))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(["gzip", "deflate", "", "identity", "br", "GZIP", "gzip,gzip"]))
def test_any_compression(body: bytes, encoding: str) -> None:
    for sent in (body, gzip.compress(body)):
        assert_sound(functools.partial(decode, sent, PROTOBUF, encoding, LIMITS, check_protobuf))


def test_json_is_the_same_as_protobuf() -> None:
    data = good()
    document = json_format.MessageToDict(ExportTraceServiceRequest.FromString(data))
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for one, name in zip(
                scope["spans"], ["fuzz-0", "fuzz-1", "fuzz-2"] if len(scope["spans"]) == 3 else ["elsewhere"], strict=True
            ):
                one["traceId"] = trace_hex(name)
                one["spanId"] = one["spanId"] and base64.b64decode(one["spanId"]).hex()
    assert decode(json.dumps(document).encode(), JSON, "", LIMITS, check_protobuf).data == data


class TestSift:
    def test_large_and_good_is_left_as_it_is(self) -> None:
        data = request(*(span(f"s{i}", attributes={"text": "x" * 1000}) for i in range(1500))).SerializeToString()
        assert len(data) > 1 << 20
        payload = check_protobuf(data, Limits())
        assert payload.data is data
        assert payload.spans == 1500

    def test_a_large_one_with_a_bad_span(self) -> None:
        # A field that says it is a text, and is a length alone.
        made = request(*(span(f"s{i}", attributes={"text": "x" * 1000, "MARK": i == 700}) for i in range(1500)))
        spans = made.resource_spans[0].scope_spans[0].spans
        broken = spans[700].SerializeToString().replace(b"\x0a\x04MARK", b"\x0a\x7fMARK")
        whole = made.SerializeToString().replace(spans[700].SerializeToString(), broken)
        payload = check_protobuf(whole, Limits())
        assert payload.rejected == {"can't be decoded": 1}
        del spans[700]
        assert payload.data == made.SerializeToString()

    def test_a_span_too_large(self) -> None:
        made = request(span("small"), span("large", attributes={"text": "x" * PIECE_BYTES}))
        payload = check_protobuf(made.SerializeToString(), Limits())
        assert payload.rejected == {"over 4 MiB": 1}
        assert payload.data == request(*made.resource_spans[0].scope_spans[0].spans[:1]).SerializeToString()

    def test_what_stands_above_is_bad(self) -> None:
        bad = (
            request(span("one"), span("two"), resource={"service.name": "MARK"})
            .SerializeToString()
            .replace(b"MARK", b"\xff\xfe\xfd\xfc")
        )
        other = request(span("three")).SerializeToString()
        sifted = sift(bad + other, 50)
        assert (sifted.spans, dict(sifted.rejected)) == (1, {"a text is not UTF-8": 2})
        assert spans_of(sifted.data) == 1

    def test_spans_are_counted_before_they_are_parsed(self) -> None:
        with pytest.raises(Flood) as flood:
            sift(good(51), 50)
        assert flood.value.code == "too_many_spans"

    @pytest.mark.parametrize(
        "data", [b"\x0a", b"\x0a\x05", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b", b"\x00\x00", b"\x09\x01"]
    )
    def test_corrupt(self, data: bytes) -> None:
        with pytest.raises(Corrupt):
            sift(data, 50)

    def test_unknown_fields_pass(self) -> None:
        data = good() + b"\x78\x05" + b"\x7a\x03abc" + b"\x79" + bytes(8) + b"\x7d" + bytes(4)
        sifted = sift(data, 50)
        assert (sifted.data, sifted.spans) == (data, 4)


def test_mutated_payloads_at_the_endpoint(server: Server) -> None:
    """Hundreds at once, with good ones between them, in few commits: never a 5xx, and every good span is stored."""
    key = server.key("fuzz")
    chance = random.Random(7)
    bodies: list[bytes] = []
    for _ in range(300):
        data = bytearray(good(2))
        for _ in range(chance.randint(1, 5)):
            place = chance.randrange(len(data))
            if chance.random() < 0.7:
                data[place] ^= 1 << chance.randrange(8)
            else:
                del data[place : place + chance.randint(1, 8)]
        bodies.append(bytes(data))
    kept = [f"between-{i}" for i in range(60)]
    sent = [*bodies, *(request(span(name)).SerializeToString() for name in kept)]
    chance.shuffle(sent)
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda body: server.post(body, key), sent))
    assert {answer.status_code for answer in answers} <= {200, 400}
    assert any(answer.status_code == 200 and rejected(answer) for answer in answers)
    stored = {row["trace_id"] for row in server.sql("SELECT trace_id FROM charges", key)}
    assert {trace_hex(name) for name in kept} <= stored


@pytest.mark.parametrize("poisons", [1, 5])
def test_poison(server: Server, poisons: int) -> None:
    """What passes for protobuf and the engine still can't read: found in its batch, refused alone, and its neighbours are stored."""
    key = server.key(f"poison-{poisons}")
    poison = request(span("poison")).SerializeToString()
    one = ExportTraceServiceRequest.FromString(poison).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
    # A number where the attributes stand.
    poison = _field(1, _field(2, _field(2, one + b"\x48\x05")))
    assert spans_of(poison) == 1
    names = [f"neighbour-{i}" for i in range(25)]
    sent = [poison] * poisons + [request(span(name)).SerializeToString() for name in names]
    random.Random(3).shuffle(sent)
    with ThreadPoolExecutor(32) as pool:
        statuses = [answer.status_code for answer in pool.map(lambda body: server.post(body, key), sent)]
    assert [status for body, status in zip(sent, statuses, strict=True) if body == poison] == [400] * poisons
    assert statuses.count(200) == len(names)
    assert {row["trace_id"] for row in server.sql("SELECT trace_id FROM charges", key)} == {trace_hex(name) for name in names}


def _field(number: int, payload: bytes) -> bytes:
    size = len(payload)
    return bytes([number << 3 | 2, size & 0x7F | 0x80, size >> 7]) + payload
