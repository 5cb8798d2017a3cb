"""cohere, version 2 of its interface: chat and embeddings; plain and async, streamed, tools, failures."""

import asyncio
from collections.abc import Callable
from typing import Any

import cohere
from cohere.core.api_error import ApiError

ASK: Any = [{"role": "user", "content": "a secret question"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]
EMBED: Any = {"model": "emb-lab", "input_type": "search_query", "embedding_types": ["float"], "texts": ["a", "b"]}

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""


def _client(provider: str, **more: Any) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="sk-of-a-provider", base_url=provider, max_retries=0, **more)


def _aclient(provider: str) -> cohere.AsyncClientV2:
    return cohere.AsyncClientV2(api_key="sk-of-a-provider", base_url=provider, max_retries=0)


def create(provider: str) -> object:
    return _client(provider).chat(model="command-lab", messages=ASK)


async def acreate(provider: str) -> object:
    async with _aclient(provider) as client:
        return await client.chat(model="command-lab-cached", messages=ASK)


def stream(provider: str) -> object:
    found = _client(provider).chat_stream(model="command-lab", messages=ASK)
    return [type(found), *found]


async def astream(provider: str) -> object:
    async with _aclient(provider) as client:
        found = client.chat_stream(model="command-lab", messages=ASK)
        return [type(found), *[event async for event in found]]


def of_the_older_client(provider: str) -> object:
    return cohere.Client(api_key="sk-of-a-provider", base_url=provider).v2.chat(model="command-lab", messages=ASK)


def cached(provider: str) -> object:
    return _client(provider).chat(model="command-lab-cached", messages=ASK)


def cached_stream(provider: str) -> object:
    return list(_client(provider).chat_stream(model="command-lab-cached", messages=ASK))


def tools(provider: str) -> object:
    return _client(provider).chat(model="command-lab-tools", messages=ASK, tools=TOOLS)


def tools_stream(provider: str) -> object:
    return list(_client(provider).chat_stream(model="command-lab-tools", messages=ASK, tools=TOOLS))


def cancelled(provider: str) -> object:
    client = _client(provider)
    found = client.chat_stream(model="command-lab-slow", messages=ASK)
    got = [next(found) for _ in range(4)]
    found.close()
    return got


def abandoned(provider: str) -> object:
    client = _client(provider)
    found = client.chat_stream(model="command-lab-slow", messages=ASK)
    return [next(found) for _ in range(4)]


async def acancelled(provider: str) -> object:
    got: list[object] = []

    async def read() -> None:
        async with _aclient(provider) as client:
            async for event in client.chat_stream(model="command-lab-slow", messages=ASK):
                got.append(event)
                if len(got) == 4:
                    reading.cancel()

    reading = asyncio.create_task(read())
    try:
        await reading
    except asyncio.CancelledError:
        got.append("cancelled")
    return got


def embeddings(provider: str) -> object:
    return _client(provider).embed(**EMBED)


def error_429(provider: str) -> object:
    return _failing(lambda: _client(provider).chat(model="command-lab-429", messages=ASK))


def error_500_stream(provider: str) -> object:
    return _failing(lambda: list(_client(provider).chat_stream(model="command-lab-500", messages=ASK)))


def timeout(provider: str) -> object:
    return _client(provider, timeout=0.2).chat(model="command-lab-hang", messages=ASK)


def wrong_argument(provider: str) -> object:
    return _client(provider).chat(messages=ASK)


def _failing(call: Callable[[], object]) -> object:
    """Without the headers, which have the date and stand in the message."""
    try:
        return call()
    except ApiError as error:
        return [type(error), error.status_code, error.body, type(error.__cause__)]
