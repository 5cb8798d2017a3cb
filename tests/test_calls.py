"""What is added to the span of each call: real clients in a process of their own, each case under a scope of its name."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_collector import CLIENTS, service

from tallystick.collectors.tokens import count_messages, count_text
from tallystick.testing import ProviderServer
from tallystick.testing.protocol import WORDS
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

CASES = (
    "import tallystick.auto, tallystick\n"
    + CLIENTS
    + """
import asyncio, gc
again = openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=3)
claude_again = anthropic.Anthropic(base_url=base, api_key="k", max_retries=3)
chat, messages = gpt.chat.completions, claude.messages
words = dict(model="gpt-4o", messages=[{"role": "user", "content": "hello world"}])
said = dict(model="claude-lab-cw", max_tokens=9, messages=ask)

def case(name):
    return tallystick.scope(feature=name)

def some(stream, pieces):
    for _ in range(pieces):
        next(stream)
    return stream

with case("chat"):
    chat.create(model="gpt-lab-cw", messages=ask)
with case("tools"):
    chat.create(model="gpt-lab-tools", messages=ask)
with case("tools streamed"):
    list(chat.create(model="gpt-lab-tools", messages=ask, stream=True, stream_options={"include_usage": True}))
with case("responses tools"):
    gpt.responses.create(model="gpt-lab-tools", input="x")
with case("responses tools streamed"):
    list(gpt.responses.create(model="gpt-lab-tools", input="x", stream=True))
with case("messages tools"):
    messages.create(**said | {"model": "claude-lab-tools"})
with case("messages tools streamed"):
    list(messages.create(**said | {"model": "claude-lab-tools"}, stream=True))
with case("messages thinking streamed"):
    list(messages.create(**said | {"model": "claude-lab-reason"}, stream=True))
with case("retried"):
    again.chat.completions.create(model="gpt-lab-again", messages=ask)
with case("messages retried"):
    claude_again.messages.create(**said | {"model": "claude-lab-again"})
with case("embeddings"):
    gpt.embeddings.create(model="emb-lab", input="x")
with case("asked"):
    list(chat.create(**words, stream=True, stream_options={"include_usage": True}))
with case("counted"):
    list(chat.create(**words, stream=True))
with case("helper"), chat.stream(**words) as stream:
    stream.get_final_completion()
with case("closed"):
    some(chat.create(**words, stream=True), 4).close()
with case("left by with"), chat.create(**words, stream=True) as stream:
    some(stream, 4)
with case("helper left by with"), chat.stream(**words) as stream:
    some(stream, 5)
with case("dropped"):
    some(chat.create(**words, stream=True), 4)
gc.collect()
with case("unread"):
    chat.create(**words, stream=True)
gc.collect()
with case("broken"):
    try:
        list(chat.create(**words | {"model": "gpt-4o-midline"}, stream=True))
    except Exception as error:
        print(type(error).__name__)
with case("short"):
    list(chat.create(**words | {"model": "gpt-4o-short"}, stream=True))
with case("error event"):
    try:
        list(chat.create(**words | {"model": "gpt-4o-event"}, stream=True))
    except openai.APIError as error:
        print(type(error).__name__)
with case("responses closed"):
    some(gpt.responses.create(model="gpt-4o", input="hello world", stream=True), 7).close()
with case("responses continued"):
    some(gpt.responses.create(model="gpt-4o", input="x", previous_response_id="resp_0", stream=True), 7).close()
with case("messages closed"):
    some(messages.create(**said, stream=True), 4).close()
with case("messages helper left by with"), messages.stream(**said) as stream:
    some(stream, 5)
with case("messages dropped"):
    some(messages.create(**said, stream=True), 4)
gc.collect()
with case("messages unread"):
    messages.create(**said, stream=True)
gc.collect()
with case("messages broken"):
    try:
        list(messages.create(**said | {"model": "claude-lab-midline"}, stream=True))
    except Exception as error:
        print(type(error).__name__)
with case("raw"):
    chat.with_raw_response.create(**words).parse()
with case("raw streamed"):
    list(chat.with_raw_response.create(**words, stream=True).parse())
with case("lines"), chat.with_streaming_response.create(**words, stream=True) as response:
    list(response.iter_lines())
with case("lines left"), chat.with_streaming_response.create(**words, stream=True) as response:
    some(response.iter_lines(), 6)
with case("body"), chat.with_streaming_response.create(**words) as response:
    response.json()
with case("messages lines"), messages.with_streaming_response.create(**said, stream=True) as response:
    list(response.iter_lines())

