"""What real instrumentations emitted, through the real endpoint: does the ledger hold the truth?

Each recording is one call of an application, told by any number of spans. A true count that stands anywhere in the recorded spans must
come out exactly; where it doesn't, the ledger mustn't claim to know it.
"""

import copy
import itertools
import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from otlp import ident, pairs, request, span, trace_hex
from server import Server

SPANS = Path(__file__).parent / "spans"

BUCKETS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
)
SAME_IN_A_VOID = (
    "tenant",
    "customer",
    "user",
    "session",
    "started_at",
    "ended_at",
    "trace_id",
    "response_id",
    "price_id",
    "usage_source",
)
AMOUNTS = ("calls", *BUCKETS, "cost_usd", "reported_cost_usd")


@dataclass(frozen=True)
class Recording:
    """One file. `spans` are those that tell of a model: not the HTTP request under the call."""

    name: str
    truth: dict[str, Any]
    otlp: dict[str, Any]
    spans: tuple[dict[str, Any], ...]

    @property
    def traces(self) -> set[str]:
        return {span["traceId"] for span in self.spans}

    def numbers(self) -> set[int]:
        """All whole numbers in the attributes of the spans and their events, also inside texts."""
        holders = [holder for span in self.spans for holder in (span, *span.get("events", ()))]
        found: set[int] = set()
        for attribute in (a for holder in holders for a in holder.get("attributes", ())):
            for text in _texts(attribute["value"]):
                found.update(int(number) for number in re.findall(r"(?<![\w.])\d{1,9}(?![\w.])", text))
        return found

    def attributes(self) -> set[str]:
        return {attribute["key"] for span in self.spans for attribute in span.get("attributes", ())}

    def events(self) -> set[str]:
        return {event["name"] for span in self.spans for event in span.get("events", ())}

    def split(self, order: tuple[int, ...]) -> list[dict[str, Any]]:
        """One request for each span, in this order of `spans`."""
        wanted = [(self.spans[i]["traceId"], self.spans[i]["spanId"]) for i in order]
        return [_only(self.otlp, one) for one in wanted]


def _texts(value: dict[str, Any]) -> Iterator[str]:
    for kind, held in value.items():
        if kind == "arrayValue":
            for one in held.get("values", ()):
                yield from _texts(one)
        elif kind == "kvlistValue":
            for one in held.get("values", ()):
                yield from _texts(one["value"])
        else:
            yield str(held)


