"""Traces: read, spread over callers, encoded as spans, delivered, and priced independently."""

import csv
import gzip
import json
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tallystick.cli.replay import Source, due
from tallystick.client import Client, Refused, Unreachable
from tallystick.traffic import DATA, shipped
from tallystick.traffic.blocks import BLOCK_TOKENS, LIFETIME_NS, PromptCache
from tallystick.traffic.calls import Call, Timeline, as_recorded, calls, moved_to_yesterday
from tallystick.traffic.files import BadLine, NotATrace, Request, open_trace
from tallystick.traffic.organisation import CUSTOMERS
from tallystick.traffic.send import BATCH_SPANS, batched, paced, send
from tallystick.traffic.spans import Encoder
from tallystick.traffic.truth import Group, Total, disagreements, expected

SECOND = 1_000_000_000
DAY = 86_400 * SECOND
NOW = 20_000 * DAY + 13 * 3600 * SECOND
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def only_calls(items: Iterator[Call | BadLine]) -> list[Call]:
    found = list(items)
    assert not [item for item in found if isinstance(item, BadLine)]
    return [item for item in found if isinstance(item, Call)]


@pytest.fixture(scope="module")
def traffic() -> list[Call]:
    """All shipped calls, moved to the day before NOW."""
    return [c for t in map(open_trace, shipped()) for c in only_calls(calls(t, 0, moved_to_yesterday(t, NOW)))]


def written(directory: Path, name: str, text: str | bytes) -> Path:
    path = directory / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# --- files ---


def test_shipped_traces_hold_what_the_published_files_hold() -> None:
    prompt = output = lines = 0
    for path in sorted(DATA.glob("azure*.gz")):
        with gzip.open(path, "rt", newline="") as stream:
            for row in csv.DictReader(stream):
                prompt, output, lines = prompt + int(row["ContextTokens"]), output + int(row["GeneratedTokens"]), lines + 1
    with gzip.open(DATA / "mooncake_conversation.jsonl.gz") as stream:
        for text in stream:
            row = json.loads(text)
            prompt, output, lines = prompt + row["input_length"], output + row["output_length"], lines + 1
    requests = [item for path in shipped() for item in open_trace(path).requests()]
    assert all(isinstance(item, Request) for item in requests)
    read = [item for item in requests if isinstance(item, Request)]
    assert len(read) == lines == 8_819 + 19_366 + 12_031
    assert (sum(r.input_tokens for r in read), sum(r.output_tokens for r in read)) == (prompt, output)


def test_times_are_exact_to_the_nanosecond(tmp_path: Path) -> None:
    rows = (
        "2023-11-16 18:15:46.6805900,1,2",
        "2024-05-10 00:00:00.009930+00:00,1,2",
        "2024-05-10 02:00:00+02:00,1,2",
        "2024-05-10T00:00:00Z,3,4",
    )
    trace = open_trace(written(tmp_path, "t.csv", HEADER + "\n".join(rows)))
    times = [item.at_ns for item in trace.requests() if isinstance(item, Request)]
    assert times == [1_700_158_546_680_590_000, 1_715_299_200_009_930_000, 1_715_299_200_000_000_000, 1_715_299_200_000_000_000]
    assert (trace.first_ns, trace.last_ns, trace.lines) == (min(times), max(times), 4)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2023-11-16 18:17:03.97,4808", "2 fields instead of 3"),
        ("2023-11-16 18:17:03.97,4808,1,9", "4 fields instead of 3"),
        ("2023-13-16 18:17:03.97,4808,1", "TIMESTAMP is no time: '2023-13-16 18:17:03.97'"),
        ("yesterday,4808,1", "TIMESTAMP is no time: 'yesterday'"),
        ("2023-11-16 18:17:03,-5,1", "ContextTokens is no whole number of tokens: '-5'"),
        ("2023-11-16 18:17:03,5.5,1", "ContextTokens is no whole number of tokens: '5.5'"),
        ("2023-11-16 18:17:03,5,", "GeneratedTokens is no whole number of tokens: ''"),
        ("2023-11-16 18:17:03,5,NaN", "GeneratedTokens is no whole number of tokens: 'NaN'"),
        ("2023-11-16 18:17:03,100000001,1", "ContextTokens is above 100,000,000"),
        ("2023-11-16 18:17:03," + "9" * 5000 + ",1", "ContextTokens is above 100,000,000"),
        ("2023-11-16 18:17:03,٣,1", "ContextTokens is no whole number of tokens: '٣'"),
        ("\x00\x01", "1 fields instead of 3"),
    ],
)
def test_a_bad_line_is_named_and_the_others_are_kept(tmp_path: Path, line: str, problem: str) -> None:
    good = "2023-11-16 18:17:03.9799600,4808,10\n"
    trace = open_trace(written(tmp_path, "t.csv", HEADER + good + line + "\n\n" + good))
    first, bad, last = list(trace.requests())
    assert isinstance(bad, BadLine)
    assert bad == BadLine(3, problem)
    assert isinstance(first, Request)
    assert isinstance(last, Request)
    assert (first.line, last.line) == (2, 5)


