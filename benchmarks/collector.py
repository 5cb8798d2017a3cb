"""What a metered call costs its caller: tallystick beside OpenLIT, OpenLLMetry, OpenInference, Langfuse and the official instrumentation.

    python benchmarks/collector.py [--rounds 7] [--calls 1000] [--streams 60] [--chunks 400]

The same stubbed OpenAI calls in each stack: the real client, whose HTTP transport answers from memory, so that what is left is the client's
own work and the stack's. Each stack has an environment of its own (made under `.clients/bench-NAME`), because their dependencies conflict;
so each is compared with the bare client **of its own environment**, in the same run, rounds of all stacks taking turns. All of them export
to a server on loopback in a process of its own, which counts bytes; prompts are off where a stack can switch them off.

* wall: median time of a call in the caller's thread, less the bare one's; the median of the rounds.
* CPU: of the whole process, export and its threads included until all is flushed, less the bare one's, a call.
* a chunk: wall of a stream read to its end, less the bare one's, by its chunks.
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / ".clients"


class Stack(NamedTuple):
    """One way to see the calls."""

    packages: tuple[str, ...]
    start: Callable[[str], Callable[[], object]]
    """Turns it on, exporting to the server of this URL; gives what flushes it."""


def bare(url: str) -> Callable[[], object]:
    return lambda: None


def tallystick(url: str) -> Callable[[], object]:
    os.environ["TALLYSTICK_URL"] = url
    import tallystick.auto  # noqa: F401
    from tallystick.collectors.start import flush

    return flush


def _provider(url: str) -> Any:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url + "/v1/traces")))
    trace.set_tracer_provider(provider)
    return provider


def official(url: str) -> Callable[[], object]:
    from opentelemetry.instrumentation.genai.openai import OpenAIInstrumentor

    provider = _provider(url)
    OpenAIInstrumentor().instrument()
    return provider.force_flush


def openinference(url: str) -> Callable[[], object]:
    os.environ |= {"OPENINFERENCE_HIDE_INPUTS": "true", "OPENINFERENCE_HIDE_OUTPUTS": "true"}
    from openinference.instrumentation.openai import OpenAIInstrumentor

    provider = _provider(url)
    OpenAIInstrumentor().instrument(tracer_provider=provider)
    return provider.force_flush


def openllmetry(url: str) -> Callable[[], object]:
    os.environ["TRACELOOP_TRACE_CONTENT"] = "false"
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    provider = _provider(url)
    OpenAIInstrumentor().instrument()
    return provider.force_flush


def openlit(url: str) -> Callable[[], object]:
    import openlit as it
    from opentelemetry import trace

    it.init(otlp_endpoint=url, capture_message_content=False, disable_metrics=True)
    provider: Any = trace.get_tracer_provider()
    return provider.force_flush


def langfuse(url: str) -> Callable[[], object]:
    os.environ |= {"LANGFUSE_HOST": url, "LANGFUSE_PUBLIC_KEY": "pk-lf-1", "LANGFUSE_SECRET_KEY": "sk-lf-1"}
    import langfuse as it

    client = it.get_client()
    return client.flush


OPENAI = "openai==3.52.0"
STACKS = {
    "tallystick": Stack((OPENAI, f"-e{ROOT}"), tallystick),
    "official": Stack((OPENAI, f"-e{ROOT}"), official),
    "openinference": Stack(
        (OPENAI, "openinference-instrumentation-openai==0.1.66", "opentelemetry-exporter-otlp-proto-http"), openinference
    ),
    "openllmetry": Stack(
        (OPENAI, "opentelemetry-instrumentation-openai==0.62.4", "opentelemetry-exporter-otlp-proto-http"), openllmetry
    ),
    "langfuse": Stack((OPENAI, "langfuse==5.0.4"), langfuse),
    # Takes no openai 3 yet.
    "openlit": Stack(("openai==2.54.0", "openlit==1.45.0"), openlit),
}


# In the stack's own process.

MESSAGES = [{"role": "user", "content": "What did the tally stick prove? " * 30}]
ANSWER = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-5-mini-2026-07-18", "service_tier": "default",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A debt, to both its sides. " * 10}}],
    "usage": {"prompt_tokens": 300, "completion_tokens": 80, "total_tokens": 380, "prompt_tokens_details": {"cached_tokens": 128}},
}  # fmt: skip


def _events(chunks: int) -> bytes:
    def event(choices: list[Any], **rest: Any) -> str:
        chunk = {key: ANSWER[key] for key in ("id", "created", "model")} | {
            "object": "chat.completion.chunk",
            "choices": choices,
            **rest,
        }
        return f"data: {json.dumps(chunk)}\n\n"

    pieces = [event([{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]) for _ in range(chunks)]
    last = event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    return "".join((*pieces, last, event([], usage=ANSWER["usage"]), "data: [DONE]\n\n")).encode()


def _client(chunks: int) -> Any:
    import openai

    try:
        import httpx2 as http
    except ImportError:
        import httpx as http  # type: ignore[no-redef]
    whole, events = json.dumps(ANSWER).encode(), _events(chunks)

    def answer(request: Any) -> Any:
        if b'"stream":true' in request.content.replace(b" ", b""):
            return http.Response(200, headers={"content-type": "text/event-stream"}, content=events)
        return http.Response(200, headers={"content-type": "application/json"}, content=whole)

    return openai.OpenAI(api_key="none", max_retries=0, http_client=http.Client(transport=http.MockTransport(answer)))


class Measured(NamedTuple):
    """Microseconds: median wall and mean CPU of a call; wall of a streamed chunk, and CPU."""

    call_wall: float
    call_cpu: float
    chunk_wall: float
    chunk_cpu: float


def measure(stack: str, url: str, calls: int, streams: int, chunks: int) -> Measured:
    flush = bare(url) if stack == "bare" else STACKS[stack].start(url)
    client = _client(chunks)
    if stack == "langfuse":
        # Langfuse sees calls by a client class of its own, over the same client.
        from langfuse.openai import OpenAI

        client = OpenAI(api_key="none", max_retries=0, http_client=client._client)

    def create() -> None:
        client.chat.completions.create(model="gpt-5-mini", messages=MESSAGES)

    def stream() -> None:
        for _ in client.chat.completions.create(
            model="gpt-5-mini", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        ):
            pass

    def timed(act: Callable[[], None], times: int) -> tuple[float, float]:
        """Median wall and mean CPU, in microseconds."""
        walls = []
        gc.collect()
        cpu = time.process_time()
        for _ in range(times):
            started = time.perf_counter()
            act()
            walls.append(time.perf_counter() - started)
        flush()
        return statistics.median(walls) * 1e6, (time.process_time() - cpu) / times * 1e6

    for _ in range(100):
        create()
    for _ in range(3):
        stream()
    flush()
    call_wall, call_cpu = timed(create, calls)
    stream_wall, stream_cpu = timed(stream, streams)
    # What a stream costs at its start and end is a call's; the rest is its chunks'.
    return Measured(call_wall, call_cpu, (stream_wall - call_wall) / chunks, (stream_cpu - call_cpu) / chunks)


# In the process that compares.


class _Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    received = 0

    def do_POST(self) -> None:
        _Sink.received += len(self.rfile.read(int(self.headers.get("content-length") or 0)))
        self.send_response(200)
        self.send_header("content-type", self.headers.get("content-type", "application/x-protobuf"))
        self.send_header("content-length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


def environment(name: str, packages: tuple[str, ...]) -> Path:
    """The Python of the environment of these packages, made where it isn't there yet."""
    folder = ENVIRONMENTS / f"bench-{name}"
    python, made = folder / "bin" / "python", folder / "made"
    if not made.exists() or made.read_text(encoding="utf-8") != repr(packages):
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", folder], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--prerelease", "allow", "--python", python, *packages], check=True)
        made.write_text(repr(packages), encoding="utf-8")
    return python