def _only(otlp: dict[str, Any], wanted: tuple[str, str]) -> dict[str, Any]:
    request = copy.deepcopy(otlp)
    for resource in request["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            scope["spans"] = [span for span in scope["spans"] if (span["traceId"], span["spanId"]) == wanted]
        resource["scopeSpans"] = [scope for scope in resource["scopeSpans"] if scope["spans"]]
    request["resourceSpans"] = [resource for resource in request["resourceSpans"] if resource["scopeSpans"]]
    return request


@cache
def recordings() -> dict[str, Recording]:
    """All that tell of a model: from an HTTP request alone nobody can know what was called."""
    found = {}
    for path in sorted(SPANS.glob("[!_]*/*.json")):
        held = json.loads(path.read_text(encoding="utf-8"))
        otlp = held["otlp"]
        spans = tuple(
            span
            for resource in otlp["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
            if "http.method" not in {attribute["key"] for attribute in span.get("attributes", ())}
        )
        if spans:
            name = f"{path.parent.name}/{path.stem}"
            found[name] = Recording(name, held["ground_truth"], otlp, spans)
    return found


SEVERAL = {name: one for name, one in recordings().items() if len(one.spans) > 1}
ORDERS = sorted({order for one in SEVERAL.values() for order in itertools.permutations(range(len(one.spans)))})
Row = dict[str, Any]


def rows_by_trace(server: Server, key: str) -> dict[str, list[Row]]:
    by_trace: dict[str, list[Row]] = {}
    for row in server.sql("SELECT * FROM charges", key):
        by_trace.setdefault(row["trace_id"], []).append(row)
    return by_trace


def of(recording: Recording, by_trace: dict[str, list[Row]]) -> list[Row]:
    return [row for trace in recording.traces for row in by_trace.get(trace, ())]


def total(rows: list[Row], column: str) -> Any:
    known = [row[column] for row in rows if row[column] is not None]
    return sum(known) if known else None


def standing(rows: list[Row]) -> Row:
    """The one call that wasn't voided."""
    voided = {row["span_id"] for row in rows if row["entry"] == "void"}
    (call,) = (row for row in rows if row["entry"] == "call" and row["span_id"] not in voided)
    return call


def problems(recording: Recording, rows: list[Row]) -> list[str]:
    """What the ledger says wrong about the tokens of one recording."""
    truth, known = recording.truth, recording.numbers() | {0}
    got = {bucket: total(rows, bucket) or 0 for bucket in BUCKETS}
    if "error" in truth:
        return [f"{bucket} {got[bucket]} on a failed call" for bucket in BUCKETS if got[bucket]]
    writes = got["cache_write_5m_tokens"] + got["cache_write_1h_tokens"]
    input_total = got["input_tokens"] + got["cache_read_tokens"] + writes
    provider = standing(rows)["usage_source"] == "provider"
    partial = truth.get("partial", False)
    wrong = ["claims to know a stream that was cut short"] if partial and provider else []
    told = {truth.get("input_total"), truth.get("raw_input_tokens")} - {None}
    if not told & known:
        claims = provider and any(total(rows, bucket) is not None for bucket in BUCKETS)
        return [*wrong, "claims a usage that no span tells"] if claims else wrong
    expected = [("input", input_total, truth["input_total"], True)]
    expected += [
        ("cache read", got["cache_read_tokens"], truth.get("cache_read", 0), True),
        ("cache write", writes, truth.get("cache_write", 0), True),
    ]
    if "cache_write_1h" in truth:
        lifetimes = {truth["cache_write"], truth["cache_write_5m"], truth["cache_write_1h"]} <= known
        for life in ("5m", "1h"):
            expected.append((f"cache write {life}", got[f"cache_write_{life}_tokens"], truth[f"cache_write_{life}"], lifetimes))
    if not partial and truth["output"] in known:
        expected += [
            ("output", got["output_tokens"], truth["output"], True),
            ("reasoning", got["reasoning_tokens"], truth.get("reasoning", 0), True),
        ]
        wrong += [] if provider else ["doesn't say that the usage is the provider's"]
    wrong += [
        f"{name} {is_}, not {true}"
        for name, is_, true, say in expected
        if say and is_ != true and (true in known or name == "input")
    ]
    return wrong


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    """All recordings, whole, at once."""
    key = server.key("recordings")
    server.post_all((one.otlp for one in recordings().values()), key)
    return key


@pytest.fixture(scope="module")
def ledger(server: Server, key: str) -> dict[str, list[Row]]:
    return rows_by_trace(server, key)


@pytest.mark.parametrize("name", recordings())
def test_recording(name: str, ledger: dict[str, list[Row]]) -> None:
    recording = recordings()[name]
    rows = of(recording, ledger)
    assert total(rows, "calls") == recording.truth.get("billed_calls", 1)
    assert not problems(recording, rows)


def test_whole_numbers_of_http_spans_tell_nothing() -> None:
    """The truth is looked for where the ledger may look: 4 recordings hold a status 200 beside an untold cache write of 200."""
    hidden = recordings()["openlit/anthropic_messages_cachewrite"]
    assert hidden.truth["cache_write_1h"] == 200
    assert 200 not in hidden.numbers()


def test_redelivery_changes_nothing(server: Server, key: str, ledger: dict[str, list[Row]]) -> None:
    server.post_all((one.otlp for one in recordings().values()), key)
    server.post_all((request for one in SEVERAL.values() for request in one.split(tuple(range(len(one.spans))))), key)
    again = rows_by_trace(server, key)
    assert again.keys() == ledger.keys()
    for trace, rows in ledger.items():
        assert sorted(again[trace], key=str) == sorted(rows, key=str)


@pytest.fixture(scope="module")
def in_order(server: Server) -> dict[tuple[int, ...], dict[str, list[Row]]]:
    """Recordings of several spans, span by span: a tenant for each order, each span in a commit after the one before it."""
    keys = {order: server.key("order-" + "-".join(map(str, order))) for order in ORDERS}
    requests = {order: [one.split(order) for one in SEVERAL.values() if len(one.spans) == len(order)] for order in ORDERS}
    for place in range(max(map(len, ORDERS))):
        with ThreadPoolExecutor(len(ORDERS)) as pool:
            for done in [
                pool.submit(server.post_all, [split[place] for split in requests[order]], keys[order])
                for order in ORDERS
                if place < len(order)
            ]:
                done.result()
    return {order: rows_by_trace(server, key) for order, key in keys.items()}


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_spans_in_requests_of_their_own(
    order: tuple[int, ...], in_order: dict[tuple[int, ...], dict[str, list[Row]]], ledger: dict[str, list[Row]]
) -> None:
    for one in SEVERAL.values():
        if len(one.spans) == len(order):
            rows = of(one, in_order[order])
            assert total(rows, "calls") == one.truth.get("billed_calls", 1), one.name
            assert not problems(one, rows), one.name
            assert {bucket: total(rows, bucket) for bucket in BUCKETS} == {
                bucket: total(of(one, ledger), bucket) for bucket in BUCKETS
            }
            for void in (row for row in rows if row["entry"] == "void"):
                (voided,) = (row for row in rows if row["entry"] == "call" and row["span_id"] == void["span_id"])
                opposite = {column: None if voided[column] is None else -voided[column] for column in AMOUNTS}
                assert {column: void[column] for column in AMOUNTS} == opposite
                assert void["reason"]
                assert {column: void[column] for column in SAME_IN_A_VOID} == {
                    column: voided[column] for column in SAME_IN_A_VOID
                }


@pytest.mark.parametrize(
    ("name", "order", "voids"),
    [
        # An empty client span, then the log that holds the usage.
        ("logfire/openai_chat_stream_usage_cached", (0, 1), 1),
        ("logfire/openai_chat_stream_usage_cached", (1, 0), 0),
        # The instrumentation's span knows less than the SDK's own, and Logfire's log more than both.
        ("logfire/anthropic_messages_stream", (0, 1, 2), 2),
        ("logfire/anthropic_messages_stream", (2, 1, 0), 0),
        ("otel-genai/anthropic_messages_cachewrite", (0, 1), 0),
        ("otel-genai/anthropic_messages_cachewrite", (1, 0), 1),
    ],
)
def test_a_better_span_voids_the_one_that_stands(
    name: str, order: tuple[int, ...], voids: int, in_order: dict[tuple[int, ...], dict[str, list[Row]]]
) -> None:
    rows = of(recordings()[name], in_order[order])
    assert sum(row["entry"] == "void" for row in rows) == voids
    assert sum(row["entry"] == "call" for row in rows) == voids + 1


@pytest.mark.parametrize("name", [name for name, one in recordings().items() if "error" in one.truth])
def test_failed_calls(name: str, ledger: dict[str, list[Row]]) -> None:
    call = standing(of(recordings()[name], ledger))
    assert call["status"] == "error"
    # What the provider refused was never generated and costs nothing; of a call that ran into a timeout nobody knows.
    timeout = recordings()[name].truth["error"] == "timeout"
    assert call["usage_source"] == ("missing" if timeout else "none")
    assert call["cost_usd"] == (None if timeout else 0)


NOT_TOLD = {
    # No finish reason on any of its spans, and no token event: a stream that was cut short looks like a call without usage.
    "otel-openai-v2/openai_chat_stream_break_close",
}
CUT_SHORT = [
    name for name in recordings() if name.endswith(("break_close", "abandon", "async_stream_cancel")) and name not in NOT_TOLD
]


@pytest.mark.parametrize("name", CUT_SHORT)
def test_streams_cut_short(name: str, ledger: dict[str, list[Row]]) -> None:
    call = standing(of(recordings()[name], ledger))
    assert call["status"] == "cancelled"
    assert call["usage_source"] in ("partial", "missing")
    # What was generated until then is charged by the provider, and nobody was told how much.
    assert call["output_tokens"] is None


TTFT_TOLD = {
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
    "langfuse.observation.completion_start_time",
    "First Token Stream Event",
    "gen_ai.content.completion.chunk",
}


@pytest.mark.parametrize("name", [name for name, one in recordings().items() if "ttft_s" in one.truth])
def test_time_to_first_token(name: str, ledger: dict[str, list[Row]]) -> None:
    """The provider waits 150 ms before the first piece and, slow ones 100 ms, else 30 ms, before the second, which has the first content."""
    recording = recordings()[name]
    call = standing(of(recording, ledger))
    if not TTFT_TOLD & (recording.attributes() | recording.events()):
        assert call["ttft_ms"] is None
        assert call["ttft_kind"] == ""
        return
    native = any(
        "anthropic.sdk" in scope["scope"]["name"] for one in recording.otlp["resourceSpans"] for scope in one["scopeSpans"]
    )
    assert call["ttft_kind"] == ("content" if native else "chunk")
    gap_ms = 0 if not native else 100 if "break_close" in name else 30
    assert 0 <= call["ttft_ms"] - recording.truth["ttft_s"] * 1000 - gap_ms < 60
    assert call["streamed"]


@pytest.mark.parametrize("name", [name for name, one in recordings().items() if "ttft_s" not in one.truth])
def test_no_time_to_first_token_without_a_stream(name: str, ledger: dict[str, list[Row]]) -> None:
    """OpenLIT writes one on every call."""
    rows = of(recordings()[name], ledger)
    assert all(row["ttft_ms"] is None for row in rows if not row["streamed"])


def test_who(ledger: dict[str, list[Row]]) -> None:
    """Neither `user=` nor `metadata=` of a call reaches the spans of most instrumentations; LangChain's configuration does."""
    told = {"langchain-openinference": "u-42", "langchain-traceloop": "u-42", "langchain-otel-genai": ""}
    for stack, user in told.items():
        call = standing(of(recordings()[f"{stack}/langchain_chat_metadata"], ledger))
        assert call["user"] == user
        assert call["session"] == "s-1"
        assert call["team"] == ("search" if user else "")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=str)
@pytest.mark.parametrize("together", [True, False], ids=["halves", "calls"])
def test_a_log_finds_its_span_without_other_instrumentations(server: Server, order: tuple[int, int], together: bool) -> None:
    """Logfire alone: each stream's span and log in commits of their own, call after call or half of all calls first."""
    key = server.key(f"logfire-{order[0]}-{'halves' if together else 'calls'}")
    streams = [one for name, one in SEVERAL.items() if name.startswith("logfire/openai")]
    requests = [one.split(order) for one in streams]
    if together:
        server.post_all([first for first, _ in requests], key)
        server.post_all([second for _, second in requests], key)
    else:
        for request in itertools.chain(*requests):
            server.post_all([request], key)
    by_trace = rows_by_trace(server, key)
    for one in streams:
        assert total(of(one, by_trace), "calls") == 1, one.name


DOCUMENTED = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted((SPANS / "_documented").glob("*.json"))}
SENT_AT = time.time_ns() - 120_000_000_000


