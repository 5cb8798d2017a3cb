"""Requests to a vLLM engine inside the process. The engine is a stand-in with vLLM's own names: the real one was run by tests/clients/record_vllm.py."""

import gc
import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tallystick.collectors.calls import vllm


class SamplingParams:
    max_tokens = 8


class PoolingParams:
    pass


@dataclass
class Output:
    """As vLLM's RequestOutput, as far as it is read."""

    request_id: str
    finished: bool = True
    prompt_token_ids: list[int] | None = field(default_factory=lambda: [1] * 100)
    num_cached_tokens: int | None = 64
    outputs: Any = field(default_factory=lambda: [SimpleNamespace(token_ids=[1] * 5, finish_reason="length")])
    metrics: Any = None


class LLMEngine:
    """As vLLM's, as far as it is used; `steps` is what its steps put out."""

    def __init__(self, served: Any = "tiny") -> None:
        self.model_config = SimpleNamespace(served_model_name=served, model="/models/tiny")
        self.steps: list[list[Output]] = []
        self.aborted: list[str] = []

    def add_request(self, request_id: str, prompt: Any, params: Any) -> str:
        if prompt is None:
            raise ValueError("no prompt")
        return request_id

    def step(self) -> list[Output]:
        return self.steps.pop(0)

    def abort_request(self, request_ids: list[str], internal: bool = False) -> None:
        self.aborted += request_ids


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    monkeypatch.setenv("TALLYSTICK_STRICT", "1")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    return exporter


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> type[LLMEngine]:
    """The class as it is in a process where vLLM was imported after the collector."""
    module = ModuleType(vllm.MODULE)
    observed = type("LLMEngine", (LLMEngine,), {name: vars(LLMEngine)[name] for name in ("add_request", "step", "abort_request")})
    module.LLMEngine = observed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, vllm.MODULE, module)
    vllm.watch()
    return observed


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_request(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    one = engine()
    one.steps = [[Output("0", finished=False)], [Output("0", metrics=SimpleNamespace(first_token_latency=0.25))]]
    assert one.add_request("0", "a prompt", SamplingParams()) == "0"
    assert one.step()[0].finished is False
    assert not spans.get_finished_spans()
    assert one.step()[0].request_id == "0"
    span = only(spans)
    assert span.name == "text_completion tiny"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "tiny",
        "gen_ai.response.model": "tiny",
        "gen_ai.request.max_tokens": 8,
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 64,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.response.finish_reasons": ("length",),
        "gen_ai.response.time_to_first_chunk": 0.25,
    }


def test_several_answers_to_one_prompt(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    one = engine(["alias", "other"])
    one.steps = [[Output("0", outputs=[SimpleNamespace(token_ids=[1] * n, finish_reason="stop") for n in (3, 4)])]]
    one.add_request("0", "a prompt", SamplingParams())
    one.step()
    attributes = only(spans).attributes or {}
    assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (100, 7)
    assert attributes["gen_ai.request.model"] == "alias"


def test_an_embedding(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    one = engine(None)
    one.steps = [[Output("0", outputs=SimpleNamespace(data=[0.1]))]]
    one.add_request(request_id="0", prompt="a text", params=PoolingParams())  # as keywords, too
    one.step()
    span = only(spans)
    assert span.name == "embeddings /models/tiny"
    assert (span.attributes or {})["gen_ai.usage.output_tokens"] == 0


def test_a_request_that_is_refused(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    with pytest.raises(ValueError, match="no prompt"):
        engine().add_request("0", None, SamplingParams())
    span = only(spans)
    assert (span.attributes or {})["error.type"] == "ValueError"
    assert "gen_ai.usage.output_tokens" not in (span.attributes or {})


def test_a_request_that_is_aborted(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    one = engine()
    one.add_request("0", "a prompt", SamplingParams())
    one.abort_request(["0", "unknown"])
    assert one.aborted == ["0", "unknown"]
    assert (only(spans).attributes or {})["error.type"] == "aborted"


def test_engines_number_their_requests_each_from_0(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    one, other = engine("one"), engine("other")
    for each in (one, other):
        each.steps = [[Output("0")]]
        each.add_request("0", "a prompt", SamplingParams())
    other.step()
    assert (only(spans).attributes or {})["gen_ai.request.model"] == "other"
    # Two answers with one id would be taken for one call.
    assert "gen_ai.response.id" not in (only(spans).attributes or {})


def test_an_engine_that_is_dropped_keeps_nothing(spans: InMemorySpanExporter, engine: type[LLMEngine]) -> None:
    one = engine()
    one.add_request("0", "a prompt", SamplingParams())
    assert one in vllm._open
    before = len(vllm._open)
    del one
    gc.collect()
    assert len(vllm._open) == before - 1


def test_what_can_t_be_read_harms_nobody(
    spans: InMemorySpanExporter, engine: type[LLMEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTICK_STRICT", "0")
    one = engine()
    one.steps = [[Output("0", prompt_token_ids=None, num_cached_tokens=None, outputs=[SimpleNamespace()])]]
    one.add_request("0", "a prompt", SamplingParams())
    assert one.step()[0].request_id == "0"
    assert only(spans).name == "text_completion tiny"


def test_an_engine_of_another_make(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("TALLYSTICK_STRICT", raising=False)
    module = ModuleType(vllm.MODULE)
    module.LLMEngine = type("LLMEngine", (), {"step": lambda self: []})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, vllm.MODULE, module)
    vllm.watch()
    assert "add_request" in caplog.text
