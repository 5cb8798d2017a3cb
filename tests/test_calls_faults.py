"""A provider, a network or an application that goes wrong: the application sees exactly what it would have seen without us."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_collector import CLIENTS, DOWN, service

from tallystick.testing import ProviderServer
from tallystick.testing.faults import FAULTS
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

METERED = "import tallystick.auto, tallystick\n"

TOLD = """
import asyncio, httpx2, warnings
def scope(name):
    try:
        return tallystick.scope(feature=name)
    except NameError:
        import contextlib
        return contextlib.nullcontext()

def without_ids(value):
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("id", "_request_id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value

def dumped(answer):
    return answer.model_dump(exclude_unset=True) if hasattr(answer, "model_dump") else answer

def failed(error):
    return [type(error).__qualname__, str(error), type(error.__cause__).__name__, type(error.__context__).__name__,
            getattr(error, "status_code", None), getattr(error, "body", None)]

told = {}
def tell(name, call):
    seen = told[name] = []
    try:
        with scope(name), warnings.catch_warnings():
            # openai warns, by way of the model's serializer, of answers that aren't of its shape.
            warnings.simplefilter("ignore")
            answer = call()
            if hasattr(answer, "__next__"):
                for part in answer:
                    seen.append(dumped(part))
            elif hasattr(answer, "__aiter__"):
                raise AssertionError
            else:
                seen.append(dumped(answer))
        seen.append("end")
    except BaseException as error:
        seen.append(failed(error))

async def atell(name, call):
    seen = told[name] = []
    try:
        with scope(name), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = await call()
            if hasattr(answer, "__anext__"):
                async for part in answer:
                    seen.append(dumped(part))
            else:
                seen.append(dumped(answer))
        seen.append("end")
    except BaseException as error:
        seen.append(failed(error))
"""

ENDING = FAULTS - {"stall"}
"""Those that come to an end by themselves."""

FAULTY = (
    CLIENTS
    + TOLD
    + f"faults = {sorted(ENDING)}\n"
    + """
again = openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=2)
claude_again = anthropic.Anthropic(base_url=base, api_key="k", max_retries=2)
usage = {"stream": True, "stream_options": {"include_usage": True}}

def every(gpt, claude, way):
    for fault in faults:
        chat = dict(model=f"{way}-{fault}", messages=ask)
        said = dict(model=f"claude-{way}-{fault}", max_tokens=9, messages=ask)
        yield f"{way} chat {fault}", lambda: gpt.chat.completions.create(**chat)
        yield f"{way} chat stream {fault}", lambda: gpt.chat.completions.create(**chat, stream=True)
        yield f"{way} chat usage stream {fault}", lambda: gpt.chat.completions.create(**chat, **usage)
        yield f"{way} responses {fault}", lambda: gpt.responses.create(model=f"{way}-r-{fault}", input="x")
        yield f"{way} responses stream {fault}", lambda: gpt.responses.create(model=f"{way}-r-{fault}", input="x", stream=True)
        yield f"{way} embeddings {fault}", lambda: gpt.embeddings.create(model=f"{way}-e-{fault}", input="x")
        yield f"{way} messages {fault}", lambda: claude.messages.create(**said)
        yield f"{way} messages stream {fault}", lambda: claude.messages.create(**said, stream=True)

for name, call in every(again, claude_again, "sync"):
    tell(name, call)

def raising(request):
    raise RuntimeError("the application's own")

def raising_response(response):
    raise KeyError("the application's own")

def client(**hooks):
    return openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=0, http_client=httpx2.Client(event_hooks=hooks))

class Transport(httpx2.BaseTransport):
    def handle_request(self, request):
        raise ZeroDivisionError("no way")

tell("request hook", lambda: client(request=[raising]).chat.completions.create(model="gpt-lab", messages=ask))
tell("response hook", lambda: client(response=[raising_response]).chat.completions.create(model="gpt-lab", messages=ask))
tell("response hook stream", lambda: client(response=[raising_response]).chat.completions.create(model="gpt-lab", messages=ask, stream=True))
tell("transport", lambda: openai.OpenAI(base_url=base + "/v1", api_key="k", max_retries=1, http_client=httpx2.Client(
    transport=Transport())).chat.completions.create(model="gpt-lab", messages=ask))
tell("no server", lambda: openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=0).responses.create(model="m", input="x"))
tell("timeout", lambda: gpt.with_options(timeout=0.2).chat.completions.create(model="gpt-hang", messages=ask))
tell("timeout stream", lambda: gpt.with_options(timeout=1.0).chat.completions.create(model="gpt-lab-stall", messages=ask, stream=True))
tell("messages timeout", lambda: claude.with_options(timeout=0.2).messages.create(model="claude-hang", max_tokens=9, messages=ask))
tell("500", lambda: gpt.chat.completions.create(model="gpt-500", messages=ask))
tell("messages 500", lambda: claude.messages.create(model="claude-500", max_tokens=9, messages=ask))
tell("bad argument", lambda: gpt.chat.completions.create(model="gpt-lab"))
tell("unserializable", lambda: gpt.chat.completions.create(model="gpt-lab", messages=[object()]))
tell("no model", lambda: gpt.chat.completions.create(model=None, messages=ask))
tell("other route", lambda: gpt.models.list())
tell("post", lambda: gpt.post("/chat/completions", cast_to=object, body={"model": "gpt-lab", "messages": ask}))
tell("types", lambda: [type(gpt.chat.completions.create(model="gpt-lab", messages=ask)).__name__,
                       isinstance(gpt.chat.completions.create(model="gpt-lab", messages=ask, stream=True), openai.Stream)])