def documented(name: str) -> list[Span]:
    """What a description says is emitted, as the spans of one trace: the parent, if there is one, the span or its tree."""
    told = DOCUMENTED[name]
    if "spans" in told:
        tree = [
            (one["name"], str(one["id"]), str(one["parent"]) if "parent" in one else None, one["attributes"])
            for one in told["spans"]
        ]
    else:
        tree = [(told["name"], "own", "above" if "parent" in told else None, told["attributes"])]
    if "parent" in told:
        tree.insert(0, (told["parent"]["name"], "above", None, told["parent"]["attributes"]))
    spans = []
    for i, (title, one, parent, attributes) in enumerate(tree):
        made = span(name, f"{name}/{one}", parent=parent and f"{name}/{parent}", start_ns=SENT_AT + i * 1_000_000)
        made.name = title
        del made.attributes[:]
        made.attributes.extend(pairs(attributes))
        spans.append(made)
    return spans


@pytest.fixture(scope="module")
def from_documents(server: Server) -> dict[str, list[Row]]:
    key = server.key("documented")
    scopes = {
        "vercel_v5_dostream_span": "ai",
        "vercel_v7_invoke_agent_tree": "ai",
        "claude_code_llm_request_span": "com.anthropic.claude_code.tracing",
    }
    bodies = [request(*documented(name), scope=scope, resource={"service.name": name}) for name, scope in scopes.items()]
    vllm = documented("vllm_llm_request_span")[0]
    vllm.parent_span_id = ident("vllm/http", 8)
    tokens = {"gen_ai.usage.input_tokens": 128, "gen_ai.usage.output_tokens": 64, "gen_ai.request.model": "qwen3"}
    client = span(
        "vllm_llm_request_span", "vllm/client", start_ns=SENT_AT - 1_000_000, duration_ns=1_002_000_000, attributes=tokens
    )
    served = request(vllm, scope="vllm.llm_engine", resource={"service.name": "vllm"})
    server.post_all([*bodies, served], key)
    server.post_all([request(client)], key)
    return rows_by_trace(server, key)


