"""litellm: completions and embeddings over the OpenAI library, messages over its own HTTP client."""

from typing import Any

import litellm

BY_ITSELF = "LiteLLM calls this provider by an HTTP client of its own, "
KNOWN = [
    (
        "litellm",
        "anthropic",
        "cache",
        BY_ITSELF + "and OpenInference tells cache writes of 5 minutes and of an hour as one count.",
    ),
    ("litellm", "anthropic_stream", "tokens", BY_ITSELF + "and tells OpenInference the usage of a stream that asks for it only."),
    ("litellm", "anthropic_stream*", "ttft", BY_ITSELF + "and OpenInference notes no first token."),
    *(
        (
            "litellm-underneath",
            "embeddings",
            check,
            "LiteLLM posts embeddings past the method of the library that is instrumented.",
        )
        for check in ("tokens", "scope", "one_call")
    ),
    *(
        ("litellm-underneath", "anthropic*", check, BY_ITSELF + "which nothing but an instrumentation of LiteLLM sees.")
        for check in ("tokens", "scope", "one_call")
    ),
]
"""Run, scenario, check, and why it fails there."""

litellm.telemetry = False
litellm.suppress_debug_info = True


def _openai(provider: str, model: str = "gpt-lab", **more: Any) -> dict[str, Any]:
    return _asked(f"openai/{model}", f"{provider}/v1", **more)


def _asked(model: str, base: str, **more: Any) -> dict[str, Any]:
    question = [{"role": "user", "content": "a secret question"}]
    return {"model": model, "api_base": base, "api_key": "sk-of-a-provider", "messages": question, "max_retries": 0, **more}


def completion(provider: str) -> object:
    return litellm.completion(**_openai(provider))


async def acompletion(provider: str) -> object:
    return await litellm.acompletion(**_openai(provider, "gpt-lab-reason"))


def stream(provider: str) -> object:
    return _chunks(litellm.completion(**_openai(provider, stream=True, stream_options={"include_usage": True})))


async def astream(provider: str) -> object:
    found = await litellm.acompletion(**_openai(provider, stream=True, stream_options={"include_usage": True}))
    return _chunks([chunk async for chunk in found])


def stream_without_usage(provider: str) -> object:
    return _chunks(litellm.completion(**_openai(provider, stream=True)))


def cached(provider: str) -> object:
    return litellm.completion(**_openai(provider, "gpt-lab-cached"))


def embeddings(provider: str) -> object:
    return litellm.embedding(
        model="openai/emb-lab", input=["a secret text", "b"], api_base=f"{provider}/v1", api_key="sk-of-a-provider", max_retries=0
    )


def error_429(provider: str) -> object:
    return litellm.completion(**_openai(provider, "gpt-lab-429"))


def anthropic(provider: str) -> object:
    found = litellm.completion(**_asked("anthropic/claude-lab-cw", provider, max_tokens=99))
    return [found.model, found.choices, found.usage]


def anthropic_stream(provider: str) -> object:
    return _chunks(litellm.completion(**_asked("anthropic/claude-lab", provider, max_tokens=99, stream=True)))


def anthropic_stream_with_usage(provider: str) -> object:
    asked = _asked("anthropic/claude-lab", provider, max_tokens=99, stream=True, stream_options={"include_usage": True})
    return _chunks(litellm.completion(**asked))


def _chunks(stream: Any) -> list[object]:
    """Without the time of creation, which is the client's own."""
    return [[chunk.choices[0].delta.content if chunk.choices else None, chunk.__class__.__name__] for chunk in stream]
