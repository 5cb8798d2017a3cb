"""mistralai: chat and fill-in-the-middle completions, embeddings; plain and async, streamed, tools, failures."""

import asyncio
from typing import Any

from mistralai.client import Mistral

ASK: Any = [{"role": "user", "content": "a secret question"}]
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}]

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""


def _client(provider: str, **more: Any) -> Mistral:
    return Mistral(api_key="sk-of-a-provider", server_url=f"{provider}/mistral", **more)


def create(provider: str) -> object:
    return _client(provider).chat.complete(model="mistral-lab", messages=ASK)


async def acreate(provider: str) -> object:
    async with _client(provider) as client:
        return await client.chat.complete_async(model="mistral-lab-cached", messages=ASK)


def stream(provider: str) -> object:
    with _client(provider).chat.stream(model="mistral-lab", messages=ASK) as found:
        return [type(found), *found]


async def astream(provider: str) -> object:
    async with _client(provider) as client, await client.chat.stream_async(model="mistral-lab", messages=ASK) as found:
        return [type(found), *[event async for event in found]]


def cached(provider: str) -> object:
    return _client(provider).chat.complete(model="mistral-lab-cached", messages=ASK)


def cached_stream(provider: str) -> object:
    return list(_client(provider).chat.stream(model="mistral-lab-cached", messages=ASK))


def tools(provider: str) -> object:
    return _client(provider).chat.complete(model="mistral-lab-tools", messages=ASK, tools=TOOLS)


def tools_stream(provider: str) -> object:
    return list(_client(provider).chat.stream(model="mistral-lab-tools", messages=ASK, tools=TOOLS))


def fill_in(provider: str) -> object:
    return _client(provider).fim.complete(model="mistral-lab", prompt="a secret", suffix="question")


def cancelled(provider: str) -> object:
    with _client(provider).chat.stream(model="mistral-lab-slow", messages=ASK) as found:
        return [next(found), next(found), next(found)]


def abandoned(provider: str) -> object:
    found = _client(provider).chat.stream(model="mistral-lab-slow", messages=ASK)
    return [next(found), next(found)]


async def acancelled(provider: str) -> object:
    got: list[object] = []

    async def read() -> None:
        async with _client(provider) as client, await client.chat.stream_async(model="mistral-lab-slow", messages=ASK) as found:
            async for event in found:
                got.append(event)
                if len(got) == 3:
                    reading.cancel()

    reading = asyncio.create_task(read())
    try:
        await reading
    except asyncio.CancelledError:
        got.append("cancelled")
    return got


def embeddings(provider: str) -> object:
    return _client(provider).embeddings.create(model="emb-lab", inputs=["a", "b"])


def error_429(provider: str) -> object:
    return _client(provider).chat.complete(model="mistral-lab-429", messages=ASK)


def error_500_stream(provider: str) -> object:
    return _client(provider).chat.stream(model="mistral-lab-500", messages=ASK)


def timeout(provider: str) -> object:
    return _client(provider, timeout_ms=200).chat.complete(model="mistral-lab-hang", messages=ASK)


def wrong_argument(provider: str) -> object:
    return _client(provider).chat.complete(messages=ASK)
