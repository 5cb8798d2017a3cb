"""What is metered of Google's, AWS's, Mistral's and Cohere's clients, where no instrumentation of theirs is installed: each case under
a scope of its name, in a process of its own."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from test_collector import service

from tallystick.testing import ProviderServer
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

CLIENTS = """
import json, os, warnings
warnings.simplefilter("ignore")
import boto3, cohere
import google.genai as genai
from botocore.config import Config
from botocore.eventstream import EventStream
from google.genai import types
from mistralai.client import Mistral
from mistralai.client.utils.eventstreaming import EventStream as MistralStream
base = os.environ["PROVIDER"]
google = genai.Client(api_key="provider-key", http_options=types.HttpOptions(base_url=base))
gemini = google.models
bedrock = boto3.client(
    "bedrock-runtime", region_name="us-east-1", endpoint_url=base, aws_access_key_id="k", aws_secret_access_key="k",
    config=Config(retries={"total_max_attempts": 1}),
)
mistral = Mistral(api_key="provider-key", server_url=base + "/mistral")
command = cohere.ClientV2(api_key="provider-key", base_url=base, max_retries=0)
ask = [{"role": "user", "content": "a secret question"}]
parts = [{"role": "user", "content": [{"text": "a secret question"}]}]
CLAUDE = "us.anthropic.claude-lab-cw-v1:0"
invoked = dict(modelId=CLAUDE, body=json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": ask}))
"""

CASES = (
    "import tallystick.auto, tallystick\n"
    + CLIENTS
    + """
import asyncio, gc

def case(name):
    return tallystick.scope(feature=name)

def some(stream, pieces):
    for _ in range(pieces):
        next(stream)
    return stream

def failing(name, call):
    with case(name):
        try:
            call()
        except Exception as error:
            print(type(error).__name__)

with case("google"):
    gemini.generate_content(model="gemini-lab-cached", contents="a secret question")
with case("google thinking"):
    gemini.generate_content(model="gemini-lab-reason", contents="x")
with case("google searched"):
    gemini.generate_content(model="gemini-lab-searched", contents="x")
with case("google tools"):
    gemini.generate_content(model="gemini-lab-tools", contents="x")
with case("google streamed"):
    list(gemini.generate_content_stream(model="gemini-lab-cached", contents="x"))
with case("google thinking streamed"):
    list(gemini.generate_content_stream(model="gemini-lab-reason", contents="x"))
with case("google tools streamed"):
    list(gemini.generate_content_stream(model="gemini-lab-tools", contents="x"))
with case("google closed"):
    some(gemini.generate_content_stream(model="gemini-lab", contents="x"), 3).close()
with case("google dropped"):
    some(gemini.generate_content_stream(model="gemini-lab", contents="x"), 3)
gc.collect()
with case("google embeddings"):
    gemini.embed_content(model="emb-lab", contents=["x", "y"])
failing("google 429", lambda: gemini.generate_content(model="gemini-429", contents="x"))
failing("google 500 streamed", lambda: list(gemini.generate_content_stream(model="gemini-500", contents="x")))
failing("google misused", lambda: gemini.generate_content(model="gemini-lab", contents=object()))

with case("bedrock"):
    bedrock.converse(modelId=CLAUDE, messages=parts)
with case("bedrock tools"):
    bedrock.converse(modelId="amazon.nova-tools-v1:0", messages=parts)
with case("bedrock streamed"):
    stream = bedrock.converse_stream(modelId=CLAUDE, messages=parts)["stream"]
    assert type(stream) is EventStream
    list(stream)
with case("bedrock tools streamed"):
    list(bedrock.converse_stream(modelId="amazon.nova-tools-v1:0", messages=parts)["stream"])
with case("bedrock thinking streamed"):
    list(bedrock.converse_stream(modelId="us.anthropic.claude-lab-reason-v1:0", messages=parts)["stream"])
with case("bedrock closed"):
    held = bedrock.converse_stream(modelId=CLAUDE, messages=parts)["stream"]
    some(iter(held), 3)
    held.close()
with case("bedrock dropped"):
    some(iter(bedrock.converse_stream(modelId=CLAUDE, messages=parts)["stream"]), 3)
del stream
gc.collect()
with case("bedrock invoked"):
    json.loads(bedrock.invoke_model(**invoked)["body"].read())
with case("bedrock invoked streamed"):
    list(bedrock.invoke_model_with_response_stream(**invoked)["body"])
with case("bedrock invoked nova streamed"):
    list(bedrock.invoke_model_with_response_stream(**invoked | {"modelId": "amazon.nova-lab-cached-v1:0"})["body"])
with case("bedrock invoked closed"):
    stream = bedrock.invoke_model_with_response_stream(**invoked)["body"]
    some(iter(stream), 4)
    stream.close()
with case("bedrock embeddings"):
    bedrock.invoke_model(modelId="amazon.titan-embed-lab-v2:0", body='{"inputText": "x"}')
failing("bedrock 429", lambda: bedrock.converse(modelId="nova-429", messages=parts))
failing("bedrock 500 streamed", lambda: bedrock.converse_stream(modelId="nova-500", messages=parts))

with case("mistral"):
    mistral.chat.complete(model="mistral-lab-cached", messages=ask)
with case("mistral tools"):
    mistral.chat.complete(model="mistral-lab-tools", messages=ask)
with case("mistral streamed"), mistral.chat.stream(model="mistral-lab-cached", messages=ask) as stream:
    assert type(stream) is MistralStream
    list(stream)
with case("mistral tools streamed"), mistral.chat.stream(model="mistral-lab-tools", messages=ask) as stream:
    list(stream)
with case("mistral closed"), mistral.chat.stream(model="mistral-lab", messages=ask) as stream:
    some(stream, 4)
with case("mistral dropped"):
    some(mistral.chat.stream(model="mistral-lab", messages=ask), 4)
gc.collect()
with case("mistral fill-in"):
    mistral.fim.complete(model="mistral-lab", prompt="x")
with case("mistral embeddings"):
    mistral.embeddings.create(model="emb-lab", inputs=["x"])
failing("mistral 429", lambda: mistral.chat.complete(model="mistral-429", messages=ask))
failing("mistral 500 streamed", lambda: mistral.chat.stream(model="mistral-500", messages=ask))

with case("cohere"):
    command.chat(model="command-lab-cached", messages=ask)
with case("cohere tools"):
    command.chat(model="command-lab-tools", messages=ask)
with case("cohere streamed"):
    list(command.chat_stream(model="command-lab-cached", messages=ask))
with case("cohere tools streamed"):
    list(command.chat_stream(model="command-lab-tools", messages=ask))
with case("cohere closed"):
    some(command.chat_stream(model="command-lab", messages=ask), 5).close()
with case("cohere dropped"):
    some(command.chat_stream(model="command-lab", messages=ask), 5)
gc.collect()
with case("cohere embeddings"):
    command.embed(model="emb-lab", input_type="search_query", embedding_types=["float"], texts=["x"])
failing("cohere 429", lambda: command.chat(model="command-429", messages=ask))
failing("cohere 500 streamed", lambda: list(command.chat_stream(model="command-500", messages=ask)))

async def main():
    gemini = google.aio
    mistral = Mistral(api_key="k", server_url=base + "/mistral")
    command = cohere.AsyncClientV2(api_key="k", base_url=base, max_retries=0)
    with case("async google"):
        await gemini.models.generate_content(model="gemini-lab-cached", contents="x")
    with case("async google streamed"):
        [chunk async for chunk in await gemini.models.generate_content_stream(model="gemini-lab-cached", contents="x")]
    with case("async google closed"):
        stream = await gemini.models.generate_content_stream(model="gemini-lab", contents="x")
        for _ in range(3):
            await anext(stream)
        await stream.aclose()
    with case("async google embeddings"):
        await gemini.models.embed_content(model="emb-lab", contents=["x", "y"])
    with case("async google cancelled"):
        task = asyncio.create_task(gemini.models.generate_content(model="gemini-hang", contents="x"))
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    with case("async mistral"):
        await mistral.chat.complete_async(model="mistral-lab-cached", messages=ask)
    with case("async mistral streamed"):
        async with await mistral.chat.stream_async(model="mistral-lab-cached", messages=ask) as stream:
            [chunk async for chunk in stream]
    with case("async mistral closed"):
        async with await mistral.chat.stream_async(model="mistral-lab", messages=ask) as stream:
            for _ in range(4):
                await anext(stream)
    with case("async cohere"):
        await command.chat(model="command-lab-cached", messages=ask)
    with case("async cohere streamed"):
        [event async for event in command.chat_stream(model="command-lab-cached", messages=ask)]
    with case("async cohere closed"):
        stream = command.chat_stream(model="command-lab", messages=ask)
        for _ in range(5):
            await anext(stream)
        await stream.aclose()
    with case("async cohere embeddings"):
        await command.embed(model="emb-lab", input_type="search_query", embedding_types=["float"], texts=["x"])
    await gemini.aclose()

asyncio.run(main())
from tallystick.collectors.calls import call, kept
from tallystick.collectors.start import flush, status
flush()
print(json.dumps([status().observed, status().instrumented, len(call._open), kept.used()]))
"""
)

PROVIDERS = {"google": "gcp.gemini", "bedrock": "aws.bedrock", "mistral": "mistral_ai", "cohere": "cohere"}


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
        assert len(spans) == CASES.count("case(") + CASES.count("failing(") - 3
        assert "secret" not in repr(receiver.spans)
        return spans, done.stdout.splitlines()


@pytest.fixture(scope="module")
def added(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> dict[str, dict[str, Any]]:
    """Per case what was added, by short names."""
    names = {
        "tallystick.usage_source": "source", "tallystick.first_token_kind": "kind", "tallystick.tool_calls": "tool_calls",
        "gen_ai.usage.input_tokens": "input", "gen_ai.usage.output_tokens": "output",
        "gen_ai.usage.cache_read.input_tokens": "read", "gen_ai.usage.cache_write.input_tokens": "write",
        "gen_ai.usage.reasoning.output_tokens": "reasoning", "gen_ai.request.stream": "stream", "error.type": "error",
    }  # fmt: skip
    return {
        case: {short: span.attributes[name] for name, short in names.items() if name in span.attributes}
        for case, span in ran[0].items()
    }


def test_nothing_is_left_behind(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> None:
    *errors, left = ran[1]
    observed, instrumented, open_calls, kept = json.loads(left)
    assert observed == dict.fromkeys(("boto3", "cohere", "google-genai", "mistralai"), "on")
    assert instrumented == {library: ["tallystick", "on"] for library in observed}
    assert (open_calls, kept) == (0, 0)
    assert errors == [
        "ClientError", "ServerError", "ValidationError", "ThrottlingException", "InternalServerException", "SDKError", "SDKError",
        "TooManyRequestsError", "InternalServerError",
    ]  # fmt: skip


def test_spans_are_as_the_conventions_have_them(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> None:
    for case, span in ran[0].items():
        assert span.scope == "tallystick", case
        operation, model = span.attributes["gen_ai.operation.name"], span.attributes["gen_ai.request.model"]
        assert span.name == f"{operation!s} {model!s}"
        assert span.attributes["gen_ai.provider.name"] == PROVIDERS[case.removeprefix("async ").split()[0]]
        assert span.attributes["server.address"] == "127.0.0.1"
        expected = (
            "embeddings" if "embeddings" in case
            else "generate_content" if "google" in case
            else "text_completion" if "fill-in" in case
            else "chat"
        )  # fmt: skip
        assert operation == expected, case


GOOGLE = {"source": "provider", "input": 1200, "output": 50, "read": 0, "write": 0, "reasoning": 0}
BEDROCK = {"source": "provider", "input": 2300, "output": 42, "read": 1500, "write": 700}
MISTRAL = {"source": "provider", "input": 1200, "output": 50, "read": 1024}
STREAMED = {"stream": True, "kind": "content"}
EMBEDDED = {"source": "provider", "input": 8, "output": 0}


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("google", GOOGLE | {"read": 1024}),
        ("google thinking", GOOGLE | {"output": 450, "reasoning": 400}),
        ("google searched", GOOGLE),
        ("google streamed", GOOGLE | STREAMED | {"read": 1024}),
        ("google thinking streamed", GOOGLE | STREAMED | {"output": 450, "reasoning": 400, "kind": "reasoning"}),
        ("async google", GOOGLE | {"read": 1024}),
        ("async google streamed", GOOGLE | STREAMED | {"read": 1024}),
        ("bedrock", BEDROCK),
        ("bedrock streamed", BEDROCK | STREAMED),
        (
            "bedrock thinking streamed",
            BEDROCK | STREAMED | {"input": 100, "output": 442, "read": 0, "write": 0, "kind": "reasoning"},
        ),
        ("bedrock invoked", BEDROCK),
        ("bedrock invoked streamed", BEDROCK | STREAMED),
        ("bedrock invoked nova streamed", BEDROCK | STREAMED | {"input": 2100, "read": 2000, "write": 0}),
        ("mistral", MISTRAL),
        ("mistral streamed", MISTRAL | STREAMED),
        ("async mistral", MISTRAL),
        ("async mistral streamed", MISTRAL | STREAMED),
        ("cohere", MISTRAL),
        ("cohere streamed", MISTRAL | STREAMED),
        ("async cohere", MISTRAL),
        ("async cohere streamed", MISTRAL | STREAMED),
        *((f"{one} embeddings", EMBEDDED) for one in ("google", "async google", "mistral", "cohere", "async cohere")),
    ],
)
def test_all_that_the_provider_told(added: dict[str, dict[str, Any]], case: str, expected: dict[str, Any]) -> None:
    assert added[case] == expected


@pytest.mark.parametrize("client", PROVIDERS)
def test_tool_calls(added: dict[str, dict[str, Any]], client: str) -> None:
    assert added[f"{client} tools"]["tool_calls"] == 1
    assert added[f"{client} tools streamed"]["tool_calls"] == 1
    # Cohere's says what it is about to do first.
    assert added[f"{client} tools streamed"]["kind"] == ("content" if client == "cohere" else "tool_call")


@pytest.mark.parametrize(
    ("case", "told"),
    [
        *((case, {"input": 1200, "output": 3, "read": 0}) for case in ("google closed", "google dropped", "async google closed")),
        *((case, {}) for case in ("bedrock closed", "bedrock dropped")),
        ("bedrock invoked closed", {"input": 2300, "read": 1500, "write": 700}),
        *((f"{one} {how}", {}) for one in ("mistral", "cohere") for how in ("closed", "dropped")),
        ("async mistral closed", {}),
        ("async cohere closed", {}),
    ],
)
def test_of_a_stream_cut_short_what_was_generated_so_far(
    added: dict[str, dict[str, Any]], case: str, told: dict[str, Any]
) -> None:
    found = added[case]
    assert found.items() >= (STREAMED | {"source": "partial"} | told).items()
    assert 1 <= found["output"] < 10
    assert found["input"] >= 3


def test_failures_cost_nothing(added: dict[str, dict[str, Any]], ran: tuple[dict[str, ReceivedSpan], list[str]]) -> None:
    for client in PROVIDERS:
        assert added[f"{client} 429"] == {"source": "none", "error": "429"}
        assert added[f"{client} 500 streamed"] == {"source": "none", "error": "500", "stream": True}
        assert ran[0][f"{client} 429"].status_code == 2
    assert added["google misused"] == {"error": "ValidationError"}
    assert added["async google cancelled"] == {"error": "CancelledError"}


def test_an_hour_in_the_cache_costs_more(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> None:
    attributes = ran[0]["bedrock"].attributes
    prefix = "anthropic.usage.cache_creation.ephemeral_"
    assert (attributes[f"{prefix}5m_input_tokens"], attributes[f"{prefix}1h_input_tokens"]) == (500, 200)


def test_time_to_the_first_token(ran: tuple[dict[str, ReceivedSpan], list[str]]) -> None:
    for case, span in ran[0].items():
        streamed = any(how in case for how in ("streamed", "closed", "dropped")) and "500" not in case
        assert ("tallystick.time_to_first_token" in span.attributes) == streamed, case
