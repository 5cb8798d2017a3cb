"""What an application samples out: its exporters see what they saw before, and no model call goes unmetered."""

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from test_collector import APP, ONE_CALL, service

from tallystick.collectors.processor import is_model_span
from tallystick.collectors.provider import MadeProvider
from tallystick.collectors.sampling import record_unsampled
from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

OPENAI: Final = "opentelemetry.instrumentation.genai.openai"
MODEL: Final = {"gen_ai.request.model": "gpt-lab"}


class Seen(SpanProcessor):
    """Looks at no flag, as some processors of applications don't."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[ReadableSpan] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self.started.append(span.name)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)

    def model_spans(self) -> list[str]:
        return [span.name for span in self.ended if is_model_span(span.attributes or ())]


class Numbered(IdGenerator):
    """The same ids in each run; traces at both ends of the range, so that a ratio takes some."""

    def __init__(self) -> None:
        self._last = 0

    def generate_span_id(self) -> int:
        self._last += 1
        return self._last

    def generate_trace_id(self) -> int:
        self._last += 1
        return (self._last * 0x9E3779B97F4A7C15) % (1 << 128) or 1


class Bands(sampling.Sampler):
    """An application's own: by name, with all three decisions, and without the argument that came last."""

    def should_sample(  # type: ignore[override]
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
    ) -> sampling.SamplingResult:
        decision = list(sampling.Decision)[len(name) % 3]
        return sampling.SamplingResult(decision, attributes if decision is not sampling.Decision.DROP else None)

    def get_description(self) -> str:
        return "Bands"


SAMPLERS: Final[dict[str, Callable[[], sampling.Sampler]]] = {
    "off": lambda: sampling.ALWAYS_OFF,
    "on": lambda: sampling.ALWAYS_ON,
    "ratio": lambda: sampling.TraceIdRatioBased(0.5),
    "parent": lambda: sampling.ParentBased(sampling.TraceIdRatioBased(0.5)),
    "parent off": lambda: sampling.DEFAULT_OFF,
    "own": Bands,
}

REMOTE_UNSAMPLED: Final = trace.set_span_in_context(
    NonRecordingSpan(SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=True, trace_flags=TraceFlags(0)))
)

Tree = tuple[str, bool, Sequence[Any]]
"""Scope of the tracer, whether the span starts with a model's attributes, and its children."""

trees: st.SearchStrategy[Tree] = st.recursive(
    st.tuples(st.sampled_from(["app", OPENAI, "db.driver"]), st.booleans(), st.just(())),
    lambda children: st.tuples(st.sampled_from(["app", OPENAI]), st.booleans(), st.lists(children, max_size=3)),
    max_leaves=8,
)


def run(provider: trace.TracerProvider, tree: Tree, context: Context | None, seen: list[tuple[str, bool]]) -> None:
    scope, modelled, children = tree
    name = scope.rpartition(".")[2] + "+" * modelled
    with provider.get_tracer(scope).start_as_current_span(name, context, attributes=MODEL if modelled else None) as span:
        if scope == OPENAI:
            span.set_attributes(MODEL)
        seen.append((name, span.get_span_context().trace_flags.sampled))
        for child in children:
            run(provider, child, None, seen)


def exported(processor: InMemorySpanExporter) -> list[Any]:
    return [json.loads(span.to_json()) | {"start_time": 0, "end_time": 0} for span in processor.get_finished_spans()]


@given(trees, st.sampled_from(list(SAMPLERS)), st.sampled_from([None, REMOTE_UNSAMPLED]), st.booleans())
def test_the_applications_spans_are_the_same_and_ours_are_all(
    tree: Tree, sampler: str, context: Context | None, tracer_first: bool
) -> None:
    told = []
    ours = Seen()
    for metered in (False, True):
        provider = TracerProvider(sampler=SAMPLERS[sampler](), id_generator=Numbered(), shutdown_on_exit=False)
        exporter, theirs, flags = InMemorySpanExporter(), Seen(), list[tuple[str, bool]]()
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        provider.add_span_processor(theirs)
        if tracer_first:
            provider.get_tracer(OPENAI)
        if metered:
            provider.add_span_processor(ours)
            record_unsampled(provider, ours)
        run(provider, tree, context, flags)
        told.append((flags, exported(exporter), theirs.started, [span.name for span in theirs.ended]))
        assert provider.sampler.get_description() == SAMPLERS[sampler]().get_description()
    assert told[0] == told[1], "names, ids, parents, order and flags, and which spans any other processor is shown"
    models = [name for name, _ in told[1][0] if name.startswith("openai") or name.endswith("+")]
    assert sorted(ours.model_spans()) == sorted(models), "each once"


