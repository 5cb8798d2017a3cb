"""The providers' real clients against the local server: what it says it served is what they were told."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tallystick.testing import USAGE_HEADER, ProviderServer, Usage

ASK: Any = [{"role": "user", "content": "a secret question"}]
WORDS = "tick tock goes the tally"
MODELS = ["gpt-lab", "gpt-lab-cached", "gpt-lab-cw", "gpt-lab-reason", "gpt-lab-audio"]


@pytest.fixture(scope="module")
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as running:
        yield running


@pytest.fixture(scope="module")
def gpt(server: ProviderServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.openai_url, api_key="provider-key", max_retries=0)


@pytest.fixture(scope="module")
def claude(server: ProviderServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=server.url, api_key="provider-key", max_retries=0)


def truth(server: ProviderServer) -> Usage:
    usage = server.calls[-1].usage
    assert usage is not None
    return usage


def check_chat_usage(told: Any, true: Usage) -> None:
    assert told.prompt_tokens == true.input + true.cache_read + true.cache_write_5m + true.cache_write_1h
    assert told.completion_tokens == true.output
    assert told.prompt_tokens_details.cached_tokens == true.cache_read
    assert told.prompt_tokens_details.cache_write_tokens == true.cache_write_5m
    assert told.prompt_tokens_details.audio_tokens == true.audio_input
    assert told.completion_tokens_details.reasoning_tokens == true.reasoning
    assert told.completion_tokens_details.audio_tokens == true.audio_output


@pytest.mark.parametrize("model", MODELS)
def test_chat(server: ProviderServer, gpt: openai.OpenAI, model: str) -> None:
    answer = gpt.chat.completions.create(model=model, messages=ASK)
    assert answer.choices[0].message.content == WORDS
    check_chat_usage(answer.usage, truth(server))
    call = server.calls[-1]
    assert (answer.id, answer.model, call.status, call.usage_sent) == (call.response_id, call.response_model, 200, True)


@pytest.mark.parametrize("model", MODELS)
def test_chat_stream(server: ProviderServer, gpt: openai.OpenAI, model: str) -> None:
    chunks = list(gpt.chat.completions.create(model=model, messages=ASK, stream=True, stream_options={"include_usage": True}))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == WORDS
    check_chat_usage(chunks[-1].usage, truth(server))
    assert server.calls[-1].usage_sent
    unasked = list(gpt.chat.completions.create(model=model, messages=ASK, stream=True))
    assert not any(chunk.usage for chunk in unasked)
    call = server.calls[-1]
    assert not call.usage_sent
    assert call.usage is not None, "the truth is known all the same"
    assert call.first_token_ns is not None
    assert call.ended_ns is not None
    assert call.started_ns <= call.first_token_ns <= call.ended_ns


@pytest.mark.parametrize("model", MODELS[:4])
def test_responses(server: ProviderServer, gpt: openai.OpenAI, model: str) -> None:
    answer = gpt.responses.create(model=model, input="x")
    with gpt.responses.stream(model=model, input="x") as stream:
        streamed = stream.get_final_response()
    true = truth(server)
    for one in (answer, streamed):
        assert one.output_text == WORDS
        assert one.usage is not None
        assert one.usage.input_tokens == true.input_total
        assert one.usage.output_tokens == true.output
        assert one.usage.input_tokens_details.cached_tokens == true.cache_read
        assert one.usage.input_tokens_details.cache_write_tokens == true.cache_write
        assert one.usage.output_tokens_details.reasoning_tokens == true.reasoning
    assert streamed.id == server.calls[-1].response_id


def test_embeddings(server: ProviderServer, gpt: openai.OpenAI) -> None:
    answer = gpt.embeddings.create(model="emb-lab", input=["x", "y"])
    assert len(answer.data) == 2
    assert answer.usage.prompt_tokens == truth(server).input_total == 8


@pytest.mark.parametrize("model", ["claude-lab", "claude-lab-cached", "claude-lab-cw", "claude-lab-reason"])
def test_messages(server: ProviderServer, claude: anthropic.Anthropic, model: str) -> None:
    answer = claude.messages.create(model=model, max_tokens=9, messages=ASK)
    with claude.messages.stream(model=model, max_tokens=9, messages=ASK) as stream:
        streamed = stream.get_final_message()
    true = truth(server)
    for one in (answer, streamed):
        assert "".join(block.text for block in one.content if block.type == "text") == WORDS
        told = one.usage
        assert told.cache_creation is not None
        assert (told.input_tokens, told.output_tokens) == (true.input, true.output)
        assert told.cache_read_input_tokens == true.cache_read
        assert told.cache_creation_input_tokens == true.cache_write
        assert told.cache_creation.ephemeral_5m_input_tokens == true.cache_write_5m
        assert told.cache_creation.ephemeral_1h_input_tokens == true.cache_write_1h
        assert (told.output_tokens_details.thinking_tokens if told.output_tokens_details else 0) == true.reasoning
    assert streamed.id == server.calls[-1].response_id


def test_any_usage_can_be_asked_for(server: ProviderServer, claude: anthropic.Anthropic) -> None:
    wanted = Usage(input=1, output=9, cache_read=2, cache_write_5m=3, cache_write_1h=4, reasoning=5)
    header = json.dumps({"input": 1, "output": 9, "cache_read": 2, "cache_write_5m": 3, "cache_write_1h": 4, "reasoning": 5})
    answer = claude.messages.create(model="c", max_tokens=9, messages=ASK, extra_headers={USAGE_HEADER: header})
    assert truth(server) == wanted
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (1, 9)


@pytest.mark.parametrize("header", ["[]", "{}", '{"input": 1}', '{"input": 1, "output": 1, "typo": 1}', "nonsense"])
def test_a_wrong_usage_header_is_said_to_be(server: ProviderServer, gpt: openai.OpenAI, header: str) -> None:
    with pytest.raises(openai.BadRequestError):
        gpt.chat.completions.create(model="gpt-lab", messages=ASK, extra_headers={USAGE_HEADER: header})


def test_failures(server: ProviderServer, gpt: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    with pytest.raises(openai.RateLimitError):
        gpt.chat.completions.create(model="gpt-429", messages=ASK)
    with pytest.raises(openai.InternalServerError):
        gpt.responses.create(model="gpt-500", input="x", stream=True)
    with pytest.raises(anthropic.RateLimitError):
        claude.messages.create(model="claude-429", max_tokens=9, messages=ASK)
    with pytest.raises(anthropic.InternalServerError):
        claude.messages.create(model="claude-500", max_tokens=9, messages=ASK)
    assert [call.status for call in server.calls[-4:]] == [429, 500, 429, 500]
    assert [call.usage for call in server.calls[-4:]] == [None] * 4
    with pytest.raises(openai.APITimeoutError):
        gpt.with_options(timeout=0.1).chat.completions.create(model="gpt-hang", messages=ASK)
    assert server.calls[-1].status is None


def test_retries_are_requests_of_their_own(server: ProviderServer) -> None:
    patient = openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=1)
    before = len(server.calls)
    with pytest.raises(openai.RateLimitError):
        patient.embeddings.create(model="emb-429", input="x")
    assert len(server.calls) - before == 2


def test_a_client_that_goes_away_was_not_told_the_usage() -> None:
    with ProviderServer(between_tokens_s=0.02) as server:
        claude = anthropic.Anthropic(base_url=server.url, api_key="k", max_retries=0)
        with claude.messages.stream(model="claude-lab", max_tokens=9, messages=ASK) as stream:
            next(iter(stream.text_stream))
        call = server.calls[0]
        while call.ended_ns is None:
            pass
        assert call.cut_short
        assert not call.usage_sent


def test_tokens_leave_when_they_are_said_to() -> None:
    with ProviderServer(first_token_s=0.05, between_tokens_s=0.01) as server:
        gpt = openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=0)
        list(gpt.chat.completions.create(model="gpt-lab", messages=ASK, stream=True))
        (call,) = server.calls
        assert call.first_token_ns is not None
        assert call.ended_ns is not None
        # Lower bounds only: a busy machine is late, never early.
        assert call.first_token_ns - call.started_ns >= 50e6
        assert call.ended_ns - call.first_token_ns >= 4 * 10e6


def test_neither_keys_nor_prompts_are_kept(server: ProviderServer, gpt: openai.OpenAI) -> None:
    gpt.chat.completions.create(model="gpt-lab", messages=ASK)
    assert "provider-key" not in repr(server.calls)
    assert "secret" not in repr(server.calls)


@pytest.mark.parametrize(("path", "body"), [("/v1/other", b"{}"), ("/v1/messages", b"x"), ("/v1/messages", b"{}")])
def test_nonsense_is_answered(server: ProviderServer, path: str, body: bytes) -> None:
    before = len(server.calls)
    request = urllib.request.Request(server.url + path, body, {"content-type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(request)
    assert answer.value.code in (400, 404)
    assert "error" in json.loads(answer.value.read())
    assert len(server.calls) == before