GOOD_ROW = {"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no JSON object"),
        ("{}", "timestamp, input_length, output_length, hash_ids missing"),
        ({"input_length": "12"}, "input_length is no whole number: '12'"),
        ({"input_length": True}, "input_length is no whole number: 'True'"),
        ({"output_length": -1}, "output_length is negative: -1"),
        ({"output_length": 10**12}, "output_length is above 100,000,000"),
        ({"timestamp": 1e400}, "timestamp is no whole number: 'inf'"),
        ({"timestamp": 10**15}, "timestamp is more than ten years after the start: '1000000000000000'"),
        ({"hash_ids": "46"}, "hash_ids is no list of whole numbers: '46'"),
        ({"hash_ids": [1, None]}, "hash_ids is no list of whole numbers: '[1, None]'"),
    ],
)
def test_a_bad_row_is_named_and_the_others_are_kept(tmp_path: Path, row: str | dict[str, object], problem: str) -> None:
    text = row if isinstance(row, str) else json.dumps(GOOD_ROW | row)
    good = json.dumps(GOOD_ROW)
    found = list(open_trace(written(tmp_path, "t.jsonl", f"{good}\n{text}\n{good}\n")).requests())
    assert isinstance(found[1], BadLine)
    assert found[1].line == 2
    assert found[1].problem.startswith(problem)
    assert found[0] == Request(1, 27_482_000_000, 6955, 52, (46, 47))
    assert found[2] == Request(3, 27_482_000_000, 6955, 52, (46, 47))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "the file is empty"),
        (b"\n  \n", "the file is empty"),
        (HEADER.encode(), "no line of it holds a call"),
        (HEADER.encode() + b"nonsense\n", "no line of it holds a call"),
        (b"a,b\n1,2\n", "line 1 is of no known trace: 'a,b'; known are Azure's CSV"),
        (b'{"input_length": 5}\n', "line 1 is of no known trace"),
        (bytes(range(256)) * 10, "line 1 is of no known trace"),
        (b"\x1f\x8bno gzip", "not a readable gzip file"),
        (gzip.compress(b"a,b\n", mtime=0), "line 1 is of no known trace: 'a,b'"),
    ],
)
def test_what_is_no_trace_is_told_by_name(tmp_path: Path, content: bytes, said: str) -> None:
    path = written(tmp_path, "file", content)
    with pytest.raises(NotATrace) as told:
        open_trace(path)
    assert str(told.value).startswith(f"{path}: ")
    assert said in str(told.value)


