"""llama-index over OpenAI: chat and completion, plain, async, streamed."""

from typing import Any

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI

TWICE = (
    "OpenInference ends the span of a stream before the request is sent: it is another call, and nothing ties the two together."
)
KNOWN = [
    *(("llama-index-beside", "*stream_chat", check, TWICE) for check in ("ttft", "one_call")),
    *(("llama-index-beside", "stream_without_usage", check, TWICE) for check in ("tokens", "ttft", "one_call")),
]
"""Run, scenario, check, and why it fails there."""

ASK = [ChatMessage(role="user", content="a secret question")]


def _model(provider: str, *words: str, **more: Any) -> OpenAI:
    # Known by its name: llama-index refuses models that it doesn't know.
    model = OpenAI(model="gpt-4o-mini", api_base=f"{provider}/v1", api_key="sk-of-a-provider", max_retries=0, **more)
    return model


def chat(provider: str) -> object:
    return _model(provider).chat(ASK)


async def achat(provider: str) -> object:
    return await _model(provider).achat(ASK)


def complete(provider: str) -> object:
    return _model(provider).complete("a secret question")


def stream_chat(provider: str) -> object:
    usage = {"stream_options": {"include_usage": True}}
    return [one.delta for one in _model(provider, additional_kwargs=usage).stream_chat(ASK)]


async def astream_chat(provider: str) -> object:
    usage = {"stream_options": {"include_usage": True}}
    return [one.delta async for one in await _model(provider, additional_kwargs=usage).astream_chat(ASK)]


def stream_without_usage(provider: str) -> object:
    return [one.delta for one in _model(provider).stream_chat(ASK)]


def cached(provider: str) -> object:
    usage = {"x-tallystick-usage": '{"input": 176, "output": 50, "cache_read": 1024}'}
    return _model(provider, default_headers=usage).chat(ASK)
