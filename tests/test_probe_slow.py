"""Engines that take gigabytes to install, run for real: `make probe-engines`. Elsewhere skipped."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tallystick.probes.figures.summary import StageSummary, summarise
from tallystick.probes.loading import LoadedRun, load_run
from tallystick.probes.records import Kind, Outcome, Stage
from tallystick.probes.runs import State

ROOT = Path(__file__).parent.parent
TALLYSTICK = Path(sys.executable).with_name("tallystick")
PYTHON = os.environ.get("TALLYSTICK_PROBE_ENGINES", "")

pytestmark = pytest.mark.skipif(not PYTHON, reason="make probe-engines")


def run(example: str, data: Path) -> LoadedRun:
    environ = {
        **os.environ,
        "TALLYSTICK_VLLM_PYTHON": PYTHON, "TALLYSTICK_TRANSFORMERS_PYTHON": PYTHON, "VLLM_CPU_KVCACHE_SPACE": "1",
        "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1",
    }  # fmt: skip
    command: list[str | Path] = [TALLYSTICK, "probe", "run", ROOT / "examples" / example, "--data", data]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (path.parent for path in (data / "probes").glob("*/run.json"))
    return load_run(folder)


def summary(stage: Stage) -> StageSummary:
    return summarise(stage, None)


def test_vllm_says_what_it_is_and_what_its_cache_saves(tmp_path: Path) -> None:
    measured = run("vllm-cpu.yaml", tmp_path)
    engine = measured.info.engine
    assert measured.info.state is State.DONE, measured.info.failure
    assert engine is not None
    assert engine.version.startswith("0.32")
    assert engine.token_ids
    assert engine.context == 4096
    assert engine.metrics_url is not None
    (stage,) = measured.stages
    assert {record.outcome for record in stage.records} == {Outcome.OK}
    assert all(record.usage and record.usage.prompt_tokens == record.input_tokens == 1850 for record in stage.records)
    assert all(record.usage and record.usage.completion_tokens == 16 for record in stage.records)
    assert stage.samples[-1].values["generated_tokens"] >= 16 * len(stage.records)
    groups = {group.name: group for group in summary(stage).groups}
    cold, warm = groups["cold"], groups["warm"]
    assert cold.cached_share == 0
    assert warm.cached_share is not None
    assert warm.cached_share > 0.9
    assert warm.ttft.value is not None
    assert cold.ttft.value is not None
    # 1,792 of 1,850 tokens needn't be computed; seen: thirty times faster.
    assert warm.ttft.value < cold.ttft.value / 3


def test_transformers_serve_is_the_odd_engine(tmp_path: Path) -> None:
    measured = run("transformers.yaml", tmp_path)
    engine = measured.info.engine
    assert measured.info.state is State.DONE, measured.info.failure
    assert engine is not None
    assert "ignore_eos" not in engine.fields
    assert not engine.token_ids
    assert engine.metrics_url is None
    for stage in measured.stages:
        for record in stage.records:
            assert record.outcome is Outcome.OK, record.error
            assert Kind.DONE not in {event.kind for event in record.events}
            assert record.finish_reason in ("length", "stop")
            assert record.usage is not None
            assert record.usage.completion_tokens
            assert record.usage.cached_tokens is None
