"""Probes and a server: what is scheduled is run once, ended with all that it started, and told; runs are pushed, and shown to operators."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from made_runs import info, ladder, write
from pushed_runs import pushed
from server import Server

from tallystick.alerts.ledger import Ledger
from tallystick.attribution.config_file import ConfigFileError
from tallystick.cli import cli
from tallystick.ingest.keys import Role
from tallystick.server.probe_schedules import CantRun, ProbeSchedules, ScheduleState, Told
from tallystick.server.probe_times import read_schedules, trigger
from tallystick.settings import Settings

YEAR = datetime(2026, 1, 1)  # noqa: DTZ001
PROBE = """
name: made
engines: [{name: f32, url: "http://127.0.0.1:9"}]
workload: {input_tokens: 10, output_tokens: 2}
load: {kind: closed, concurrencies: [1]}
"""

SCRIPT = """
import json, os, signal, subprocess, sys, time
behaviour = json.loads(open(os.environ["BEHAVIOUR"]).read())
log = open(os.environ["BEHAVIOUR"] + ".log", "a")
def told(what):
    log.write(json.dumps([what, os.getpid(), sys.argv[1:]]) + "\\n"); log.flush()
told("begins")
child = subprocess.Popen(["sleep", "600"]) if behaviour.get("engine") else None
if child: open(os.environ["BEHAVIOUR"] + ".engine", "w").write(str(child.pid))
signal.signal(signal.SIGTERM, lambda *_: (told("ends"), sys.exit(1)))
time.sleep(behaviour.get("seconds", 0))
sys.stderr.write("f32: run run-1\\nf32 is " + behaviour.get("says", "done") + "\\n")
print(json.dumps([{"id": "run-1"}]))
told("ends")
sys.exit(behaviour.get("code", 0))
"""


class Place:
    """A configuration whose probes do as they are told."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.config, self._behaviour = folder, folder / "tallystick.yaml", folder / "behaviour"
        (folder / "probe.py").write_text(SCRIPT)
        (folder / "made.yaml").write_text(PROBE)
        monkeypatch.setenv("BEHAVIOUR", str(self._behaviour))
        self.behaves()
        self.schedules("{name: nightly, config: made.yaml, every: 24h}")

    def behaves(self, **how: object) -> None:
        self._behaviour.write_text(json.dumps(how))

    def schedules(self, *entries: str) -> None:
        self.config.write_text("probes:\n" + "".join(f"  - {one}\n" for one in entries))

    def log(self) -> list[tuple[str, int, list[str]]]:
        file = Path(f"{self._behaviour}.log")
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    def engine(self) -> int:
        """Its process; 0 before it was started."""
        file = Path(f"{self._behaviour}.engine")
        return int(file.read_text() or 0) if file.exists() else 0

    def open(self, ledger: Ledger | None, holder: str = "one", url: str | None = "http://127.0.0.1:1") -> ProbeSchedules:
        settings = replace(Settings.load({}), data=self.folder / "data", config=self.config)
        command = (sys.executable, str(self.folder / "probe.py"))
        return ProbeSchedules(settings, url, ledger.leases if ledger else None, holder, command=command, look_s=1)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'alerts.db'}") as opened:
        yield opened


