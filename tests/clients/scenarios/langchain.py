"""langchain-openai: chat models and embeddings, plain and async, streamed, in a chain."""

from typing import Any

from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

KNOWN: list[tuple[str, str, str, str]] = []
"""Run, scenario, check, and why it fails there."""


def _model(provider: str, model: str = "gpt-lab", **more: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=f"{provider}/v1", api_key="sk-of-a-provider", **{"max_retries": 0, **more})


def invoke(provider: str) -> object:
    return _model(provider).invoke("a secret question")


async def ainvoke(provider: str) -> object:
    return await _model(provider, "gpt-lab-reason").ainvoke("a secret question")


def stream(provider: str) -> object:
    return list(_model(provider, stream_usage=True).stream("a secret question"))


async def astream(provider: str) -> object:
    return [chunk async for chunk in _model(provider, stream_usage=True).astream("a secret question")]


def stream_without_usage(provider: str) -> object:
    return list(_model(provider, stream_usage=False).stream("a secret question"))


def chain(provider: str) -> object:
    return (ChatPromptTemplate.from_template("a {word} question") | _model(provider)).invoke({"word": "secret"})


def batch(provider: str) -> object:
    return _model(provider).batch(["a secret question", "another"], config={"max_concurrency": 1})


def responses(provider: str) -> object:
    return _model(provider, use_responses_api=True).invoke("a secret question")


def cached(provider: str) -> object:
    return _model(provider, "gpt-lab-cached").invoke("a secret question")


def cache_written_stream(provider: str) -> object:
    return list(_model(provider, "gpt-lab-cw", stream_usage=True).stream("a secret question"))


def cancelled(provider: str) -> object:
    found = _model(provider, "gpt-lab-slow", stream_usage=False).stream("a secret question")
    return [next(found), next(found), found.close()]


def embeddings(provider: str) -> object:
    known: dict[str, Any] = {"check_embedding_ctx_length": False, "max_retries": 0}
    return OpenAIEmbeddings(model="emb-lab", base_url=f"{provider}/v1", api_key="sk-of-a-provider", **known).embed_documents(
        ["a secret text", "b"]
    )


def error_429(provider: str) -> object:
    return _model(provider, "gpt-lab-429").invoke("a secret question")
