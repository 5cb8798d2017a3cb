"""Google's, AWS's, Mistral's and Cohere's real clients against the local server: what it says it served is what they were told."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import cohere
import google.genai as genai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ReadTimeoutError
from cohere.core.api_error import ApiError
from google.genai import errors, types
from mistralai.client import Mistral
from mistralai.client.errors import SDKError

from tallystick.testing import ProviderServer, ServedCall, Usage

WORDS = "tick tock goes the tally"
ASK: Any = [{"role": "user", "content": "a secret question"}]
ASK_BEDROCK: Any = [{"role": "user", "content": [{"text": "a secret question"}]}]


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture(scope="module")
def gemini(server: ProviderServer) -> genai.Client:
    return genai.Client(api_key="provider-key", http_options=types.HttpOptions(base_url=server.url))


@pytest.fixture(scope="module")
def bedrock(server: ProviderServer) -> Any:
    return _bedrock(server, 10)


def _bedrock(server: ProviderServer, read_timeout_s: float) -> Any:
    return boto3.client(
        "bedrock-runtime",
        region_name="us-east-1",
        endpoint_url=server.url,
        aws_access_key_id="provider-key",
        aws_secret_access_key="provider-key",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=read_timeout_s),
    )


@pytest.fixture(scope="module")
def mistral(server: ProviderServer) -> Mistral:
    return Mistral(api_key="provider-key", server_url=server.mistral_url)


@pytest.fixture(scope="module")
def command(server: ProviderServer) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="provider-key", base_url=server.url, max_retries=0)


def served(server: ProviderServer) -> tuple[ServedCall, Usage]:
    call = server.calls[-1]
    assert call.usage is not None
    assert call.status == 200
    assert call.usage_sent
    if call.streamed:
        assert call.first_token_ns is not None
        assert call.ended_ns is not None
        assert call.started_ns <= call.first_token_ns <= call.ended_ns
    return call, call.usage


GEMINI = ["gemini-lab", "gemini-lab-cached", "gemini-lab-reason", "gemini-lab-audio", "gemini-lab-searched"]


@pytest.mark.parametrize("model", GEMINI)
def test_google(server: ProviderServer, gemini: genai.Client, model: str) -> None:
    answer = gemini.models.generate_content(model=model, contents="a secret question")
    chunks = list(gemini.models.generate_content_stream(model=model, contents="a secret question"))
    assert answer.text == "".join(chunk.text or "" for chunk in chunks) == WORDS
    call, true = served(server)
    assert (chunks[-1].response_id, chunks[-1].model_version) == (call.response_id, call.response_model)
    for one in (answer, chunks[-1]):
        told = one.usage_metadata
        assert told is not None
        assert (told.prompt_token_count or 0) + (told.tool_use_prompt_token_count or 0) == true.input_total
        assert (told.candidates_token_count or 0) + (told.thoughts_token_count or 0) == true.output
        assert (told.cached_content_token_count or 0, told.thoughts_token_count or 0) == (true.cache_read, true.reasoning)
        assert told.total_token_count == true.input_total + true.output
        assert told.prompt_tokens_details is not None
        modalities = {one.modality: one.token_count for one in told.prompt_tokens_details}
        assert modalities.get(types.MediaModality.AUDIO, 0) == true.audio_input


def test_google_tool_calls_and_embeddings(server: ProviderServer, gemini: genai.Client) -> None:
    answer = gemini.models.generate_content(model="gemini-lab-tools", contents="x")
    (streamed,) = gemini.models.generate_content_stream(model="gemini-lab-tools", contents="x")
    for one in (answer, streamed):
        assert one.function_calls is not None
        assert [call.name for call in one.function_calls] == ["tick"]
    embedded = gemini.models.embed_content(model="emb-lab", contents=["x", "y"])
    assert embedded.embeddings is not None
    assert len(embedded.embeddings) == 2
    assert embedded.usage_metadata is not None
    assert embedded.usage_metadata.prompt_token_count == served(server)[1].input_total == 8


CLAUDES = [f"us.anthropic.claude-lab{word}-v1:0" for word in ("", "-cached", "-cw", "-reason")]


def check_bedrock_usage(told: Any, true: Usage) -> None:
    assert (told["inputTokens"], told["outputTokens"]) == (true.input, true.output)
    assert (told["cacheReadInputTokens"], told["cacheWriteInputTokens"]) == (true.cache_read, true.cache_write)
    lifetimes = {detail["ttl"]: detail["inputTokens"] for detail in told["cacheDetails"]}
    assert (lifetimes.get("5m", 0), lifetimes.get("1h", 0)) == (true.cache_write_5m, true.cache_write_1h)
    assert told["totalTokens"] == true.input_total + true.output


@pytest.mark.parametrize("model", CLAUDES)
def test_converse(server: ProviderServer, bedrock: Any, model: str) -> None:
    answer = bedrock.converse(modelId=model, messages=ASK_BEDROCK)
    assert answer["output"]["message"]["content"][-1] == {"text": WORDS}
    call, true = served(server)
    assert call.request_model == model
    assert answer["ResponseMetadata"]["RequestId"] == call.response_id
    check_bedrock_usage(answer["usage"], true)
    events = list(bedrock.converse_stream(modelId=model, messages=ASK_BEDROCK)["stream"])
    deltas = [event["contentBlockDelta"]["delta"] for event in events if "contentBlockDelta" in event]
    assert "".join(delta.get("text", "") for delta in deltas) == WORDS
    check_bedrock_usage(events[-1]["metadata"]["usage"], served(server)[1])


@pytest.mark.parametrize("model", CLAUDES)
def test_invoke_model_of_anthropic(server: ProviderServer, bedrock: Any, model: str) -> None:
    body = json.dumps({"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9, "messages": ASK})
    answer = bedrock.invoke_model(modelId=model, body=body)
    told = json.loads(answer["body"].read())
    call, true = served(server)
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    assert told["content"][-1]["text"] == WORDS
    assert (told["id"], told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (
        call.response_id,
        true.input,
        true.output,
    )
    assert int(headers["x-amzn-bedrock-input-token-count"]) == true.input
    assert int(headers["x-amzn-bedrock-cache-read-input-token-count"]) == true.cache_read
    streamed = bedrock.invoke_model_with_response_stream(modelId=model, body=body)["body"]
    events = [json.loads(event["chunk"]["bytes"]) for event in streamed]
    _, true = served(server)
    assert [event["type"] for event in events][-2:] == ["message_delta", "message_stop"]
    metrics = events[-1]["amazon-bedrock-invocationMetrics"]
    assert (metrics["inputTokenCount"], metrics["outputTokenCount"]) == (true.input, true.output)
    assert (metrics["cacheReadInputTokenCount"], metrics["cacheWriteInputTokenCount"]) == (true.cache_read, true.cache_write)


def test_invoke_model_of_amazon(server: ProviderServer, bedrock: Any) -> None:
    body = json.dumps({"messages": ASK_BEDROCK})
    told = json.loads(bedrock.invoke_model(modelId="amazon.nova-lab-cached-v1:0", body=body)["body"].read())
    _, true = served(server)
    assert (told["usage"]["inputTokens"], told["usage"]["cacheReadInputTokenCount"]) == (true.input, true.cache_read)
    streamed = bedrock.invoke_model_with_response_stream(modelId="amazon.nova-lab-v1:0", body=body)["body"]
    events = [json.loads(event["chunk"]["bytes"]) for event in streamed]
    assert events[-1]["metadata"]["usage"]["outputTokens"] == served(server)[1].output
    told = json.loads(bedrock.invoke_model(modelId="amazon.titan-embed-lab-v2:0", body='{"inputText": "x"}')["body"].read())
    assert told["inputTextTokenCount"] == served(server)[1].input_total == 8


def test_bedrock_tool_calls(bedrock: Any) -> None:
    answer = bedrock.converse(modelId="amazon.nova-tools-v1:0", messages=ASK_BEDROCK)
    assert answer["stopReason"] == "tool_use"
    assert answer["output"]["message"]["content"][0]["toolUse"]["input"] == {"of": "tally"}
    events = list(bedrock.converse_stream(modelId="amazon.nova-tools-v1:0", messages=ASK_BEDROCK)["stream"])
    assert [event["contentBlockStart"]["start"]["toolUse"]["name"] for event in events if "contentBlockStart" in event] == [
        "tick"
    ]


@pytest.mark.parametrize("model", ["mistral-lab", "mistral-lab-cached"])
def test_mistral(server: ProviderServer, mistral: Mistral, model: str) -> None:
    answer: Any = mistral.chat.complete(model=model, messages=ASK)
    with mistral.chat.stream(model=model, messages=ASK) as stream:
        chunks = [event.data for event in stream]
    call, true = served(server)
    assert answer.choices[0].message.content == "".join(str(chunk.choices[0].delta.content) for chunk in chunks) == WORDS
    assert (chunks[-1].id, chunks[-1].model) == (call.response_id, call.response_model)
    for told in (answer.usage, chunks[-1].usage):
        assert told is not None
        assert (told.prompt_tokens, told.completion_tokens) == (true.input_total, true.output)
        details = told.additional_properties.get("prompt_tokens_details", {})
        assert details.get("cached_tokens", 0) == true.cache_read


def test_mistral_tool_calls_and_embeddings(server: ProviderServer, mistral: Mistral) -> None:
    answer: Any = mistral.chat.complete(model="mistral-lab-tools", messages=ASK)
    with mistral.chat.stream(model="mistral-lab-tools", messages=ASK) as stream:
        deltas = [event.data.choices[0].delta for event in stream]
    for tool_calls in (answer.choices[0].message.tool_calls, deltas[1].tool_calls):
        assert tool_calls
        assert [call.function.name for call in tool_calls] == ["tick"]
    embedded = mistral.embeddings.create(model="emb-lab", inputs=["x", "y"])
    assert len(embedded.data) == 2
    assert embedded.usage.prompt_tokens == served(server)[1].input_total == 8


@pytest.mark.parametrize("model", ["command-lab", "command-lab-cached"])
def test_cohere(server: ProviderServer, command: cohere.ClientV2, model: str) -> None:
    answer: Any = command.chat(model=model, messages=ASK)
    events: list[Any] = list(command.chat_stream(model=model, messages=ASK))
    call, true = served(server)
    assert answer.message.content[0].text == WORDS
    assert "".join(one.delta.message.content.text for one in events if one.type == "content-delta") == WORDS
    assert events[0].id == call.response_id
    for told in (answer.usage, events[-1].delta.usage):
        assert (told.billed_units.input_tokens, told.billed_units.output_tokens) == (true.input_total, true.output)
        assert told.cached_tokens == true.cache_read
        assert told.tokens.input_tokens > true.input_total


def test_cohere_tool_calls_and_embeddings(server: ProviderServer, command: cohere.ClientV2) -> None:
    answer = command.chat(model="command-lab-tools", messages=ASK)
    assert answer.message.tool_calls
    events: list[Any] = list(command.chat_stream(model="command-lab-tools", messages=ASK))
    assert [one.delta.message.tool_calls.function.name for one in events if one.type == "tool-call-start"] == ["tick"]
    embedded: Any = command.embed(model="emb-lab", input_type="search_query", embedding_types=["float"], texts=["x", "y"])
    assert len(embedded.embeddings.float_) == 2
    assert embedded.meta.billed_units.input_tokens == served(server)[1].input_total == 8


@pytest.mark.parametrize("status", [429, 500])
def test_failures(
    server: ProviderServer, gemini: genai.Client, bedrock: Any, mistral: Mistral, command: cohere.ClientV2, status: int
) -> None:
    before = len(server.calls)
    with pytest.raises(errors.APIError) as google_error:
        gemini.models.generate_content(model=f"gemini-{status}", contents="x")
    assert google_error.value.code == status
    with pytest.raises(ClientError) as aws_error:
        bedrock.converse_stream(modelId=f"nova-{status}", messages=ASK_BEDROCK)
    assert aws_error.value.response["Error"]["Code"] == {429: "ThrottlingException", 500: "InternalServerException"}[status]
    with pytest.raises(SDKError) as mistral_error:
        mistral.chat.complete(model=f"mistral-{status}", messages=ASK)
    assert mistral_error.value.status_code == status
    with pytest.raises(ApiError) as cohere_error:
        command.chat(model=f"command-{status}", messages=ASK)
    assert cohere_error.value.status_code == status
    assert [call.status for call in server.calls[before:]] == [status] * 4
    assert [call.usage for call in server.calls[before:]] == [None] * 4


def test_hanging(server: ProviderServer) -> None:
    with pytest.raises(ReadTimeoutError):
        _bedrock(server, 0.1).converse(modelId="nova-hang", messages=ASK_BEDROCK)
    assert server.calls[-1].status is None


def test_a_stream_that_is_dropped_was_not_told_the_usage() -> None:
    with ProviderServer(between_tokens_s=0.02) as server:
        events = _bedrock(server, 10).converse_stream(modelId="nova-lab", messages=ASK_BEDROCK)["stream"]
        next(iter(events))
        events.close()
        call = server.calls[0]
        while call.ended_ns is None:
            pass
        assert call.cut_short
        assert not call.usage_sent


def test_keys_are_not_kept(
    server: ProviderServer, gemini: genai.Client, bedrock: Any, mistral: Mistral, command: cohere.ClientV2
) -> None:
    gemini.models.generate_content(model="gemini-lab", contents="a secret question")
    bedrock.converse(modelId="nova-lab", messages=ASK_BEDROCK)
    mistral.chat.complete(model="mistral-lab", messages=ASK)
    command.chat(model="command-lab", messages=ASK)
    assert "provider-key" not in repr(server.calls)
    assert "secret" not in repr(server.calls)
