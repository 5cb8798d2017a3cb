"""Our figures beside those of vLLM bench, guidellm and aiperf, each under its own definitions: one engine, one load, one tool after another.

.venv/bin/python benchmarks/probe_peers.py [PART…]     parts: llamacpp, vllm, arrivals, capacity; without any, all, in about twelve minutes

The peers are installed into .peers/ and .engines/ when they are first needed, 7 GB. Tools take turns, A B C D D C B A, so that an engine or a
machine that changes meanwhile does so to all of them. No prompt is sent twice, for an engine would have it in its cache.
"""

import argparse
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from math import exp, sqrt
from pathlib import Path
from statistics import mean

import httpx
from peers import environments, prompts
from peers.ours import probe
from peers.tools import PEERS, SHOWN, Result, Task, ToolFailed, guidellm

from tallystick.probes.config import EngineEntry, Start
from tallystick.probes.engines.generated_model import generated_folder
from tallystick.probes.engines.metrics import read_metrics
from tallystick.probes.engines.starting import started
from tallystick.probes.figures.summary import summarise
from tallystick.probes.records import Stage
from tallystick.probes.views import VIEWS, view

MODELS = environments.FOLDER / "models"
COUNTED = {"prompt_tokens": "prompt", "cached_prompt_tokens": "cached", "generated_tokens": "generated"}
PACE = {
    "vllm": {
        "to the first token": ("vllm:time_to_first_token_seconds_sum", "vllm:time_to_first_token_seconds_count"),
        "between tokens": ("vllm:inter_token_latency_seconds_sum", "vllm:inter_token_latency_seconds_count"),
    },
    "llamacpp": {
        "a prompt's token": ("llamacpp:prompt_seconds_total", "llamacpp:prompt_tokens_total"),
        "a generated token": ("llamacpp:tokens_predicted_seconds_total", "llamacpp:tokens_predicted_total"),
    },
}
"""Of engines: how long they themselves say it took, as seconds and how often. Where they differ from tool to tool, so did the engine."""
OURS = "tallystick"


@dataclass(frozen=True)
class Setting:
    """An engine and its load, so low that most requests are alone: medians then say what tools see, not whose arrivals met more often by chance."""

    entry: EngineEntry
    input_tokens: int
    output_tokens: int
    rate: float
    requests: int
    rounds: int


LLAMACPP = Setting(
    EngineEntry(
        name="llama.cpp",
        engine="llamacpp",
        model="generated-f32",
        start=Start(model="generated:F32", options={"threads": 1, "parallel": 4, "ctx-size": 8192, "warmup": False}),
    ),
    input_tokens=128,
    output_tokens=64,
    rate=3,
    requests=40,
    rounds=2,
)
VLLM = Setting(
    EngineEntry(
        name="vLLM",
        engine="vllm",
        model="generated",
        start=Start(
            model="generated",
            options={"dtype": "float32", "enforce-eager": True, "max-num-seqs": 16, "enable-prompt-tokens-details": True},
        ),
    ),
    input_tokens=64,
    output_tokens=16,
    rate=1,
    requests=20,
    rounds=2,
)


class Bench:
    """One engine at a URL, and a folder for what tools write about it."""

    def __init__(self, setting: Setting, url: str, folder: Path) -> None:
        self.setting, self.url, self.folder = setting, url, folder
        self._number = 0

    def task(self, tool: str, at_most: int | None = None) -> Task:
        """The next: with prompts, arrivals and a folder of its own."""
        self._number += 1
        setting = self.setting
        folder = self.folder / f"{self._number:02}-{re.sub(r'[^a-z0-9]+', '-', tool)}"
        folder.mkdir()
        tokeniser = generated_folder(MODELS)
        prompts.write(tokeniser, folder, setting.input_tokens, setting.output_tokens, setting.requests + 5, self._number)
        return Task(
            setting.entry.engine, self.url, setting.entry.model or "", tokeniser, folder, setting.input_tokens,
            setting.output_tokens, setting.rate, setting.requests, self._number, at_most,
        )  # fmt: skip

    def counters(self) -> Mapping[str, float]:
        """What the engine itself counted so far."""
        told = httpx.get(f"{self.url}/metrics", trust_env=False, timeout=10).text
        raw = {name: 0.0 for parts in PACE[self.setting.entry.engine].values() for name in parts}
        for name, value in re.findall(r"^([\w:]+)(?:\{.*\})? ([\d.eE+-]+)$", told, re.MULTILINE):
            if name in raw:
                raw[name] += float(value)
        return read_metrics(self.setting.entry.engine, told) | raw


