"""Delivery: at least once and seldom twice, in time, past outages of the channel, of the ledger and of the sender itself."""

import itertools
import logging
import multiprocessing
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from announcing import NOW, announce, evaluator, key, send_until_killed
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import fresh_url

from tallystick.alerts import outbox as module
from tallystick.alerts.channels import Refused, Retry, Sent
from tallystick.alerts.database import LedgerDown, default_url
from tallystick.alerts.deliveries import CLAIM, ChannelStatus, State
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.model import Message
from tallystick.alerts.outbox import ATTEMPTS, GIVE_UP, LONGEST_WAIT_S, UNKNOWN_AFTER, Outbox, next_attempt

S, M, H, D = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))


class Recorder:
    """Sends into a list; `then` says what becomes of each send: None is delivered, an exception is raised, a call is made."""

    def __init__(self, name: str = "team", interval_s: float = 0.0, *then: BaseException | Callable[[], object] | None) -> None:
        self.name = name
        self.interval_s = interval_s
        self.then = list(then)
        self.sent: list[tuple[str, str | None]] = []
        self.ids: list[str] = []

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        self.ids.append(delivery_id)
        fate = self.then.pop(0) if self.then else None
        if isinstance(fate, BaseException):
            raise fate
        if fate is not None:
            fate()
        self.sent.append((message.key.subject, thread))
        return Sent(f"ts-{len(self.sent)}")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(default_url(tmp_path), busy_s=0.05) as opened:
        yield opened


def announce_all(ledger: Ledger, *subjects: str, channels: tuple[str, ...] = ("team",)) -> None:
    fence = evaluator(ledger)
    for subject in subjects:
        assert announce(ledger, fence, key(subject=subject), channels)


def status(ledger: Ledger, channel: str = "team") -> ChannelStatus:
    (found,) = [one for one in ledger.deliveries.status() if one.channel == channel]
    return found


# When to try again


@given(st.integers(1, 10**6), st.text(max_size=40), st.floats(allow_nan=True))
def test_the_next_attempt(attempt: int, delivery_id: str, after_s: float) -> None:
    at = next_attempt(attempt, delivery_id, NOW, after_s)
    assert at == next_attempt(attempt, delivery_id, NOW, after_s)
    own = next_attempt(min(attempt, ATTEMPTS - 1), delivery_id, NOW, None)
    assert own is not None
    if attempt >= ATTEMPTS or after_s > GIVE_UP.total_seconds():
        assert at is None
    else:
        assert at == max(own, NOW + timedelta(seconds=after_s) if after_s > 0 else NOW)


@pytest.mark.parametrize(("attempt", "plain"), [(1, 2), (2, 4), (5, 32), (9, 512), (10, 900), (ATTEMPTS - 1, 900)])
def test_waits_double_and_are_scattered(attempt: int, plain: float) -> None:
    waits = [(at - NOW).total_seconds() for n in range(500) if (at := next_attempt(attempt, f"id-{n}", NOW, None))]
    assert plain * 0.75 <= min(waits) < plain * 0.77
    assert plain * 1.23 < max(waits) <= plain * 1.25
    assert len(set(waits)) > 450


@given(st.text(max_size=40))
def test_it_is_given_up_after_about_a_day(delivery_id: str) -> None:
    at, attempts = NOW, 1
    while (following := next_attempt(attempts, delivery_id, at, None)) is not None:
        at, attempts = following, attempts + 1
    assert attempts == ATTEMPTS
    assert abs(at - NOW - D) < 2 * H


# What becomes of a message


def test_all_that_is_due_is_sent_once(ledger: Ledger) -> None:
    announce_all(ledger, "a", "b", channels=("team", "pager"))
    team, pager = Recorder(), Recorder("pager")
    outbox = Outbox(ledger, {"team": team, "pager": pager})
    assert outbox.deliver_due(NOW) == Counter({State.SENT: 4})
    assert outbox.deliver_due(NOW + D) == Counter()
    assert team.sent == pager.sent == [("a", None), ("b", None)]
    assert len({*team.ids, *pager.ids}) == 4


def test_updates_go_under_the_first(ledger: Ledger) -> None:
    fence = evaluator(ledger)
    for one in (key("actual:50"), key("actual:80"), key("actual:80", value="other")):
        announce(ledger, fence, one)
    team = Recorder()
    Outbox(ledger, {"team": team}).deliver_due(NOW)
    assert team.sent == [("acme", None), ("acme", "ts-1"), ("acme", None)]


