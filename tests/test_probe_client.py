"""What the probes' client sees of answers as they should be: event streams cut anywhere, what a chunk brings, the times of an answer."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from odd_engine import DONE, Answer, OddEngine, Seen, chunk, event, stream, text_chunk, usage_chunk

from tallystick.probes.client import sse
from tallystick.probes.client.answers import Answer as Reading
from tallystick.probes.client.answers import complaint
from tallystick.probes.client.request import open_session, send
from tallystick.probes.client.sse import EventStream
from tallystick.probes.config import Timeouts
from tallystick.probes.records import Ask, Event, Kind, Outcome, Record, Usage

BODY = b'{"model": "odd", "messages": [{"role": "user", "content": "hello"}], "stream": true}'


def asked(engine: OddEngine, times: int = 1, endpoint: str = "/v1/chat/completions", key: str | None = None) -> list[Record]:
    """One after the other, over one session."""

    async def all_of_them() -> list[Record]:
        async with open_session() as session:
            origin_ns = time.perf_counter_ns()
            return [
                await send(session, engine.facts(endpoint), Ask(n, None, BODY, 7, 5), origin_ns, timeouts=Timeouts(), key=key)
                for n in range(times)
            ]

    return asyncio.run(all_of_them())


def read(answer: Answer, endpoint: str = "/v1/chat/completions") -> Record:
    with OddEngine(answer) as engine:
        return asked(engine, endpoint=endpoint)[0]


def brought(record: Record) -> list[tuple[Kind, int]]:
    return [(event.kind, event.characters) for event in record.events]


# Event streams


def parsed(pieces: Sequence[bytes]) -> list[bytes]:
    parser = EventStream()
    return [data for piece in pieces for data in parser.feed(piece)]


LINE = st.one_of(
    st.sampled_from(
        [b"data: [DONE]", b"data:", b"data", b": ping", b"event: x", b"id", b"", b"data:  two", "data: ä€😀".encode()]
    ),
    st.binary(max_size=12).map(lambda some: b"data:" + some.replace(b"\n", b"").replace(b"\r", b"")),
)
STREAM = st.lists(st.tuples(LINE, st.sampled_from([b"\n", b"\r", b"\r\n"])), max_size=20).map(
    lambda lines: b"".join(line + end for line, end in lines)
)


@given(STREAM, st.lists(st.integers(0, 400), max_size=30), st.booleans())
@example(b"data: a\r\n\r\ndata: b\r\n\r\n", [8, 9, 10, 11], False)
@example(b"data: a\n\n", [1, 2], True)
@example(b": x\ndata: a\rdata: b\n\n", [4], False)
def test_any_cut_of_the_bytes_gives_the_same_events(whole: bytes, cuts: list[int], bom: bool) -> None:
    whole = b"\xef\xbb\xbf" * bom + whole
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    expected = parsed([whole])
    assert parsed([whole[a:b] for a, b in pairwise(places)]) == expected
    assert parsed([whole[i : i + 1] for i in range(len(whole))]) == expected


@given(STREAM)
def test_events_are_those_of_the_standard(whole: bytes) -> None:
    """Written once more, from its text and for a whole stream at once."""
    events: list[bytes] = []
    data: bytes | None = None
    lines = (
        whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    )  # a CR, and an LF that ends another line, are two
    for line in lines:
        if line == b"":
            if data is not None:
                events.append(data[:-1])
            data = None
        elif line == b"data" or line.startswith(b"data:"):
            value = line[5:]
            data = (data or b"") + (value[1:] if value[:1] == b" " else value) + b"\n"
    assert parsed([whole]) == events


def test_an_event_is_there_with_the_byte_that_completes_it() -> None:
    parser = EventStream()
    assert parser.feed(b"data: a\r\n\r") == [b"a"]
    assert parser.feed(b"\ndata: b\r\n") == []
    assert parser.feed(b"\r") == [b"b"]
    assert parser.feed(b"\n: c\n\ndata: d\ndata:e\n\ndata: never ended\n") == [b"d\ne"]


def test_an_event_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        parsed([b"data: ", b"x" * 60, b"x" * 60])
    with pytest.raises(ValueError, match="more than 100 bytes"):
        parsed([b"data: " + b"x" * 40 + b"\n"] * 3)
    for end in (b"\n\n", b"\r\n\r\n"):
        assert len(parsed([b"data: " + b"x" * 80 + end] * 3)) == 3


# What a chunk brings


def reading(*chunks: Any) -> Reading:
    answer = Reading()
    for at, one in enumerate(chunks):
        answer.take(one if isinstance(one, bytes) else json.dumps(one).encode(), at)
    return answer


@pytest.mark.parametrize(
    ("choice", "kinds"),
    [
        ({"delta": {"role": "assistant", "content": ""}}, [(Kind.ROLE, 0)]),
        ({"delta": {"role": "assistant", "content": None}}, [(Kind.ROLE, 0)]),
        ({"delta": {"role": "assistant", "content": "Hi"}}, [(Kind.CONTENT, 2)]),
        ({"delta": {"content": "ä😀"}}, [(Kind.CONTENT, 2)]),
        ({"delta": {"content": ""}}, [(Kind.OTHER, 0)]),
        ({"delta": {}, "finish_reason": "stop"}, [(Kind.OTHER, 0)]),
        ({"delta": None}, [(Kind.OTHER, 0)]),
        ({"delta": {"content": ["a", 1]}}, [(Kind.OTHER, 0)]),
        ({"delta": {"reasoning_content": "hm", "content": None}}, [(Kind.REASONING, 2)]),
        ({"delta": {"reasoning": "hmm", "content": ""}}, [(Kind.REASONING, 3)]),
        ({"delta": {"reasoning": "so", "content": "it is"}}, [(Kind.REASONING, 2), (Kind.CONTENT, 5)]),
        ({"delta": {"tool_calls": [{"index": 0, "function": {"name": "add", "arguments": ""}}]}}, [(Kind.TOOL, 3)]),
        ({"delta": {"tool_calls": [{"function": {"arguments": '{"a'}}, {"function": {"arguments": "1"}}]}}, [(Kind.TOOL, 4)]),
        ({"delta": {"tool_calls": [{"function": None}, 3], "content": None}}, [(Kind.OTHER, 0)]),
        ({"delta": {"function_call": {"name": "add"}}}, [(Kind.TOOL, 3)]),
        ({"text": "word "}, [(Kind.CONTENT, 5)]),
        ({"text": "", "finish_reason": "length"}, [(Kind.OTHER, 0)]),
    ],
)
def test_kinds(choice: dict[str, Any], kinds: list[tuple[Kind, int]]) -> None:
    answer = reading({"choices": [{"index": 0, "finish_reason": None, **choice}]})
    assert [(event.kind, event.characters) for event in answer.events] == kinds
    assert answer.generated is any(kind in (Kind.CONTENT, Kind.REASONING, Kind.TOOL) for kind, _ in kinds)
    assert answer.failure is None


def test_one_chunk_may_be_the_last_text_the_finish_and_the_usage() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    answer = reading({"choices": [{"delta": {"content": "end"}, "finish_reason": "stop"}], "usage": usage}, b"[DONE]")
    assert answer.events == [Event(0, Kind.CONTENT, 3), Event(0, Kind.USAGE, 0), Event(1, Kind.DONE, 0)]
    assert (answer.finish_reason, answer.done, answer.usage) == ("stop", True, Usage(9, None, 2, None))


def test_a_role_that_each_chunk_names_is_one_only_before_the_text() -> None:
    """Ollama's do; and the first finish is the answer's."""
    role = {"role": "assistant", "content": ""}
    answer = reading(
        {"choices": [{"delta": role}]},
        {"choices": [{"delta": role | {"content": "Hi"}, "finish_reason": "stop"}]},
        {"choices": [{"delta": role, "finish_reason": "length"}]},
    )
    assert [event.kind for event in answer.events] == [Kind.ROLE, Kind.CONTENT, Kind.OTHER]
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(
    ("told", "usage"),
    [
        ({"usage": None}, None),
        ({"usage": {"prompt_tokens": 9, "completion_tokens": 2}}, Usage(9, None, 2, None)),
        ({"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 8}}}, Usage(9, 8, None, None)),
        ({"usage": {"prompt_tokens": 9, "prompt_tokens_details": None, "prompt_cache_hit_tokens": 7}}, Usage(9, 7, None, None)),
        ({"usage": {"prompt_tokens": 9}, "timings": {"cache_n": 0, "prompt_n": 9}}, Usage(9, 0, None, None)),
        ({"usage": {"completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}}, Usage(None, None, 9, 4)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": "many"}}, Usage(None, None, None, None)),
        ({"usage": {"prompt_tokens": True, "completion_tokens": 1.5}}, Usage(None, None, None, None)),
        ({"timings": {"cache_n": 30, "prompt_n": 10, "predicted_n": 5}}, Usage(40, 30, 5, None)),
        ({"timings": {"prompt_n": 10, "predicted_n": 5}}, Usage(None, None, 5, None)),
        ({"timings": {"prompt_ms": 1.0}}, None),
    ],
)
def test_usage(told: dict[str, Any], usage: Usage | None) -> None:
    assert reading({"choices": [], **told}).usage == usage


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "no such\n  model", "type": "x"}}, "no such model"),
        ({"error": "plain"}, "plain"),
        ({"object": "error", "message": "of SGLang", "code": 400}, "of SGLang"),
        ({"detail": "Not Found"}, "Not Found"),
        ({"detail": [{"loc": ["body", "n"], "msg": "not taken", "input": "SECRET"}]}, "body.n: not taken"),
        ({"error": {"message": "1 validation error: {'msg': 'bad', 'input': 'SECRET'}"}}, "1 validation error: {'msg': 'bad', "),
        ({"error": {"message": "x" * 500}}, "x" * 200),
        ({"error": {"code": 5}}, ""),
        ({"other": "SECRET"}, ""),
        (7, ""),
    ],
)
def test_what_an_engine_says_is_wrong(body: Any, words: str) -> None:
    assert complaint(body) == words


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["choices", "delta", "usage", "error", "detail", "timings", "tool_calls"]), inner)
        ),
    )
)
def test_no_chunk_breaks_the_client(chunk: Any) -> None:
    reading(chunk)


# Answers over a connection


def test_a_chat() -> None:
    record = read(stream(tokens=3, gap=0.01))
    content = [(Kind.CONTENT, 5)] * 3
    assert brought(record) == [(Kind.ROLE, 0), *content, (Kind.OTHER, 0), (Kind.USAGE, 0), (Kind.DONE, 0)]
    assert (record.outcome, record.status, record.error, record.finish_reason) == (Outcome.OK, 200, "", "length")
    assert record.usage == Usage(10, None, 3, None)
    assert (record.number, record.input_tokens, record.output_tokens, record.scheduled_ns) == (0, 7, 5, None)
    times = [event.at_ns for event in record.events]
    assert record.headers_ns is not None
    assert [0, record.sent_ns, record.headers_ns, *times, record.ended_ns] == sorted(
        [0, record.sent_ns, record.headers_ns, *times, record.ended_ns]
    )
    assert record.ended_ns == times[-1]
    assert Record.of_json(json.loads(json.dumps(record.as_json()))) == record


def test_the_role_is_no_first_token() -> None:
    record = read(stream(tokens=1, first=0.5))
    role, content = record.events[:2]
    assert (role.kind, content.kind) == (Kind.ROLE, Kind.CONTENT)
    assert role.at_ns < content.at_ns


def test_reasoning_tools_and_text_completions() -> None:
    call = [{"index": 0, "function": {"name": "add", "arguments": "{}"}}]
    record = read(Answer([chunk(reasoning_content="hm"), chunk("so"), chunk(tool_calls=call), chunk(finish="tool_calls"), DONE]))
    assert brought(record)[:3] == [(Kind.REASONING, 2), (Kind.CONTENT, 2), (Kind.TOOL, 5)]
    assert (record.outcome, record.finish_reason, record.usage) == (Outcome.OK, "tool_calls", None)
    record = read(Answer([text_chunk("a "), text_chunk("b", finish="stop"), usage_chunk(4, 2, 3), DONE]), "/v1/completions")
    assert brought(record) == [(Kind.CONTENT, 2), (Kind.CONTENT, 1), (Kind.USAGE, 0), (Kind.DONE, 0)]
    assert (record.outcome, record.finish_reason, record.usage) == (Outcome.OK, "stop", Usage(4, 3, 2, None))


def test_the_end_may_be_said_by_the_finish_alone() -> None:
    """transformers serve never says [DONE], and has its usage on the last chunk."""
    last = chunk("word", finish="stop", usage={"prompt_tokens": 3, "completion_tokens": 2})
    record = read(Answer([chunk("a "), last]))
    assert (record.outcome, record.finish_reason, record.usage) == (Outcome.OK, "stop", Usage(3, None, 2, None))


def test_several_events_at_once_and_one_in_pieces() -> None:
    whole = chunk("a") + b": ping\r\n\r\n" + chunk("b")
    record = read(Answer([whole, whole[:20], 0.3, whole[20:], chunk(finish="stop"), DONE]))
    assert [event.kind for event in record.events].count(Kind.CONTENT) == 4
    assert record.events[0].at_ns == record.events[1].at_ns < record.events[2].at_ns == record.events[3].at_ns


def test_what_is_sent() -> None:
    with OddEngine() as engine:
        asked(engine, times=3, key="sk-secret")
    assert [seen.body for seen in engine.seen] == [json.loads(BODY)] * 3
    headers = engine.seen[0].headers
    assert (headers["authorization"], headers["content-type"]) == ("Bearer sk-secret", "application/json")
    assert headers["accept-encoding"] == "identity", "compressed, events would wait for each other"
    assert {seen.connection for seen in engine.seen} == {0}, "a connection is used again"


def test_a_connection_that_an_engine_closes_in_silence_is_not_used_again() -> None:
    async def three() -> None:
        async with open_session() as session:
            for n in range(3):
                facts = replace(engine.facts(), keeps_connections=False)
                await send(session, facts, Ask(n, None, BODY, 7, 5), time.perf_counter_ns(), timeouts=Timeouts(), key=None)

    with OddEngine() as engine:
        asyncio.run(three())
    assert [seen.connection for seen in engine.seen] == [0, 1, 2]
    assert engine.seen[0].headers["connection"] == "close"


def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert read(stream()).outcome is Outcome.OK


def test_a_connection_that_does_not_end_after_the_stream_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystick.probes.client.request.AFTER_DONE_S", 0.05)

    def script(seen: Seen) -> Answer:
        return Answer([*stream().steps, *((30.0,) if seen.number == 0 else ())])

    with OddEngine(script) as engine:
        first, second = asked(engine, times=2)
    assert (first.outcome, second.outcome) == (Outcome.OK, Outcome.OK)
    assert first.ended_ns == first.events[-1].at_ns
    assert engine.seen[1].connection == 1


def test_garbage_after_the_end() -> None:
    record = read(Answer([*stream().steps, event("more")]))
    assert record.outcome is Outcome.GARBAGE
