"""Runs read back: whole, cut off anywhere, damaged, found by their names."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import STARTED, info, ladder, write

from tallystick.probes.loading import RunNotFound, RunUnreadable, find_run, find_runs, load_run, runs_before, runs_in
from tallystick.probes.runs import State

HOUR = 3_600_000_000_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("whole"), info("F32"), *ladder(count=12))


def test_what_was_written_is_read(whole: Path) -> None:
    run = load_run(whole)
    assert run.info == info("F32")
    assert list(run.stages) == ladder(count=12)
    assert run.problems == ()


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_file_cut_off_anywhere_is_read_up_to_there(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["records.jsonl.gz", "samples.jsonl", "stages.jsonl"]))
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = (whole / name).read_bytes()
    kept = data.draw(st.integers(0, len(content) - 1))
    (tmp_path / name).write_bytes(content[:kept])
    found, known = load_run(tmp_path), load_run(whole)
    for stage in found.stages:
        (same,) = [one for one in known.stages if one.number == stage.number]
        assert list(stage.records) == list(same.records)[: len(stage.records)]
        assert list(stage.samples) == list(same.samples)[: len(stage.samples)]
    lost = sum(len(one.records) for one in known.stages) - sum(len(one.records) for one in found.stages)
    if lost:
        assert found.problems


def test_a_stage_without_an_end_is_in_no_figure_and_said(whole: Path, tmp_path: Path) -> None:
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (whole / "stages.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "stages.jsonl").write_text("".join(lines[:2]))
    run = load_run(tmp_path)
    assert [stage.number for stage in run.stages] == [1, 2]
    assert run.problems == ("stage 3 has no end: its 12 requests are kept, and are in no figure",)


@pytest.mark.parametrize(
    "line", ["{}", "[]", "null", '{"stage": 1}', '{"stage": 1, "events": 3}', "\x00\x00", '{"stage": 1, "even']
)
def test_damaged_lines_are_left_out_and_said(whole: Path, tmp_path: Path, line: str) -> None:
    for file in whole.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = gzip.decompress((whole / "records.jsonl.gz").read_bytes()).decode().splitlines()
    text[5] = line
    (tmp_path / "records.jsonl.gz").write_bytes(gzip.compress("\n".join(text).encode()))
    run = load_run(tmp_path)
    assert [len(stage.records) for stage in run.stages] == [11, 12, 12]
    assert "stage 1: 11 of 12 requests can be read" in run.problems


def test_files_that_are_missing_are_said(tmp_path: Path) -> None:
    folder = write(tmp_path, info("F32"))
    for file in folder.glob("*.jsonl*"):
        file.unlink()
    run = load_run(folder)
    assert run.stages == ()
    assert {problem.split(" ")[0] for problem in run.problems} == {"records.jsonl.gz", "samples.jsonl", "stages.jsonl"}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"state": "no such"}'])
def test_a_folder_that_says_nothing_is_left_out_of_the_list(tmp_path: Path, text: str) -> None:
    folder = write(tmp_path, info("F32"))
    good = write(tmp_path, info("Q8_0"))
    (folder / "run.json").write_text(text)
    with pytest.raises(RunUnreadable, match=r"run\.json"):
        load_run(folder)
    unreadable: list[str] = []
    assert [one.id for one in runs_in(tmp_path, unreadable)] == [good.name]
    assert len(unreadable) == 1


def test_names(tmp_path: Path) -> None:
    days = [STARTED + day * 24 * HOUR for day in range(3)]
    for day in days:
        for number, entry in enumerate(("Q8_0", "F32")):
            write(tmp_path, info(entry, started_ns=day + number))
    write(tmp_path, info("gone", started_ns=days[0] - HOUR))
    other = info("F32", probe="other", started_ns=days[1] + HOUR)
    write(tmp_path, other)

    def ids(name: str) -> list[tuple[str, int]]:
        return [(run.info.entry, run.info.started_ns) for run in find_runs(tmp_path, name)]

    assert ids("quantised") == [("F32", days[2] + 1), ("Q8_0", days[2])], "in the file's order, without what it no longer has"
    assert ids("quantised/Q8_0") == [("Q8_0", days[2])]
    assert ids("quantised/gone") == [("gone", days[0] - HOUR)]
    assert ids("last") == [("F32", days[2] + 1)]
    assert ids(other.id) == ids(other.id[:-3]) == ids(str(tmp_path / "probes" / other.id)) == [("F32", other.started_ns)]
    with pytest.raises(RunNotFound, match="2 runs begin with"):
        find_run(tmp_path, str(days[0] // 1_000_000_000))
    with pytest.raises(RunNotFound, match="is 2 runs"):
        find_run(tmp_path, "quantised")
    with pytest.raises(RunNotFound) as missing:
        find_run(tmp_path, "nothing")
    assert "the latest are" in missing.value.hint
    with pytest.raises(RunNotFound) as none:
        find_run(tmp_path / "elsewhere", "last")
    assert "probe run" in none.value.hint


def test_runs_before_are_of_the_same_probe_and_entry_and_valid(tmp_path: Path) -> None:
    last = info("F32", started_ns=STARTED + 5 * HOUR)
    for hours, entry, state in (
        (1, "F32", State.DONE),
        (2, "F32", State.INVALID),
        (3, "Q8_0", State.DONE),
        (4, "F32", State.DONE),
        (6, "F32", State.DONE),
    ):
        write(tmp_path, info(entry, started_ns=STARTED + hours * HOUR, state=state))
    assert [run.info.started_ns for run in runs_before(tmp_path, last)] == [STARTED + HOUR, STARTED + 4 * HOUR]
    assert [run.info.started_ns for run in runs_before(tmp_path, last, most=1)] == [STARTED + 4 * HOUR]
    assert runs_before(tmp_path, info("F32", started_ns=STARTED + HOUR)) == []


def test_a_configuration_of_another_version_is_left_out_and_said(tmp_path: Path) -> None:
    write(tmp_path, info("F32", target={"ttft": 200}, engines=[{"name": "F32", "cost": {"usd_per_day": 3}}]), *ladder(count=12))
    run = find_run(tmp_path, "last")
    assert run.target is None
    assert run.cost is None
    assert [problem.split(" isn't used")[0] for problem in run.problems] == ["run.json: `target`", "run.json: `cost`"]
    assert len(run.summaries) == 3


def test_run_json_is_what_runs_py_says(whole: Path) -> None:
    assert set(json.loads((whole / "run.json").read_text())) == set(info("F32").__dict__)
