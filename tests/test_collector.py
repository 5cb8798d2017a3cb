"""`import tallystick.auto` in a service of its own process, with the real client libraries."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tallystick.collectors.carriers.baggage import is_attribution
from tallystick.testing import ProviderServer, ServedCall
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

DOWN = "http://127.0.0.1:9"
"""The discard port: nothing listens."""

CLIENTS = """
import json, os, sys
import openai, anthropic
base = os.environ["PROVIDER"]
gpt = openai.OpenAI(base_url=base + "/v1", api_key="provider-key", max_retries=0)
claude = anthropic.Anthropic(base_url=base, api_key="provider-key", max_retries=0)
ask = [{"role": "user", "content": "a secret question"}]
"""


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


def service(
    script: str | tuple[str, ...], provider: ProviderServer | None, server: str, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Runs `script` as a service would run, with nothing of OpenTelemetry or tallystick in its environment but this."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_", "ANTHROPIC_"))}
    clean |= {"TALLYSTICK_URL": server, "PROVIDER": provider.url if provider else "", **environ}
    code = "\n".join(map(textwrap.dedent, (script,) if isinstance(script, str) else script))
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def tokens(span: ReceivedSpan) -> Mapping[str, object]:
    names = {
        "input": "input_tokens",
        "output": "output_tokens",
        "cache_read": "cache_read.input_tokens",
        "cache_write": "cache_write.input_tokens",
        "reasoning": "reasoning.output_tokens",
    }
    return {short: span.attributes.get(f"gen_ai.usage.{name}", 0) for short, name in names.items()}


def truth(call: ServedCall) -> Mapping[str, object]:
    assert call.usage is not None
    return {
        "input": call.usage.input_total,
        "output": call.usage.output,
        "cache_read": call.usage.cache_read,
        "cache_write": call.usage.cache_write,
        "reasoning": call.usage.reasoning,
    }


def test_a_service_is_metered_by_one_import(provider: ProviderServer, receiver: SpanReceiver) -> None:
    done = service(
        (
            "import tallystick.auto, tallystick",
            CLIENTS,
            """
        import asyncio, threading
        from opentelemetry import trace

        with tallystick.scope(customer="acme", feature="sync", env="prod"):
            with trace.get_tracer("app").start_as_current_span("GET /checkout"):
                gpt.chat.completions.create(model="gpt-lab-cached", messages=ask)
                list(gpt.chat.completions.create(model="gpt-lab", messages=ask, stream=True,
                                                 stream_options={"include_usage": True}))
                gpt.responses.create(model="gpt-lab-reason", input="x")
                list(gpt.responses.create(model="gpt-lab-cw", input="x", stream=True))
                gpt.embeddings.create(model="emb-lab", input="x")
                claude.messages.create(model="claude-lab-cw", max_tokens=9, messages=ask)
                with claude.messages.stream(model="claude-lab-reason", max_tokens=9, messages=ask) as stream:
                    stream.get_final_message()

        @tallystick.scope(feature="decorated")
        async def call(client, customer):
            async with tallystick.scope(customer=customer):
                await client.chat.completions.create(model="gpt-lab", messages=ask)

        async def main():
            client = openai.AsyncOpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
            await asyncio.gather(*(call(client, f"c{number}") for number in range(5)))
            await client.close()

        asyncio.run(main())

        def work(number):
            with tallystick.scope(feature="thread", customer=f"t{number}"):
                claude.messages.create(model="claude-lab", max_tokens=9, messages=ask)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        """,
        ),
        provider,
        receiver.url,
        TALLYSTICK_KEY="the-key",
        TALLYSTICK_STRICT="1",
        OTEL_RESOURCE_ATTRIBUTES="service.name=shop",
    )
    assert done.stderr == ""
    assert len(provider.calls) == 7 + 5 + 3
    by_id = {call.response_id: call for call in provider.calls}
    # One span of each call, told apart by the id of the response; embeddings have none.
    assert len(receiver.spans) == len(provider.calls)
    seen = {str(span.attributes["gen_ai.response.id"]): span for span in receiver.spans if "embeddings" not in span.name}
    assert by_id.keys() - seen.keys() == {call.response_id for call in provider.calls if call.path == "/v1/embeddings"}
    for response_id, span in seen.items():
        assert tokens(span) == truth(by_id[response_id]), span
    assert {span.resource["service.name"] for span in receiver.spans} == {"shop"}
    scopes = sorted(
        (str(span.attributes["tallystick.feature"]), str(span.attributes["tallystick.customer"])) for span in receiver.spans
    )
    assert scopes == sorted(
        [("sync", "acme")] * 7
        + [("decorated", f"c{number}") for number in range(5)]
        + [("thread", f"t{number}") for number in range(3)]
    )
    assert {span.attributes.get("tallystick.tag.env") for span in receiver.spans} == {"prod", None}
    assert {headers["authorization"] for headers in receiver.headers} == {"Bearer the-key"}
    assert "secret" not in repr(receiver.spans), "no prompt leaves"
    assert "acme" not in repr([call.headers for call in provider.calls]), "no attribution leaves"
    split = next(span for span in receiver.spans if span.attributes.get("gen_ai.request.model") == "claude-lab-cw")
    assert split.attributes["anthropic.usage.cache_creation.ephemeral_1h_input_tokens"] == 200


CALLS = (
    CLIENTS
    + """