def until(condition: Callable[[], object], limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def one(schedules: ProbeSchedules, name: str = "nightly") -> Told:
    return next(told for told in schedules.told().schedules if told.name == name)


def ended(schedules: ProbeSchedules, name: str = "nightly") -> Told:
    until(lambda: one(schedules, name).outcome is not None and one(schedules, name).state is ScheduleState.WAITING)
    return one(schedules, name)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"


@pytest.fixture
def running(place: Place, ledger: Ledger) -> Iterator[ProbeSchedules]:
    schedules = place.open(ledger)
    schedules.start()
    yield schedules
    schedules.stop()


def test_run_now(place: Place, running: ProbeSchedules) -> None:
    before = one(running)
    assert (before.state, before.outcome, before.problem, before.when) == ("waiting", None, "", "every 1 day, 0:00:00")
    assert before.next_at is not None
    assert before.next_at > datetime.now(UTC)
    running.run_now("nightly")
    after = ended(running)
    assert (after.outcome, after.runs, after.said) == ("done", ["run-1"], "")
    ((_, _, arguments), _) = place.log()
    assert arguments == [
        str(place.folder / "made.yaml"), "--data", str(place.folder / "data"), "--url", "http://127.0.0.1:1", "--push", "--json",
    ]  # fmt: skip


def test_what_fails_says_why(place: Place, running: ProbeSchedules) -> None:
    place.behaves(code=1, says="failed: the engine isn't there")
    running.run_now("nightly")
    after = ended(running)
    assert (after.outcome, after.runs) == ("failed", ["run-1"])
    assert after.said.endswith("f32 is failed: the engine isn't there")


def test_a_run_that_takes_too_long_is_ended_with_its_engine(place: Place, ledger: Ledger) -> None:
    place.behaves(seconds=600, engine=True)
    place.schedules("{name: nightly, config: made.yaml, every: 24h, timeout: 2s}")
    schedules = place.open(ledger)
    schedules.start()
    try:
        schedules.run_now("nightly")
        after = ended(schedules)
    finally:
        schedules.stop()
    assert (after.outcome, after.said) == ("timed out", "it took longer than 0:00:02")
    assert [what for what, *_ in place.log()] == ["begins", "ends"]
    until(lambda: gone(place.engine()))


def test_the_end_of_the_server_ends_the_run_and_is_remembered(place: Place, ledger: Ledger) -> None:
    place.behaves(seconds=600, engine=True)
    schedules = place.open(ledger)
    schedules.start()
    schedules.run_now("nightly")
    until(place.engine)
    with pytest.raises(CantRun, match="nightly is running already"):
        schedules.run_now("nightly")
    schedules.stop()
    until(lambda: gone(place.engine()))
    again = place.open(ledger)
    again.start()
    try:
        assert (one(again).outcome, one(again).said) == ("stopped", "stopped")
    finally:
        again.stop()


def test_never_two_at_once(place: Place, ledger: Ledger) -> None:
    """Two replicas, two schedules: what is due each second is run by one of them, one after the other."""
    place.behaves(seconds=0.1)
    place.schedules("{name: a, config: made.yaml, every: 1s}", "{name: b, config: made.yaml, every: 1s}")
    replicas = [place.open(ledger, holder) for holder in ("one", "two")]
    began = time.time()
    for replica in replicas:
        replica.start()
    until(lambda: len(place.log()) >= 12)
    stopping = [threading.Thread(target=replica.stop) for replica in replicas]
    for thread in stopping:
        thread.start()
    for thread in stopping:
        thread.join()
    log = place.log()
    assert all(first[0] == "begins" and then[:2] == ("ends", first[1]) for first, then in zip(log[::2], log[1::2], strict=False))
    # Each of the two was due once a second.
    assert len(log[::2]) <= 2 * (time.time() - began + 2)


def test_what_another_replica_has_taken_is_not_run(place: Place, ledger: Ledger) -> None:
    place.schedules("{name: a, config: made.yaml, every: 1s}")
    now = datetime.now(UTC)
    assert ledger.leases.acquire("probe a", "another", timedelta(hours=1), now)
    schedules = place.open(ledger)
    schedules.start()
    try:
        time.sleep(2.5)
        assert place.log() == []
        schedules.run_now("a")
        assert ended(schedules, "a").outcome == "done"
    finally:
        schedules.stop()


def test_the_file_is_read_again(place: Place, running: ProbeSchedules) -> None:
    place.schedules("{name: other, config: made.yaml, cron: '0 3 * * *', timezone: Europe/Berlin}")
    until(lambda: [told.name for told in running.told().schedules] == ["other"])
    assert one(running, "other").when == "0 3 * * * Europe/Berlin"
    place.config.write_text("probes: [{name: x}]")
    until(lambda: running.told().problems)
    assert [told.name for told in running.told().schedules] == ["other"]
    place.schedules("{name: third, config: gone.yaml, every: 6h}")
    until(lambda: [told.name for told in running.told().schedules] == ["third"])
    assert running.told().problems == ()
    assert one(running, "third").problem == f"{place.folder / 'gone.yaml'}: No such file or directory"
    running.run_now("third")
    assert ended(running, "third").outcome == "failed"
    assert place.log() == []


def test_a_probe_that_cannot_be_used_says_so(place: Place, running: ProbeSchedules) -> None:
    (place.folder / "made.yaml").write_text(PROBE.replace("closed", "closely"))
    assert "load.kind" in one(running).problem


def test_elsewhere(place: Place) -> None:
    """`tallystick api` shows what is scheduled and runs nothing."""
    schedules = place.open(None)
    assert (one(schedules).state, one(schedules).next_at) == ("elsewhere", None)
    with pytest.raises(CantRun, match="runs no probes"):
        schedules.run_now("nightly")
    with pytest.raises(CantRun, match="no schedule 'x'"):
        schedules.run_now("x")


def test_without_a_server_to_push_to(place: Place, ledger: Ledger) -> None:
    schedules = place.open(ledger, url=None)
    schedules.start()
    try:
        assert "TALLYSTICK_URL" in one(schedules).problem
    finally:
        schedules.stop()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{name: a, config: x.yaml}", "give `every` or `cron`"),
        ("{name: a, config: x.yaml, every: 1h, cron: '0 3 * * *'}", "give `every` or `cron`"),
        ("{name: a, config: x.yaml, every: never}", "write a duration"),
        ("{name: a, config: x.yaml, cron: '0 3 * *'}", "write five fields"),
        ("{name: a, config: x.yaml, cron: '0 25 * * *'}", "25"),
        ("{name: a, config: x.yaml, cron: '0 3 1 * mon'}", "one of them"),
        ("{name: a, config: x.yaml, cron: '0 3 31 2 *'}", "that never comes"),
        ("{name: a, config: x.yaml, every: 1h, timezone: Europe/Berln}", "did you mean `Europe/Berlin`"),
        ("{name: a b, config: x.yaml, every: 1h}", "name"),
        ("{name: a, every: 1h}", "config"),
        ("{name: a, config: x.yaml, every: 1h, evry: 2h}", "did you mean `every`"),
        ("{name: a, config: x.yaml, every: 1h}\n  - {name: a, config: x.yaml, every: 2h}", "the name a is there twice"),
        ("nothing", "probes[0]"),
    ],
)
def test_schedules_that_cannot_be(entry: str, said: str) -> None:
    with pytest.raises(ConfigFileError) as error:
        read_schedules(f"probes:\n  - {entry}\n")
    assert said in str(error.value)
    assert "configuration:" in str(error.value)


