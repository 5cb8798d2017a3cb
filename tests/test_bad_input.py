"""What a broken or hostile sender posts: refused in clear words, the rest of it kept, and the server none the worse."""

import gzip
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from otlp import GOOD, ident, request, span, trace_hex
from server import Server, reason, rejected

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
METRICS = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
JSON = "application/json"
PROTOBUF = "application/x-protobuf"

GOOD_BYTES = request(span("whole")).SerializeToString()


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    return server.key("bad-input")


def assert_refused(answer: httpx.Response, status: int, code: str | None = None) -> None:
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"code", "message", "hint"}
    assert all(isinstance(text, str) and text for text in error.values()), error
    assert len(answer.text) < 1000
    if code is not None:
        assert error["code"] == code


def members(*parts: bytes) -> bytes:
    return b"".join(gzip.compress(part) for part in parts)


def length(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited field on the wire."""
    return length(number << 3 | 2) + length(len(payload)) + payload


def in_span(details: bytes) -> bytes:
    """A request of one span with these further fields."""
    good = request(span("flood")).resource_spans[0]
    one = good.scope_spans[0].spans[0].SerializeToString() + details
    return field(1, field(2, field(2, one)))


def attribute(value: bytes) -> bytes:
    """A span's attribute with this AnyValue."""
    return field(9, field(1, b"flood") + field(2, value))


def nested(depth: int) -> bytes:
    """An attribute whose value is a text inside a list inside a list …"""
    value = field(1, b"deep")
    for _ in range(depth):
        value = field(5, field(1, value))
    return attribute(value)


def json_nested(depth: int) -> bytes:
    value = '{"arrayValue":{"values":[' * depth + '{"intValue":"1"}' + "]}}" * depth
    attributes = f'[{{"key":"k","value":{value}}}]'
    span = f'{{"traceId":"{"a" * 32}","spanId":"{"b" * 16}","name":"n","attributes":{attributes}}}'
    return f'{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{span}]}}]}}]}}'.encode()


REFUSED: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no protobuf": (b"\xff" * 20, {}, 400, "malformed"),
    "a text": (b"not a protobuf at all", {}, 400, "malformed"),
    "cut short": (GOOD_BYTES[:-7], {}, 400, "malformed"),
    "JSON said to be protobuf": (b'{"resourceSpans":[]}', {}, 400, "malformed"),
    "protobuf said to be JSON": (GOOD_BYTES, {"content_type": JSON}, 400, "malformed"),
    "half a JSON": (b'{"resourceSpans":[', {"content_type": JSON}, 400, "malformed"),
    "a JSON list": (b"[]", {"content_type": JSON}, 400, "malformed"),
    "a JSON text": (b'"resourceSpans"', {"content_type": JSON}, 400, "malformed"),
    "JSON null": (b"null", {"content_type": JSON}, 400, "malformed"),
    "JSON of another form": (b'{"resourceSpans":5}', {"content_type": JSON}, 400, "malformed"),
    "a number for resourceSpans": (b'{"resourceSpans":[5]}', {"content_type": JSON}, 400, "malformed"),
    "a text for scopeSpans": (b'{"resourceSpans":[{"scopeSpans":"x"}]}', {"content_type": JSON}, 400, "malformed"),
    "an object for spans": (b'{"resourceSpans":[{"scopeSpans":[{"spans":{"a":1}}]}]}', {"content_type": JSON}, 400, "malformed"),
    "a resource that is a list": (b'{"resourceSpans":[{"resource":[1]}]}', {"content_type": JSON}, 400, "malformed"),
    "JSON not in UTF-8": (b'{"resourceSpans":["\xff\xfe"]}', {"content_type": JSON}, 400, "malformed"),
    "JSON nested without end": (b"[" * 200_000, {"content_type": JSON}, 400, "malformed"),
    "a body without content type": (GOOD_BYTES, {"content_type": ""}, 415, "unsupported_content_type"),
    "another content type": (GOOD_BYTES, {"content_type": "text/plain"}, 415, "unsupported_content_type"),
    "a form": (b"a=b", {"content_type": "application/x-www-form-urlencoded"}, 415, "unsupported_content_type"),
    "an unknown encoding": (GOOD_BYTES, {"content_encoding": "br"}, 415, "unsupported_encoding"),
    "two encodings": (GOOD_BYTES, {"content_encoding": "gzip, gzip"}, 415, "unsupported_encoding"),
    "no gzip": (GOOD_BYTES, {"content_encoding": "gzip"}, 400, "bad_compression"),
    "half a gzip": (gzip.compress(GOOD_BYTES)[:-10], {"content_encoding": "gzip"}, 400, "bad_compression"),
    "a gzip's head": (gzip.compress(GOOD_BYTES)[:5], {"content_encoding": "gzip"}, 400, "bad_compression"),
    "a broken gzip": (gzip.compress(GOOD_BYTES)[:-8] + b"\0" * 8, {"content_encoding": "gzip"}, 400, "bad_compression"),
    "something after the gzip": (gzip.compress(GOOD_BYTES) + b"junk", {"content_encoding": "gzip"}, 400, "bad_compression"),
    "a wrong key": (GOOD_BYTES, {"authorization": "Bearer ts_nobody"}, 401, "unauthorized"),
    "another kind of credentials": (GOOD_BYTES, {"authorization": "Basic YTpi"}, 401, "unauthorized"),
    "a page elsewhere": (GOOD_BYTES, {"host": "evil.example"}, 403, "forbidden"),
    "a rebound name": (GOOD_BYTES, {"host": "127.0.0.1.evil.example:4318"}, 403, "forbidden"),
    "a proxy": (GOOD_BYTES, {"x_forwarded_for": "10.1.2.3"}, 403, "forbidden"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_whole(server: Server, name: str) -> None:
    body, headers, status, code = REFUSED[name]
    assert_refused(server.post(body, **headers), status, code)


def test_nothing_of_a_refused_body_is_kept(server: Server) -> None:
    assert server.sql(f"SELECT count() AS calls FROM charges WHERE trace_id = '{trace_hex('whole')}'")[0]["calls"] == 0


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/traces", 405),
        ("PUT", "/v1/traces", 405),
        ("POST", "/v1/metrics", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/sql", 422),
        ("GET", "/%00", 404),
        ("GET", "/../../etc/passwd", 404),
    ],
)
def test_no_such_thing(server: Server, method: str, path: str, status: int) -> None:
    assert_refused(server.http.request(method, path), status)


def test_nothing_in_it(server: Server, key: str) -> None:
    """An empty request is a good one."""
    for body in (b"", request().SerializeToString(), field(1, b"")):
        answer = server.post(body, key)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == PROTOBUF
        assert answer.content == b""
    documents: list[dict[str, Any]] = [
        {},
        {"resourceSpans": []},
        {"resourceSpans": [{"scopeSpans": [{"spans": []}]}]},
        {"resourceSpans": None},
    ]
    for document in documents:
        answer = server.post(document, key)
        assert (answer.status_code, answer.json()) == (200, {}), answer.text


@pytest.mark.parametrize("depth", [60, 200, 5000])
def test_nested_deep(server: Server, key: str, depth: int) -> None:
    """What is nested in a value isn't looked at, and its call is kept as the one beside it; JSON that can't be read at all is refused."""
    beside = f"beside-{depth}"
    answer = server.post(in_span(nested(depth)) + request(span(beside)).SerializeToString(), key)
    assert answer.status_code == 200, answer.text
    assert rejected(answer) == 0
    assert (stored(server, key, "flood"), stored(server, key, beside)) == (1, 1)
    answer = server.post(json_nested(depth), key, content_type=JSON)
    if answer.status_code == 200:
        assert rejected(answer) == 1
    else:
        assert_refused(answer, 400, "malformed")


def stored(server: Server, key: str, trace: str) -> int:
    return int(server.sql(f"SELECT sum(calls) AS calls FROM charges WHERE trace_id = '{trace_hex(trace)}'", key)[0]["calls"])


NOW = time.time_ns()
HOUR = 3_600_000_000_000
BAD_SPANS: dict[str, tuple[dict[str, Any], str]] = {
    "starts in 1970": ({"start_ns": 5}, "before 2020"),
    "starts in 2100": ({"start_ns": 4_102_444_800_000_000_000}, "in the future"),
    "starts in two days": ({"start_ns": NOW + 48 * HOUR}, "in the future"),
    "ends before it starts": ({"duration_ns": -1}, "ends before"),
    "lasts a month": ({"start_ns": NOW - 31 * 24 * HOUR, "duration_ns": 30 * 24 * HOUR}, "longer than a week"),
    "negative tokens": ({"attributes": {"gen_ai.usage.input_tokens": -5}}, "negative"),
    "negative cache": ({"attributes": {"gen_ai.usage.cache_read.input_tokens": -5}}, "negative"),
    "the least integer": ({"attributes": {"gen_ai.usage.output_tokens": -(2**63)}}, "negative"),
    "absurd tokens": ({"attributes": {"gen_ai.usage.output_tokens": 10**12}}, "absurd"),
    "the greatest integer": ({"attributes": {"gen_ai.usage.output_tokens": 2**63 - 1}}, "absurd"),
    "absurd tokens in a text": ({"attributes": {"gen_ai.usage.output_tokens": "9" * 18}}, "absurd"),
    "negative tokens in a text": ({"attributes": {"gen_ai.usage.output_tokens": "-3"}}, "negative"),
}
BAD_IDS = {
    "no trace id": {"trace_id": b""},
    "a short trace id": {"trace_id": b"\1" * 15},
    "a long trace id": {"trace_id": b"\1" * 17},
    "a trace id of zeros": {"trace_id": b"\0" * 16},
    "no span id": {"span_id": b""},
    "a long span id": {"span_id": b"\1" * 9},
    "a span id of zeros": {"span_id": b"\0" * 8},
}


def test_bad_spans_among_good_ones(server: Server, key: str) -> None:
    """All in one request: each is rejected, with its reason and their number, and the good ones are kept."""
    bad = [span(f"bad-{name}", **given) for name, (given, _) in BAD_SPANS.items()]
    for name, ids in BAD_IDS.items():
        one = span(f"bad-{name}")
        for attribute, wrong in ids.items():
            setattr(one, attribute, wrong)
        bad.append(one)
    good = [span(f"good-{i}") for i in range(3)]
    answer = server.post(request(*good[:1], *bad, *good[1:]), key)
    assert answer.status_code == 200, answer.text
    assert rejected(answer) == len(bad)
    for _, words in BAD_SPANS.values():
        assert words in reason(answer)
    assert "4 spans: negative token count" in reason(answer)
    assert "4 spans: trace id" in reason(answer)
    assert "3 spans: span id" in reason(answer)
    traces = {row["trace_id"] for row in server.sql("SELECT trace_id FROM charges", key)}
    assert {trace_hex(f"good-{i}") for i in range(3)} <= traces
    assert not {trace_hex(f"bad-{name}") for name in BAD_SPANS} & traces


def test_bad_spans_in_json(server: Server, key: str) -> None:
    def one(name: str, **given: Any) -> dict[str, Any]:
        begin = str(time.time_ns())
        attributes = [
            {"key": name, "value": {"stringValue" if isinstance(v, str) else "intValue": v}}
            for name, v in GOOD.items()
            if not isinstance(v, tuple)
        ]
        return {
            "traceId": trace_hex(name), "spanId": ident(name, 8).hex(), "name": "chat", "startTimeUnixNano": begin, "endTimeUnixNano": begin,
            "attributes": attributes, **given,
        }  # fmt: skip

    bad: list[Any] = [
        one("j1", traceId="not hexadecimal"),
        one("j2", traceId="ab"),
        one("j3", spanId=""),
        one("j4", traceId=5),
        one("j5", startTimeUnixNano="yesterday"),
        one("j6", attributes=[{"key": "k", "value": {"intValue": "many"}}]),
        one("j7", attributes={"k": "v"}),
        one("j8", startTimeUnixNano=-1),
        one("j9", links=[{"traceId": "zz"}]),
        one("j10", attributes=[{"key": "k", "value": {"intValue": str(2**64)}}]),
        one("j11", events="none"),
        None,
        5,
        "span",
    ]
    good = [one("jg1"), one("jg2", unknownField={"of": ["a", "later", "version"]}), one("jg3", traceId=trace_hex("jg3").upper())]
    answer = server.post({"resourceSpans": [{"scopeSpans": [{"spans": [good[0], *bad, *good[1:]]}]}]}, key)
    assert answer.status_code == 200, answer.text
    assert rejected(answer) == len(bad), answer.text
    assert all(stored(server, key, f"jg{i}") == 1 for i in (1, 2, 3))


def test_numbers_however_they_are_written(server: Server, key: str) -> None:
    """Texts and floats are counts where they are whole numbers; anything else is unknown, and never a number of tokens."""
    given: dict[str, tuple[Any, int | None]] = {
        "text": ("1000", 1000),
        "float": (1000.0, 1000),
        "text of a float": ("1000.0", 1000),
        "zero": (0, 0),
        "nan": (float("nan"), None),
        "infinite": (float("inf"), None),
        "minus infinite": (float("-inf"), None),
        "huge float": (1e300, None),
        "words": ("a thousand", None),
        "text of nan": ("nan", None),
        "text of inf": ("inf", None),
        "a list": ((1000,), None),
        "bytes": (AnyValue(bytes_value=b"1000"), None),
        "no value": (AnyValue(), None),
    }
    spans = [span(f"number-{name}", attributes={"gen_ai.usage.input_tokens": one}) for name, (one, _) in given.items()]
    answer = server.post(request(*spans), key)
    assert answer.status_code == 200, answer.text
    # Infinite and absurdly many tokens are rejected or unknown, but never counted.
    rows = {row["trace_id"]: row for row in server.sql("SELECT trace_id, input_tokens, cost_usd FROM charges", key)}
    for name, (_, expected) in given.items():
        row = rows.get(trace_hex(f"number-{name}"))
        assert (row and row["input_tokens"]) == expected, name
    present = sum(trace_hex(f"number-{name}") in rows for name in given)
    assert present + rejected(answer) == len(given)


def test_invalid_utf8_in_one_span_of_many(server: Server, key: str) -> None:
    good = [span(f"utf8-{i}") for i in range(5)]
    payload = (
        request(*good, span("utf8-bad", attributes={"tallystick.customer": "MARKED"}))
        .SerializeToString()
        .replace(b"MARKED", b"\xff\xfe\xfd\xfc\x80\x81")
    )
    answer = server.post(payload, key)
    assert answer.status_code == 200, answer.text
    assert rejected(answer) == 1
    assert reason(answer) == "1 spans: a text is not UTF-8"
    assert sum(stored(server, key, f"utf8-{i}") for i in range(5)) == 5


def test_invalid_utf8_outside_of_spans(server: Server, key: str) -> None:
    """In a resource or a scope it spoils the spans under it, and no others."""
    spoiled = request(span("under-1"), span("under-2"), resource={"service.name": "MARKED"})
    scope = request(span("under-3"), scope="MARKED")
    both = spoiled.SerializeToString() + scope.SerializeToString() + request(span("beside")).SerializeToString()
    answer = server.post(both.replace(b"MARKED", b"\xff\xfe\xfd\xfc\x80\x81"), key)
    assert answer.status_code == 200, answer.text
    assert rejected(answer) == 3
    assert stored(server, key, "beside") == 1


def test_texts_of_any_kind(server: Server, key: str) -> None:
    """NUL bytes, quotes, half a megabyte, other scripts: kept, shortened where it is a dimension, and never a statement."""
    texts = {
        "nul": "a\0b",
        "quotes": "'; DROP TABLE ledger; --",
        "backslashes": "\\' \\n \\x00 \\\\",
        "lines": "a\nb\tc\rd",
        "scripts": "Zoë 名前 🦉 \u202e",
        "huge": "x" * 500_000,
    }
    spans = [
        span(
            f"text-{name}",
            attributes={
                "tallystick.customer": text,
                "tallystick.tag.note": text,
                "gen_ai.response.id": f"{name}{text}",
                "error.type": text,
            },
        )
        for name, text in texts.items()
    ]
    spans += [span("text-keys", attributes=dict.fromkeys(texts.values(), "v") | {"tallystick.tag." + texts["quotes"]: "tagged"})]
    answer = server.post(request(*spans, resource={"service.instance.id": texts["huge"], "host.name": texts["quotes"]}), key)
    assert answer.status_code == 200, answer.text
    assert rejected(answer) == 0, reason(answer)
    rows = {row["trace_id"]: row for row in server.sql("SELECT trace_id, customer, tags, service FROM charges", key)}
    for name, text in texts.items():
        row = rows[trace_hex(f"text-{name}")]
        assert row["customer"] == text[:256]
        assert row["tags"]["note"] == text[:256]
    assert rows[trace_hex("text-keys")]["tags"] == {texts["quotes"]: "tagged"}


def test_texts_of_an_operator_name_the_tenant(server: Server) -> None:
    """Only an operator's span says for whom it is; what anybody else's says of it is ignored."""
    acme, operator = server.key("bad-acme"), server.key("bad-ops", operator=True)
    server.post_all(
        [request(span("mine", attributes={"tallystick.tenant": "bad-globex"}), resource={"tallystick.tenant": "bad-globex"})],
        acme,
    )
    server.post_all([request(span("theirs", attributes={"tallystick.tenant": "bad-globex"}), span("unsaid"))], operator)
    server.post_all([request(span("by-resource"), resource={"tallystick.tenant": "bad-globex"})], operator)
    rows = server.sql("SELECT tenant, trace_id FROM charges WHERE startsWith(tenant, 'bad-')", operator)
    tenants = {row["trace_id"]: row["tenant"] for row in rows}
    assert tenants[trace_hex("mine")] == "bad-acme"
    assert tenants[trace_hex("theirs")] == "bad-globex"
    assert tenants[trace_hex("by-resource")] == "bad-globex"
    assert tenants[trace_hex("unsaid")] == "bad-ops"
    assert {row["tenant"] for row in server.sql("SELECT DISTINCT tenant FROM charges", acme)} == {"bad-acme"}


def test_a_host_of_its_own_needs_no_key(server: Server) -> None:
    for host in ("localhost:4318", "127.0.0.1", "[::1]:4318"):
        assert server.post(b"", host=host).status_code == 200
    assert server.post(b"", server.key("forwarded"), host="tally.example", x_forwarded_for="10.0.0.1").status_code == 200


def test_gzip_of_several_members(server: Server, key: str) -> None:
    """Payloads laid end to end are one payload, and so are their gzips."""
    parts = [request(span(f"member-{i}")).SerializeToString() for i in range(3)]
    assert rejected(server.post(members(*parts), key, content_encoding="gzip")) == 0
    assert sum(stored(server, key, f"member-{i}") for i in range(3)) == 3
    assert server.post(zlib.compress(parts[0]), key, content_encoding="deflate").status_code == 200


@pytest.fixture(scope="module")
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        yield channel


class TestGrpc:
    @staticmethod
    def export(channel: grpc.Channel, body: bytes, key: str | None = None) -> ExportTraceServiceResponse:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(EXPORT)
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        return ExportTraceServiceResponse.FromString(call(body, metadata=metadata, timeout=60))

    @pytest.mark.parametrize(
        ("body", "key", "code"),
        [
            (b"\xff" * 20, None, grpc.StatusCode.INVALID_ARGUMENT),
            (GOOD_BYTES[:-7], None, grpc.StatusCode.INVALID_ARGUMENT),
            (GOOD_BYTES, "ts_nobody", grpc.StatusCode.UNAUTHENTICATED),
            (field(1, field(2, b"\x12\x00" * 60_000)), None, grpc.StatusCode.INVALID_ARGUMENT),
        ],
        ids=["no protobuf", "cut short", "a wrong key", "too many spans"],
    )
    def test_refused(self, channel: grpc.Channel, body: bytes, key: str | None, code: grpc.StatusCode) -> None:
        with pytest.raises(grpc.RpcError) as refused:
            self.export(channel, body, key)
        assert refused.value.code() is code
        assert refused.value.details()

    def test_partly(self, channel: grpc.Channel, server: Server, key: str) -> None:
        partial = self.export(
            channel, request(span("grpc-good"), span("grpc-bad", start_ns=5)).SerializeToString(), key
        ).partial_success
        assert partial.rejected_spans == 1
        assert "before 2020" in partial.error_message
        assert stored(server, key, "grpc-good") == 1

    def test_nothing_in_it(self, channel: grpc.Channel, key: str) -> None:
        assert self.export(channel, b"", key) == ExportTraceServiceResponse()

    def test_another_service(self, channel: grpc.Channel) -> None:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METRICS)
        with pytest.raises(grpc.RpcError) as refused:
            call(b"", timeout=60)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