def told(call):
    try:
        answer = call()
        return [part.model_dump() for part in answer] if hasattr(answer, "__next__") else answer.model_dump()
    except Exception as error:
        return [type(error).__qualname__, str(error), str(error.__cause__), getattr(error, "status_code", None)]

def without_ids(value):
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key not in ("id", "_request_id")}
    return [without_ids(item) for item in value] if isinstance(value, list) else value

print(json.dumps(without_ids([
    told(lambda: gpt.chat.completions.create(model="gpt-lab-audio", messages=ask)),
    told(lambda: gpt.chat.completions.create(model="gpt-lab", messages=ask, stream=True)),
    told(lambda: gpt.responses.create(model="gpt-lab-cached", input="x")),
    told(lambda: gpt.responses.create(model="gpt-lab-cached", input="x", stream=True)),
    told(lambda: gpt.embeddings.create(model="emb-lab", input=["x", "y"])),
    told(lambda: claude.messages.create(model="claude-lab-reason", max_tokens=9, messages=ask)),
    told(lambda: claude.messages.create(model="claude-lab", max_tokens=9, messages=ask, stream=True)),
    told(lambda: gpt.chat.completions.create(model="gpt-429", messages=ask)),
    told(lambda: gpt.responses.create(model="gpt-500", input="x")),
    told(lambda: claude.messages.create(model="claude-429", max_tokens=9, messages=ask)),
    told(lambda: gpt.with_options(timeout=0.2).chat.completions.create(model="gpt-hang", messages=ask)),
    told(lambda: claude.with_options(timeout=0.2).messages.create(model="claude-hang", max_tokens=9, messages=ask)),
    told(lambda: gpt.chat.completions.create(messages=ask)),
]), default=str))
"""
)


def test_the_application_sees_no_difference_even_with_the_server_down(provider: ProviderServer) -> None:
    bare = service(CALLS, provider, DOWN)
    metered = service("import tallystick.auto\n" + CALLS, provider, DOWN, TALLYSTICK_KEY="the-key")
    assert json.loads(metered.stdout) == json.loads(bare.stdout)
    assert len(json.loads(bare.stdout)) == 13
    # At most one line says that spans couldn't be sent.
    lines = metered.stderr.splitlines()
    assert len(lines) <= len(bare.stderr.splitlines()) + 1
    assert "Traceback" not in metered.stderr
    assert "the-key" not in metered.stderr


APP = """
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
seen = InMemorySpanExporter()
provider = TracerProvider(resource=Resource({"service.name": "own"}))
provider.add_span_processor(SimpleSpanProcessor(seen))
"""

ONE_CALL = """
import json, os, openai
from tallystick.collectors.start import status
gpt = openai.OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0)
def call():
    gpt.chat.completions.create(model="gpt-lab", messages=[{"role": "user", "content": "x"}])
"""


@pytest.mark.parametrize("later", [False, True], ids=["set before the import", "set after it"])
def test_the_applications_provider_is_used_and_its_exporter_sees_all(
    provider: ProviderServer, receiver: SpanReceiver, later: bool
) -> None:
    register = "\ntrace.set_tracer_provider(provider)\n"
    start = "\nimport tallystick.auto, tallystick\n"
    tracer = "early = trace.get_tracer('early')\n"
    done = service(
        APP
        + (start + tracer if later else register + start + tracer)
        + ONE_CALL
        + (register if later else "")
        + """
with early.start_as_current_span("app"), tallystick.scope(customer="acme"):
    call()
with trace.get_tracer("late").start_as_current_span("app too"):
    pass
