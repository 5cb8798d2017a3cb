"""The real `opentelemetry-instrument` command: a service is metered without a line of code, each call by one span."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_collector import service

from tallystick.testing import ProviderServer
from tallystick.testing.receiver import ReceivedSpan, SpanReceiver

COMMAND = str(Path(sys.executable).with_name("opentelemetry-instrument"))

OPENAI = """
import os
from openai import OpenAI

base, ask = os.environ["PROVIDER"], [{"role": "user", "content": "x"}]
gpt = OpenAI(base_url=base + "/v1", api_key="k", max_retries=0)
gpt.chat.completions.create(model="gpt-lab", messages=ask)
"""

APP = (
    OPENAI
    + """
import anthropic
claude = anthropic.Anthropic(base_url=base, api_key="k", max_retries=0)
claude.messages.create(model="claude-lab", max_tokens=9, messages=ask)
"""
)

COLLECTOR = "import tallystick.auto\n"

TELL = """
import tallystick
from opentelemetry import trace
found = tallystick.status()
print(found and (found.provider, {library: state for library, (_, state) in found.instrumented.items()}))
"""

CONFIGURATOR = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter

class Told(SpanExporter):
    def export(self, spans):
        print(*("exported " + span.name for span in spans), sep="\\n")

class Configurator:
    def configure(self, **_):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(Told()))
        trace.set_tracer_provider(provider)
"""
"""As of a distribution: the application's own provider, there before anything is instrumented."""


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


def instrumented(
    script: str, where: Path, provider: ProviderServer, receiver: SpanReceiver, **environ: str
) -> subprocess.CompletedProcess[str]:
    """Runs `script` under the command, in a directory and with a path of its own."""
    (where / "app.py").write_text(script)
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_", "ANTHROPIC_"))}
    clean |= {"TALLYSTICK_URL": receiver.url, "PROVIDER": provider.url, "PYTHONPATH": str(where), "TALLYSTICK_STRICT": "1"}
    command = [COMMAND, sys.executable, "app.py"]
    done = subprocess.run(command, env=clean | environ, cwd=where, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def configured_by(where: Path, module: str) -> None:
    """A distribution in `where` whose module has the class `Configurator`."""
    (where / "configuring.py").write_text(module)
    info = where / "configuring-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: configuring\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[opentelemetry_configurator]\nconfigurator = configuring:Configurator\n")


def scopes(spans: list[ReceivedSpan]) -> list[str]:
    return [span.scope for span in spans]


ONE_EACH = ["opentelemetry.instrumentation.genai.openai", "com.anthropic.sdk.python"]


def test_one_span_of_each_call(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    """With the import in the code, too: it has been done."""
    done = instrumented(COLLECTOR + APP + TELL, tmp_path, provider, receiver)
    assert done.stdout == "('made', {'openai': 'by the application', 'anthropic': 'native'})\n"
    assert done.stderr == ""
    assert scopes(receiver.spans) == ONE_EACH


def test_the_provider_of_a_distribution_is_used_and_its_exporter_sees_each_call_once(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    configured_by(tmp_path, CONFIGURATOR)
    done = instrumented(OPENAI + TELL, tmp_path, provider, receiver)
    assert done.stdout == "exported chat gpt-lab\n('reused', {'openai': 'by the application'})\n"
    assert done.stderr == ""
    assert scopes(receiver.spans) == ONE_EACH[:1]


def test_switched_off_it_is_as_without_us_until_the_import(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    again = "gpt.chat.completions.create(model='gpt-lab', messages=ask)\n"
    done = instrumented(OPENAI + TELL + COLLECTOR + again + TELL, tmp_path, provider, receiver, TALLYSTICK_AUTO="False")
    assert done.stdout.startswith("None\n('made', {'openai': 'by the application', ")
    assert done.stderr == ""
    assert scopes(receiver.spans) == ONE_EACH[:1], "the second call's"


def test_left_off_by_name(provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path) -> None:
    done = instrumented(OPENAI + TELL, tmp_path, provider, receiver, OTEL_PYTHON_DISABLED_INSTRUMENTATIONS="openai")
    assert (done.stdout, done.stderr, receiver.spans) == ("('made', {})\n", "", [])


def test_without_native_spans_the_official_ones_are_turned_on(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    done = instrumented(APP + TELL, tmp_path, provider, receiver, ANTHROPIC_OPEN_TELEMETRY="false")
    assert done.stdout == "('made', {'openai': 'by the application', 'anthropic': 'by the application'})\n"
    assert [span.name for span in receiver.spans] == ["chat gpt-lab", "chat claude-lab"]


def test_a_collector_that_cannot_start_stops_no_instrumentation(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    configured_by(tmp_path, "import sys\nsys.modules['tallystick.collectors.provider'] = None\n" + CONFIGURATOR)
    script = """
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
print(OpenAIInstrumentor().is_instrumented_by_opentelemetry)
"""
    done = instrumented(script, tmp_path, provider, receiver, TALLYSTICK_STRICT="0")
    assert done.stdout == "True\n"
    assert done.stderr.startswith("tallystick: starting the collector failed: ModuleNotFoundError")
    assert len(done.stderr.splitlines()) == 1


TURNED_ON = "from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor\nOpenAIInstrumentor().instrument()\n"


@pytest.mark.parametrize(
    ("script", "state"),
    [
        (COLLECTOR + TURNED_ON, "by the application"),
        (COLLECTOR + "import openai\n" + TURNED_ON, "by the application"),
        (COLLECTOR + TURNED_ON.splitlines()[0] + "\n", "on"),
    ],
    ids=["after us", "after ours was on", "only imported"],
)
def test_what_the_application_turns_on_replaces_ours(
    script: str, state: str, provider: ProviderServer, receiver: SpanReceiver
) -> None:
    done = service(script + OPENAI + TELL, provider, receiver.url, TALLYSTICK_STRICT="1")
    assert done.stdout == f"('made', {{'openai': '{state}'}})\n"
    assert done.stderr == ""
    assert scopes(receiver.spans) == ONE_EACH[:1]


def test_with_settings_of_its_own(provider: ProviderServer, receiver: SpanReceiver) -> None:
    """Ours was on: its `instrument()` would have been ignored, and what it was given with it."""
    own = """
import openai
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor
own = TracerProvider()
own.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(formatter=lambda span: span.name + "\\n")))
from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor
OpenAIInstrumentor().instrument(tracer_provider=own)
"""
    done = service(COLLECTOR + own + OPENAI, provider, receiver.url, TALLYSTICK_STRICT="1")
    assert (done.stdout, done.stderr) == ("chat gpt-lab\n", "")