FLOODS: dict[str, bytes] = {
    "spans": field(1, field(2, b"\x12\x00" * 2_000_000)),
    "resources": b"\x0a\x00" * 16_000_000,
    "scopes": field(1, b"\x12\x00" * 16_000_000),
    "attributes": in_span(b"\x4a\x00" * 16_000_000),
    "events": in_span(b"\x5a\x00" * 16_000_000),
    "links": in_span(b"\x6a\x00" * 16_000_000),
    "attributes of an event": in_span(field(11, b"\x1a\x00" * 16_000_000)),
    "attributes of a link": in_span(field(13, b"\x22\x00" * 16_000_000)),
    "attributes of the resource": field(1, field(1, b"\x0a\x00" * 16_000_000)) + GOOD_BYTES,
    "attributes of the scope": field(1, field(2, field(1, b"\x1a\x00" * 16_000_000))) + GOOD_BYTES,
    "a list": in_span(attribute(field(5, b"\x0a\x00" * 16_000_000))),
    "a map": in_span(attribute(field(6, b"\x0a\x00" * 16_000_000))),
}


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("flooded") / "data") as server:
        yield server


@pytest.mark.parametrize("name", FLOODS)
def test_floods(flooded: Server, name: str) -> None:
    """32 MB of empty things in 32 kB of gzip: refused, or the span that holds them rejected, and never built in memory."""
    body = gzip.compress(FLOODS[name], 6)
    assert len(body) < 40_000
    answer = flooded.post(body, content_encoding="gzip")
    if answer.status_code == 200:
        assert reason(answer) == ("" if " of the " in name else "1 spans: over 4 MiB")
    else:
        assert_refused(answer, 413)