def test_a_compressed_file_that_breaks_off_keeps_what_came_before(tmp_path: Path) -> None:
    # Incompressible enough that much of the file is readable before the cut.
    rows = [f"2023-11-16 18:17:{n % 60:02}.{n * 7919 % 1000000:06},{n * 104729 % 9973},{n * 31 % 997}" for n in range(5000)]
    whole = gzip.compress((HEADER + "\n".join(rows)).encode())
    found = list(open_trace(written(tmp_path, "cut.csv.gz", whole[: len(whole) // 2])).requests())
    *kept, last = found
    assert len(kept) > 1000
    assert all(isinstance(item, Request) for item in kept)
    assert isinstance(last, BadLine)
    assert last.line == len(kept) + 2
    assert "breaks off" in last.problem


def test_a_byte_order_mark_and_dos_lines_are_no_obstacle(tmp_path: Path) -> None:
    text = "\ufeff" + HEADER + "2023-11-16 18:17:03,5,6\n"
    (found,) = open_trace(written(tmp_path, "t.csv", text.replace("\n", "\r\n"))).requests()
    assert isinstance(found, Request)
    assert (found.line, found.input_tokens, found.output_tokens) == (2, 5, 6)


junk = st.binary(max_size=60).filter(lambda raw: b"\n" not in raw and b"\r" not in raw)
row = st.tuples(st.integers(0, 59), st.integers(0, 99_999), st.integers(0, 99_999))


@given(lines=st.lists(st.one_of(row, junk), max_size=30), compress=st.booleans())
def test_every_line_is_either_kept_or_named(
    tmp_path_factory: pytest.TempPathFactory, lines: list[object], compress: bool
) -> None:
    good = [line for line in lines if isinstance(line, tuple)]
    raw = [
        b"2023-11-16 18:17:%02d,%d,%d" % line if isinstance(line, tuple) else line
        for line in [*lines, (1, 2, 3)]
        if isinstance(line, tuple | bytes)
    ]
    content = b"\n".join([HEADER.strip().encode(), *raw])
    path = written(tmp_path_factory.mktemp("lines"), "t", gzip.compress(content) if compress else content)
    found = list(open_trace(path).requests())
    kept = [item for item in found if isinstance(item, Request)]
    # Junk may by chance be a line; what was meant to be one never is lost, and nothing is passed over in silence.
    assert sum(r.input_tokens for r in kept) >= sum(line[1] for line in good) + 2
    nonblank = sum(1 for line in raw if line.strip() and line.strip().removeprefix(b"\xef\xbb\xbf") != HEADER.strip().encode())
    assert len(found) == nonblank


# --- cache ---


@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 4), max_size=6), st.integers(0, LIFETIME_NS), st.integers(0, 6 * BLOCK_TOKENS)),
        max_size=12,
    )
)
def test_cache_reads_are_the_leading_blocks_seen_within_the_lifetime(prompts: list[tuple[list[int], int, int]]) -> None:
    cache, now = PromptCache(), 0
    history: list[tuple[int, list[int]]] = []
    for blocks, gap, tokens in prompts:
        now += gap
        live = {block for at, seen in history for block in seen if at >= now - LIFETIME_NS}
        leading = next((n for n, block in enumerate(blocks) if block not in live), len(blocks))
        assert cache.read(tuple(blocks), now, tokens) == min(leading * 512, tokens)
        history.append((now, blocks))


def test_a_block_lives_five_minutes_from_its_last_use() -> None:
    cache = PromptCache()
    assert cache.read((1, 2), 0, 1000) == 0
    assert cache.read((1, 2), 300 * SECOND, 1000) == 1000
    assert cache.read((1, 3), 600 * SECOND, 1024) == 512
    assert cache.read((1, 2), 900 * SECOND, 1024) == 512
    assert cache.read((1, 2), 1200 * SECOND + 1, 1024) == 0


# --- calls ---


def test_calls_are_the_same_every_time_and_their_ids_are_unique(traffic: list[Call]) -> None:
    again = [
        c for t in map(open_trace, shipped()) for c in only_calls(calls(t, 0, moved_to_yesterday(t, NOW + 3 * 3600 * SECOND)))
    ]
    assert again == traffic
    assert len({call.span_id for call in traffic}) == len({call.trace_id for call in traffic}) == len(traffic)
    assert {len(call.trace_id) for call in traffic} == {16}
    assert {len(call.span_id) for call in traffic} == {8}
    assert b"\0" * 8 not in {call.span_id for call in traffic}


def test_ids_follow_content_seed_and_time_but_not_the_files_name(tmp_path: Path) -> None:
    packed = DATA / "azure_2023_code.csv.gz"
    trace = open_trace(packed)
    copy = open_trace(written(tmp_path, "code.csv", gzip.decompress(packed.read_bytes())))
    ids = [call.span_id for call in only_calls(calls(trace, 0, as_recorded()))]
    assert [call.span_id for call in only_calls(calls(copy, 0, as_recorded()))] == ids
    moved = only_calls(calls(trace, 0, moved_to_yesterday(trace, NOW)))
    for others in (
        only_calls(calls(trace, 1, as_recorded())),
        moved,
        only_calls(calls(trace, 0, moved_to_yesterday(trace, NOW + DAY))),
        only_calls(calls(replace(trace, digest=b"other"), 0, as_recorded())),
    ):
        assert not set(ids) & {call.span_id for call in others}
    # Moved calls are other calls, of the same callers.
    assert [call.caller for call in moved] == [call.caller for call in only_calls(calls(trace, 0, as_recorded()))]


