"""Who is asked before a call, and what they are told at its end."""

import json
from typing import Any

import pytest
from test_collector import CLIENTS, DOWN, service

from tallystick.testing import ProviderServer

GATES = (
    "import tallystick.auto, tallystick\n"
    + CLIENTS
    + """
import asyncio, gc
from dataclasses import asdict
from tallystick.collectors.calls.request import Answered, Refusal, gates

told = {}
name = ""

class Stop(Refusal):
    pass

class Gate:
    def __init__(self):
        self.requests = []
        self.settled = []
    def admit(self, request):
        self.requests.append([request.library, request.operation, request.model, sorted(request.body), request.streamed, request.host,
                              dict(request.scope)])
        if name == "replaced":
            request.model = request.body["model"] = "gpt-lab-cw"
        if name in ("stopped", "messages stopped"):
            raise Stop("enough")
        if name == "answered":
            raise Answered("instead")
        if name == "async answered":
            async def instead():
                return "awaited"
            raise Answered(instead())
        if name == "broken gate":
            raise ZeroDivisionError("a bug")
        return None if name == "no ticket" else Ticket(self)

class Ticket:
    def __init__(self, gate):
        self.gate = gate
    def settle(self, usage, error):
        self.gate.settled.append([asdict(usage) if usage else None, type(error).__name__])
        if name == "broken ticket":
            raise ZeroDivisionError("a bug")

class Second:
    def admit(self, request):
        if name == "second stops":
            raise Stop("here too")

def case(what, call):
    global name
    name = what
    gates[:] = [Gate(), Second()]
    with tallystick.scope(customer="acme"):
        try:
            result = call()
            result = result if isinstance(result, str) else type(result).__name__
        except Exception as error:
            result = type(error).__name__
    gc.collect()
    told[what] = [gates[0].requests, gates[0].settled, result]

chat = gpt.chat.completions
def some(stream, pieces):
    for _ in range(pieces):
        next(stream)
    return "some"
said = dict(model="claude-lab-cw", max_tokens=9, messages=ask)

case("chat", lambda: chat.create(model="gpt-lab-cw", messages=ask))
case("messages", lambda: claude.messages.create(**said))
case("embeddings", lambda: gpt.embeddings.create(model="emb-lab", input="x"))
case("stream", lambda: list(chat.create(model="gpt-lab", messages=ask, stream=True, stream_options={"include_usage": True})))
case("counted", lambda: list(chat.create(model="gpt-lab", messages=ask, stream=True)))
case("dropped", lambda: some(chat.create(model="gpt-lab", messages=ask, stream=True), 3))
case("closed", lambda: (lambda stream: [some(stream, 3), stream.close()])(chat.create(model="gpt-lab", messages=ask, stream=True)))
case("unread", lambda: type(chat.create(model="gpt-lab", messages=ask, stream=True)).__name__)
case("messages dropped", lambda: some(claude.messages.create(**said, stream=True), 4))
case("raw", lambda: chat.with_raw_response.create(model="gpt-lab-cw", messages=ask))
case("429", lambda: chat.create(model="gpt-429", messages=ask))
case("retried", lambda: gpt.with_options(max_retries=3).chat.completions.create(model="gpt-again", messages=ask))
case("timeout", lambda: gpt.with_options(timeout=0.2).chat.completions.create(model="gpt-hang", messages=ask))
case("garbage", lambda: chat.create(model="gpt-garbage", messages=ask))
case("stopped", lambda: chat.create(model="gpt-lab", messages=ask))
case("messages stopped", lambda: claude.messages.create(**said))
case("second stops", lambda: chat.create(model="gpt-lab", messages=ask))
case("answered", lambda: chat.create(model="gpt-lab", messages=ask))
case("replaced", lambda: chat.create(model="gpt-lab", messages=ask))
case("broken gate", lambda: chat.create(model="gpt-lab", messages=ask))
case("broken ticket", lambda: chat.create(model="gpt-lab", messages=ask))
case("no ticket", lambda: chat.create(model="gpt-lab", messages=ask))

async def main():
    gpt = openai.AsyncOpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
    async def acase(what, coroutine):
        global name
        name = what
        gates[:] = [Gate(), Second()]
        try:
            result = await coroutine
            result = result if isinstance(result, str) else type(result).__name__
        except BaseException as error:
            result = type(error).__name__
        told[what] = [gates[0].requests, gates[0].settled, result]
    async def cancelled():
        task = asyncio.create_task(gpt.chat.completions.create(model="gpt-hang", messages=ask))
        await asyncio.sleep(0.2)
        task.cancel()
        await task
    async def cancelled_stream():
        stream = await gpt.chat.completions.create(model="gpt-slow", messages=ask, stream=True)
        async def eat():
            async for chunk in stream:
                pass
        task = asyncio.create_task(eat())
        await asyncio.sleep(0.25)
        task.cancel()
        await task
    await acase("async chat", gpt.chat.completions.create(model="gpt-lab-cw", messages=ask))
    await acase("async answered", gpt.chat.completions.create(model="gpt-lab", messages=ask))
    await acase("async cancelled", cancelled())
    await acase("async cancelled stream", cancelled_stream())
    await gpt.close()
asyncio.run(main())
print(json.dumps(told))
"""
)


@pytest.fixture(scope="module")
def provider_and_told() -> tuple[ProviderServer, dict[str, Any]]:
    with ProviderServer() as provider:
        return provider, json.loads(service(GATES, provider, DOWN).stdout)


