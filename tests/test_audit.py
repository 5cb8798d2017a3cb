"""The audit finds what was lost, where it was lost: real services, killed and overfull, on a real server; every place of the way in its rows."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from server import CLEAN, COMMAND, Server, free_port

from tallystick.attribution.audit import Audit, Finding, Ledger, Partition, Place, State, Window, read
from tallystick.attribution.audit_verdict import verdict
from tallystick.ingest.accounts import Account
from tallystick.ingest.flows import Aside, Became, Flows, Origin, record_aside
from tallystick.ingest.writer import Item

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

SERVICE: Final = """
import sys
import tallystick.auto
from opentelemetry import trace
tracer = trace.get_tracer("opentelemetry.instrumentation.genai.openai")
said = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 1}
for line in sys.stdin:
    for _ in range(int(line)):
        tracer.start_span("chat gpt-4o-mini", attributes=said).end()
    print("done", flush=True)
"""


class Service:
    """A process that makes calls as it is told. Its collector sends batches of ten, fewer after `delay_ms`, and holds twenty."""

    def __init__(self, name: str, url: str, *, delay_ms: int) -> None:
        env = {
            "TALLYSTICK_URL": url,
            "OTEL_SERVICE_NAME": name,
            "OTEL_BSP_SCHEDULE_DELAY": str(delay_ms),
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "10",
            "OTEL_BSP_MAX_QUEUE_SIZE": "20",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**CLEAN, **env}
        )

    def call(self, times: int) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """In peace."""
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("audit") / "data", port=free_port()) as running:
        yield running


def audit(url: str, *args: str) -> tuple[int, dict[str, Any], list[dict[str, Any]], dict[str, dict[str, Any]]]:
    """Exit code, summary, findings, and rows by service."""
    command = [*COMMAND, "audit", "--url", url, "--by", "service", "--json", *args]
    done = subprocess.run(command, env=CLEAN, text=True, capture_output=True, check=False, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads(done.stdout)
    return (
        done.returncode,
        next(row for row in rows if row["kind"] == "summary"),
        [row for row in rows if row["kind"] == "finding"],
        {row["service"]: row for row in rows if row["kind"] == "spans"},
    )


def received(server: Server, service: str) -> int:
    hours = server.http.get("/v1/audit").json()["hours"]
    return sum(hour["received"] for hour in hours if hour["service"] == service)


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_service_killed_with_a_queue(ours: Server) -> None:
    service = Service("killed", ours.url, delay_ms=600_000)
    service.call(5)
    service.call(10)
    until(lambda: received(ours, "killed") > 0)
    service.call(12)

    until(lambda: received(ours, "killed") == 20)
    code, summary, findings, rows = audit(ours.url)
    assert (code, summary["lost_spans"], summary["clean"]) == (0, 0, True)
    assert [(one["place"], one["state"], one["spans"]) for one in findings] == [
        ("way", "unfinished", rows["killed"]["emitted"] - 20)
    ]
    service.kill()
    code, summary, findings, _ = audit(ours.url, "--settle", "0")
    assert code == 1
    assert [(one["place"], one["state"]) for one in findings] == [("way", "lost")]
    assert findings[0]["what"].startswith("service killed, collector ")
    assert summary["lost_spans"] == rows["killed"]["emitted"] - 20 > 0


def test_a_server_that_is_away_for_too_long_and_one_that_is_killed(ours: Server) -> None:
    service = Service("patient", ours.url, delay_ms=100)
    service.call(10)
    ours.kill()
    service.call(10)
    ours.start()
    until(lambda: received(ours, "patient") == 20)
    assert not [one for one in audit(ours.url, "--settle", "0")[2] if "patient" in one["what"]]
    ours.kill()
    service.call(60)
    ours.start()
    # What it lost it tells with what it sends: not in the same moment in which it ends.
    until(lambda: received(ours, "patient") >= 30)
    service.call(1)
    service.end()
    code, _, findings, rows = audit(ours.url, "--settle", "0")
    mine = [one for one in findings if "patient" in one["what"]]
    assert code == 1
    assert [(one["place"], one["state"]) for one in mine] == [("service", "lost")]
    row = rows["patient"]
    assert row["emitted"] == 81 == row["received"] + row["lost"]
    assert row["calls"] == row["received"]
    assert mine[0]["spans"] == row["lost"] > 0


def test_what_is_wrong_with_the_question(ours: Server) -> None:
    for args in (["--by", "customer"], ["--settle", "-1"]):
        done = subprocess.run(
            [*COMMAND, "audit", "--url", ours.url, *args], env=CLEAN, capture_output=True, check=False, timeout=60
        )
        assert done.returncode == 2
    assert ours.http.get("/v1/audit", params={"since": "soon"}).json()["error"]["code"] == "bad_parameter"
    assert ours.http.get("/v1/audit", headers={"authorization": f"Bearer {ours.key('acme')}"}).status_code == 403


# Every place, by rows as the writer leaves them.

NOW: Final = datetime.now(UTC)


class Told:
    """Writes flows ten minutes old, and asks."""

    def __init__(self, client: "Client") -> None:
        self.client, self._flows = client, Flows(client)

    def collector(
        self, batch: int, ended: int, spans: int, *, lost: int = 0, age_s: float = 600, first: int = 0, entered: int = 0
    ) -> None:
        account = Account("shop", "c", batch, ended, lost, first or batch, spans)
        self._write(account, None, age_s, entered)

    def message(self, offset: int, number: int, accepted: int, *, spans: int = 7, age_s: float = 600) -> None:
        self._write(Account("desk", spans=spans), Origin("t", 0, offset, "r", number, accepted), age_s, 0)

    def dead(self, offset: int, number: int = 0) -> None:
        record_aside(self.client, [Aside(Origin("t", 0, offset, "r" if number else "", number), "", _ns(600), "malformed", 7)])

    def _write(self, account: Account, origin: Origin | None, age_s: float, entered: int) -> None:
        item = Item(b"", account.spans, "acme", _ns(age_s), False, origin, (account,))
        self._flows.write([item], [{account.service: Became(account.spans, 0)}], entered=entered, earliest=NOW)

    def ask(self, partitions: list[Partition] | None = None) -> Audit:
        now = datetime.now(UTC)
        window = Window(now, now - timedelta(hours=3), timedelta(minutes=5))
        return verdict(read(self.client, window, None), partitions, window)


def _ns(age_s: float) -> int:
    return int((datetime.now(UTC).timestamp() - age_s) * 1e9)


@pytest.fixture
def told(chdb_client: "Client") -> Iterator[Told]:
    chdb_client.command("TRUNCATE TABLE flows")
    yield Told(chdb_client)
    chdb_client.command("TRUNCATE TABLE flows")


def found(audit: Audit) -> list[tuple[str, str, int | None, int | None]]:
    return [(one.place.value, one.state.value, one.spans, one.messages) for one in audit.findings]


def test_nothing_at_all(told: Told) -> None:
    asked = told.ask()
    assert (asked.clean, asked.hours, asked.findings, asked.waiting) == (True, [], [], None)


def test_sent_twice_and_in_halves_it_came_once(told: Told) -> None:
    told.collector(1, 20, 10, first=1)
    told.collector(1, 20, 10, first=1)
    told.collector(1, 20, 10, first=11)
    asked = told.ask()
    assert (asked.findings, asked.hours[0].received, asked.hours[0].emitted) == ([], 20, 20)


def test_a_half_that_never_came(told: Told) -> None:
    told.collector(1, 20, 10)
    told.collector(2, 30, 10)
    assert found(told.ask()) == [("way", "lost", 10, None)]


def test_a_batch_that_never_came_while_the_collector_lives(told: Told) -> None:
    told.collector(1, 10, 10)
    told.collector(3, 33, 10)
    told.collector(4, 40, 7, age_s=1)
    asked = told.ask()
    assert found(asked)[0] == ("way", "lost", 13, None)
    assert asked.lost_spans == 13


def test_a_batch_that_was_refused_is_missing_and_told(told: Told) -> None:
    told.collector(1, 10, 10)
    told.collector(3, 30, 10, lost=10)
    assert found(told.ask()) == [("service", "lost", 10, None)]


def test_what_is_in_kafka_isnt_lost_yet(told: Told) -> None:
    told.collector(1, 10, 10)
    told.collector(3, 30, 10)
    asked = told.ask([Partition("t", 0, 0, 5, 4, NOW - timedelta(seconds=90))])
    assert found(asked) == [("way", "unfinished", 10, None), ("kafka", "unfinished", None, 1)]
    assert asked.clean
    assert asked.waiting == 1
    assert asked.lag_s is not None
    assert asked.lag_s >= 90


def test_messages_that_were_deleted(told: Told) -> None:
    for offset in (0, 1, 4, 5):
        told.message(offset, offset + 1, 7 * (offset + 1))
    asked = told.ask([])
    assert found(asked) == [("receiver", "lost", 14, 2), ("kafka", "lost", None, 2)]
    assert "offsets 2 to 3" in asked.findings[1].what
    assert (asked.lost_spans, asked.lost_messages, asked.untold_spans) == (14, 2, 28)


def test_the_log_begins_behind_the_last_that_was_read(told: Told) -> None:
    told.message(0, 1, 7)
    asked = told.ask([Partition("t", 0, 3, 3, 1)])
    assert found(asked) == [("kafka", "lost", None, 2)]
    assert "offsets 1 to 2" in asked.findings[0].what


def test_numbers_of_what_was_handed_back_arent_lost(told: Told) -> None:
    told.message(0, 1, 7)
    told.message(1, 5, 14)
    assert told.ask([]).clean


def test_a_message_that_was_written_twice(told: Told) -> None:
    told.message(0, 1, 7)
    told.message(1, 1, 7)
    told.message(2, 2, 14)
    assert told.ask([]).findings == []


def test_a_dead_letter_is_kept_until_it_is_entered(told: Told) -> None:
    told.message(0, 1, 7)
    told.dead(1, number=2)
    told.message(2, 3, 21)
    assert found(told.ask([])) == [("dead-letters", "kept", 7, 1)]
    assert told.ask([]).clean
    told.message(1, 2, 14)
    assert told.ask([]).findings == []


def test_rows_that_are_gone_from_the_ledger(told: Told) -> None:
    told.collector(1, 10, 10, entered=1_000_000_000)
    asked = told.ask()
    assert [one.place for one in asked.findings] == [Place.STORE]
    assert asked.findings[0].state is State.LOST


def test_every_finding_says_what_to_do() -> None:
    ledger = Ledger([], [], [], [], [{"reason": "malformed", "messages": 1, "spans": 0, "first_at": NOW}], 2, 1, None)
    findings: list[Finding] = list(verdict(ledger, [Partition("t", 0, 5, 9, 2)], Window(NOW, NOW, timedelta())).findings)
    assert len(findings) == 4
    assert all(one.todo and one.what for one in findings)
