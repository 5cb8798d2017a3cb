"""A real vLLM and transformers serve on the CPU, probed by examples/vllm-cpu.yaml and examples/transformers.yaml: what a cached prefix saves, and
what the engine that does everything otherwise gives.

.venv/bin/python benchmarks/probe_vllm.py        installs both into .engines/ when it is first run, 2.9 GB to get
"""

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from peers.environments import ROOT, engine_python

from tallystick.probes.figures.summary import StageSummary, summarise
from tallystick.probes.loading import load_run

EXAMPLES = ("vllm-cpu.yaml", "transformers.yaml")
TALLYSTICK = Path(sys.executable).with_name("tallystick")


def main() -> None:
    python = str(engine_python())
    print(f"{os.cpu_count()} cores, {platform.machine()}, {platform.platform()}", flush=True)
    os.environ |= {
        "TALLYSTICK_VLLM_PYTHON": python, "TALLYSTICK_TRANSFORMERS_PYTHON": python, "VLLM_CPU_KVCACHE_SPACE": "1",
        "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    }  # fmt: skip
    for example in EXAMPLES:
        print(f"\n== tallystick probe run examples/{example}", flush=True)
        with tempfile.TemporaryDirectory(prefix="probe-") as data:
            done = subprocess.run([TALLYSTICK, "probe", "run", ROOT / "examples" / example, "--data", data], check=False)
            if done.returncode:
                print(f"ended with {done.returncode}", flush=True)
            for file in sorted(Path(data).glob("probes/*/run.json")):
                run = load_run(file.parent)
                for note in run.info.engine.notes if run.info.engine else (run.info.failure,):
                    print(f"  {note}")
                for stage in run.stages:
                    cached(summarise(stage, None))
                shown: list[str | Path] = [TALLYSTICK, "probe", "show", run.info.id, "--definitions", "--data", data]
                subprocess.run(shown, check=False, env={**os.environ, "COLUMNS": "160"})


def cached(summary: StageSummary) -> None:
    """Groups of a cache experiment: what of their prompts was cached, and the median TTFT with its interval."""
    for group in summary.groups:
        share = "not told" if group.cached_share is None else f"{group.cached_share:.0%}"
        ttft = group.ttft
        between = "" if ttft.low is None or ttft.high is None else f" ({ttft.low:,.0f} to {ttft.high:,.0f})"
        said = "–" if ttft.value is None else f"{ttft.value:,.0f}{between}"
        print(f"  {group.name:12} {group.requests:4} requests, cached {share:>8}, TTFT p50 {said} ms", flush=True)


if __name__ == "__main__":
    main()
