"""anthropic: messages; plain and async, streamed, helpers, tools, failures."""

import asyncio
import gc
from functools import cache
from typing import Any

import anthropic

ASK = [{"role": "user", "content": "a secret question"}]
TOOLS = [{"name": "weather", "description": "tells the weather", "input_schema": {"type": "object", "properties": {}}}]
COMMON: dict[str, Any] = {"max_tokens": 99, "messages": ASK}

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""


@cache
def _client(provider: str, **more: Any) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=provider, api_key="sk-of-a-provider", **{"max_retries": 0, **more})


def _aclient(provider: str) -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(base_url=provider, api_key="sk-of-a-provider", max_retries=0)


def create(provider: str) -> object:
    return _client(provider).messages.create(model="claude-lab", **COMMON)


async def acreate(provider: str) -> object:
    async with _aclient(provider) as client:
        return await client.messages.create(model="claude-lab-reason", **COMMON)


def stream(provider: str) -> object:
    found = _client(provider).messages.create(model="claude-lab", stream=True, **COMMON)
    return [isinstance(found, anthropic.Stream), *found]


async def astream(provider: str) -> object:
    async with _aclient(provider) as client:
        found = await client.messages.create(model="claude-lab-reason", stream=True, **COMMON)
        return [isinstance(found, anthropic.AsyncStream), *[event async for event in found]]


def helper_stream(provider: str) -> object:
    with _client(provider).messages.stream(model="claude-lab-reason", **COMMON) as found:
        return [isinstance(found, anthropic.MessageStream), *found.text_stream, found.get_final_message()]


async def ahelper_stream(provider: str) -> object:
    async with _aclient(provider) as client, client.messages.stream(model="claude-lab", **COMMON) as found:
        return [*[event.type async for event in found], await found.get_final_message()]


def raw_response(provider: str) -> object:
    found = _client(provider).messages.with_raw_response.create(model="claude-lab", **COMMON)
    return [found.status_code, found.headers["request-id"], found.parse()]


def streaming_response(provider: str) -> object:
    with _client(provider).messages.with_streaming_response.create(model="claude-lab", **COMMON) as found:
        return [found.status_code, len(list(found.iter_lines()))]


def cached(provider: str) -> object:
    return _client(provider).messages.create(model="claude-lab-cached", **COMMON)


def cache_written(provider: str) -> object:
    return _client(provider).messages.create(model="claude-lab-cw", **COMMON)


def cached_stream(provider: str) -> object:
    return list(_client(provider).messages.create(model="claude-lab-cw", stream=True, **COMMON))


def tools(provider: str) -> object:
    return _client(provider).messages.create(model="claude-lab-tools", tools=TOOLS, **COMMON)


def cancelled(provider: str) -> object:
    with _client(provider).messages.create(model="claude-lab-slow", stream=True, **COMMON) as found:
        return [next(found) for _ in range(5)]


def abandoned(provider: str) -> object:
    found = _client(provider).messages.create(model="claude-lab-slow", stream=True, **COMMON)
    got = [next(found) for _ in range(5)]
    del found
    gc.collect()
    return got


def helper_cancelled(provider: str) -> object:
    with _client(provider).messages.stream(model="claude-lab-slow", **COMMON) as found:
        return next(found.text_stream)


async def acancelled(provider: str) -> object:
    got: list[object] = []

    async def read() -> None:
        async with _aclient(provider) as client:
            async for event in await client.messages.create(model="claude-lab-slow", stream=True, **COMMON):
                got.append(event)
                if len(got) == 5:
                    reading.cancel()
                    await asyncio.sleep(0)

    reading = asyncio.create_task(read())
    try:
        await reading
    except asyncio.CancelledError:
        got.append("cancelled")
    return got


def error_429(provider: str) -> object:
    return _client(provider).messages.create(model="claude-lab-429", **COMMON)


def error_500_stream(provider: str) -> object:
    return list(_client(provider).messages.create(model="claude-lab-500", stream=True, **COMMON))


def timeout(provider: str) -> object:
    return _client(provider, timeout=0.5).messages.create(model="claude-lab-hang", **COMMON)


def wrong_argument(provider: str) -> object:
    return _client(provider).messages.create(model="claude-lab")