@pytest.mark.parametrize(
    ("error", "told", "wait"),
    [
        (Retry("503 service unavailable"), "503 service unavailable", 2 * S),
        (Retry("429 rate_limited", 30.0), "429 rate_limited", 30 * S),
        (RuntimeError("https://hooks.example/T0/geheim"), "RuntimeError", 2 * S),
    ],
)
def test_what_may_pass_is_tried_again(
    ledger: Ledger, error: Exception, told: str, wait: timedelta, caplog: pytest.LogCaptureFixture
) -> None:
    announce_all(ledger, "a", "b")
    team = Recorder("team", 0.0, error)
    outbox = Outbox(ledger, {"team": team})
    # The rest isn't tried on a channel that fails.
    assert outbox.deliver_due(NOW) == Counter({State.PENDING: 1})
    assert status(ledger).last_error == told
    assert outbox.deliver_due(NOW + wait * 0.7) == Counter({State.SENT: 1})
    assert outbox.deliver_due(NOW + wait * 1.25) == Counter({State.SENT: 1})
    assert [subject for subject, _ in team.sent] == ["b", "a"]
    assert team.ids[0] == team.ids[2] != team.ids[1]
    assert "geheim" not in caplog.text
    assert (status(ledger).sent, status(ledger).last_error) == (2, told)


def test_the_final_is_surfaced(ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    announce_all(ledger, "a", "b")
    outbox = Outbox(ledger, {"team": Recorder("team", 0.0, Refused("410 channel_is_archived: choose another channel"))})
    assert outbox.deliver_due(NOW) == Counter({State.REFUSED: 1, State.SENT: 1})
    assert (status(ledger).refused, status(ledger).last_error) == (1, "410 channel_is_archived: choose another channel")
    assert "410 channel_is_archived" in caplog.text
    assert outbox.deliver_due(NOW + D) == Counter()


@pytest.mark.parametrize("after_s", [None, 1e9])
def test_given_up(ledger: Ledger, after_s: float | None) -> None:
    announce_all(ledger, "a")
    team = Recorder("team", 0.0, *[Retry("503", after_s) for _ in range(ATTEMPTS)])
    outbox = Outbox(ledger, {"team": team})
    now = NOW
    while status(ledger).pending:
        outbox.deliver_due(now)
        now += timedelta(seconds=LONGEST_WAIT_S * 1.25)
    tried = 1 if after_s else ATTEMPTS
    assert len(team.ids) == tried
    assert (status(ledger).refused, status(ledger).last_error) == (1, f"given up after {tried} attempts: 503")


def test_channels_that_the_configuration_lost(ledger: Ledger) -> None:
    announce_all(ledger, "a", channels=("team", "gone"))
    outbox = Outbox(ledger, {"team": Recorder()})
    # A replica may be ahead of this one with its configuration, for a while.
    assert outbox.deliver_due(NOW + UNKNOWN_AFTER) == Counter({State.SENT: 1})
    assert outbox.deliver_due(NOW + UNKNOWN_AFTER + S) == Counter({State.REFUSED: 1})
    assert "no channel gone" in (status(ledger, "gone").last_error or "")


def test_the_interval_between_two_sends(ledger: Ledger) -> None:
    announce_all(ledger, "a", "b", "c", channels=("slack", "pager"))
    waits: list[float] = []
    channels = {"slack": Recorder("slack", 1.0, None, Refused("404")), "pager": Recorder("pager")}
    Outbox(ledger, channels, sleep=waits.append).deliver_due(NOW)
    assert waits == [1.0] * 3


def test_a_ledger_that_is_locked_while_sending(tmp_path: Path, ledger: Ledger) -> None:
    """What was sent is settled when the ledger is back, and isn't sent again."""
    announce_all(ledger, "a")
    other = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
    team = Recorder("team", 0.0, lambda: other.execute("BEGIN IMMEDIATE"))
    outbox = Outbox(ledger, {"team": team}, sleep=lambda _: other.execute("ROLLBACK"))
    assert outbox.deliver_due(NOW) == Counter({State.SENT: 1})
    assert outbox.deliver_due(NOW + D) == Counter()
    other.close()


def test_a_ledger_that_doesnt_come_back(tmp_path: Path, ledger: Ledger) -> None:
    """Settling is tried for as long as the claim lasts; then the message is sent again."""
    announce_all(ledger, "a")
    other = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
    team = Recorder("team", 0.0, lambda: other.execute("BEGIN IMMEDIATE"))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        assert sum(waits) < CLAIM.total_seconds()

    outbox = Outbox(ledger, {"team": team}, sleep=sleep)
    with pytest.raises(LedgerDown, match="locked"):
        outbox.deliver_due(NOW)
    assert len(waits) > 10
    other.close()
    assert outbox.deliver_due(NOW + CLAIM) == Counter({State.SENT: 1})
    assert len(team.sent) == 2


# Killed


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_senders_that_are_killed(kind: str, tmp_path: Path) -> None:
    """By SIGKILL, before a message leaves and after it has: at most one extra each, and none is lost."""
    url = fresh_url(kind, tmp_path)
    file = tmp_path / "sent"
    subjects = [f"s{n}" for n in range(6)]
    spawn = multiprocessing.get_context("spawn")
    now, killed = NOW, []
    with Ledger(url) as ledger:
        announce_all(ledger, *subjects)
        for fatal, after in [(2, True), (2, False), (None, False)]:
            process = spawn.Process(target=send_until_killed, args=(url, file, now, fatal, after))
            process.start()
            process.join(120)
            killed.append(process.exitcode)
            now += CLAIM
        assert killed == [-9, -9, 0]
        sent = Counter(file.read_text().splitlines())
        assert {line.split()[0] for line in sent} == set(subjects)
        assert len(sent) == 6
        assert sorted(sent.values()) == [1, 1, 1, 1, 1, 2]
        assert status(ledger).sent == 6


class Killed(BaseException):
    """Ends the sender where it is raised."""


def die() -> None:
    raise Killed


_fates = st.sampled_from(["sent", "retry", "later", "refused", "bug", "killed before", "killed after"])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(_fates, st.sampled_from([S, M, CLAIM, H, -M, -H, -D])), max_size=14), st.integers(1, 4))
def test_any_history_loses_nothing(history: list[tuple[str, timedelta]], messages: int) -> None:
    """Each message is delivered or finally refused, with no more extras than kills, whatever the channel, the clock and the sender do."""
    subjects = [f"s{n}" for n in range(messages)]
    left: list[str] = []
    refused: list[str] = []

    class Faulty:
        name, interval_s = "team", 0.0

        def __init__(self, fate: str) -> None:
            self.fate = fate

        def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
            fate, self.fate = self.fate, "sent"
            match fate:
                case "retry":
                    raise Retry("503")
                case "later":
                    raise Retry("429", 600.0)
                case "bug":
                    raise ZeroDivisionError
                case "killed before":
                    raise Killed
                case "refused":
                    refused.append(message.key.subject)
                    raise Refused("410")
                case _:
                    left.append(message.key.subject)
            if fate == "killed after":
                raise Killed
            return Sent()

    with TemporaryDirectory() as directory, Ledger(default_url(Path(directory))) as ledger:
        announce_all(ledger, *subjects)
        now, kills = NOW, 0
        for fate, step in history:
            try:
                Outbox(ledger, {"team": Faulty(fate)}).deliver_due(now)
            except Killed:
                kills += fate == "killed after"
            now += step
        # However far the clock went, what is left isn't put off for longer than it was to wait.
        for _ in range(2):
            now += timedelta(seconds=LONGEST_WAIT_S * 1.25)
            Outbox(ledger, {"team": Faulty("sent")}).deliver_due(now)
        assert {*left, *refused} == set(subjects)
        assert len(left) + len(refused) - messages <= kills
        assert (status(ledger).pending, status(ledger).sending) == (0, 0)