@pytest.fixture(scope="module")
def told(provider_and_told: tuple[ProviderServer, dict[str, Any]]) -> dict[str, Any]:
    return provider_and_told[1]


def usage(*counts: int | None, source: str) -> dict[str, Any]:
    names = (
        "input_tokens",
        "cache_read_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "output_tokens",
        "reasoning_tokens",
    )
    return {**dict(zip(names, counts, strict=True)), "source": source}


def test_a_gate_is_told_what_is_about_to_be_sent(told: dict[str, Any]) -> None:
    scope = {"tallystick.customer": "acme"}
    assert told["chat"][0] == [["openai", "chat", "gpt-lab-cw", ["messages", "model"], False, "127.0.0.1", scope]]
    keys = ["max_tokens", "messages", "model", "stream"]
    assert told["messages dropped"][0] == [["anthropic", "messages", "claude-lab-cw", keys, True, "127.0.0.1", scope]]
    assert told["embeddings"][0][0][1:3] == ["embeddings", "emb-lab"]


def test_it_is_asked_once_however_often_the_library_sends(told: dict[str, Any]) -> None:
    assert all(len(requests) == 1 for requests, *_ in told.values())


@pytest.mark.parametrize(
    ("case", "settled"),
    [
        ("chat", usage(388, 512, 300, 0, 50, 0, source="provider")),
        ("async chat", usage(388, 512, 300, 0, 50, 0, source="provider")),
        ("raw", usage(388, 512, 300, 0, 50, 0, source="provider")),
        ("messages", usage(100, 1500, 500, 200, 42, None, source="provider")),
        ("embeddings", usage(8, None, None, None, 0, None, source="provider")),
        ("stream", usage(1200, 0, 0, 0, 50, 0, source="provider")),
        ("retried", usage(1200, 0, 0, 0, 50, 0, source="provider")),
        ("replaced", usage(388, 512, 300, 0, 50, 0, source="provider")),
        ("broken ticket", usage(1200, 0, 0, 0, 50, 0, source="provider")),
    ],
)
def test_the_usage_is_settled_in_buckets(told: dict[str, Any], case: str, settled: dict[str, Any]) -> None:
    assert told[case][1] == [[settled, "NoneType"]]


@pytest.mark.parametrize(
    ("case", "error"),
    [("dropped", "NoneType"), ("closed", "NoneType"), ("async cancelled stream", "CancelledError"), ("counted", "NoneType")],
)
def test_a_stream_without_usage_is_settled_with_an_estimate(told: dict[str, Any], case: str, error: str) -> None:
    ((found, failure),) = told[case][1]
    assert failure == error
    assert found["source"] == ("estimated" if case == "counted" else "partial")
    assert 1 <= found["output_tokens"] <= 8
    assert found["input_tokens"] > 1
    assert found["cache_read_tokens"] is None


def test_what_the_provider_told_of_a_stream_cut_short_is_settled(told: dict[str, Any]) -> None:
    ((found, _),) = told["messages dropped"][1]
    assert {**found, "output_tokens": None} == usage(100, 1500, 500, 200, None, None, source="partial")
    assert found["output_tokens"] > 1, "not the placeholder"


def test_of_a_stream_that_nobody_read_the_output_is_not_known(told: dict[str, Any]) -> None:
    ((found, _),) = told["unread"][1]
    assert (found["output_tokens"], found["source"]) == (None, "partial")


@pytest.mark.parametrize(
    ("case", "error"), [("timeout", "APITimeoutError"), ("garbage", "JSONDecodeError"), ("async cancelled", "CancelledError")]
)
def test_what_became_of_it_is_not_known(told: dict[str, Any], case: str, error: str) -> None:
    assert told[case][1] == [[None, error]] or case == "garbage"
    assert told[case][1][0][0] is None


def test_a_call_that_was_refused_used_nothing(told: dict[str, Any]) -> None:
    nothing = usage(0, 0, 0, 0, 0, 0, source="none")
    assert told["429"][1] == [[nothing, "RateLimitError"]]
    assert told["second stops"][1:] == [[[nothing, "Stop"]], "Stop"]


def test_a_refusal_reaches_the_application_and_nothing_is_sent(
    provider_and_told: tuple[ProviderServer, dict[str, Any]],
) -> None:
    provider, told = provider_and_told
    assert told["stopped"][1:] == [[], "Stop"]
    assert told["messages stopped"][1:] == [[], "Stop"]
    assert told["answered"][1:] == [[], "instead"]
    assert told["async answered"][1:] == [[], "awaited"]
    not_sent = {"stopped", "messages stopped", "second stops", "answered", "async answered"}
    assert len(provider.calls) == len(told) - len(not_sent) + 1, "and one retry"


def test_a_gate_or_ticket_that_fails_stops_nothing(told: dict[str, Any]) -> None:
    for case in ("broken gate", "broken ticket", "no ticket"):
        assert told[case][2] == "ChatCompletion"


def test_a_gate_may_replace_the_model(provider_and_told: tuple[ProviderServer, dict[str, Any]]) -> None:
    provider, _ = provider_and_told
    # Of `chat`, `raw`, `async chat`, and of `replaced`, which asked for gpt-lab.
    assert sum(call.request_model == "gpt-lab-cw" for call in provider.calls) == 4