def test_a_batch_processor_exports_none_of_them() -> None:
    exporter, ours = InMemorySpanExporter(), Seen()
    provider = TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    record_unsampled(provider, ours)
    provider.get_tracer(OPENAI).start_span("chat").end()
    provider.force_flush()
    assert exporter.get_finished_spans() == ()
    assert [span.name for span in ours.ended] == ["chat"]
    provider.shutdown()


def test_a_span_keeps_its_attributes_and_its_parents_trace() -> None:
    ours = Seen()
    provider = TracerProvider(sampler=sampling.DEFAULT_OFF, shutdown_on_exit=False)
    record_unsampled(provider, ours)
    with provider.get_tracer("app").start_as_current_span("GET /") as parent:
        assert not parent.is_recording(), "not a model's: as before"
        with provider.get_tracer(OPENAI).start_as_current_span("chat", attributes=MODEL) as chat:
            chat.set_attribute("gen_ai.usage.input_tokens", 3)
    (span,) = ours.ended
    assert span.attributes == MODEL | {"gen_ai.usage.input_tokens": 3}
    assert span.parent == parent.get_span_context()
    assert span.context is not None
    assert not span.context.trace_flags.sampled
    assert span.context.trace_id == parent.get_span_context().trace_id


def test_a_tracer_is_changed_once() -> None:
    ours = Seen()
    provider = TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False)
    for _ in range(3):
        record_unsampled(provider, ours)
        provider.get_tracer(OPENAI)
    provider.get_tracer(OPENAI).start_span("chat").end()
    assert ours.started == ["chat"]


def test_the_provider_that_we_make_does_the_same() -> None:
    ours = Seen()
    made = MadeProvider(ours, sampling.ALWAYS_OFF)
    early = made.get_tracer(OPENAI)
    early.start_span("before").end()
    successor = TracerProvider(sampler=sampling.ALWAYS_OFF, shutdown_on_exit=False)
    made.make_way(successor)
    early.start_span("after").end()
    made.get_tracer(OPENAI).start_span("later").end()
    made.get_tracer("app").start_span("no model's").end()
    assert ours.started == ["before", "after", "later"]


@pytest.fixture
def servers() -> Iterator[tuple[ProviderServer, SpanReceiver]]:
    with ProviderServer() as provider, SpanReceiver() as receiver:
        yield provider, receiver


ASKED = """
with trace.get_tracer("app").start_as_current_span("GET /checkout"):
    call()
print(json.dumps([span.name for span in seen.get_finished_spans()]))
"""


@pytest.mark.parametrize("later", [False, True], ids=["set before the import", "set after it"])
def test_a_service_that_samples_nothing_is_metered(servers: tuple[ProviderServer, SpanReceiver], later: bool) -> None:
    parts = ["\ntrace.set_tracer_provider(provider)\n", "\nimport tallystick.auto\n"]
    script = APP.replace("TracerProvider(", "TracerProvider(sampler=sampling.ALWAYS_OFF, ", 1).replace(
        "TracerProvider\n", "TracerProvider, sampling\n", 1
    )
    done = service(
        script + "".join(reversed(parts) if later else parts) + ONE_CALL + ASKED,
        servers[0],
        servers[1].url,
        TALLYSTICK_STRICT="1",
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    (span,) = servers[1].spans
    assert span.attributes["gen_ai.usage.input_tokens"]
    assert span.parent_span_id


def test_a_sampler_of_the_environment_costs_no_call(servers: tuple[ProviderServer, SpanReceiver]) -> None:
    service(
        "import tallystick.auto\n" + ONE_CALL + "call()\ncall()",
        *(servers[0], servers[1].url),
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0",
        TALLYSTICK_STRICT="1",
    )
    assert len(servers[1].spans) == len(servers[0].calls) == 2
