"""A directory of FOCUS files over time: what changed is written again, and nothing is ever half."""

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tallystick.attribution.focus.columns import UnknownVersion
from tallystick.attribution.focus.directory import DirectoryInUse, DoesNotAddUp, OtherExport, Outcome, Shape, export
from tallystick.attribution.focus.question import Day, Form, Question, Tally
from tallystick.attribution.moments import nanoseconds

SINCE, UNTIL = nanoseconds(datetime(2026, 10, 1, tzinfo=UTC)), nanoseconds(datetime(2026, 10, 31, tzinfo=UTC))
NOW = datetime(2026, 10, 20, tzinfo=UTC)
SHAPE = Shape("1.2", "daily", "parquet")


@dataclass
class Held:
    """A ledger as a list of (day, when entered, cost); its files are the costs as text. asked: days of which a file was asked."""

    entries: list[tuple[str, datetime, Decimal]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def add(self, day: str, cost: str, entered_at: datetime = NOW) -> None:
        self.entries.append((day, entered_at, Decimal(cost)))

    def _of(self, question: Question) -> list[tuple[str, datetime, Decimal]]:
        def at(day: str) -> int:
            return nanoseconds(datetime.fromisoformat(f"{day}T00:00:00+00:00"))

        return [
            one
            for one in sorted(self.entries)
            if question.since_ns <= at(one[0]) < question.until_ns and (question.as_of is None or one[1] < question.as_of)
        ]

    def focus_days(self, question: Question) -> list[Day]:
        found = self._of(question)
        return [
            Day(day, len(of), max(one[1] for one in of), sum((one[2] for one in of), Decimal(0)), 10 * len(of), 0)
            for day in sorted({one[0] for one in found})
            if (of := [one for one in found if one[0] == day])
        ]

    def focus_tally(self, question: Question) -> Tally:
        found = self._of(question)
        return Tally(len(found), sum((one[2] for one in found), Decimal(0)))

    def focus(self, question: Question, form: Form) -> Iterator[bytes]:
        found = self._of(question)
        self.asked.append(found[0][0])
        for _, _, cost in found:
            yield f"{cost:f}\n".encode()


@pytest.fixture
def ledger() -> Held:
    held = Held()
    for day in ("2026-10-01", "2026-10-02", "2026-10-05"):
        held.add(day, "0.000000000001")
    return held


def run(directory: Path, ledger: Held, shape: Shape = SHAPE, *, full: bool = False) -> list[Outcome]:
    return list(export(directory, shape, ledger, SINCE, UNTIL, full=full))


def told(outcomes: list[Outcome]) -> dict[str, str]:
    return {one.day: one.done for one in outcomes}


def manifest(directory: Path) -> dict[str, Any]:
    return dict(json.loads((directory / "manifest.json").read_text()))


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()} - {".lock"}


def test_a_file_a_day_and_a_manifest_that_adds_up(tmp_path: Path, ledger: Held) -> None:
    outcomes = run(tmp_path / "new" / "focus", ledger)
    directory = tmp_path / "new" / "focus"
    assert told(outcomes) == dict.fromkeys(("2026-10-01", "2026-10-02", "2026-10-05"), "written")
    assert files(directory) == {"manifest.json", *(f"focus-2026-10-0{day}.parquet" for day in (1, 2, 5))}
    held = manifest(directory)
    assert (held["version"], held["granularity"], held["form"], held["rows"], held["cost_usd"]) == (
        "1.2", "daily", "parquet", 3, "0.000000000003",
    )  # fmt: skip
    for about in held["periods"].values():
        content = (directory / str(about["file"])).read_bytes()
        assert about["sha256"] == hashlib.sha256(content).hexdigest()
        assert about["bytes"] == len(content)
        assert about["entered_at"] == NOW.isoformat()