def times(entry: str, since: datetime, count: int) -> list[datetime]:
    (schedule,) = read_schedules(f"probes:\n  - {entry}\n")
    of, found = trigger(schedule), list[datetime]()
    before: datetime | None = None
    for _ in range(count):
        before = of.get_next_fire_time(before, before or since)
        assert before is not None
        found.append(before)
    return found


def test_days_of_the_week_are_cron_s() -> None:
    """0 and 7 are Sunday, as everywhere but in APScheduler."""
    for days, expected in (("0", {6}), ("7", {6}), ("1-5", {0, 1, 2, 3, 4}), ("mon,6", {0, 5}), ("*/2", None)):
        found = times(f"{{name: a, config: x, cron: '0 3 * * {days}'}}", datetime(2026, 11, 21, tzinfo=UTC), 14)
        assert expected is None or {at.weekday() for at in found} == expected


def test_a_time_that_comes_twice_is_due_once() -> None:
    zone = ZoneInfo("America/New_York")
    found = times(
        "{name: a, config: x, cron: '30 1 * * *', timezone: America/New_York}", datetime(2026, 10, 30, 12, tzinfo=zone), 4
    )
    assert [at.astimezone(zone).day for at in found] == [31, 1, 2, 3]
    hourly = times(
        "{name: a, config: x, cron: '30 * * * *', timezone: America/New_York}", datetime(2026, 11, 1, 0, tzinfo=zone), 4
    )
    assert [(at.astimezone(zone).hour, at.astimezone(UTC).hour) for at in hourly] == [(0, 4), (1, 5), (1, 6), (2, 7)]


