"""What is read of answers of any shape, what is kept of their text, and what stands on a span in the end."""

import gc
import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from tallystick.collectors.calls import kept
from tallystick.collectors.calls.answers import ANSWERS, Json, count, from_json
from tallystick.collectors.calls.call import Call
from tallystick.collectors.calls.kept import Kept
from tallystick.collectors.calls.merge import merge
from tallystick.collectors.calls.request import Usage
from tallystick.collectors.calls.watched import Seen, watched
from tallystick.testing import protocol

NAMES: tuple[str, ...] = (
    "id", "model", "usage", "choices", "delta", "content", "type", "message", "response", "output", "input_tokens", "output_tokens",
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "cached_tokens", "cache_creation", "cache_write_tokens", "tool_calls",
    "finish_reason", "service_tier", "text", "ephemeral_5m_input_tokens",
)  # fmt: skip
TYPES = (
    "message_start",
    "message_delta",
    "content_block_delta",
    "text_delta",
    "response.completed",
    "response.output_text.delta",
)


def _json(pairs: dict[str, Any]) -> Json:
    return Json(pairs)


JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.sampled_from(TYPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5).map(_json),
    max_leaves=20,
)


def buckets(usage: Usage | None) -> list[int | None]:
    if usage is None:
        return []
    return [
        usage.input_tokens, usage.cache_read_tokens, usage.cache_write_5m_tokens, usage.cache_write_1h_tokens, usage.output_tokens,
        usage.reasoning_tokens,
    ]  # fmt: skip


def span(**attributes: Any) -> ReadableSpan:
    made = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("chat", attributes=attributes)
    made.end()
    assert isinstance(made, ReadableSpan)
    return made


@pytest.mark.parametrize("operation", ANSWERS)
@given(answer=JSON)
def test_an_answer_of_any_shape_is_read_without_an_error_and_no_count_is_below_zero(operation: str, answer: Any) -> None:
    call = Call("openai", operation, {}, False)
    call.answered = True
    call.answer.whole(answer)
    call.end()
    assert all(one is None or one >= 0 for one in buckets(call.usage()))
    merged = merge(span(), call)
    assert all(value >= 0 for name, value in (merged.attributes or {}).items() if isinstance(value, int) and "usage" in name)


@pytest.mark.parametrize("operation", ["chat", "text_completion", "responses", "messages"])
@given(chunks=st.lists(JSON, max_size=6))
def test_a_stream_of_any_shape_passes_unchanged(operation: str, chunks: list[Any]) -> None:
    call = Call("openai", operation, {"messages": [{"role": "user", "content": "x"}], "model": "gpt-4o"}, True)
    call.answered, call.span_id = True, 1
    passed = list(watched(iter(chunks), call))
    assert all(one is other for one, other in zip(passed, chunks, strict=True))
    assert call.ended
    merge(span(), call)


def test_a_piece_that_is_no_text_is_passed_on_and_not_counted() -> None:
    call = Call("openai", "chat", {}, True)
    call.answered, call.span_id = True, 1
    events = [{"choices": [{"delta": {"content": content}}]} for content in ("one", 5, ["x"], "two")]
    assert len(list(watched(map(from_json, map(json.dumps, events)), call))) == 4
    assert call.answer.kept.texts == ["onetwo"]


@pytest.mark.parametrize("value", ["12", -1, 1.5, True, None, [], 10**12])
def test_a_count_that_is_none_is_unknown(value: Any) -> None:
    assert count(value) is None


def test_the_cache_cannot_be_more_than_the_input() -> None:
    call = Call("openai", "chat", {}, False)
    call.answer.whole(Json(usage=Json(prompt_tokens=10, completion_tokens=5, prompt_tokens_details=Json(cached_tokens=20))))
    told = call.answer.told()
    assert told == Usage(None, 20, None, None, 5, None, "provider")


def test_an_iterator_that_is_dropped_before_its_first_step_ends_the_call() -> None:
    call = Call("openai", "chat", {}, True)
    call.rest()
    stream = watched(iter([]), call)
    assert not call.ended
    del stream
    gc.collect()
    assert call.ended


def test_a_call_ends_once_and_what_waits_for_it_comes_once() -> None:
    call = Call("openai", "chat", {}, True)
    came: list[int] = []
    call.hold(lambda: came.append(1))
    call.close()
    assert (call.ended, came) == (False, []), "the library is at work"
    call.end(ValueError())
    call.end()
    call.hold(lambda: came.append(2))
    assert (came, type(call.error)) == ([1, 2], ValueError)


def test_text_beyond_the_limit_is_estimated_and_all_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept.used()
    monkeypatch.setattr(kept, "LIMIT_BYTES", before + 1000)
    one, other = Kept(), Kept()
    one.add("a" * 500)
    other.add("word " * 200)
    assert (len(one.texts), other.texts) == (1, [])
    assert other.tokens > 50
    assert not other.ask({"messages": "b" * 600})
    assert other.asked is None
    assert before + 500 < kept.used() <= before + 1000
    one.release()
    one.release()
    assert kept.used() == before
    other.add("c" * 100)
    del other
    gc.collect()
    assert kept.used() == before


def test_what_the_instrumentation_counted_stays_but_no_placeholder() -> None:
    call = Call("anthropic", "messages", {"model": "claude"}, True)
    call.answered, call.span_id = True, 1
    usage = {"input_tokens": 100, "cache_read_input_tokens": 7, "output_tokens": 1}
    start = {"type": "message_start", "message": {"id": "msg_1", "model": "claude-x", "usage": usage}}
    piece = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "one two three four"}}
    stream = watched((from_json(json.dumps(event)) for event in (start, piece)), call)
    list(stream)
    written = {"llm.token_count.prompt": 107, "llm.token_count.completion": 1, "tallystick.customer": "acme"}
    found: dict[str, Any] = dict(merge(span(**written), call).attributes or {})
    assert found["gen_ai.usage.output_tokens"] > 1
    assert "llm.token_count.completion" not in found
    assert "gen_ai.usage.input_tokens" not in found, "one attribute a column"
    assert found["llm.token_count.prompt"] == 107
    assert found["gen_ai.usage.cache_read.input_tokens"] == 7
    assert (found["tallystick.usage_source"], found["tallystick.customer"]) == ("partial", "acme")


@given(cuts=st.lists(st.integers(0, 400), max_size=5), packed=st.booleans())
def test_a_raw_body_is_read_however_it_is_cut(cuts: list[int], packed: bool) -> None:
    events = [{"id": "c", "model": "m", "choices": [{"delta": {"content": word}}]} for word in protocol.WORDS]
    ends = [
        {"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}
    ]
    body = b"".join(protocol.sse(None, event) for event in events + ends) + protocol.sse(None, "[DONE]")
    if packed:
        packer = zlib.compressobj(wbits=31)
        body = packer.compress(body) + packer.flush()
    call = Call("openai", "chat", {}, True)
    seen = Seen("gzip" if packed else "", call.answer.kept.take)
    places = sorted({0, len(body), *(cut % len(body) for cut in cuts)})
    for start, end in pairwise(places):
        seen.add(body[start:end])
    seen.read(call.answer)
    assert "".join(call.answer.parts) == "".join(protocol.WORDS)
    assert call.answer.told() == Usage(3, None, None, None, 5, None, "provider")
    assert call.answer.complete