async def main():
    # An async stream of openai's that is dropped makes asyncio complain of its generators now and then, also without us.
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    gpt = openai.AsyncOpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
    claude = anthropic.AsyncAnthropic(base_url=base, api_key="k", max_retries=0)
    async def some(stream, pieces):
        for _ in range(pieces):
            await anext(stream)
        return stream
    with case("async chat"):
        await gpt.chat.completions.create(model="gpt-lab-cw", messages=ask)
    with case("async counted"):
        [chunk async for chunk in await gpt.chat.completions.create(**words, stream=True)]
    with case("async closed"):
        await (await some(await gpt.chat.completions.create(**words, stream=True), 4)).close()
    with case("async dropped"):
        await some(await gpt.chat.completions.create(**words, stream=True), 4)
    gc.collect()
    await asyncio.sleep(0)
    with case("async cancelled"):
        stream = await gpt.chat.completions.create(**words | {"model": "gpt-4o-slow"}, stream=True)
        read = asyncio.Event()
        async def eat():
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    read.set()
        task = asyncio.create_task(eat())
        await read.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with case("async cancelled early"):
        task = asyncio.create_task(gpt.chat.completions.create(**words | {"model": "gpt-4o-hang"}))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with case("async messages"):
        await claude.messages.create(**said)
    with case("async messages helper left by with"):
        async with claude.messages.stream(**said) as stream:
            await some(stream, 5)
    with case("async lines"):
        async with gpt.chat.completions.with_streaming_response.create(**words, stream=True) as response:
            [line async for line in response.iter_lines()]
    await gpt.close()
    await claude.close()

asyncio.run(main())
from tallystick.collectors.calls import call, kept
from tallystick.collectors.start import flush, status
flush()
print(json.dumps([status().observed, len(call._open), kept.used()]))
"""
)


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def ran(provider: ProviderServer) -> tuple[dict[str, ReceivedSpan], list[str]]:
    """Spans by their case, and what was printed."""
    with SpanReceiver() as receiver:
        done = service(CASES, provider, receiver.url, TALLYSTICK_STRICT="1")
        assert done.stderr == ""
        spans = {str(span.attributes["tallystick.feature"]): span for span in receiver.spans}
        assert len(spans) == len(receiver.spans), "one span of each call"
        assert len(spans) == CASES.count("case(") - 1
        assert "secret" not in repr(receiver.spans)
        assert "hello world" not in repr(receiver.spans)
        return spans, done.stdout.splitlines()


@pytest.fixture(scope="module")
def added(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> dict[str, dict[str, Any]]:
    """Per case what was added, by short names."""
    names = {
        "tallystick.usage_source": "source", "tallystick.first_token_kind": "kind", "tallystick.retries": "retries",
        "tallystick.tool_calls": "tool_calls", "gen_ai.usage.input_tokens": "input", "gen_ai.usage.output_tokens": "output",
        "gen_ai.usage.cache_read.input_tokens": "read", "gen_ai.usage.cache_write.input_tokens": "write",
        "gen_ai.request.stream": "stream",
    }  # fmt: skip
    return {
        case: {short: span.attributes[name] for name, short in names.items() if name in span.attributes}
        for case, span in ran[0].items()
    }


def test_nothing_is_left_behind(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> None:
    *errors, left = ran[1]
    assert json.loads(left) == [{"openai": "on", "anthropic": "on"}, 0, 0]
    assert len(errors) == 3, "the application got each exception"


@pytest.mark.parametrize(
    ("case", "tool_calls", "kind"),
    [
        ("tools", 1, None),
        ("tools streamed", 1, "tool_call"),
        ("responses tools", 1, None),
        ("responses tools streamed", 1, "tool_call"),
        ("messages tools", 1, None),
        ("messages tools streamed", 1, "tool_call"),
        ("messages thinking streamed", None, "reasoning"),
        ("asked", None, "content"),
    ],
)
def test_tool_calls_and_the_kind_of_the_first_token(
    added: dict[str, dict[str, Any]], case: str, tool_calls: int | None, kind: str | None
) -> None:
    assert added[case].get("tool_calls") == tool_calls
    assert added[case].get("kind") == kind
    assert added[case]["source"] == "provider"


def test_retries_are_one_span(added: dict[str, dict[str, Any]]) -> None:
    for case in ("retried", "messages retried"):
        assert (added[case]["retries"], added[case]["source"]) == (1, "provider")
    assert "retries" not in added["chat"]


def test_all_buckets_stand_there_also_zeros(added: dict[str, dict[str, Any]]) -> None:
    for case in ("chat", "async chat"):
        assert added[case] == {"source": "provider", "input": 1200, "output": 50, "read": 512, "write": 300}
    assert added["asked"].items() >= {"source": "provider", "input": 1200, "output": 50, "read": 0, "write": 0}.items()
    assert added["embeddings"] == {"source": "provider", "input": 8, "output": 0}
    assert added["async messages"] == {"source": "provider", "input": 2300, "output": 42, "read": 1500, "write": 700}


ASKED = count_messages("gpt-4o", [{"role": "user", "content": "hello world"}]).tokens
SO_FAR = [count_text("gpt-4o", "".join(WORDS[: number + 1])).tokens for number in range(len(WORDS))]
"""Tokens of the answer's first word, first two, …"""
WHOLE = {"input": ASKED, "output": SO_FAR[-1], "stream": True, "kind": "content", "source": "estimated"}