@contextmanager
def apart(pid: int, setting: Setting) -> Iterator[None]:
    """An engine of one thread has a core for itself, and tools have the others: else those that take more of them slow it down."""
    cores = os.sched_getaffinity(0)
    if setting.entry.engine != "llamacpp" or len(cores) < 2:
        yield
        return
    own = {min(cores)}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), own)
    os.sched_setaffinity(0, cores - own)
    print("the engine has a core for itself, the tools have the others")
    yield
    os.sched_setaffinity(0, cores)


@contextmanager
def bench(setting: Setting) -> Iterator[Bench]:
    """The engine runs while the block runs."""
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        log = Path(folder) / "engine.log"
        with started(setting.entry, log, 300, models=MODELS) as engine, apart(engine.pid, setting):
            yield Bench(setting, engine.url, Path(folder))


def medians(setting: Setting) -> None:
    """Each peer's medians beside ours from the same definitions."""
    print(
        f"\n== {setting.entry.name}, random weights: {setting.input_tokens} tokens in, {setting.output_tokens} out, Poisson"
        f" {setting.rate:g}/s, {setting.rounds} × {setting.requests} requests of each tool; medians, mean of the rounds"
    )
    theirs: dict[str, list[Result]] = defaultdict(list)
    ours: list[Stage] = []
    counted: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    with bench(setting) as at:
        with telling(f"{setting.entry.name}: warming up"):
            probe(replace(at.task(OURS), requests=10))
        for number in range(setting.rounds):
            turn = [*PEERS, OURS] if number % 2 == 0 else [OURS, *reversed(list(PEERS))]
            for tool in turn:
                before = at.counters()
                with telling(f"{setting.entry.name}, round {number + 1}: {tool}"):
                    if tool == OURS:
                        ours.append(probe(at.task(tool)))
                    else:
                        theirs[tool].append(PEERS[tool](at.task(tool)))
                after = at.counters()
                for name in after:
                    counted[tool][name] += after[name] - before.get(name, 0)
    if ours:
        compare(theirs, ours, setting)
    print("\nwhat the engine itself says of the time in which each asked, its preflight among it: tokens, and means in ms")
    for tool, deltas in counted.items():
        tokens = "".join(f"{deltas[name]:>10,.0f} {said}" for name, said in COUNTED.items())
        pace = "".join(
            f"{deltas[seconds] / deltas[times] * 1e3:10.2f} {said}"
            for said, (seconds, times) in PACE[setting.entry.engine].items()
            if deltas[times]
        )
        print(f"  {tool:12}{tokens}{pace}")


def compare(theirs: Mapping[str, Sequence[Result]], ours: Sequence[Stage], setting: Setting) -> None:
    print(f"{'':78}{'theirs':>10}{'ours':>10}{'ours/theirs':>13}")
    for tool, results in theirs.items():
        views = [view(tool, stage.records) for stage in ours]
        for name, said in SHOWN[tool].items():
            our = mean(one[name] for one in views)
            row(f"{VIEWS[tool].tool}: {said}", mean(result.figures[name] for result in results), our)
            if all(name in result.by_usage for result in results):
                row(f"{VIEWS[tool].tool}: {said}, by usage", mean(result.by_usage[name] for result in results), our)
        asked = sum(result.requests for result in results) * setting.output_tokens
        if (tokens := sum(result.tokens for result in results)) != asked:
            print(f"  it counted {tokens:,} output tokens by tokenising the text again; the engine's usage says {asked:,}")
        if failed := sum(result.failed for result in results):
            print(f"  {failed} of its requests failed")
    figures = [summarise(stage, None) for stage in ours]
    for name in ("ttft_p50", "ttft_scheduled_p50", "tpot_p50", "e2e_p50"):
        values = [value for one in figures if (value := one.value(name)) is not None]
        print(f"{OURS + ': ' + name:78}{'':10}{mean(values):10.2f}")


def row(what: str, theirs: float, ours: float) -> None:
    print(f"{what:78}{theirs:10.2f}{ours:10.2f}{ours / theirs:13.2f}")


def arrivals() -> None:
    """When requests of an open loop reach the engine, whose gaps are to be exponential."""
    rate, requests = 50.0, 300
    print(
        f"\n== arrivals as the engine sees them: Poisson {rate:g}/s, {requests} requests; gaps against the exponential by Kolmogorov and Smirnov"
    )
    print(f"{'':28}{'requests/s':>12}{'D':>9}{'p':>9}")
    tools: Mapping[str, Callable[[Task], object]] = {
        OURS: probe,
        **PEERS,
        "guidellm, 10 workers": partial(guidellm, workers=10),
    }
    still = EngineEntry(name="still", engine="openai", model="still", url="http://127.0.0.1")
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        seen = Path(folder) / "seen"
        with recording(seen) as url:
            at = Bench(Setting(still, 16, 4, rate, requests, 1), url, Path(folder))
            for tool, run in tools.items():
                seen.write_text("")
                with telling(f"arrivals: {tool}"):
                    run(at.task(tool))
                times = [float(line) for line in seen.read_text().split()][-requests:]
                if len(times) < requests:
                    print(f"{tool:28}{len(times):,} requests came")
                    continue
                gaps = [after - before for before, after in pairwise(times)]
                distance = off_exponential(gaps, rate)
                print(f"{tool:28}{len(gaps) / sum(gaps):12.1f}{distance:9.3f}{chance(distance, len(gaps)):9.3f}", flush=True)


