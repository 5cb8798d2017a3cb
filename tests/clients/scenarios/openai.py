"""openai: chat completions, responses and embeddings; plain and async, streamed, helpers, tools, failures."""

import asyncio
import gc
import json
from functools import cache
from typing import Any

import openai
from pydantic import BaseModel

ASK = [{"role": "user", "content": "a secret question"}]
USAGE = {"include_usage": True}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]

KNOWN = [
    (
        "*",
        "helper_parse",
        "tokens",
        "The answer isn't of the shape asked for: the client raises, and its instrumentation sees no usage.",
    ),
]
"""Run, scenario, check, and why it fails there."""


class Answer(BaseModel):
    words: str


@cache
def _client(provider: str, **more: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{provider}/v1", api_key="sk-of-a-provider", **{"max_retries": 0, **more})


def _aclient(provider: str) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{provider}/v1", api_key="sk-of-a-provider", max_retries=0)


def create(provider: str) -> object:
    return _client(provider).chat.completions.create(model="gpt-lab", messages=ASK)


async def acreate(provider: str) -> object:
    async with _aclient(provider) as client:
        return await client.chat.completions.create(model="gpt-lab-reason", messages=ASK)


def stream(provider: str) -> object:
    found = _client(provider).chat.completions.create(model="gpt-lab", messages=ASK, stream=True, stream_options=USAGE)
    return [isinstance(found, openai.Stream), *found]


async def astream(provider: str) -> object:
    async with _aclient(provider) as client:
        found = await client.chat.completions.create(model="gpt-lab", messages=ASK, stream=True, stream_options=USAGE)
        return [isinstance(found, openai.AsyncStream), *[chunk async for chunk in found]]


def stream_without_usage(provider: str) -> object:
    return list(_client(provider).chat.completions.create(model="gpt-lab", messages=ASK, stream=True))


def helper_stream(provider: str) -> object:
    with _client(provider).chat.completions.stream(model="gpt-lab", messages=ASK, stream_options=USAGE) as found:
        return [*(event.type for event in found), found.get_final_completion()]


def helper_parse(provider: str) -> object:
    return _refused_shape(lambda: _client(provider).chat.completions.parse(model="gpt-lab", messages=ASK, response_format=Answer))


def raw_response(provider: str) -> object:
    found = _client(provider).chat.completions.with_raw_response.create(model="gpt-lab", messages=ASK)
    return [found.status_code, found.headers["x-request-id"], found.parse()]


def streaming_response(provider: str) -> object:
    chat = _client(provider).chat.completions
    with chat.with_streaming_response.create(model="gpt-lab", messages=ASK) as found:
        return [found.status_code, len(list(found.iter_lines()))]


def cached(provider: str) -> object:
    return _client(provider).chat.completions.create(model="gpt-lab-cached", messages=ASK)


def cache_written(provider: str) -> object:
    return _client(provider).chat.completions.create(model="gpt-lab-cw", messages=ASK)


def cached_stream(provider: str) -> object:
    return list(
        _client(provider).chat.completions.create(model="gpt-lab-cached", messages=ASK, stream=True, stream_options=USAGE)
    )


def tools(provider: str) -> object:
    return _client(provider).chat.completions.create(model="gpt-lab-tools", messages=ASK, tools=TOOLS)


def cancelled(provider: str) -> object:
    with _client(provider).chat.completions.create(model="gpt-lab-slow", messages=ASK, stream=True) as found:
        return [next(found), next(found), next(found)]


def abandoned(provider: str) -> object:
    found = _client(provider).chat.completions.create(model="gpt-lab-slow", messages=ASK, stream=True)
    got = [next(found), next(found)]
    del found
    gc.collect()
    return got


async def acancelled(provider: str) -> object:
    got: list[object] = []

    async def read() -> None:
        async with _aclient(provider) as client:
            async for chunk in await client.chat.completions.create(model="gpt-lab-slow", messages=ASK, stream=True):
                got.append(chunk)
                if len(got) == 2:
                    reading.cancel()
                    await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    try:
        await reading
    except asyncio.CancelledError:
        got.append("cancelled")
    return got


def responses(provider: str) -> object:
    return _client(provider).responses.create(model="gpt-lab-cached", input="a secret question")


async def aresponses_stream(provider: str) -> object:
    async with _aclient(provider) as client:
        return [event async for event in await client.responses.create(model="gpt-lab-reason", input="a secret", stream=True)]


def responses_helper_stream(provider: str) -> object:
    with _client(provider).responses.stream(model="gpt-lab", input="a secret question") as found:
        return [*(event.type for event in found), found.get_final_response()]


def embeddings(provider: str) -> object:
    return _client(provider).embeddings.create(model="emb-lab", input=["a secret text", "b"])


def embeddings_raw_response(provider: str) -> object:
    return _client(provider).embeddings.with_raw_response.create(model="emb-lab", input="a secret text").parse()


def error_429(provider: str) -> object:
    return _client(provider).chat.completions.create(model="gpt-lab-429", messages=ASK)


def error_500(provider: str) -> object:
    return _client(provider).responses.create(model="gpt-lab-500", input="x")


def timeout(provider: str) -> object:
    return _client(provider, timeout=0.5).chat.completions.create(model="gpt-lab-hang", messages=ASK)


def wrong_argument(provider: str) -> object:
    return _client(provider).chat.completions.create(messages=ASK)


def _refused_shape(call: Any) -> object:
    """The provider's answer isn't of the shape asked for: the error of the client is the result."""
    try:
        return call()
    except ValueError as error:
        return [type(error), json.loads(json.dumps(str(error)[:80]))]
