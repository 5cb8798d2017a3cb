"""pydantic-ai over OpenAI: agent runs, plain, async, streamed; and with its own instrumentation turned on by the application."""

from typing import Any

import openai
from pydantic_ai import Agent
from pydantic_ai.capabilities import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""


def _agent(provider: str, model: str = "gpt-lab", kind: Any = OpenAIChatModel, **more: Any) -> Agent:
    client = openai.AsyncOpenAI(base_url=f"{provider}/v1", api_key="sk-of-a-provider", max_retries=0)
    return Agent(kind(model, provider=OpenAIProvider(openai_client=client)), **more)


def run_sync(provider: str) -> object:
    return _told(_agent(provider).run_sync("a secret question"))


async def run(provider: str) -> object:
    return _told(await _agent(provider, "gpt-lab-reason").run("a secret question"))


async def stream(provider: str) -> object:
    async with _agent(provider).run_stream("a secret question") as found:
        return [*[text async for text in found.stream_text(debounce_by=None)], found.usage]


async def responses(provider: str) -> object:
    return _told(await _agent(provider, "gpt-lab", OpenAIResponsesModel).run("a secret question"))


async def cached(provider: str) -> object:
    return _told(await _agent(provider, "gpt-lab-cached").run("a secret question"))


async def own_spans(provider: str) -> object:
    return _told(await _agent(provider, "gpt-lab-cw", capabilities=_own_spans()).run("a secret question"))


async def own_spans_stream(provider: str) -> object:
    async with _agent(provider, capabilities=_own_spans()).run_stream("a secret question") as found:
        return [*[text async for text in found.stream_text(debounce_by=None)], found.usage]


async def error_429(provider: str) -> object:
    return _told(await _agent(provider, "gpt-lab-429").run("a secret question"))


def _own_spans() -> list[Instrumentation]:
    return [Instrumentation(settings=InstrumentationSettings(include_content=False))]


def _told(found: Any) -> list[object]:
    return [found.output, found.usage]