def test_only_days_that_changed_are_written_again(tmp_path: Path, ledger: Held) -> None:
    run(tmp_path, ledger)
    ledger.asked.clear()
    assert set(told(run(tmp_path, ledger)).values()) == {"unchanged"}
    assert ledger.asked == []
    ledger.add("2026-10-02", "5", NOW + timedelta(days=30))
    ledger.add("2026-10-09", "7", NOW + timedelta(days=30))
    outcomes = run(tmp_path, ledger)
    assert ledger.asked == ["2026-10-02", "2026-10-09"]
    assert {one.day: one.cost_usd for one in outcomes if one.done == "written"} == {
        "2026-10-02": Decimal("5.000000000001"),
        "2026-10-09": Decimal(7),
    }
    assert (tmp_path / "focus-2026-10-02.parquet").read_bytes() == b"0.000000000001\n5\n"
    assert manifest(tmp_path)["entered_at"] == (NOW + timedelta(days=30)).isoformat()


def test_corrections_that_cancel_each_other_are_a_change(tmp_path: Path, ledger: Held) -> None:
    run(tmp_path, ledger)
    ledger.add("2026-10-02", "5")
    ledger.add("2026-10-02", "-5")
    assert told(run(tmp_path, ledger))["2026-10-02"] == "written"


def test_full_writes_all(tmp_path: Path, ledger: Held) -> None:
    run(tmp_path, ledger)
    assert set(told(run(tmp_path, ledger, full=True)).values()) == {"written"}


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_a_file_that_was_harmed_is_written_again(tmp_path: Path, ledger: Held, harm: str) -> None:
    run(tmp_path, ledger)
    path = tmp_path / "focus-2026-10-02.parquet"
    path.unlink() if harm == "missing" else path.write_bytes(b"0")
    assert told(run(tmp_path, ledger))["2026-10-02"] == "written"
    assert path.read_bytes() == b"0.000000000001\n"


def test_what_the_ledger_forgot_for_its_age_stays_in_the_file(tmp_path: Path, ledger: Held) -> None:
    ledger.add("2026-10-02", "5")
    run(tmp_path, ledger)
    ledger.entries.remove(("2026-10-02", NOW, Decimal(5)))
    ledger.entries = [one for one in ledger.entries if one[0] != "2026-10-01"]
    assert told(run(tmp_path, ledger)) == {"2026-10-02": "kept", "2026-10-05": "unchanged"}
    assert (tmp_path / "focus-2026-10-01.parquet").exists()
    assert (tmp_path / "focus-2026-10-02.parquet").read_bytes() == b"0.000000000001\n5\n"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (Shape("1.4", "daily", "parquet"), "holds FOCUS 1.2, daily, parquet, not FOCUS 1.4"),
        (Shape("1.2", "hourly", "parquet"), "not FOCUS 1.2, hourly"),
        (Shape("1.2", "daily", "csv"), "not FOCUS 1.2, daily, csv"),
        (Shape("1.2", "daily", "parquet", "acme"), "not FOCUS 1.2, daily, parquet of acme"),
    ],
)
def test_a_directory_holds_one_kind_of_files(tmp_path: Path, ledger: Held, shape: Shape, said: str) -> None:
    run(tmp_path, ledger)
    before = manifest(tmp_path)
    with pytest.raises(OtherExport, match=said):
        run(tmp_path, ledger, shape)
    assert manifest(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"periods": 3}', b"\xff"])
