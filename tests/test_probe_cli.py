"""`tallystick probe list`, `show` and `compare`: what they print, refuse and exit with."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_runs import SECOND, STARTED, info, ladder, stage, write

from tallystick.cli import cli
from tallystick.probes.figures.definitions import DEFINITIONS
from tallystick.probes.loading import find_run
from tallystick.probes.runs import State
from tallystick.probes.views import VIEWS

DAY = 24 * 3600 * SECOND


def probe(data: Path, *args: str) -> Result:
    return CliRunner().invoke(cli, ["probe", *args, "--data", str(data)], env={"COLUMNS": "300"})


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """F32 on two days and Q8_0 on the second, twice as fast; a run that failed; a folder without a run."""
    data = tmp_path_factory.mktemp("data")
    slow = ladder(40, tpot_ms=8, rates=(2, 4))
    write(data, info("F32"), *slow)
    write(data, info("F32", started_ns=STARTED + DAY), *slow)
    write(data, info("Q8_0", started_ns=STARTED + DAY + SECOND), *ladder(20, tpot_ms=4, rates=(2, 4)))
    failed = info("F32", probe="other", started_ns=STARTED + 2 * DAY, state=State.FAILED)
    write(data, replace(failed, engine=None, failure="nothing listens there"))
    (data / "probes" / "empty").mkdir()
    return data


def test_the_list_has_the_latest_first_and_says_what_it_left_out(data: Path) -> None:
    result = probe(data, "list", "--json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [(row["probe"], row["entry"], row["state"]) for row in rows] == [
        ("other", "F32", "failed"), ("quantised", "Q8_0", "done"), ("quantised", "F32", "done"), ("quantised", "F32", "done"),
    ]  # fmt: skip
    assert rows[0]["engine"] is rows[0]["ttft_p50_ms"] is rows[0]["carried_per_s"] is None
    assert rows[1]["variant"] == "Q8_0"
    assert rows[1]["carried_per_s"] == 4
    run = find_run(data, rows[1]["id"])
    assert rows[1]["ttft_p50_ms"] == run.summaries[1].value("ttft_scheduled_p50")
    assert "left out" in result.stderr
    assert "empty" in result.stderr


def test_the_list_of_one_probe_as_a_table_and_csv(data: Path) -> None:
    result = probe(data, "list", "--probe", "quantised", "--limit", "2")
    assert result.exit_code == 0
    assert "Q8_0" in result.stdout
    assert "other" not in result.stdout
    assert "older runs: 1" in result.stderr
    rows = list(csv.DictReader(io.StringIO(probe(data, "list", "--csv").stdout)))
    assert len(rows) == 4
    assert rows[0]["usd_per_million"] == ""


def test_an_empty_directory_says_what_to_do(tmp_path: Path) -> None:
    result = probe(tmp_path, "list")
    assert result.exit_code == 0
    assert "probe run CONFIG" in result.stderr
    assert json.loads(probe(tmp_path, "list", "--json").stdout) == []
    missing = probe(tmp_path, "show", "last")
    assert missing.exit_code == 1
    assert "probe run CONFIG" in missing.stderr


def test_show_has_every_figure_with_n_and_interval(data: Path) -> None:
    rows = json.loads(probe(data, "show", "quantised/Q8_0", "--json").stdout)
    run = find_run(data, "quantised/Q8_0")
    assert len(rows) == sum(len(one.figures) for one in run.summaries)
    for row in rows:
        figure = run.summaries[row["stage"] - 1].figures[row["figure"]]
        assert (row["value"], row["low"], row["high"], row["n"]) == (figure.value, figure.low, figure.high, figure.n)
        assert row["value"] is not None or row["needs"] is None or row["needs"] > row["n"]


def test_show_explains_and_says_what_is_not_to_be_trusted(data: Path) -> None:
    result = probe(data, "show", "quantised/Q8_0", "--definitions")
    assert all(f"{name}: {said}" in result.stdout for name, said in DEFINITIONS.items())
    assert "poisson 4/s" in result.stdout
    failed = probe(data, "show", "last")
    assert failed.exit_code == 0
    assert "nothing listens there" in failed.stdout


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_show_under_other_tools_names(data: Path, name: str) -> None:
    rows = json.loads(probe(data, "show", "quantised/Q8_0", "--view", name, "--json").stdout)
    run = find_run(data, "quantised/Q8_0")
    first = {row["figure"]: row["value"] for row in rows if row["stage"] == 1}
    assert first == VIEWS[name].figures(run.stages[0].records, run.target)


def test_compare_a_probe_lays_its_engines_side_by_side(data: Path, tmp_path: Path) -> None:
    result = probe(data, "compare", "quantised", "--html", str(tmp_path / "report.html"))
    assert result.exit_code == 0
    assert "Q8_0 is faster than F32 at poisson 4/s" in result.stdout
    assert "entry.variant.quantisation" in result.stdout
    assert "TTFT from schedule p50" in result.stdout
    assert "Q8_0 carries 4 requests a second within the target" in result.stdout
    assert "Q8_0 is faster than F32" in (tmp_path / "report.html").read_text()


def test_compare_for_programs(data: Path) -> None:
    rows = json.loads(probe(data, "compare", "quantised", "--json").stdout)
    assert {row["load"] for row in rows} == {"poisson 2/s", "poisson 4/s"}
    first = next(row for row in rows if row["figure"] == "tpot_p50")
    assert first["shown"]
    assert first["value"] - first["base_value"] == pytest.approx(first["difference"])
    assert first["low"] <= first["difference"] <= first["high"] < 0
    text = probe(data, "compare", "quantised", "--csv").stdout
    assert [row["figure"] for row in csv.DictReader(io.StringIO(text))] == [row["figure"] for row in rows]


def test_the_base_can_be_another(data: Path) -> None:
    rows = json.loads(probe(data, "compare", "quantised", "--base", "quantised/Q8_0", "--json").stdout)
    assert all(row["base"].endswith("q8_0-0000") and row["now"].endswith("f32-0000") for row in rows)
    assert next(row for row in rows if row["figure"] == "tpot_p50")["difference"] > 0


def test_what_cannot_be_compared_is_said(data: Path, tmp_path: Path) -> None:
    rows = json.loads(probe(data, "compare", "quantised/F32", "other/F32", "--json").stdout)
    assert [row["figure"] for row in rows] == [None]
    assert "can't be compared" in rows[0]["verdict"]
    alone = probe(data, "compare", "last")
    assert alone.exit_code == 1
    assert "nothing to compare" in alone.stderr
    assert probe(tmp_path, "compare", "last").exit_code == 1


def test_a_run_is_held_against_those_before_it(tmp_path: Path) -> None:
    for day in range(4):
        write(tmp_path, info("F32", started_ns=STARTED + day * DAY), *ladder(20 + day, rates=(2,)))
    assert probe(tmp_path, "compare", "last", "--fail-on-regression", "10").exit_code == 0
    write(tmp_path, info("F32", started_ns=STARTED + 9 * DAY), *ladder(60, rates=(2,)))
    told = probe(tmp_path, "compare", "last", "--with-last")
    assert told.exit_code == 0
    assert "worse poisson 2/s: TTFT from schedule p50" in told.stdout
    failing = probe(tmp_path, "compare", "last", "--fail-on-regression", "10", "--json")
    assert failing.exit_code == 1
    worse = {row["figure"]: row["worse_percent"] for row in json.loads(failing.stdout) if row["regressed"]}
    assert worse["ttft_scheduled_p50"] > 100
    assert "output_tokens_per_s" not in worse
    assert probe(tmp_path, "compare", "last", "--fail-on-regression", "1000").exit_code == 0
    first = probe(tmp_path, "compare", str(STARTED // SECOND), "--with-last")
    assert "no valid run before it" in first.stdout


def test_damage_is_told_beside_the_figures(data: Path, tmp_path: Path) -> None:
    folder = write(tmp_path, info("F32"), *ladder(rates=(2,), count=30))
    content = (folder / "records.jsonl.gz").read_bytes()
    (folder / "records.jsonl.gz").write_bytes(content[: len(content) // 2])
    result = probe(tmp_path, "show", "last")
    assert result.exit_code == 0
    assert "records.jsonl.gz is cut off" in result.stderr
    assert "of 30 requests can be read" in result.stderr


def test_flags_that_exclude_each_other(data: Path) -> None:
    assert probe(data, "compare", "quantised", "--json", "--csv").exit_code == 2
    assert probe(data, "show", "last", "--view", "other").exit_code == 2
    assert probe(data, "compare").exit_code == 2


def test_groups_of_a_cache_experiment_are_shown_with_their_differences(tmp_path: Path) -> None:
    names = ("cold", "warm", "control", "interleaved")
    one = stage(1, 4, ttft_ms=40, tpot_ms=4)
    grouped = [replace(record, group=names[record.number % 4]) for record in one.records]
    write(tmp_path, info("F32"), replace(one, records=grouped))
    done = probe(tmp_path, "show", "last")
    assert all(f"{name}_ttft_p50" in done.output for name in names)
    assert "interleaved - control, medians of TTFT: " in done.output
    assert "no difference is shown" in done.output