@given(st.integers(1, 1000), st.datetimes(YEAR, YEAR.replace(year=2027), timezones=st.just(UTC)))
def test_replicas_mean_the_same_moments(minutes: int, since: datetime) -> None:
    (at,) = times(f"{{name: a, config: x, every: {minutes}m}}", since, 1)
    assert since <= at <= since + timedelta(minutes=minutes, seconds=1)
    assert at.timestamp() % (minutes * 60) == 0


def test_pushed_from_here_and_shown_to_operators(server: Server, tmp_path: Path) -> None:
    stages = ladder(rates=(2, 4), count=60)
    write(tmp_path, info("Q8_0", probe="served"), *stages)
    run = info("Q8_0", probe="served").id
    environment = {"TALLYSTICK_DATA": str(tmp_path), "TALLYSTICK_URL": server.url}
    first = CliRunner().invoke(
        cli, ["probe", "push", "served", "--url", server.url, "--data", str(tmp_path), "--json"], env=environment
    )
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == [{"run": run, "requests": 120, "became": "kept"}]
    again = CliRunner().invoke(cli, ["probe", "push", run, "--url", server.url, "--data", str(tmp_path)], env=environment)
    assert "stood there already" in again.stdout
    none = CliRunner().invoke(cli, ["probe", "push", "nothing", "--url", server.url, "--data", str(tmp_path)], env=environment)
    assert none.exit_code == 1
    listed = server.http.get("/v1/probes/runs", params={"probe": "served"}).json()
    assert [(one["id"], one["state"], one["quantisation"], one["engine"]) for one in listed["runs"]] == [
        (run, "done", "Q8_0", "llamacpp")
    ]
    shown = server.http.get(f"/v1/probes/runs/{run}").json()
    figures = {(one["stage"], one["name"]): one for one in shown["figures"]}
    assert figures[1, "ttft_p50"]["n"] == 60
    assert figures[1, "engine_kv_most"]["value"] <= 1
    sql = "SELECT load, value FROM probe_figures WHERE probe = 'served' AND name = 'ttft_p50' ORDER BY stage"
    assert [row["load"] for row in server.sql(sql, server.key("acme", operator=True))] == ["poisson 2/s", "poisson 4/s"]
    assert server.sql(sql, server.key("acme", role=Role.READER)) == []


def test_doors(server: Server) -> None:
    for role in (Role.READER, Role.WRITER, Role.MEMBER):
        headers = {"authorization": f"Bearer {server.key('acme', role=role)}"}
        assert server.http.post("/v1/probes/runs", json=pushed(), headers=headers).status_code == 403
        for path in ("/v1/probes/runs", "/v1/probes/runs/x", "/v1/probes/schedules"):
            assert server.http.get(path, headers=headers).status_code == 403
    assert server.http.get("/v1/probes/runs/none").status_code == 404
    assert server.http.get("/v1/probes/runs", params={"since": "someday"}).status_code == 400
    assert server.http.get("/v1/probes/schedules").json() == {"schedules": [], "problems": []}
    assert server.http.post("/v1/probes/schedules/none/run").json()["error"]["code"] == "no_such_schedule"


def test_limits(server: Server) -> None:
    assert server.http.post("/v1/probes/runs", content=b" " * (33 << 20)).status_code == 413
    answer = server.http.post("/v1/probes/runs", content=b"not gzip", headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_compression")
    wrong = pushed()
    wrong["stages"][0]["figures"][0]["n"] = -1
    answer = server.http.post("/v1/probes/runs", json=wrong)
    assert (answer.status_code, answer.json()["error"]["message"]) == (
        422,
        "stages.0.figures.0.n: Input should be greater than or equal to 0.",
    )
