"""Whose spans tell of a call: the collector makes them where nothing else does."""

import json
from pathlib import Path

import pytest
from test_collector import service

from tallystick.collectors.instrumentations import OWN, choose
from tallystick.collectors.libraries import LIBRARIES
from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

OF_ITS_OWN = {one.distribution: one for one in LIBRARIES if one.own}
BEDROCK = "opentelemetry-instrumentation-genai-bedrock"

INSTRUMENTOR = """
from opentelemetry import trace
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor
import wrapt

class Instrumentor(BaseInstrumentor):
    def instrumentation_dependencies(self):
        return ()
    def _instrument(self, **kwargs):
        def complete(wrapped, instance, args, kwargs):
            attributes = {"openinference.span.kind": "LLM", "llm.model_name": kwargs["model"]}
            with trace.get_tracer("openinference.instrumentation.mistralai").start_as_current_span("complete", attributes=attributes):
                return wrapped(*args, **kwargs)
        wrapt.wrap_function_wrapper("mistralai.client.chat", "Chat.complete", complete)
    def _uninstrument(self, **kwargs):
        pass
"""
"""As that of OpenInference, which isn't installed here."""

SCRIPT = """
import tallystick.auto, json, os, sys
sys.path.insert(0, os.environ["INSTRUMENTOR"])
from tallystick.collectors.start import status
from mistralai.client import Mistral
mistral = Mistral(api_key="k", server_url=os.environ["PROVIDER"] + "/mistral")
ask = [{"role": "user", "content": "a secret question"}]
mistral.chat.complete(model="mistral-lab", messages=ask)
before = dict(status().instrumented)
if os.environ["TURNED_ON"] == "true":
    from fake_openinference import Instrumentor
    Instrumentor().instrument()
mistral.chat.complete(model="mistral-lab-cached", messages=ask)
print(json.dumps([before, status().instrumented]))
"""


@pytest.mark.parametrize("name", OF_ITS_OWN)
def test_the_collector_makes_them_where_no_instrumentation_that_it_would_turn_on_is_installed(name: str) -> None:
    library = OF_ITS_OWN[name]
    assert choose(library, "9.9", {}, frozenset(), {}).instrumentation == OWN
    assert choose(library, "9.9", dict.fromkeys(library.recognised, "x"), frozenset(), {}).instrumentation == OWN
    assert choose(library, None, {}, frozenset(), {}).instrumentation is None


@pytest.mark.parametrize("left_off", ["*", "mistralai"])
def test_left_off(left_off: str) -> None:
    found = choose(OF_ITS_OWN["mistralai"], "3.7", {}, frozenset({left_off}), {})
    assert found.instrumentation is None
    assert "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS" in found.reason


def test_the_official_one_comes_first() -> None:
    library = OF_ITS_OWN["boto3"]
    assert choose(library, "1.44", {BEDROCK: "bedrock"}, frozenset(), {}).instrumentation == BEDROCK
    assert choose(library, "1.44", {BEDROCK: "bedrock"}, frozenset({"bedrock"}), {}).instrumentation is None


@pytest.mark.parametrize("turned_on", [True, False])
def test_one_that_the_application_turns_on_later_is_left_to_tell(tmp_path: Path, turned_on: bool) -> None:
    (tmp_path / "fake_openinference.py").write_text(INSTRUMENTOR)
    facts = tmp_path / "openinference_instrumentation_mistralai-2.2.2.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: openinference-instrumentation-mistralai\nVersion: 2.2.2\n")
    (facts / "entry_points.txt").write_text("[opentelemetry_instrumentor]\nmistralai = fake_openinference:Instrumentor\n")
    with ProviderServer() as provider, SpanReceiver() as receiver:
        environ = {"PYTHONPATH": str(tmp_path), "INSTRUMENTOR": str(tmp_path), "TURNED_ON": str(turned_on).lower()}
        done = service(SCRIPT, provider, receiver.url, TALLYSTICK_STRICT="1", **environ)
        first, second = sorted(receiver.spans, key=lambda span: span.start_ns)
    before, after = json.loads(done.stdout)
    theirs = "openinference-instrumentation-mistralai"
    assert before == {"mistralai": [OWN, "on"]}
    assert after == {"mistralai": [theirs, "by the application"] if turned_on else [OWN, "on"]}
    assert first.scope == "tallystick"
    assert second.scope == ("openinference.instrumentation.mistralai" if turned_on else "tallystick")
    # What it doesn't tell is added.
    assert second.attributes["gen_ai.usage.cache_read.input_tokens"] == 1024
    assert second.attributes["gen_ai.usage.input_tokens"] == 1200


def test_a_call_without_a_span_takes_no_later_one() -> None:
    script = """
        import tallystick.auto, os
        from opentelemetry import trace
        from mistralai.client import Mistral
        mistral = Mistral(api_key="k", server_url=os.environ["PROVIDER"] + "/mistral")
        mistral.chat.complete(model="mistral-lab", messages=[{"role": "user", "content": "a secret question"}])
        with trace.get_tracer("another").start_as_current_span("chat x", attributes={"gen_ai.operation.name": "chat"}):
            pass
    """
    with ProviderServer() as provider, SpanReceiver() as receiver:
        off = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "mistralai"}
        service(script, provider, receiver.url, TALLYSTICK_STRICT="1", **off)
        (span,) = receiver.spans
    assert span.scope == "another"
    assert span.attributes == {"gen_ai.operation.name": "chat"}


def test_a_span_that_tells_of_the_call_already_gets_what_was_seen() -> None:
    script = """
        import tallystick.auto, os
        from opentelemetry import trace
        from mistralai.client import Mistral
        mistral = Mistral(api_key="k", server_url=os.environ["PROVIDER"] + "/mistral")
        with trace.get_tracer("framework").start_as_current_span("chat x", attributes={"gen_ai.operation.name": "chat"}):
            mistral.chat.complete(model="mistral-lab", messages=[{"role": "user", "content": "a secret question"}])
        with trace.get_tracer("framework").start_as_current_span("invoke_agent", attributes={"gen_ai.operation.name": "invoke_agent"}):
            mistral.chat.complete(model="mistral-lab", messages=[{"role": "user", "content": "a secret question"}])
    """
    with ProviderServer() as provider, SpanReceiver() as receiver:
        service(script, provider, receiver.url, TALLYSTICK_STRICT="1")
        found = {(span.scope, span.name, span.attributes.get("gen_ai.usage.output_tokens")) for span in receiver.spans}
        assert len(receiver.spans) == 3
    assert found == {("framework", "chat x", 50), ("framework", "invoke_agent", None), ("tallystick", "chat mistral-lab", 50)}
