"""google-genai: generated content and embeddings; plain and async, streamed, functions called by the client, failures."""

import asyncio
from typing import Any

from google import genai
from google.genai import types

ASK = "a secret question"
WEATHER = types.FunctionDeclaration(name="weather", description="tells the weather")
TOOLS = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[WEATHER])])

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""


def _client(provider: str, **more: Any) -> genai.Client:
    return genai.Client(api_key="sk-of-a-provider", http_options=types.HttpOptions(base_url=provider, **more))


def _plain(answer: Any) -> Any:
    """Without the headers, which have the date."""
    answer.sdk_http_response = None
    return answer


def create(provider: str) -> object:
    client = _client(provider)
    return _plain(client.models.generate_content(model="gemini-lab", contents=ASK))


async def acreate(provider: str) -> object:
    async with _client(provider).aio as client:
        return _plain(await client.models.generate_content(model="gemini-lab-reason", contents=ASK))


def stream(provider: str) -> object:
    client = _client(provider)
    found = client.models.generate_content_stream(model="gemini-lab", contents=ASK)
    return [type(found), *map(_plain, found)]


async def astream(provider: str) -> object:
    async with _client(provider).aio as client:
        found = await client.models.generate_content_stream(model="gemini-lab-reason", contents=ASK)
        return [type(found), *[_plain(chunk) async for chunk in found]]


def reasoning(provider: str) -> object:
    client = _client(provider)
    return _plain(client.models.generate_content(model="gemini-lab-reason", contents=ASK))


def cached(provider: str) -> object:
    client = _client(provider)
    return _plain(client.models.generate_content(model="gemini-lab-cached", contents=ASK))


def cached_stream(provider: str) -> object:
    client = _client(provider)
    return [_plain(chunk) for chunk in client.models.generate_content_stream(model="gemini-lab-cached", contents=ASK)]


def searched(provider: str) -> object:
    """What a search brought is input, told beside the prompt."""
    client = _client(provider)
    return _plain(client.models.generate_content(model="gemini-lab-searched", contents=ASK))


def chat(provider: str) -> object:
    client = _client(provider)
    return _plain(client.chats.create(model="gemini-lab").send_message(ASK))


def tools(provider: str) -> object:
    client = _client(provider)
    return _plain(client.models.generate_content(model="gemini-lab-tools", contents=ASK, config=TOOLS))


def functions_called(provider: str) -> object:
    """The client calls the function and asks again: each of its requests is a call."""

    def tick(of: str) -> str:
        return of

    config = types.GenerateContentConfig(
        tools=[tick], automatic_function_calling=types.AutomaticFunctionCallingConfig(maximum_remote_calls=3)
    )
    client = _client(provider)
    return _plain(client.models.generate_content(model="gemini-lab-tools", contents=ASK, config=config))


def cancelled(provider: str) -> object:
    client = _client(provider)
    found = client.models.generate_content_stream(model="gemini-lab-slow", contents=ASK)
    got = [_plain(next(found)), _plain(next(found))]
    found.close()
    return got


def abandoned(provider: str) -> object:
    client = _client(provider)
    found = client.models.generate_content_stream(model="gemini-lab-slow", contents=ASK)
    return [_plain(next(found)), _plain(next(found))]


async def acancelled(provider: str) -> object:
    got: list[object] = []

    async def read() -> None:
        async with _client(provider).aio as client:
            async for chunk in await client.models.generate_content_stream(model="gemini-lab-slow", contents=ASK):
                got.append(_plain(chunk))
                if len(got) == 2:
                    reading.cancel()

    reading = asyncio.create_task(read())
    try:
        await reading
    except asyncio.CancelledError:
        got.append("cancelled")
    return got


def embeddings(provider: str) -> object:
    client = _client(provider)
    return _plain(client.models.embed_content(model="emb-lab", contents=["a", "b"]))


def error_429(provider: str) -> object:
    client = _client(provider)
    return client.models.generate_content(model="gemini-lab-429", contents=ASK)


def error_500_stream(provider: str) -> object:
    client = _client(provider)
    return list(client.models.generate_content_stream(model="gemini-lab-500", contents=ASK))


def timeout(provider: str) -> object:
    client = _client(provider, timeout=200)
    return client.models.generate_content(model="gemini-lab-hang", contents=ASK)


def wrong_argument(provider: str) -> object:
    client = _client(provider)
    return client.models.generate_content(model="gemini-lab")
