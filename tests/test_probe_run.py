"""`tallystick probe run`: real engines of three quantisations from a file to a report; and engines, disks and files that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from disks import filled, small_disk
from odd_engine import Answer, Do, OddEngine, Seen, refuse, stream
from server import CLEAN, Server, free_port

from tallystick.probes.loading import LoadedRun, find_runs
from tallystick.probes.records import Outcome
from tallystick.probes.runs import State

FILE = Path(__file__).parent.parent / "examples" / "llamacpp.yaml"


def configured(folder: Path, content: Mapping[str, Any]) -> Path:
    file = folder / "probe.yaml"
    file.write_text(yaml.safe_dump(dict(content)))
    return file


def launch(data: Path, *args: str | Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tallystick.cli", "probe", *map(str, args), "--data", str(data)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**CLEAN, "COLUMNS": "200"},
    )  # fmt: skip


def probe(data: Path, *args: str | Path) -> "subprocess.CompletedProcess[str]":
    process = launch(data, *args)
    out, errors = process.communicate(timeout=240)
    return subprocess.CompletedProcess(args, process.returncode, out, errors)


def odd(urls: Sequence[str], **more: Any) -> dict[str, Any]:
    """A closed loop of two at once over engines that listen there."""
    return {
        "name": "odd",
        "engines": [{"name": f"e{number}", "url": url} for number, url in enumerate(urls)],
        "workload": {"input_tokens": 8, "output_tokens": 4},
        "load": {"kind": "closed", "concurrencies": [2], "requests": 12, "warmup": 2, "seconds": 30},
        "timeouts": {"connect": 2, "first_token": 2, "between_tokens": 2, "whole": 5},
        **more,
    }


def only(data: Path) -> LoadedRun:
    (run,) = find_runs(data, "last")
    return run


# --- real engines ---


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, "subprocess.CompletedProcess[str]"]:
    """The example, with stages that a crowded machine is through with in seconds."""
    content = yaml.safe_load(FILE.read_text())
    content["load"] = {"kind": "poisson", "rates": [4], "requests": 12, "warmup": 1, "seconds": 30}
    content["workload"] |= {"most_input_tokens": 64, "most_output_tokens": 8}
    folder = tmp_path_factory.mktemp("probe")
    return folder, probe(folder, "run", configured(folder, content), "--json")


def test_the_example_measures_three_quantisations(measured: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    data, done = measured
    rows = json.loads(done.stdout)
    assert [(row["entry"], row["variant"]) for row in rows] == [("f32", "F32"), ("q8_0", "Q8_0"), ("q4_0", "Q4_0")]
    # On a crowded machine the client lags, and the runs say so.
    assert {row["state"] for row in rows} <= {"done", "invalid"}, done.stderr
    for run in find_runs(data, "llamacpp"):
        (stage,) = run.stages
        assert run.problems == ()
        assert [record.outcome for record in stage.records] == [Outcome.OK] * 13
        assert all(record.usage and record.usage.prompt_tokens == record.input_tokens for record in stage.records)
        assert run.summaries[0].figures["ttft_scheduled_p50"].value
        assert stage.samples[-1].values["generated_tokens"] > 0
        assert run.info.engine
        assert run.info.engine.token_ids
        assert (run.folder / "engine.log").stat().st_size > 0
        assert not list(run.folder.glob("*.new"))


def test_the_report_is_there_and_compares_them(measured: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    data, done = measured
    report = Path(done.stderr.partition("report: ")[2].splitlines()[0])
    html = report.read_text()
    assert all(word in html for word in ("f32", "q8_0", "q4_0", "Comparison", "Money"))
    compared = probe(data, "compare", "llamacpp", "--json")
    assert compared.returncode == 0, compared.stderr
    f32, *others = (run.info.id for run in find_runs(data, "llamacpp"))
    assert {(row["base"], row["now"]) for row in json.loads(compared.stdout)} == {(f32, other) for other in others}


def test_what_is_valid_has_a_price_and_a_break_even(measured: tuple[Path, "subprocess.CompletedProcess[str]"]) -> None:
    """Whether it is, hangs on the machine that tests run on; tests/test_probe_price.py has runs that are."""
    data, done = measured
    for row, run in zip(json.loads(done.stdout), find_runs(data, "llamacpp"), strict=True):
        good = run.summaries[0].value("good_share") or 0
        assert (row["usd_per_million"] is not None) == (row["state"] == "done" and good >= 0.95)
        said = [line for line in done.stderr.splitlines() if line.startswith(f"{row['entry']}: ") and "openai/gpt-5-mini" in line]
        assert len(said) == (row["usd_per_million"] is not None)


# --- faults ---


def test_nothing_there_and_the_others_go_on(tmp_path: Path) -> None:
    with OddEngine(stream(tokens=4)) as engine:
        done = probe(tmp_path, "run", configured(tmp_path, odd([f"http://127.0.0.1:{free_port()}", engine.url])), "--json")
    first, second = json.loads(done.stdout)
    assert done.returncode == 1
    assert first["state"] == "failed"
    assert "nothing answers at" in done.stderr
    assert "start the engine, or correct `url`" in done.stderr
    assert second["state"] in ("done", "invalid")


def test_a_model_that_is_not_served(tmp_path: Path) -> None:
    with OddEngine(stream(tokens=4)) as engine:
        content = odd([engine.url])
        content["engines"][0]["model"] = "llama-9"
        done = probe(tmp_path, "run", configured(tmp_path, content))
    assert done.returncode == 1
    assert "serves no model 'llama-9', only odd" in done.stderr


def test_an_engine_that_dies_in_the_middle(tmp_path: Path) -> None:
    engine = OddEngine(stream(tokens=4, gap=0.02))
    engine.__enter__()
    content = odd([engine.url])
    content["load"] |= {"requests": 2000}
    process = launch(tmp_path, "run", configured(tmp_path, content))
    while len(engine.seen) < 20:
        time.sleep(0.02)
    engine.__exit__(None, None, None)
    _, errors = process.communicate(timeout=120)
    run = only(tmp_path)
    assert process.returncode == 1
    assert run.info.state is State.FAILED
    assert run.info.failure.startswith("engine died")
    assert "report: " in errors
    outcomes = run.summaries[0].outcomes
    assert outcomes["ok"] > 0
    assert outcomes["unreachable"] >= 20


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        (refuse(429), Outcome.REFUSED),
        (refuse(500), Outcome.REFUSED),
        (Answer([b"<html>Bad gateway</html>"], content_type="text/html"), Outcome.GARBAGE),
        (Answer([*stream(tokens=2).steps[:2], Do.HANG]), Outcome.TIMED_OUT),
    ],
)
def test_failures_are_counted_and_no_reason_to_stop(tmp_path: Path, script: Any, outcome: Outcome) -> None:
    """Every second request after the first, which preflight sends."""

    def scripted(seen: Seen) -> Any:
        return script if seen.number > 3 and seen.number % 2 else stream(tokens=4)

    with OddEngine(scripted) as engine:
        done = probe(tmp_path, "run", configured(tmp_path, odd([engine.url])))
    run = only(tmp_path)
    outcomes = run.summaries[0].outcomes
    assert sum(outcomes.values()) == 12
    assert outcomes[outcome.value] > 0
    assert outcomes["ok"] > 0
    assert run.info.state is State.INVALID, done.stderr
    assert "failed" in run.info.failure


def test_stopped_by_a_signal_it_reports_what_there_is(tmp_path: Path) -> None:
    with OddEngine(stream(tokens=40, gap=0.02)) as engine:
        content = odd([engine.url, engine.url])
        content["load"] |= {"requests": 500}
        process = launch(tmp_path, "run", configured(tmp_path, content))
        while len(engine.seen) < 8:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    run = only(tmp_path)
    assert process.returncode == 1
    assert (run.info.entry, run.info.state) == ("e0", State.CANCELLED)
    assert run.summaries[0].outcomes["cancelled"] > 0
    assert "report: " in errors


def test_killed_its_folder_can_be_read(tmp_path: Path) -> None:
    with OddEngine(stream(tokens=10, gap=0.01)) as engine:
        content = odd([engine.url])
        content["load"] |= {"requests": 500}
        process = launch(tmp_path, "run", configured(tmp_path, content))
        while len(engine.seen) < 20:
            time.sleep(0.02)
        process.kill()
        process.communicate()
    run = only(tmp_path)
    assert run.info.state is State.RUNNING
    assert any("has no end" in problem for problem in run.problems)
    assert probe(tmp_path, "show", "last").returncode == 0


def test_a_full_disk(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk, OddEngine(stream(tokens=60, gap=0.005)) as engine:
        content = odd([engine.url])
        content["load"] |= {"requests": 3000}
        process = launch(disk, "run", configured(tmp_path, content))
        while len(engine.seen) < 8:
            time.sleep(0.02)
        with filled(disk, 4096):
            _, errors = process.communicate(timeout=120)
        run = only(disk)
    assert process.returncode == 1
    assert "disk full" in errors or "can't be written" in errors
    assert len(run.stages) <= 1


def test_engines_of_one_machine_wait_for_each_other(tmp_path: Path) -> None:
    with OddEngine(stream(tokens=4, gap=0.05)) as engine:
        content = odd([engine.url])
        content["engines"][0]["machine"] = f"lab-{os.getpid()}"
        content["load"] |= {"requests": 30, "concurrencies": [1]}
        file = configured(tmp_path, content)
        first = launch(tmp_path / "a", "run", file)
        while len(engine.seen) < 3:
            time.sleep(0.02)
        second = launch(tmp_path / "b", "run", file)
        _, errors = second.communicate(timeout=120)
        first.communicate(timeout=120)
    one, other = only(tmp_path / "a"), only(tmp_path / "b")
    assert "waits until the other probe on its machine has ended" in errors
    assert one.info.ended_ns is not None
    assert one.info.ended_ns <= other.info.started_ns


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("load: {kind: poisson, rates: [0]}", "greater than 0"),
        ("load: {kind: poisson, rates: [1000000]}", "can't be sent by one client"),
        ("load: {kind: poisson, rates: [0.01], requests: 1000}", "raise `seconds`, or ask for fewer"),
        ("load: {kind: sweep}", "`target` is missing"),
        ("load: {kind: sometimes}", "load.kind"),
        ("load: [", "not valid YAML"),
    ],
)
def test_a_file_that_asks_for_the_impossible(tmp_path: Path, content: str, said: str) -> None:
    base = "name: x\nengines: [{name: e, url: 'http://127.0.0.1:9'}]\nworkload: {input_tokens: 8, output_tokens: 4}\n"
    file = tmp_path / "probe.yaml"
    file.write_text(base + content)
    done = probe(tmp_path, "run", file)
    assert done.returncode == 1
    assert said in done.stderr
    assert not (tmp_path / "probes").exists()


def test_an_entry_that_is_not_in_the_file(tmp_path: Path) -> None:
    done = probe(tmp_path, "run", FILE, "--only", "q9")
    assert done.returncode == 2
    assert "q9 isn't in the file: it has f32, q8_0, q4_0" in done.stderr


def test_calls_of_a_dimension_that_there_is_not(tmp_path: Path, server: Server) -> None:
    content = odd(["http://127.0.0.1:9"], workload={"ledger": {"where": {"colour": "red"}}})
    done = probe(tmp_path, "run", configured(tmp_path, content), "--url", f"http://127.0.0.1:{server.port}")
    assert done.returncode == 1
    assert "colour" in done.stderr
    assert "please report it" not in done.stderr
