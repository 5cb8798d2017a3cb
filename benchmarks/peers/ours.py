"""tallystick's own run, by its command line, and its raw records."""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peers.tools import LIMIT_S, Task, ToolFailed

from tallystick.probes.loading import load_run
from tallystick.probes.records import Stage


def probe(task: Task, load: dict[str, Any] | None = None) -> Stage:
    """Of one stage. load: in place of Poisson arrivals at the task's rate. Raises ToolFailed."""
    asked = {"kind": "poisson", "rates": [task.rate]} if load is None else load
    entry = {
        "name": "ours",
        "engine": task.kind,
        "url": task.url,
        "model": task.model,
        "api": "completions",
        "request": {"temperature": 0},
    }
    config = {
        "name": "peers",
        "engines": [entry],
        "workload": {"input_tokens": task.input_tokens, "output_tokens": task.output_tokens},
        "load": {"requests": task.requests, "warmup": 0, "seed": task.seed, **asked},
    }
    file, data = task.folder / "probe.yaml", task.folder / "data"
    file.write_text(json.dumps(config))
    command: list[str | Path] = [Path(sys.executable).with_name("tallystick"), "probe", "run", file, "--data", data]
    with (task.folder / "ours.log").open("w+") as log:
        try:
            code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, timeout=LIMIT_S, check=False).returncode
        except subprocess.TimeoutExpired:
            raise ToolFailed(f"did not end within {LIMIT_S} s") from None
        log.seek(0)
        said: Sequence[str] = log.read().splitlines()
    runs = sorted((data / "probes").glob("*/run.json"))
    if not runs:
        raise ToolFailed("\n".join([f"ended with {code}", *said[-6:]]))
    (stage,) = load_run(runs[-1].parent).stages
    return stage