def application_raises():
    for chunk in gpt.chat.completions.create(model="gpt-lab", messages=ask, stream=True):
        raise LookupError("in the loop")
tell("application raises", application_raises)

def events():
    with gpt.chat.completions.stream(model="gpt-lab", messages=ask) as stream:
        return [event.type for event in stream]
tell("events", events)

def reentered():
    stream = gpt.chat.completions.create(model="gpt-lab", messages=ask, stream=True)
    stream.close()
    return [len(list(stream)), stream.response.is_closed, stream.response.status_code]
tell("read after close", reentered)

async def main():
    agpt = openai.AsyncOpenAI(base_url=base + "/v1", api_key="k", max_retries=2)
    aclaude = anthropic.AsyncAnthropic(base_url=base, api_key="k", max_retries=2)
    for name, call in every(agpt, aclaude, "async"):
        await atell(name, call)
    async def eat():
        return [chunk async for chunk in await agpt.chat.completions.create(model="gpt-hang", messages=ask, stream=True)]
    await atell("async timeout", lambda: asyncio.wait_for(eat(), 0.2))
    await agpt.close()
    await aclaude.close()
asyncio.run(main())
print(json.dumps(without_ids(told), default=str))
"""
)


@pytest.fixture(scope="module")
def bare() -> dict[str, Any]:
    with ProviderServer() as provider:
        seen: dict[str, Any] = json.loads(service(FAULTY, provider, DOWN).stdout)
    assert len(seen) == 8 * len(ENDING) * 2 + 20
    # What the cases are there for does happen.
    assert seen["sync chat garbage"][0][0] in ("JSONDecodeError", "UnicodeDecodeError", "APIResponseValidationError")
    assert seen["sync chat stream midline"][-1][0] == "APIConnectionError"
    assert seen["sync chat stream short"][-1] == "end"
    assert seen["sync chat stream event"][-1][0] == "APIError"
    assert seen["sync messages stream event"][-1][0] == "APIStatusError"
    assert seen["sync chat negative"][0]["usage"]["prompt_tokens"] == -1200
    assert seen["transport"][0][0] == "ZeroDivisionError"
    return seen


@pytest.fixture(scope="module")
def metered() -> Iterator[tuple[dict[str, Any], dict[str, ReceivedSpan], str]]:
    """What the application saw, the spans by case, and what was logged."""
    with ProviderServer() as provider, SpanReceiver() as receiver:
        done = service(METERED + FAULTY, provider, receiver.url)
        spans = {str(span.attributes["tallystick.feature"]): span for span in receiver.spans}
        assert len(spans) + 1 == len(receiver.spans), "`types` makes two"
        yield json.loads(done.stdout), spans, done.stderr


def difference(bare: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    assert seen.keys() == bare.keys()
    return {name: (bare[name][-3:], seen[name][-3:]) for name in bare if seen[name] != bare[name]}


def test_the_application_sees_no_difference(
    bare: dict[str, Any], metered: tuple[dict[str, Any], dict[str, ReceivedSpan], str]
) -> None:
    seen, _, logged = metered
    different = difference(bare, seen)
    assert not different, different
    lines = [line for line in logged.splitlines() if line.startswith("tallystick")]
    assert len(lines) == len(set(lines)) <= 3, "each thing once"
    assert "secret" not in logged


def test_with_usage_asked_for_and_the_server_away_it_sees_no_difference_either(bare: dict[str, Any]) -> None:
    with ProviderServer() as provider:
        done = service(METERED + FAULTY, provider, DOWN, TALLYSTICK_STREAM_USAGE="ask", OTEL_EXPORTER_OTLP_TIMEOUT="0.2")
        asked = [call for call in provider.calls if call.request_model == "sync-negative" and call.streamed]
    assert all(call.usage_sent for call in asked), "the provider was asked"
    different = difference(bare, json.loads(done.stdout))
    assert not different, different


def test_no_count_that_is_none_is_sent(metered: tuple[dict[str, Any], dict[str, ReceivedSpan], str]) -> None:
    _, spans, _ = metered
    for name, span in spans.items():
        for key, value in span.attributes.items():
            if key.startswith(("gen_ai.usage.", "anthropic.usage.")):
                assert isinstance(value, int), (name, key, value)
                assert value >= 0, (name, key, value)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_retries_after_a_429_are_counted_and_one_span(
    metered: tuple[dict[str, Any], dict[str, ReceivedSpan], str], way: str
) -> None:
    _, spans, _ = metered
    for case in ("chat", "responses", "embeddings", "messages"):
        span = spans[f"{way} {case} again"]
        assert span.attributes["tallystick.retries"] == 1, case
        assert span.attributes["tallystick.usage_source"] == "provider"


def test_what_was_refused_used_nothing_and_what_broke_is_not_known(
    metered: tuple[dict[str, Any], dict[str, ReceivedSpan], str],
) -> None:
    _, spans, _ = metered
    assert spans["500"].attributes["tallystick.usage_source"] == "none"
    assert spans["messages 500"].attributes["tallystick.usage_source"] == "none"
    for case in ("timeout", "no server", "request hook", "transport", "messages timeout"):
        assert "tallystick.usage_source" not in spans[case].attributes, case