def run(python: Path, stack: str, url: str, options: argparse.Namespace) -> tuple[Measured, int]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "TALLYSTICK_"))}
    before = _Sink.received
    counts = [str(options.calls), str(options.streams), str(options.chunks)]
    done = subprocess.run(
        [python, __file__, "--measure", stack, url, *counts], env=clean, capture_output=True, text=True, check=False, timeout=600
    )
    if done.returncode:
        raise SystemExit(f"{stack} failed:\n{done.stderr[-3000:]}")
    return Measured(*json.loads(done.stdout.splitlines()[-1])), _Sink.received - before


def main() -> None:
    if sys.argv[1:2] == ["--measure"]:
        stack, url, *counts = sys.argv[2:]
        print(json.dumps(measure(stack, url, *map(int, counts))))
        os._exit(0)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rounds", 7), ("calls", 1000), ("streams", 60), ("chunks", 400)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    pythons = {name: environment("tallystick" if name == "official" else name, stack.packages) for name, stack in STACKS.items()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    added: dict[str, list[Measured]] = {name: [] for name in STACKS}
    sent: dict[str, int] = {}
    bares: list[Measured] = []
    for turn in range(options.rounds):
        for name, python in pythons.items():
            without, _ = run(python, "bare", url, options)
            with_it, sent[name] = run(python, name, url, options)
            bares.append(without)
            added[name].append(Measured(*(b - a for a, b in zip(without, with_it, strict=True))))
            print(f"\rround {turn + 1} of {options.rounds}: {name:<14}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    _print(added, bares, sent, options)


def _print(added: dict[str, list[Measured]], bares: list[Measured], sent: dict[str, int], options: argparse.Namespace) -> None:
    middle = {name: Measured(*map(statistics.median, zip(*rounds, strict=True))) for name, rounds in added.items()}
    ours, theirs = middle["tallystick"], middle["official"]
    base = Measured(*map(statistics.median, zip(*bares, strict=True)))
    print(
        f"{options.rounds} rounds of {options.calls} calls and {options.streams} streams of {options.chunks} chunks, microseconds added to the bare client's"
    )
    print(f"(bare: {base.call_wall:.0f} wall and {base.call_cpu:.0f} CPU a call, {base.chunk_wall:.1f} wall a chunk)\n")
    print(
        f"{'':<15}{'wall a call':>12}{'x':>6}{'CPU a call':>12}{'x':>6}{'wall a chunk':>14}{'x':>6}{'CPU a chunk':>13}{'kB sent':>9}"
    )
    for name, of in sorted(middle.items(), key=lambda row: row[1].call_wall):
        ratios = [part / own if own > 0 else float("nan") for part, own in zip(of, ours, strict=True)]
        print(
            f"{name:<15}{of.call_wall:>12.0f}{ratios[0]:>6.1f}{of.call_cpu:>12.0f}{ratios[1]:>6.1f}"
            f"{of.chunk_wall:>14.2f}{ratios[2]:>6.1f}{of.chunk_cpu:>13.2f}{sent[name] / 1000:>9.0f}"
        )
    print(
        f"\nour share on top of the official instrumentation: {ours.call_wall - theirs.call_wall:+.0f} wall, "
        f"{ours.call_cpu - theirs.call_cpu:+.0f} CPU a call; {ours.chunk_wall - theirs.chunk_wall:+.2f} wall a chunk"
    )


if __name__ == "__main__":
    main()