@pytest.mark.parametrize("name", [name for name, told in DOCUMENTED.items() if told["signal"] != "log"])
def test_documented(name: str, from_documents: dict[str, list[Row]]) -> None:
    truth = DOCUMENTED[name]["ground_truth"]
    rows = from_documents[trace_hex(name)]
    assert total(rows, "calls") == truth.get("billed_calls", 1)
    writes = (total(rows, "cache_write_5m_tokens") or 0) + (total(rows, "cache_write_1h_tokens") or 0)
    assert (total(rows, "input_tokens") or 0) + (total(rows, "cache_read_tokens") or 0) + writes == truth["input_total"]
    assert total(rows, "output_tokens") == truth["output"]
    assert (total(rows, "cache_read_tokens") or 0) == truth.get("cache_read", 0)
    assert writes == truth.get("cache_write", 0)


def test_documented_spans_say_more(from_documents: dict[str, list[Row]]) -> None:
    vercel = standing(from_documents[trace_hex("vercel_v5_dostream_span")])
    assert (vercel["feature"], vercel["user"], vercel["provider"], vercel["streamed"]) == ("fn", "u-42", "openai", 1)
    assert vercel["ttft_ms"] == pytest.approx(151.2)
    coding = standing(from_documents[trace_hex("claude_code_llm_request_span")])
    assert (coding["session"], coding["request_model"], coding["input_tokens"]) == ("cec62d6f-0000", "claude-opus-5", 2)
    assert {row["service"] for row in from_documents[trace_hex("vllm_llm_request_span")] if row["entry"] == "call"} <= {
        "vllm",
        "tests",
    }
