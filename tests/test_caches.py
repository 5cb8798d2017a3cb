"""`tallystick.cache_hit`: what it marks, and what the ledger makes of it."""

import asyncio
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import otlp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from server import CLEAN, Server

import tallystick
from tallystick.collectors.caches import hit as hits
from tallystick.collectors.caches.hit import Hit, asking


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    monkeypatch.setenv("TALLYSTICK_STRICT", "1")
    yield exporter
    provider.shutdown()


def only(spans: InMemorySpanExporter) -> ReadableSpan:
    (span,) = spans.get_finished_spans()
    return span


def test_a_hit_is_a_span_of_its_own(spans: InMemorySpanExporter) -> None:
    tallystick.cache_hit("semantic", model="gpt-4o", provider="openai", input_tokens=900, output_tokens=80, similarity=0.93)
    span = only(spans)
    assert span.name == "chat gpt-4o"
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o",
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.output_tokens": 80,
        "tallystick.cache_hit": "semantic",
        "tallystick.cache_similarity": 0.93,
        "tallystick.tag.saved_input_tokens": "900",
        "tallystick.tag.saved_output_tokens": "80",
    }


def test_what_is_unknown_is_left_out(spans: InMemorySpanExporter) -> None:
    tallystick.cache_hit("response")
    assert dict(only(spans).attributes or {}) == {"gen_ai.operation.name": "chat", "tallystick.cache_hit": "response"}


@pytest.mark.parametrize(
    ("scope", "attributes", "marked"),
    [
        ("opentelemetry.instrumentation.genai.openai", {"gen_ai.operation.name": "chat"}, True),
        ("app", {"openinference.span.kind": "LLM"}, True),
        # OpenInference writes the kind at the end.
        ("openinference.instrumentation.openai", {}, True),
        ("openinference.instrumentation.langchain", {}, False),
        ("openinference.instrumentation.openai", {"openinference.span.kind": "CHAIN"}, False),
        ("opentelemetry.instrumentation.genai.openai_agents", {"gen_ai.operation.name": "invoke_agent"}, False),
        ("app", {"http.route": "/checkout"}, False),
        ("com.anthropic.sdk", {"gen_ai.operation.name": "chat"}, True),
    ],
)
def test_the_span_of_a_call_is_marked_and_no_other(
    scope: str, attributes: dict[str, Any], marked: bool, spans: InMemorySpanExporter
) -> None:
    with trace.get_tracer(scope).start_as_current_span("outer", attributes=attributes):
        tallystick.cache_hit("response", model="m")
    found = {span.name: span for span in spans.get_finished_spans()}
    assert found.keys() == {"outer"} if marked else {"outer", "chat m"}
    assert ("tallystick.cache_hit" in (found["outer"].attributes or {})) == marked


def test_a_cache_that_asks_another_tells_of_one_hit(spans: InMemorySpanExporter) -> None:
    with asking() as inner:
        tallystick.cache_hit("semantic", similarity=0.9)
    assert [(one.kind, one.similarity) for one in inner] == [("semantic", 0.9)]
    assert spans.get_finished_spans() == ()

    async def asked() -> list[Hit]:
        with asking() as found:
            await asyncio.sleep(0)
            tallystick.cache_hit("response")
            return found

    async def both() -> list[list[Hit]]:
        return list(await asyncio.gather(asked(), asked()))

    assert [len(found) for found in asyncio.run(both())] == [1, 1]


@settings(deadline=None)
@given(st.text(), st.none() | st.integers() | st.text(max_size=3), st.none() | st.floats() | st.text(max_size=3))
def test_nothing_wrong_reaches_the_application(kind: Any, tokens: Any, similarity: Any) -> None:
    tallystick.cache_hit(kind, model=similarity, input_tokens=tokens, similarity=similarity)