def test_bombs(flooded: Server) -> None:
    part = gzip.compress(bytes(64 << 20), 9)
    assert_refused(flooded.post(part * 16, content_encoding="gzip"), 413, "too_large")
    assert_refused(flooded.post(zlib.compress(bytes(256 << 20), 9), content_encoding="deflate"), 413, "too_large")
    assert_refused(flooded.post(bytes((64 << 20) + 1)), 413, "too_large")


def test_floods_that_are_small_each(flooded: Server) -> None:
    """Under 1 MB each, and together they hold 20 million attributes: refused, and a good span beside them is kept."""
    flood = gzip.compress(in_span(b"\x4a\x00" * 3_800) * 120, 1)
    with ThreadPoolExecutor(41) as pool:
        answers = [pool.submit(flooded.post, flood, content_encoding="gzip") for _ in range(40)]
        good = flooded.post(request(span("beside-floods")))
        for answer in answers:
            assert_refused(answer.result(), 413, "too_many_attributes")
    assert rejected(good) == 0


def test_the_server_is_none_the_worse(flooded: Server) -> None:
    assert rejected(flooded.post(request(span("after")))) == 0
    found = flooded.sql(f"SELECT sum(calls) AS calls FROM charges WHERE trace_id = '{trace_hex('after')}'")
    assert found[0]["calls"] == 1
    assert flooded.peak_memory() < 1 << 30
    flooded.stop()


def test_processes_without_number_and_of_any_length(server: Server, key: str) -> None:
    """Two instrumentations in each of thousands of processes, some with half a megabyte for a name: others' spans are taken beside them."""
    names = [f"{i:08}-ba58-933f-be42-80f9047ae4a0" for i in range(4000)] + ["p" * 500_000 + str(i) for i in range(2)]
    for scope in ("one.instrumentation", "another.instrumentation"):
        many = ExportTraceServiceRequest()
        for i, name in enumerate(names):
            many.MergeFrom(
                request(span(f"process-{scope}-{i}", start_ns=NOW + i), scope=scope, resource={"service.instance.id": name})
            )
        assert rejected(server.post(many, key)) == 0
    count = "SELECT uniqExact(trace_id) AS n FROM charges WHERE started_at >= fromUnixTimestamp64Nano(toInt64({now}))"
    assert server.sql(count.replace("{now}", str(NOW)), key)[0]["n"] >= len(names)