def test_a_manifest_that_is_no_manifest(tmp_path: Path, ledger: Held, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(OtherExport, match=r"manifest\.json"):
        run(tmp_path, ledger)
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_files_without_a_manifest_arent_touched(tmp_path: Path, ledger: Held) -> None:
    (tmp_path / "focus-2026-10-01.parquet").write_bytes(b"of somebody")
    with pytest.raises(OtherExport, match=r"no manifest\.json"):
        run(tmp_path, ledger)
    assert (tmp_path / "focus-2026-10-01.parquet").read_bytes() == b"of somebody"


def test_an_unknown_version_makes_no_directory(tmp_path: Path, ledger: Held) -> None:
    with pytest.raises(UnknownVersion):
        run(tmp_path / "new", ledger, Shape("1.1", "daily", "csv"))
    assert not (tmp_path / "new").exists()


def test_two_exports_at_once(tmp_path: Path, ledger: Held) -> None:
    first = export(tmp_path, SHAPE, ledger, SINCE, UNTIL)
    next(first)
    with pytest.raises(DirectoryInUse):
        run(tmp_path, ledger)
    assert len(list(first)) == 2
    assert set(told(run(tmp_path, ledger)).values()) == {"unchanged"}


def test_entries_that_come_while_a_file_is_written(tmp_path: Path, ledger: Held) -> None:
    """One with an earlier time appears: the file is written again; one with a later time is for the next export."""

    class Busy(Held):
        def focus(self, question: Question, form: Form) -> Iterator[bytes]:
            yield from super().focus(question, form)
            if len(self.asked) == 1:
                self.add("2026-10-01", "3", NOW - timedelta(hours=1))
                self.add("2026-10-01", "4", NOW + timedelta(hours=1))

    busy = Busy(ledger.entries)
    first, *_ = run(tmp_path, busy)
    assert (first.rows, first.cost_usd) == (2, Decimal("3.000000000001"))
    assert (tmp_path / first.file).read_bytes() == b"3\n0.000000000001\n"
    first, *_ = run(tmp_path, busy)
    assert (first.done, first.rows, first.cost_usd) == ("written", 3, Decimal("7.000000000001"))


def test_a_file_that_doesnt_add_up_isnt_kept(tmp_path: Path, ledger: Held) -> None:
    class Wrong(Held):
        def focus_tally(self, question: Question) -> Tally:
            return Tally(1, Decimal("0.000000000002"))

    with pytest.raises(DoesNotAddUp, match=r"2026-10-01: the file comes to 0\.000000000002 USD, the ledger to 0\.000000000001"):
        run(tmp_path, Wrong(ledger.entries))
    assert files(tmp_path) == {"manifest.json"}
    assert set(told(run(tmp_path, ledger)).values()) == {"written"}


def test_a_source_that_breaks_off_leaves_nothing_half(tmp_path: Path, ledger: Held) -> None:
    class Broken(Held):
        def focus(self, question: Question, form: Form) -> Iterator[bytes]:
            pieces = super().focus(question, form)
            yield next(pieces)
            if self.asked[-1] == "2026-10-02":
                raise ConnectionResetError
            yield from pieces

    with pytest.raises(ConnectionResetError):
        run(tmp_path, Broken(ledger.entries))
    assert files(tmp_path) == {"manifest.json", "focus-2026-10-01.parquet"}
    assert told(run(tmp_path, ledger)) == {"2026-10-01": "unchanged", "2026-10-02": "written", "2026-10-05": "written"}


def test_a_full_disk_leaves_nothing_half(tmp_path: Path, ledger: Held) -> None:
    ledger.entries = [("2026-10-02", NOW, Decimal(index)) for index in range(2000)] + ledger.entries
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"focus-2026-10-02\.parquet"):
            run(tmp_path, ledger)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {"manifest.json", "focus-2026-10-01.parquet"}
    assert told(run(tmp_path, ledger))["2026-10-05"] == "written"


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_focus_directory import *
ledger = Held()
for day in ("2026-10-01", "2026-10-02", "2026-10-05"):
    ledger.add(day, "0.000000000001")
countdown = [{steps}]
def step(event, arguments):
    if event in ("open", "os.rename", "os.remove") and str({directory!r}) in str(arguments[0]):
        countdown[0] -= 1
        if countdown[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(step)
run(Path({directory!r}), ledger)
"""


@pytest.mark.parametrize("steps", range(2, 24, 3))
def test_an_export_killed_anywhere_is_finished_by_the_next(tmp_path: Path, ledger: Held, steps: int) -> None:
    directory = tmp_path / "focus"
    script = KILLED.format(tests=str(Path(__file__).parent), directory=str(directory), steps=steps)
    done = subprocess.run([sys.executable, "-c", script], env=os.environ, check=False)
    assert done.returncode == -signal.SIGKILL
    assert "written" in told(run(directory, ledger)).values()
    assert files(directory) == {"manifest.json", *(f"focus-2026-10-0{day}.parquet" for day in (1, 2, 5))}
    assert set(told(run(directory, ledger)).values()) == {"unchanged"}
    for about in manifest(directory)["periods"].values():
        assert (directory / str(about["file"])).read_bytes() == b"0.000000000001\n"