print(json.dumps([[span.name, span.resource.attributes["service.name"]] for span in seen.get_finished_spans()]))
assert trace.get_tracer_provider().resource.attributes["service.name"] == "own"
""",
        provider,
        receiver.url,
        TALLYSTICK_STRICT="1",
    )
    assert done.stderr == ""
    assert json.loads(done.stdout) == [["chat gpt-lab", "own"], ["app", "own"], ["app too", "own"]]
    (span,) = receiver.spans
    assert (span.name, span.attributes["tallystick.customer"]) == ("chat gpt-lab", "acme")
    assert span.resource["service.name"] == "own"
    assert span.parent_span_id, "the application's span is the parent"


def test_the_import_opens_nothing_starts_nothing_and_loads_no_client() -> None:
    done = service(
        """
        import socket, sys, threading

        def refuse(*_):
            raise AssertionError("network at import")

        socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
        import tallystick
        assert not any(name.startswith("opentelemetry.sdk") for name in sys.modules), "import tallystick is light"
        import tallystick.auto
        heavy = {"openai", "anthropic", "requests", "httpx", "httpx2", "pydantic", "google.protobuf", "chdb", "fastapi"}
        print(sorted(heavy & sys.modules.keys()), threading.active_count())
        """,
        None,
        DOWN,
        TALLYSTICK_STRICT="1",
    )
    assert done.stdout == "[] 1\n"


def test_switched_off(provider: ProviderServer, receiver: SpanReceiver) -> None:
    done = service(
        "import tallystick.auto\n" + ONE_CALL + "call()\nfrom opentelemetry import trace\n"
        "print(status().provider, status().instrumented, type(trace.get_tracer_provider()).__name__)",
        provider,
        receiver.url,
        OTEL_SDK_DISABLED="true",
    )
    assert done.stdout == "off {} ProxyTracerProvider\n"
    assert len(provider.calls) == 1
    assert receiver.headers == []


def test_left_off_by_name(provider: ProviderServer, receiver: SpanReceiver) -> None:
    service(
        "import tallystick.auto\n" + ONE_CALL + "call()\nassert status().instrumented == {}",
        provider,
        receiver.url,
        OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="requests, openai",
    )
    assert receiver.headers == []


def test_one_that_the_application_turned_on_is_left_alone(provider: ProviderServer, receiver: SpanReceiver) -> None:
    done = service(
        "from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor\nOpenAIInstrumentor().instrument()\n"
        "import tallystick.auto\n" + ONE_CALL + "call()\nprint(status().instrumented['openai'][1])",
        provider,
        receiver.url,
        TALLYSTICK_STRICT="1",
    )
    assert (done.stdout, done.stderr) == ("by the application\n", "")
    assert len(receiver.spans) == 1


def install(where: Path, distribution: str, body: str) -> None:
    """A distribution with an instrumentor for openai in `where`; one of a name that is installed is shadowed."""
    module = distribution.replace("-", "_")
    (where / f"{module}.py").write_text(
        "from opentelemetry.instrumentation.instrumentor import BaseInstrumentor\n"
        "class Instrumentor(BaseInstrumentor):\n"
        "    def instrumentation_dependencies(self):\n        return ['openai >= 1']\n"
        "    def _uninstrument(self, **_):\n        pass\n"
        f"    def _instrument(self, **_):\n        {body}\n"
    )
    info = where / f"{module}-99.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 99\n")
    (info / "entry_points.txt").write_text(f"[opentelemetry_instrumentor]\nopenai = {module}:Instrumentor\n")


def test_a_broken_instrumentation_is_replaced_by_the_next(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    install(tmp_path, "opentelemetry-instrumentation-genai-openai", "raise RuntimeError('broken')")
    install(tmp_path, "openinference-instrumentation-openai", "print('second best')")
    install(tmp_path, "opentelemetry-instrumentation-openai", "print('third best')")
    script = "import tallystick.auto\n" + ONE_CALL + "call()\nprint(*status().instrumented['openai'])"
    done = service(script, provider, receiver.url, PYTHONPATH=str(tmp_path))
    assert done.stdout == "second best\nopeninference-instrumentation-openai on\n"
    (warning,) = done.stderr.splitlines()
    assert "opentelemetry-instrumentation-genai-openai failed: RuntimeError: broken" in warning

    strict = service(
        "import tallystick.auto\ntry:\n    import openai\nexcept RuntimeError as error:\n    print('raised', error)",
        provider,
        receiver.url,
        PYTHONPATH=str(tmp_path),
        TALLYSTICK_STRICT="1",
    )
    assert strict.stdout == "raised broken\n"


def test_incoming_baggage_does_not_reach_the_provider_and_an_answer_cut_short_is_no_short_answer(
    provider: ProviderServer, receiver: SpanReceiver
) -> None:
    service(
        (
            "import tallystick.auto",
            CLIENTS,
            """
            from opentelemetry import context, propagate
            incoming = {"baggage": "tallystick.customer=acme,tallystick.tag.x=1,tallystick.tenant=other,color=red"}
            context.attach(propagate.extract(incoming))
            with claude.messages.stream(model="claude-lab-slow", max_tokens=9, messages=ask) as stream:
                next(iter(stream.text_stream))
            """,
        ),
        provider,
        receiver.url,
        TALLYSTICK_STRICT="1",
    )
    (call,) = provider.calls
    # The SDK sends all baggage along by itself.
    assert call.headers["baggage"] == "color=red"
    (span,) = receiver.spans
    assert {key: value for key, value in span.attributes.items() if is_attribution(key)} == {
        "tallystick.customer": "acme",
        "tallystick.tag.x": "1",
    }
    assert span.attributes["gen_ai.usage.input_tokens"] == 100
    assert span.attributes["tallystick.usage_source"] == "partial"


def test_a_failing_import_of_opentelemetry_does_not_fail_the_applications(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk.trace'] = None\n")
    done = service("import tallystick.auto\nprint('runs')", None, DOWN, PYTHONPATH=str(tmp_path))
    assert done.stdout == "runs\n"
    assert len(done.stderr.splitlines()) == 1