def test_without_a_collector_it_does_nothing() -> None:
    script = "import tallystick; tallystick.cache_hit('response', model='gpt-4o')"
    done = subprocess.run([sys.executable, "-c", script], env=CLEAN, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_hit_carries_the_scope_and_costs_nothing(server: Server) -> None:
    key = server.key("cache-hits")
    script = """
        import tallystick.auto, tallystick
        from opentelemetry import trace
        with tallystick.scope(customer="acme", feature="search"):
            tallystick.cache_hit("response", model="gpt-4o", provider="openai", input_tokens=1000, output_tokens=100)
            tallystick.cache_hit("semantic", similarity=0.9)
            with trace.get_tracer("opentelemetry.instrumentation.genai.openai").start_as_current_span("chat gpt-4o") as span:
                span.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.provider.name": "openai"})
                tallystick.cache_hit("response", input_tokens=5)
                span.set_attributes({"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 7})
        assert tallystick.flush()
    """
    environ = {**CLEAN, "TALLYSTICK_URL": server.url, "TALLYSTICK_KEY": key, "TALLYSTICK_STRICT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environ, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    entered = server.sql(
        "SELECT cache_hit, usage_source, toString(cost_usd) AS cost, input_tokens, output_tokens, status, customer, request_model, "
        "tags['saved_input_tokens'] AS saved FROM charges ORDER BY cache_hit, saved DESC",
        key,
    )
    nothing = {"usage_source": "none", "input_tokens": 0, "output_tokens": 0, "status": "ok", "customer": "acme"}
    assert [{name: row[name] for name in nothing} for row in entered] == [nothing] * 3
    assert {Decimal(row["cost"]) for row in entered} == {Decimal(0)}
    assert [(row["cache_hit"], row["request_model"], row["saved"]) for row in entered] == [
        ("response", "gpt-4o", "5"),
        ("response", "gpt-4o", "1000"),
        ("semantic", "", ""),
    ]
    page = (Path(__file__).parent.parent / "docs" / "collector.md").read_text(encoding="utf-8")
    (query,) = re.findall(r"```sql\n(.*?)```", page.partition("## Application caches")[2], re.DOTALL)
    saved = {row["cache_hit"]: (row["hits"], Decimal(row["saved_usd"])) for row in server.sql(query, key)}
    # gpt-4o: 2.50 and 10 USD a million.
    assert saved == {"response": (2, Decimal(1005) * Decimal("2.5e-6") + 100 * Decimal("1e-5")), "semantic": (1, Decimal(0))}


def test_the_answer_of_a_cache_is_another_call_than_the_one_it_was_made_for(server: Server) -> None:
    """It has that one's id and usage, as LiteLLM's instrumentation reports them, and starts a moment after it."""
    key = server.key("cache-hits-again")
    start = time.time_ns() - 60_000_000_000
    both = {"gen_ai.response.id": "chatcmpl-cached-1"}
    call = otlp.span("cached answer", "call", start_ns=start, attributes=both)
    hit = otlp.span(
        "cached answer", "hit", start_ns=start + 1_100_000_000, attributes=both | {"tallystick.cache_hit": "response"}
    )
    # Whatever else is said of it.
    told = otlp.span(
        "another", "told", start_ns=start, attributes={"tallystick.cache_hit": "semantic", "tallystick.usage_source": "provider"}
    )
    server.post_all([otlp.request(call, hit, told)], key)
    server.post_all([otlp.request(hit)], key)
    entered = server.sql("SELECT cache_hit, calls, usage_source, toString(cost_usd) AS cost FROM charges ORDER BY cache_hit", key)
    assert [(row["cache_hit"], row["calls"], row["usage_source"], Decimal(row["cost"])) for row in entered] == [
        ("", 1, "provider", Decimal("0.00021")),
        ("response", 1, "none", Decimal(0)),
        ("semantic", 1, "none", Decimal(0)),
    ]


def test_names_of_calls_are_those_of_the_ledger() -> None:
    """What normalise.sql takes for a call, a hit may mark."""
    from importlib.resources import files

    sql = files("tallystick.schema").joinpath("sql/normalise.sql").read_text(encoding="utf-8")
    (operations,) = [line for line in sql.splitlines() if "operation_name IN ('chat'" in line]
    (kinds,) = [line for line in sql.splitlines() if "span_kind IN ('LLM'" in line]
    named = {word for line in (operations, kinds) for word in line.split("'")[1::2]}
    assert named >= hits.CALLS