@pytest.mark.parametrize("case", ["counted", "helper", "raw streamed", "lines", "async counted", "async lines"])
def test_a_stream_without_usage_is_counted(added: dict[str, dict[str, Any]], case: str) -> None:
    assert added[case] == WHOLE


PARTLY = {"input": ASKED, "stream": True, "kind": "content", "source": "partial"}


@pytest.mark.parametrize(
    "case", ["closed", "left by with", "helper left by with", "dropped", "async closed", "async dropped", "async cancelled"]
)
def test_of_a_stream_that_was_left_what_was_generated_so_far(added: dict[str, dict[str, Any]], case: str) -> None:
    assert added[case] == PARTLY | {"output": added[case].get("output")}
    # The helper makes several events of a chunk; of the cancelled one it is chance.
    exact = case not in ("helper left by with", "async cancelled")
    assert added[case]["output"] in (SO_FAR[2:3] if exact else SO_FAR[:3])


@pytest.mark.parametrize("case", ["broken", "short", "error event", "lines left"])
def test_of_a_stream_that_broke_off_what_was_generated_so_far(added: dict[str, dict[str, Any]], case: str) -> None:
    assert added[case] == PARTLY | {"output": added[case].get("output")}
    assert added[case]["output"] in (SO_FAR if case == "lines left" else SO_FAR[4:])


def test_of_a_stream_that_nobody_read_the_output_is_not_known(added: dict[str, dict[str, Any]]) -> None:
    assert added["unread"] == {"input": ASKED, "stream": True, "source": "partial"}
    assert "output" not in added["messages unread"]
    assert added["messages unread"]["source"] == "partial"


@pytest.mark.parametrize(
    "case",
    [
        "messages closed",
        "messages helper left by with",
        "messages dropped",
        "async messages helper left by with",
        "messages broken",
    ],
)
def test_what_the_provider_told_of_a_stream_cut_short_stays_and_its_placeholder_does_not(
    added: dict[str, dict[str, Any]], case: str
) -> None:
    found = dict(added[case])
    told = {"read": 1500, "write": 700, "input": 2300} if case != "messages broken" else {"read": 0, "write": 0, "input": 100}
    assert found.pop("output") > 1
    assert found == {"source": "partial", "stream": True, "kind": "content", **told}


def test_what_the_provider_holds_of_the_input_is_not_known(added: dict[str, dict[str, Any]]) -> None:
    assert added["responses closed"]["input"] > 1
    assert "input" not in added["responses continued"]
    assert added["responses continued"]["source"] == "partial"


def test_bodies_that_the_application_reads_itself(added: dict[str, dict[str, Any]]) -> None:
    for case in ("raw", "body"):
        assert added[case] == {"source": "provider", "input": 1200, "output": 50, "read": 0, "write": 0}
    assert added["messages lines"].items() >= {"source": "provider", "input": 2300, "output": 42}.items()


def test_a_call_that_never_got_an_answer_says_nothing_of_usage(added: dict[str, dict[str, Any]]) -> None:
    assert added["async cancelled early"] == {}


def test_the_first_token_is_that_of_the_answer_not_of_its_head(
    ran: tuple[dict[str, ReceivedSpan], list[str]], provider: ProviderServer
) -> None:
    span = ran[0]["async cancelled"]
    call = next(call for call in provider.calls if call.request_model == "gpt-4o-slow")
    assert call.first_token_ns is not None
    first = span.attributes["tallystick.time_to_first_token"]
    assert isinstance(first, float)
    assert span.start_ns + first * 1e9 >= call.first_token_ns, "not before it was sent"