def test_moved_traces_end_yesterday_at_their_own_time_of_day(traffic: list[Call]) -> None:
    for trace in map(open_trace, shipped()):
        timeline = moved_to_yesterday(trace, NOW)
        assert timeline.at(trace.last_ns) // DAY == NOW // DAY - 1
        assert (timeline.at(trace.last_ns) - trace.last_ns) % DAY == 0
    assert all(call.started_ns < NOW // DAY * DAY for call in traffic)


def test_a_faster_timeline_shortens_the_time_between_calls() -> None:
    timeline = Timeline(origin_ns=100, start_ns=5_000, speed=10.0)
    assert [timeline.at(t) for t in (100, 200, 1100)] == [5_000, 5_010, 5_100]


def test_buckets_add_up_to_the_traces_tokens(traffic: list[Call]) -> None:
    requests = [item for path in shipped() for item in open_trace(path).requests() if isinstance(item, Request)]
    for call, request in zip(traffic, requests, strict=True):
        assert call.input_tokens + call.cache_read_tokens + call.cache_write_tokens == request.input_tokens
        assert min(call.input_tokens, call.cache_read_tokens, call.cache_write_tokens) >= 0
        assert call.output_tokens == request.output_tokens
        assert call.started_ns < (call.first_chunk_ns or call.ended_ns) <= call.ended_ns
        if not request.blocks:
            assert call.cache_read_tokens == call.cache_write_tokens == 0
        if call.caller.model.provider != "anthropic":
            assert call.cache_write_tokens == 0
    # 29.3 % of Mooncake's prompt tokens, counted with another program.
    assert sum(call.cache_read_tokens for call in traffic) == 42_480_677


def test_a_conversation_stays_with_one_customer_and_one_model(traffic: list[Call]) -> None:
    callers: dict[str, set[tuple[str, str, str, str]]] = {}
    for call in traffic:
        who = call.caller
        if who.session:
            callers.setdefault(who.session, set()).add((who.customer, who.user, who.feature.name, who.model.request_model))
    assert len(callers) == 7_373
    assert {len(found) for found in callers.values()} == {1}


def test_customers_are_fifty_and_skewed_and_little_is_unpriced(traffic: list[Call]) -> None:
    by_customer = Counter(call.caller.customer for call in traffic)
    assert set(by_customer) == set(CUSTOMERS)
    assert len(set(CUSTOMERS)) == 50
    ranked = [count for _, count in by_customer.most_common()]
    assert ranked[0] > 0.2 * len(traffic)
    assert ranked[0] > 20 * ranked[25]
    unpriced = sum(c.caller.model.provider == "vllm" for c in traffic)
    assert 0.01 < unpriced / len(traffic) < 0.1
    assert 0.5 < sum(c.first_chunk_ns is not None for c in traffic) / len(traffic) < 0.9


# --- spans ---


def attributes(span: Span) -> dict[str, object]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value") or "") for a in span.attributes}


def test_spans_say_what_calls_are(traffic: list[Call]) -> None:
    sample = traffic[:300] + traffic[-300:]
    export = ExportTraceServiceRequest.FromString(Encoder().request(sample))
    found: dict[bytes, tuple[str, str, Span]] = {}
    for resource in export.resource_spans:
        service = {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"]
        for scope in resource.scope_spans:
            assert scope.scope.name
            found |= {span.span_id: (service, scope.scope.name, span) for span in scope.spans}
    assert len(found) == 600
    for call in sample:
        service, scope_name, span = found[call.span_id]
        who, has = call.caller, attributes(span)
        assert (service, scope_name) == (who.feature.service, who.model.scope)
        assert (span.trace_id, span.start_time_unix_nano, span.end_time_unix_nano) == (
            call.trace_id,
            call.started_ns,
            call.ended_ns,
        )
        assert has["gen_ai.usage.input_tokens"] == call.input_tokens + call.cache_read_tokens + call.cache_write_tokens
        assert has["gen_ai.usage.output_tokens"] == call.output_tokens
        assert has.get("gen_ai.usage.cache_read.input_tokens", 0) == call.cache_read_tokens
        assert has.get("gen_ai.usage.cache_write.input_tokens", 0) == call.cache_write_tokens
        assert has["gen_ai.response.model"] == who.model.response_model
        assert has["gen_ai.provider.name"] == who.model.provider
        assert (has["tallystick.customer"], has["tallystick.feature"], has["tallystick.agent"]) == (
            who.customer,
            who.feature.name,
            who.feature.agent,
        )
        assert has.get("tallystick.session", "") == who.session
        streamed = call.first_chunk_ns is not None
        assert ("gen_ai.response.time_to_first_chunk" in has) == ("gen_ai.request.stream" in has) == streamed
    ids = [attributes(span)["gen_ai.response.id"] for *_, span in found.values()]
    assert len(set(ids)) == len(ids)


# --- truth ---


def test_the_truth_is_what_the_price_lists_say(traffic: list[Call]) -> None:
    def one(model: str, *tokens: int) -> Total:
        call = next(c for c in traffic if c.caller.model.request_model == model)
        (input_tokens, read, write, output) = tokens
        priced = call._replace(input_tokens=input_tokens, cache_read_tokens=read, cache_write_tokens=write, output_tokens=output)
        (total,) = expected([priced]).values()
        return total

    # Worked out by hand from the published prices: gpt-5 1.25/0.125/10, claude-sonnet-4-5 3/0.30/3.75/15 USD a million tokens.
    assert one("gpt-5", 1000, 2000, 0, 100).cost_usd == Decimal("0.0025")
    assert one("claude-sonnet-4-5", 1000, 2000, 400, 100).cost_usd == Decimal("0.0066")
    assert one("inhouse-24b-instruct", 1000, 0, 0, 100).cost_usd is None


def test_disagreements_are_found_in_every_figure() -> None:
    group = Group("acme", "chat", "bot", "gpt-5")
    total = Total(2, 10, 20, 30, 40, Decimal("1.5"))
    assert disagreements({group: total}, {group: replace(total, cost_usd=Decimal("1.5000009"))}) == []
    for changed in (
        replace(total, calls=3),
        replace(total, input_tokens=11),
        replace(total, cache_read_tokens=0),
        replace(total, cache_write_tokens=31),
        replace(total, output_tokens=39),
        replace(total, cost_usd=Decimal("1.51")),
        replace(total, cost_usd=None),
    ):
        (problem,) = disagreements({group: total}, {group: changed})
        assert problem.startswith("acme, chat, bot, gpt-5: ")
    assert disagreements({group: replace(total, cost_usd=None)}, {group: replace(total, cost_usd=Decimal(0))})
    assert disagreements({group: total}, {})
    assert disagreements({}, {group: total})


# --- delivery ---


def test_paced_calls_leave_when_they_are_due(traffic: list[Call]) -> None:
    clock = [0]
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += round(seconds * SECOND)

    dues = [0, SECOND // 2, SECOND, 10 * SECOND, 10 * SECOND, 12 * SECOND]
    batches = list(paced(zip(dues, traffic, strict=False), clock=lambda: clock[0], sleep=sleep))
    assert [len(batch) for batch in batches] == [3, 2, 1]
    assert [call for batch in batches for call in batch] == traffic[: len(dues)]
    assert slept == [1.0, 9.0, 2.0]


def test_batches_lose_nothing(traffic: list[Call]) -> None:
    for count in (0, 1, BATCH_SPANS - 1, BATCH_SPANS, BATCH_SPANS + 1, 3 * BATCH_SPANS):
        batches = list(batched(traffic[:count]))
        assert [call for batch in batches for call in batch] == traffic[:count]
        assert all(0 < len(batch) <= BATCH_SPANS for batch in batches)


class Receiver(ThreadingHTTPServer):
    """Answers each export with the next of `answers` (status, headers, body), then with 200; keeps what it accepted."""

    def __init__(self, *answers: tuple[int, dict[str, str], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Exporting)
        self.answers = list(answers)
        self.spans: list[bytes] = []
        self.requests = 0
        self.keys: set[str | None] = set()
        self.lock = threading.Lock()

    def __enter__(self) -> "Receiver":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Exporting(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Receiver)
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        body = gzip.decompress(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.requests += 1
            server.keys.add(self.headers["authorization"])
            status, headers, answer = server.answers.pop(0) if server.answers else (200, {}, b"")
            if status == 200:
                export = ExportTraceServiceRequest.FromString(body)
                server.spans += [s.span_id for r in export.resource_spans for sc in r.scope_spans for s in sc.spans]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_every_call_arrives_over_a_few_connections(traffic: list[Call]) -> None:
    progress: list[int] = []
    with Receiver() as receiver, Client(receiver.url, "secret") as client:
        sent = send(client, batched(traffic[:3000]), progress.append)
    assert sorted(receiver.spans) == sorted(call.span_id for call in traffic[:3000])
    assert (sent.spans, sent.requests, sent.retries, sent.rejected) == (3000, 6, 0, 0)
    assert sum(progress) == 3000
    assert receiver.keys == {"Bearer secret"}


def test_a_busy_server_is_asked_again_when_it_says(traffic: list[Call]) -> None:
    slept: list[float] = []
    answers = [
        (503, {"retry-after": "7"}, b""),
        (429, {}, b""),
        (502, {"retry-after": "soon"}, b""),
        (503, {"retry-after": "900"}, b""),
    ]
    with Receiver(*answers) as receiver, Client(receiver.url) as client:
        delivery = client.send(Encoder().request(traffic[:10]), sleep=slept.append)
    assert delivery == (5, 0, "")
    assert slept == [7.0, 1.0, 2.0, 30.0]
    assert len(receiver.spans) == 10


def test_a_server_that_stays_busy_is_given_up_with_its_answer(traffic: list[Call]) -> None:
    slept: list[float] = []
    error = json.dumps({"error": {"code": "disk_full", "message": "the disk is full", "hint": "make room"}}).encode()
    with Receiver(*[(503, {"retry-after": "20"}, error)] * 10) as receiver, Client(receiver.url) as client:
        with pytest.raises(Refused) as refused:
            client.send(Encoder().request(traffic[:1]), sleep=slept.append)
        assert receiver.requests == 4
    assert sum(slept) <= 60
    assert (refused.value.status, refused.value.code, str(refused.value), refused.value.hint) == (
        503,
        "disk_full",
        "the disk is full",
        "make room",
    )


@pytest.mark.parametrize("status", [400, 401, 413, 500])
def test_a_final_refusal_isnt_tried_again(traffic: list[Call], status: int) -> None:
    with Receiver((status, {}, b"no")) as receiver, Client(receiver.url) as client:
        with pytest.raises(Refused) as refused:
            send(client, batched(traffic[:10]), lambda _: None)
        assert receiver.requests == 1
    assert refused.value.status == status


def test_no_server_is_unreachable_after_some_patience(traffic: list[Call]) -> None:
    with Receiver() as receiver:
        url = receiver.url
    slept: list[float] = []
    with Client(url) as client, pytest.raises(Unreachable, match=url):
        client.send(Encoder().request(traffic[:1]), patience_s=10, sleep=slept.append)
    assert 5 < sum(slept) <= 10


def test_rejected_spans_are_counted_with_the_reason(traffic: list[Call]) -> None:
    partial = ExportTraceServiceResponse()
    partial.partial_success.rejected_spans, partial.partial_success.error_message = 3, "time in 2100"
    with Receiver((200, {}, partial.SerializeToString())) as receiver, Client(receiver.url) as client:
        sent = send(client, batched(traffic[:10]), lambda _: None)
    assert (sent.spans, sent.rejected, sent.reasons) == (7, 3, {"time in 2100": 3})


@pytest.mark.parametrize("speed", [1.0, 10.0])
def test_recorded_and_moved_calls_are_due_alike(tmp_path: Path, speed: float) -> None:
    lines = [f"2023-11-16 18:00:{second:02},10,1" for second in (0, 20, 50)]
    trace = open_trace(written(tmp_path, "t.csv", HEADER + "\n".join(lines)))
    wanted = [NOW + round(second * SECOND / speed) for second in (0, 20, 50)]
    for timeline in (as_recorded(), Timeline(trace.first_ns, NOW, speed)):
        source = Source(trace, timeline)
        timed = list(due([source, source], [only_calls(calls(trace, 0, timeline))] * 2, NOW, speed))
        assert [at for at, _ in timed] == sorted(wanted * 2)
        starts = [call.started_ns for _, call in timed[::2]]
        assert starts == (wanted if timeline.start_ns else [1_700_157_600 * SECOND + second * SECOND for second in (0, 20, 50)])