# In the background


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_POLL_S", "_LEDGER_S", "_FAILING_S"):
        monkeypatch.setattr(module, name, 0.02)


@pytest.mark.usefixtures("quick")
def test_a_channel_that_hangs_holds_up_no_other(ledger: Ledger) -> None:
    announce_all(ledger, "a", "b", "c", channels=("stuck", "team"))
    hangs, delivered = threading.Event(), threading.Semaphore(0)
    stuck = Recorder("stuck", 0.0, hangs.wait)
    team = Recorder("team", 0.0, *[delivered.release] * 3)
    outbox = Outbox(ledger, {"stuck": stuck, "team": team}, clock=lambda: NOW)
    outbox.start()
    for _ in range(3):
        assert delivered.acquire(timeout=20)
    assert stuck.sent == []
    assert not outbox.stop(limit_s=0.1)
    hangs.set()


@pytest.mark.usefixtures("quick")
def test_stopping_sends_what_is_due(ledger: Ledger) -> None:
    began, go_on = threading.Event(), threading.Event()

    def first() -> None:
        began.set()
        go_on.wait(20)

    announce_all(ledger, *"abcde")
    team = Recorder("team", 0.001, first)
    outbox = Outbox(ledger, {"team": team}, clock=lambda: NOW)
    outbox.start()
    with pytest.raises(RuntimeError, match="running"):
        outbox.start()
    assert began.wait(20)
    threading.Timer(0.05, go_on.set).start()
    assert outbox.stop(limit_s=30)
    assert [subject for subject, _ in team.sent] == [*"abcde"]
    # And again.
    announce_all(ledger, "f")
    outbox.start()
    assert outbox.stop(limit_s=30)
    assert len(team.sent) == 6


