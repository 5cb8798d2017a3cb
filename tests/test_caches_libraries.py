"""Hits of real caches: GPTCache, LangChain's and LiteLLM's, each in a process of its own beside the real instrumentations."""

import os
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.environment import python

from tallystick.testing import ProviderServer
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

HIT = "tallystick.cache_hit"
SAVED = ("tallystick.tag.saved_input_tokens", "tallystick.tag.saved_output_tokens")


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


def run(
    script: str, provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path, **environ: str
) -> tuple[str, list[ReceivedSpan]]:
    """What the script prints, and the model spans that it exports."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_"))}
    clean |= {
        "TALLYSTICK_URL": receiver.url,
        "PROVIDER": provider.url,
        "TALLYSTICK_STRICT": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DATA": str(tmp_path),
        **environ,
    }
    code = f"import os, tallystick.auto, tallystick\n{textwrap.dedent(script)}\nassert tallystick.flush()"
    done = subprocess.run(
        [str(python("caches")), "-c", code], env=clean, capture_output=True, text=True, timeout=90, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, receiver.spans


def hits(spans: list[ReceivedSpan]) -> list[ReceivedSpan]:
    return [span for span in spans if HIT in span.attributes]


# LangChain

CHAT = """
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_openai import ChatOpenAI
model = ChatOpenAI(model="gpt-lab", base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0)
"""


def test_langchains_spans_are_marked_whoever_makes_them(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    script = """
    import asyncio
    from openinference.instrumentation.langchain import LangChainInstrumentor
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor
    LangChainInstrumentor().instrument()
    LangchainInstrumentor().instrument()
    set_llm_cache(InMemoryCache())
    with tallystick.scope(customer="acme"):
        first = model.invoke("a question")
        again = model.invoke("a question")
        later = asyncio.run(model.ainvoke("a question"))
    assert first.content == again.content == later.content
    """
    _, spans = run(CHAT + textwrap.dedent(script), provider, receiver, tmp_path)
    assert len(provider.calls) == 1
    found = hits(spans)
    # Ours is the official one, turned on by the import; the application has turned on two more.
    assert sorted(span.scope for span in found) == sorted(
        2
        * [
            "openinference.instrumentation.langchain",
            "opentelemetry.instrumentation.genai.langchain",
            "opentelemetry.instrumentation.langchain",
        ]
    )
    assert_marked(found, provider)


def assert_marked(found: list[ReceivedSpan], provider: ProviderServer) -> None:
    usage = provider.calls[0].usage
    assert usage is not None
    for span in found:
        assert span.attributes[HIT] == "response"
        assert tuple(span.attributes[name] for name in SAVED) == (str(usage.input_total), str(usage.output))
        assert span.attributes["tallystick.customer"] == "acme"


def test_langchains_caches(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    script = """
    import asyncio
    import gptcache
    from gptcache.processor.pre import get_prompt
    from gptcache.manager.factory import get_data_manager
    from langchain_community.cache import GPTCache, SQLiteCache
    from langchain_core.caches import BaseCache

    def init(cache, llm):
        cache.init(pre_embedding_func=get_prompt, data_manager=get_data_manager(data_path=os.environ["DATA"] + "/map.txt"))

    class NearlySemanticCache(BaseCache):
        def __init__(self):
            self.last = None
        def lookup(self, prompt, llm_string):
            return self.last
        def update(self, prompt, llm_string, return_val):
            self.last = return_val
        def clear(self, **kwargs):
            self.last = None

    class Broken(NearlySemanticCache):
        def lookup(self, prompt, llm_string):
            raise OSError("the cache is away")

    for cache in (InMemoryCache(), SQLiteCache(os.environ["DATA"] + "/cache.db"), GPTCache(init), NearlySemanticCache()):
        set_llm_cache(cache)
        with tallystick.scope(feature=type(cache).__name__):
            answers = [model.invoke("a question").content for _ in range(2)]
            answers.append(asyncio.run(model.ainvoke("a question")).content)
            assert len(set(answers)) == 1
    set_llm_cache(None)
    of_its_own = ChatOpenAI(model="gpt-lab", base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0, cache=InMemoryCache())
    with tallystick.scope(customer="acme"):
        of_its_own.invoke("a question")
        of_its_own.invoke("a question")
    set_llm_cache(Broken())
    try:
        model.invoke("a question")
    except OSError as error:
        print(error)
    """
    printed, spans = run(
        CHAT + textwrap.dedent(script),
        provider,
        receiver,
        tmp_path,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="genai-langchain,langchain",
    )
    assert printed.splitlines()[-1] == "the cache is away"
    assert len(provider.calls) == 5
    found = hits(spans)
    assert {span.scope for span in found} == {"tallystick"}
    # GPTCache asked by LangChain is one hit, not two.
    assert sorted((span.attributes.get("tallystick.feature"), span.attributes[HIT]) for span in found[:-1]) == [
        (name, "semantic" if name == "NearlySemanticCache" else "response")
        for name in ("GPTCache", "InMemoryCache", "NearlySemanticCache", "SQLiteCache")
        for _ in range(2)
    ]
    assert_marked(found[-1:], provider)
    assert found[-1].attributes["gen_ai.request.model"] == provider.calls[0].response_model


# GPTCache


def test_gptcache(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    script = """
    import asyncio
    from gptcache import Cache
    from gptcache.adapter.adapter import aadapt, adapt
    from gptcache.adapter.api import get, put
    from gptcache.manager import manager_factory
    from gptcache.processor.pre import get_prompt
    from gptcache.similarity_evaluation import SimilarityEvaluation

    class Similar(SimilarityEvaluation):
        def evaluation(self, src_dict, cache_dict, **_):
            return 0.9
        def range(self):
            return 0, 1

    def cache(name, **kwargs):
        made = Cache()
        made.init(pre_embedding_func=get_prompt, data_manager=manager_factory("map", data_dir=os.environ["DATA"] + "/" + name), **kwargs)
        put("a question", "an answer", cache_obj=made)
        return made

    exact, similar = cache("exact"), cache("similar", similarity_evaluation=Similar())
    first = cache("first")
    first.next_cache = exact
    put("another", "answer two", cache_obj=exact)
    with tallystick.scope(customer="acme"):
        assert get("never asked", cache_obj=exact) is None
        assert get("a question", cache_obj=exact) == "an answer"
        assert get("a question", cache_obj=similar) == "an answer"
        again = adapt(None, lambda answer: answer, lambda answer, *_, **__: answer, prompt="another", cache_obj=first)
        assert again == "answer two"
        asked = adapt(
            lambda **kwargs: 1 / 0, lambda answer: answer.upper(), lambda *_, **__: None, model="gpt-4o", prompt="a question", cache_obj=exact
        )
        assert asked == "AN ANSWER"
        async def never(**kwargs):
            raise ZeroDivisionError
        async def main():
            return await aadapt(never, lambda answer: answer, lambda *_, **__: None, model="gpt-4o", prompt="a question", cache_obj=exact)
        assert asyncio.run(main()) == "an answer"
    """
    _, spans = run(script, provider, receiver, tmp_path)
    assert [span.attributes[HIT] for span in spans] == ["response", "semantic", "response", "response", "response"]
    assert [span.attributes.get("gen_ai.request.model") for span in spans] == [None, None, None, "gpt-4o", "gpt-4o"]
    assert {span.attributes["tallystick.customer"] for span in spans} == {"acme"}


# LiteLLM


def test_litellm(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    script = """
    import asyncio, litellm
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    base = os.environ["PROVIDER"] + "/v1"
    ask = dict(model="openai/gpt-lab", api_base=base, api_key="k", max_retries=0, messages=[{"role": "user", "content": "a question"}])
    texts = dict(model="openai/emb-lab", input=["a text"], api_base=base, api_key="k", max_retries=0)
    litellm.cache = litellm.Cache()
    async def main():
        return await litellm.acompletion(**ask)
    def streamed():
        return [chunk.choices[0].delta.content for chunk in litellm.completion(**ask, stream=True)]
    with tallystick.scope(customer="acme"):
        first, again, later = litellm.completion(**ask), litellm.completion(**ask), asyncio.run(main())
        uncached = litellm.completion(**ask, cache={"no-cache": True})
    assert first.id == again.id == later.id != uncached.id
    with tallystick.scope(feature="stream"):
        assert "".join(filter(None, streamed())) == "".join(filter(None, streamed()))
    with tallystick.scope(feature="embeddings"):
        assert litellm.embedding(**texts).data == litellm.embedding(**texts).data
    from openinference.instrumentation.litellm import LiteLLMInstrumentor
    LiteLLMInstrumentor().uninstrument()
    with tallystick.scope(customer="acme", feature="bare"):
        litellm.completion(**ask)
    """
    _, spans = run(script, provider, receiver, tmp_path)
    assert len(provider.calls) == 4
    found = {str(span.attributes.get("tallystick.feature")): span for span in hits(spans)}
    assert len(hits(spans)) == 5
    assert found.keys() == {"None", "stream", "embeddings", "bare"}
    assert {span.attributes[HIT] for span in found.values()} == {"response"}
    assert {name: span.scope for name, span in found.items()} == {
        **dict.fromkeys(("None", "stream", "embeddings"), "openinference.instrumentation.litellm"),
        "bare": "tallystick",
    }
    assert_marked([span for span in hits(spans) if span.attributes.get("tallystick.feature") in {None, "bare"}], provider)
    assert found["bare"].attributes["gen_ai.request.model"] == "gpt-lab"
    assert found["bare"].attributes["gen_ai.provider.name"] == "openai"
