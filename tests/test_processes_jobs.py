"""Functions that are frozen between events, jobs, and notebooks."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from test_collector import DOWN, service

import tallystick
from tallystick.testing import ProviderServer
from tallystick.testing.receiver import SpanReceiver

# A minute: nothing leaves unless it is sent at the end of a job.
LATE = {"OTEL_BSP_SCHEDULE_DELAY": "60000", "TALLYSTICK_STRICT": "1"}

CALL = """
import os
import tallystick.auto, tallystick, openai
gpt = openai.OpenAI(base_url=os.environ["PROVIDER"] + "/v1", api_key="k", max_retries=0)
def call():
    gpt.chat.completions.create(model="gpt-lab", messages=[{"role": "user", "content": "x"}])
"""


@pytest.fixture
def provider() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def receiver() -> Iterator[SpanReceiver]:
    with SpanReceiver() as server:
        yield server


class Runtime:
    """AWS Lambda's runtime API: hands out events, and freezes the process while there is none."""

    def __init__(self, receiver: SpanReceiver, events: int) -> None:
        self.receiver = receiver
        self.left = events
        self.answers: list[Any] = []
        self.arrived: list[int] = []
        """Spans that had arrived at each freeze."""
        self.process: subprocess.Popen[str] | None = None
        self.frozen = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    def next(self) -> bool:
        """The process asks for an event, and is stopped at once; False where there is none."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        self.arrived.append(len(self.receiver.spans))
        if not self.left:
            self.frozen.set()
            return False
        self.left -= 1
        self.process.send_signal(signal.SIGCONT)
        return True

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        runtime = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                if not runtime.next():
                    return
                self.send_response(200)
                self.send_header("lambda-runtime-aws-request-id", f"event-{runtime.left}")
                self.send_header("lambda-runtime-deadline-ms", str(int((time.time() + 30) * 1000)))
                self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:eu-central-1:1:function:f")
                self.send_header("content-type", "application/json")
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                runtime.answers.append((self.path.rsplit("/", 1)[1], json.loads(body or b"null")))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

        return Handler


HANDLER = """
def handler(event, context):
    call()
    if context.aws_request_id == "event-0":
        raise ValueError("no")
    return "done"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="AWS's runtime is for Linux")
def test_a_function_is_frozen_only_when_its_calls_have_arrived(
    provider: ProviderServer, receiver: SpanReceiver, tmp_path: Path
) -> None:
    """AWS's own runtime client, which is hooked; no decorator."""
    (tmp_path / "function.py").write_text(CALL + HANDLER)
    runtime = Runtime(receiver, events=3)
    serving = threading.Thread(target=runtime.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_"))} | LATE
    environ |= {
        "TALLYSTICK_URL": receiver.url,
        "PROVIDER": provider.url,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{runtime.http.server_address[1]}",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "LAMBDA_TASK_ROOT": str(tmp_path),
    }
    runtime.process = subprocess.Popen(
        [sys.executable, "-m", "awslambdaric", "function.handler"],
        cwd=tmp_path,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        serving.start()
        frozen = runtime.frozen.wait(40)
    finally:
        runtime.process.kill()
        said = runtime.process.communicate()[0]
        runtime.http.shutdown()
        runtime.http.server_close()
    assert frozen, said
    assert runtime.arrived == [0, 1, 2, 3]
    assert [what for what, _ in runtime.answers] == ["response", "response", "error"]
    assert runtime.answers[0][1] == "done"
    assert "tallystick:" not in said


def test_a_job_that_is_killed_at_its_end(provider: ProviderServer, receiver: SpanReceiver) -> None:
    done = service(
        CALL
        + """
import asyncio

@tallystick.flushed
def job(answer):
    call()
    return answer

@tallystick.flushed
async def failing():
    call()
    raise LookupError("its own")

try:
    asyncio.run(failing())
except LookupError as error:
    print(job(answer=f"done after {error}"), job.__name__, flush=True)
os._exit(0)
""",
        provider,
        receiver.url,
        **LATE,
    )
    assert (done.stdout, done.stderr) == ("done after its own job\n", "")
    assert len(receiver.spans) == len(receiver.headers) == 2


def test_a_job_with_the_server_down(provider: ProviderServer) -> None:
    done = service(
        CALL + "print(tallystick.flushed(lambda: call() or 'done')(), tallystick.flush(1), tallystick.status().spans.waiting)",
        provider,
        DOWN,
        OTEL_BSP_SCHEDULE_DELAY="60000",
    )
    assert done.stdout == "done False 1\n"


def test_a_job_in_a_process_without_the_collector() -> None:
    """As in tests of the application."""
    assert tallystick.flushed(lambda: "done")() == "done"

    @tallystick.flushed
    async def job() -> str:
        return "done"

    assert asyncio.run(job()) == "done"
    assert tallystick.flush()
    assert tallystick.status() is None


NOTEBOOK = """
import asyncio, code

cells = [
    "from openai import OpenAI, AsyncOpenAI",
    "import os; base = os.environ['PROVIDER'] + '/v1'; ask = [{'role': 'user', 'content': 'x'}]",
    "gpt = OpenAI(base_url=base, api_key='k', max_retries=0); create = gpt.chat.completions.create",
    "aio = AsyncOpenAI(base_url=base, api_key='k', max_retries=0)",
    "import tallystick.auto, tallystick, importlib",
    "_ = gpt.chat.completions.create(model='gpt-lab', messages=ask)",
    "import tallystick.auto; importlib.reload(tallystick.auto)",
    "_ = gpt.chat.completions.create(model='gpt-lab', messages=ask)",
    "import tallystick.collectors.start; [importlib.reload(each) for each in (tallystick, tallystick.collectors.start, tallystick.auto)]",
    "gpt2 = OpenAI(base_url=base, api_key='k', max_retries=0)",
    "_ = gpt2.chat.completions.create(model='gpt-lab', messages=ask)",
]
interpreter = code.InteractiveInterpreter()

async def kernel():
    for cell in cells:
        assert not interpreter.runsource(cell), cell
    with interpreter.locals["tallystick"].scope(customer="acme"):
        await interpreter.locals["aio"].chat.completions.create(model="gpt-lab", messages=interpreter.locals["ask"])
    await interpreter.locals["aio"].close()

asyncio.run(kernel())
assert interpreter.locals["tallystick"].flush()
"""


def test_cells_of_a_notebook(provider: ProviderServer, receiver: SpanReceiver) -> None:
    """The client is there before the collector; the import runs again and is reloaded, under a running loop."""
    done = service(NOTEBOOK, provider, receiver.url, **LATE)
    assert done.stderr == ""
    assert len(receiver.spans) == len(provider.calls) == 4
    assert [span.attributes.get("tallystick.customer") for span in receiver.spans] == [None, None, None, "acme"]