@contextmanager
def recording(seen: Path) -> Iterator[str]:
    """The URL of an engine that writes to `seen` when requests came."""
    command = [sys.executable, "-m", "peers.engine", str(seen)]
    with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, text=True) as engine:
        assert engine.stdout is not None
        try:
            yield engine.stdout.readline().strip()
        finally:
            engine.terminate()


def off_exponential(gaps: Sequence[float], rate: float) -> float:
    """Kolmogorov's and Smirnov's distance, of a rate that is known."""
    count = len(gaps)
    expected = [1 - exp(-rate * gap) for gap in sorted(gaps)]
    above = [(index + 1) / count - value for index, value in enumerate(expected)]
    below = [value - index / count for index, value in enumerate(expected)]
    return max(above + below)


def chance(distance: float, count: int) -> float:
    """Of a distance at least that large if they are. Kolmogorov's distribution, with Stephens' correction (1970) for few."""
    scaled = (sqrt(count) + 0.12 + 0.11 / sqrt(count)) * distance
    return min(1.0, max(0.0, 2 * sum((-1.0) ** (term - 1) * exp(-2 * (term * scaled) ** 2) for term in range(1, 101))))


def capacity() -> None:
    """Twice what the engine can do: who waits where, and who sees it."""
    slots = 4
    setting = replace(LLAMACPP, requests=80)
    with bench(setting) as at:
        with telling("capacity: closed loop"):
            closed = summarise(probe(at.task(OURS), {"kind": "closed", "concurrencies": [slots]}), None)
        most = closed.value("requests_per_s")
        if most is None:
            return
        at.setting = replace(setting, rate=round(2 * most, 1))
        print(
            f"\n== beyond capacity: {setting.entry.name} does {most:.1f} requests/s with {slots} at once; asked {at.setting.rate:g}/s,"
            f" {setting.requests} requests, the peers with at most {slots} at once; median TTFT in ms"
        )
        print(f"{'':50}{'as reported':>14}{'from schedule':>16}")
        print(f"{f'{OURS}, closed loop of {slots}':50}{closed.value('ttft_p50') or 0:14.0f}{'has none':>16}")
        for tool, run in PEERS.items():
            with telling(f"capacity: {tool}"):
                result = run(at.task(tool, slots))
                first = next(iter(SHOWN[tool]))
                due = "not told" if result.from_schedule_ms is None else f"{result.from_schedule_ms:.0f}"
                print(f"{f'{VIEWS[tool].tool}, at most {slots}':50}{result.figures[first]:14.0f}{due:>16}")
        with telling("capacity: open loop"):
            opened = summarise(probe(at.task(OURS)), None)
            ttft, waited = (opened.value(name) or 0 for name in ("ttft_p50", "ttft_scheduled_p50"))
            print(f"{f'{OURS}, open loop':50}{ttft:14.0f}{waited:16.0f}")


@contextmanager
def telling(what: str) -> Iterator[None]:
    """Progress on stderr; a tool that fails is said, and the others go on."""
    begun = time.monotonic()
    print(f"{what} …", end=" ", file=sys.stderr, flush=True)
    try:
        yield
        print(f"{time.monotonic() - begun:.0f} s", file=sys.stderr)
    except (ToolFailed, OSError, subprocess.CalledProcessError, KeyError, ValueError) as error:
        print(f"failed: {error}", file=sys.stderr)
        print(f"{what}: failed, {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)


PARTS: Mapping[str, Callable[[], None]] = {
    "llamacpp": partial(medians, LLAMACPP),
    "vllm": partial(medians, VLLM),
    "arrivals": arrivals,
    "capacity": capacity,
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="*", help=f"of {', '.join(PARTS)}; all unless given")
    parts = parser.parse_args().part or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(unknown)}")
    os.environ |= {"TALLYSTICK_VLLM_PYTHON": str(environments.engine_python()), "VLLM_CPU_KVCACHE_SPACE": "1"}
    os.environ |= {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1"}
    print(f"{os.cpu_count()} cores, {platform.machine()}; {', '.join(one.tool for one in VIEWS.values())}")
    begun = time.monotonic()
    for part in parts:
        PARTS[part]()
    print(f"\ntook {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
