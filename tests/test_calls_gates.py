"""Gates are asked for calls of Google's, AWS's, Mistral's and Cohere's clients, and told how they ended."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_calls_methods import CLIENTS
from test_collector import service

from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

SCRIPT = (
    "import tallystick.auto, tallystick\n"
    + CLIENTS
    + """
import asyncio, gc
from tallystick.collectors.calls.request import Answered, Refusal, gates

told = {}

class Stop(Refusal):
    pass

class Ticket:
    def __init__(self, case):
        self.case = case
    def settle(self, usage, error):
        assert told.setdefault(self.case, (usage, error)) == (usage, error), "once"

class Gate:
    def admit(self, request):
        assert request.host == "127.0.0.1"
        assert request.scope["tallystick.feature"]
        case = request.scope["tallystick.feature"]
        print(json.dumps([case, request.library, request.operation, request.model, request.streamed]))
        if "stopped" in case:
            raise Stop("no more")
        if "answered" in case:
            # google-genai looks into what it returns.
            answer = types.GenerateContentResponse(response_id="instead") if request.library == "google-genai" else "instead"
            raise Answered([answer] if request.streamed else answer)
        if "replaced" in case:
            request.model = request.body["model"] = request.model.replace("large", "lab")
        return Ticket(case)

gates.append(Gate())
clients = {
    "google": lambda model: gemini.generate_content(model=f"gemini-{model}", contents="a secret question"),
    "google streamed": lambda model: list(gemini.generate_content_stream(model=f"gemini-{model}", contents="x")),
    "bedrock": lambda model: bedrock.converse(modelId=f"nova-{model}", messages=parts),
    "bedrock streamed": lambda model: list(bedrock.converse_stream(modelId=f"nova-{model}", messages=parts)["stream"]),
    "bedrock invoked": lambda model: bedrock.invoke_model(modelId=f"nova-{model}", body=invoked["body"]),
    "mistral": lambda model: mistral.chat.complete(model=f"mistral-{model}", messages=ask),
    "mistral streamed": lambda model: list(mistral.chat.stream(model=f"mistral-{model}", messages=ask)),
    "cohere": lambda model: command.chat(model=f"command-{model}", messages=ask),
    "cohere streamed": lambda model: list(command.chat_stream(model=f"command-{model}", messages=ask)),
}
for name, call in clients.items():
    with tallystick.scope(feature=name):
        call("lab-cached")
    with tallystick.scope(feature=f"{name} replaced"):
        call("large-cached")
    with tallystick.scope(feature=f"{name} stopped"):
        try:
            call("lab")
            raise SystemExit(name)
        except Stop:
            pass
    with tallystick.scope(feature=f"{name} failed"):
        try:
            call("429")
            raise SystemExit(name)
        except Exception:
            pass
    gc.collect()
for name in ("google", "bedrock", "mistral", "cohere"):
    with tallystick.scope(feature=f"{name} answered"):
        answer = clients[name]("lab")
        assert getattr(answer, "response_id", answer) == "instead"
for name in ("google streamed", "mistral streamed", "cohere streamed"):
    with tallystick.scope(feature=f"{name} answered"):
        (answer,) = clients[name]("lab")
        assert getattr(answer, "response_id", answer) == "instead"
with tallystick.scope(feature="cut"):
    stream = gemini.generate_content_stream(model="gemini-lab", contents="x")
    next(stream), next(stream)
    stream.close()

async def main():
    with tallystick.scope(feature="async"):
        await google.aio.models.generate_content(model="gemini-lab", contents="x")
    with tallystick.scope(feature="async stopped"):
        try:
            await mistral.chat.complete_async(model="mistral-lab", messages=ask)
            raise SystemExit("async")
        except Stop:
            pass

asyncio.run(main())
plain = {
    case: [usage and [usage.input_tokens, usage.cache_read_tokens, usage.output_tokens, usage.source], error and type(error).__name__]
    for case, (usage, error) in told.items()
}
print(json.dumps(plain))
"""
)


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(scope="module")
def printed(provider: ProviderServer) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per case what the gate was asked, and what its ticket was told."""
    with SpanReceiver() as receiver:
        lines = service(SCRIPT, provider, receiver.url, TALLYSTICK_STRICT="1").stdout.splitlines()
        for span in receiver.spans:
            stopped = str(span.attributes["tallystick.feature"]).endswith(("stopped", "answered"))
            assert (span.attributes.get("tallystick.usage_source") == "none") == (
                stopped or "failed" in str(span.attributes["tallystick.feature"])
            )
    *asked, told = [json.loads(line) for line in lines]
    return {case: rest for case, *rest in asked}, told


def test_what_a_gate_is_asked(printed: tuple[dict[str, Any], dict[str, Any]]) -> None:
    asked, _ = printed
    assert asked["google"] == ["google-genai", "generate_content", "gemini-lab-cached", False]
    assert asked["google streamed"] == ["google-genai", "generate_content", "gemini-lab-cached", True]
    assert asked["bedrock"] == ["boto3", "converse", "nova-lab-cached", False]
    assert asked["bedrock streamed"] == ["boto3", "converse", "nova-lab-cached", True]
    assert asked["bedrock invoked"] == ["boto3", "invoke_model", "nova-lab-cached", False]
    assert asked["mistral"] == ["mistralai", "chat", "mistral-lab-cached", False]
    assert asked["cohere streamed"] == ["cohere", "chat", "command-lab-cached", True]


USED = {"google": [176, 1024, 50], "bedrock": [100, 2000, 42], "mistral": [176, 1024, 50], "cohere": [176, 1024, 50]}


def test_a_ticket_is_told_the_usage_once(printed: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, told = printed
    for case in ("google", "google streamed", "bedrock", "bedrock streamed", "bedrock invoked", "mistral", "cohere streamed"):
        assert told[case] == told[f"{case} replaced"] == [[*USED[case.split()[0]], "provider"], None]
    assert told["cut"] == [[1200, 0, 2, "partial"], None]
    assert told["async"] == [[1200, 0, 50, "provider"], None]
    for case in ("google failed", "bedrock streamed failed", "mistral streamed failed", "cohere failed"):
        usage, error = told[case]
        assert usage == [0, 0, 0, "none"]
        assert error is not None
    assert not any("stopped" in case or "answered" in case for case in told)


def test_what_a_gate_stops_or_answers_itself_is_not_sent(
    printed: tuple[dict[str, Any], dict[str, Any]], provider: ProviderServer
) -> None:
    sent = [call.request_model for call in provider.calls]
    assert not any("large" in model for model in sent), "another model was sent in its place"
    assert len(sent) == 9 * 3 + 2