def test_stopping_has_a_limit(ledger: Ledger) -> None:
    announce_all(ledger, *"abcde")
    began = threading.Event()
    slow = Recorder("team", 3600.0, began.set)
    outbox = Outbox(ledger, {"team": slow}, clock=lambda: NOW)
    outbox.start()
    assert began.wait(20)
    assert outbox.stop(limit_s=0.2)
    assert len(slow.sent) == 1


def test_a_channel_that_asked_for_time(ledger: Ledger) -> None:
    """It gets none of the other messages either, and stopping doesn't wait for it."""
    announce_all(ledger, *"abcde")
    tried, tried_again = threading.Event(), threading.Event()

    def fail() -> None:
        tried.set()
        raise Retry("429", 3600.0)

    outbox = Outbox(ledger, {"team": Recorder("team", 0.0, fail, tried_again.set)}, clock=lambda: NOW)
    outbox.start()
    assert tried.wait(20)
    assert not tried_again.wait(0.2)
    stopping = threading.Thread(target=outbox.stop, args=(3600.0,), daemon=True)
    stopping.start()
    stopping.join(20)
    assert not stopping.is_alive()


def test_waking(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is announced leaves at once, not when the next look is due; and nobody looks all the time."""
    monkeypatch.setattr(module, "_POLL_S", 3600.0)
    delivered = threading.Semaphore(0)
    looks = itertools.count()

    def clock() -> datetime:
        next(looks)
        return NOW

    outbox = Outbox(ledger, {"team": Recorder("team", 0.0, *[delivered.release] * 2)}, clock=clock)
    outbox.start()
    for subject in "ab":
        announce_all(ledger, subject)
        outbox.wake()
        assert delivered.acquire(timeout=20)
    threading.Event().wait(0.3)
    assert outbox.stop(limit_s=20)
    assert next(looks) < 15


@pytest.mark.usefixtures("quick")
def test_a_thread_outlives_what_nobody_foresaw(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    announce_all(ledger, "a")
    claim, delivered = ledger.deliveries.claim, threading.Event()
    errors: list[Exception] = [KeyError("geheim")]

    def faulty(channel: str, worker: str, now: datetime) -> object:
        if errors:
            raise errors.pop()
        return claim(channel, worker, now)

    monkeypatch.setattr(ledger.deliveries, "claim", faulty)
    outbox = Outbox(ledger, {"team": Recorder("team", 0.0, delivered.set)}, clock=lambda: NOW)
    outbox.start()
    assert delivered.wait(20)
    assert outbox.stop(limit_s=20)
    assert "KeyError" in caplog.text
    assert "geheim" not in caplog.text


@pytest.mark.usefixtures("quick")
def test_an_outage_of_the_ledger(tmp_path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    announce_all(ledger, "a")
    caplog.set_level(logging.WARNING)
    other = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    delivered, down = threading.Event(), threading.Event()
    outbox = Outbox(ledger, {"team": Recorder("team", 0.0, delivered.set)}, clock=lambda: NOW)

    class Seen(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "database is locked" in record.getMessage():
                down.set()

    logging.getLogger(module.__name__).addHandler(seen := Seen())
    outbox.start()
    assert down.wait(20)
    assert not delivered.is_set()
    other.execute("ROLLBACK")
    other.close()
    assert delivered.wait(20)
    assert outbox.stop(limit_s=20)
    logging.getLogger(module.__name__).removeHandler(seen)
    assert caplog.text.count("nothing is delivered") == 1
    assert caplog.text.count("delivering to team again") == 1


@pytest.mark.usefixtures("quick")
def test_a_clock_that_jumps_while_running(ledger: Ledger) -> None:
    """A day back, and the retry is a day ahead: it is tried after its wait all the same."""
    announce_all(ledger, "a")
    failed, delivered = threading.Event(), threading.Event()
    seconds = itertools.count()

    def fail() -> None:
        failed.set()
        raise Retry("503")

    def clock() -> datetime:
        return NOW - D + next(seconds) * S if failed.is_set() else NOW

    outbox = Outbox(ledger, {"team": Recorder("team", 0.0, fail, delivered.set)}, clock=clock)
    outbox.start()
    assert delivered.wait(20)
    assert outbox.stop(limit_s=20)


@pytest.mark.usefixtures("quick")
def test_lost_channels_are_refused_in_the_background(ledger: Ledger) -> None:
    announce_all(ledger, "a", channels=("gone",))
    outbox = Outbox(ledger, {}, clock=lambda: NOW + H)
    outbox.start()
    assert outbox.stop(limit_s=20)
    assert status(ledger, "gone").refused == 1
