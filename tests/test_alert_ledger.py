"""The alert ledger on SQLite and on PostgreSQL: one intent for each key, whoever races, restarts or sleeps."""

import multiprocessing
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from announcing import MARCH, NOW, TTL, announce, evaluator, key, mark, message, race
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres import fresh_url, postgres
from sqlalchemy.exc import OperationalError

from tallystick.alerts.database import Database, LedgerAddress, LedgerDown, NewerLedger, default_url
from tallystick.alerts.deliveries import CLAIM, Delivery
from tallystick.alerts.lease import EVALUATOR, Fence, Fenced
from tallystick.alerts.ledger import Ledger, Tick
from tallystick.alerts.message_json import from_json, to_json
from tallystick.alerts.migrations import VERSION_TABLE
from tallystick.alerts.model import Driver, Forecast, Key, Kind, Measure, Message, Outlier, Period
from tallystick.alerts.silences import Silence
from tallystick.alerts.tables import METADATA, Instant, Name

S, M, H, D = (timedelta(**{unit: 1}) for unit in ("seconds", "minutes", "hours", "days"))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return fresh_url(request.param, tmp_path)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger(url) as opened:
        yield opened


@pytest.fixture
def fence(ledger: Ledger) -> Fence:
    return evaluator(ledger)


def claimed(ledger: Ledger, now: datetime = NOW, channel: str = "team", worker: str = "w") -> Delivery:
    delivery = ledger.deliveries.claim(channel, worker, now)
    assert delivery is not None
    return delivery


def waiting(ledger: Ledger) -> int:
    return sum(channel.pending for channel in ledger.deliveries.status())


# What is said


def test_a_key_is_said_once(ledger: Ledger, fence: Fence) -> None:
    assert announce(ledger, fence, key(), ["team", "pager"])
    assert not announce(ledger, fence, key(), ["team", "pager"], now=NOW + M)
    assert waiting(ledger) == 2
    assert ledger.marks([MARCH]) == {("acme", MARCH, ""): (mark(key()),)}


@pytest.mark.parametrize(
    "other",
    [key("actual:100"), key(value="a"), key(revision=2), key(subject="globex"), key(start=MARCH + D)],
    ids=["mark", "value", "revision", "subject", "period"],
)
def test_every_part_of_the_key_counts(ledger: Ledger, fence: Fence, other: Key) -> None:
    assert announce(ledger, fence, key())
    assert announce(ledger, fence, other)
    assert waiting(ledger) == 2


def test_a_jump_marks_all_and_says_one(ledger: Ledger, fence: Fence) -> None:
    jump = [mark(key("actual:50"), said=False), mark(key("actual:80"), said=False), mark(key("actual:100"))]
    assert ledger.announce(jump, message(key("actual:100")), ["team"], now=NOW, fence=fence)
    assert waiting(ledger) == 1
    # Whoever saw less spend comes too late with what was passed.
    assert not announce(ledger, fence, key("actual:80"))
    assert {one.key.mark: one.said for one in ledger.marks([MARCH])["acme", MARCH, ""]} == {
        "actual:50": False, "actual:80": False, "actual:100": True,
    }  # fmt: skip


def test_passed_marks_that_stand_stop_nobody(ledger: Ledger, fence: Fence) -> None:
    assert announce(ledger, fence, key("actual:50"))
    jump = [mark(key("actual:50"), said=False), mark(key("actual:80"))]
    assert ledger.announce(jump, message(key("actual:80")), ["team"], now=NOW, fence=fence)
    assert {one.key.mark: one.said for one in ledger.marks([MARCH])["acme", MARCH, ""]} == {"actual:50": True, "actual:80": True}


def test_what_was_said_before_takes_nothing_along(ledger: Ledger, fence: Fence) -> None:
    assert announce(ledger, fence, key("actual:80"))
    jump = [mark(key("actual:50"), said=False), mark(key("actual:80"))]
    assert not ledger.announce(jump, message(key("actual:80")), ["team"], now=NOW, fence=fence)
    assert [one.key.mark for one in ledger.marks([MARCH])["acme", MARCH, ""]] == ["actual:80"]


def test_carried_marks(ledger: Ledger, fence: Fence) -> None:
    assert announce(ledger, fence, key())
    later = [mark(key(), said=False, at=NOW + H), mark(key("actual:50"), said=False, at=NOW + H)]
    ledger.carry(later, fence=fence)
    ledger.carry([], fence=fence)
    assert set(ledger.marks([MARCH])["acme", MARCH, ""]) == {mark(key()), later[1]}
    with pytest.raises(ValueError, match="announce it"):
        ledger.carry([mark(key())], fence=fence)


def test_a_message_is_about_a_mark_that_is_said(ledger: Ledger, fence: Fence) -> None:
    with pytest.raises(ValueError, match="isn't among"):
        ledger.announce([mark(key(), said=False)], message(key()), ["team"], now=NOW, fence=fence)


def test_marks_are_read_again_when_they_change(ledger: Ledger, fence: Fence) -> None:
    april = MARCH + 31 * D
    assert ledger.marks([MARCH, april]) == {}
    for count, one in enumerate([key(value="a"), key(value="b"), key(value="a", start=april)], 1):
        assert announce(ledger, fence, one)
        assert len(ledger.marks([MARCH, april])) == count
        assert ledger.marks([april, MARCH, MARCH]) is ledger.marks([MARCH, april])
    assert len(ledger.marks([april])) == 1
    with Ledger(ledger._database._engine.url.render_as_string(hide_password=False)) as other:
        announce(other, fence, key(value="c"))
    assert len(ledger.marks([MARCH, april])) == 4


def test_marks_are_read_again_when_as_many_come_as_go(ledger: Ledger, fence: Fence) -> None:
    days = [MARCH + n * D for n in range(3)]
    for day in days[:2]:
        announce(ledger, fence, key(start=day))
    assert {start for _, start, _ in ledger.marks(days)} == set(days[:2])
    announce(ledger, fence, key(start=days[2]))
    ledger.prune(NOW + S)
    assert {start for _, start, _ in ledger.marks(days)} == set(days[1:])
    assert {start for _, start, _ in ledger.marks(days[2:])} == {days[2]}


def test_marks_are_read_again_when_some_go(ledger: Ledger, fence: Fence) -> None:
    days = [MARCH + n * D for n in range(3)]
    for day in days:
        announce(ledger, fence, key(start=day))
    assert len(ledger.marks(days)) == 3
    ledger.prune(NOW + S)
    assert {start for _, start, _ in ledger.marks(days)} == set(days[1:])


def test_marks_of_other_periods_are_other_marks(ledger: Ledger, fence: Fence) -> None:
    days = [MARCH + n * D for n in range(3)]
    for day in days:
        announce(ledger, fence, key(start=day))
    for asked in ([days[0], days[2]], [days[1], days[2]], [days[2]], []):
        assert {start for _, start, _ in ledger.marks(asked)} == set(asked)


ODD = ["", "Ünïcödé", "nul\0", "\\0", "\\", "\\\0\\", "a'b\"; DROP TABLE alert_marks --", "\u202eRTL", "🦜" * 256, "%s", " "]


@pytest.mark.parametrize("value", ODD)
def test_any_text_is_kept(ledger: Ledger, fence: Fence, value: str) -> None:
    one = key(f"found:{value}", subject=f"s{value}", value=value)
    assert announce(ledger, fence, one, [f"team {value}"])
    assert not announce(ledger, fence, one)
    assert ledger.marks([MARCH]) == {(f"s{value}", MARCH, value): (mark(one),)}
    delivery = claimed(ledger, channel=f"team {value}")
    assert delivery.message == message(one)
    assert ledger.deliveries.sent(delivery, value or None, NOW)


@pytest.mark.parametrize("amount", ["0", "-0.000000000001", "1E+3", "12345678901234567890123456.123456789012", "1E-30", "0.1"])
def test_money_is_exact(ledger: Ledger, fence: Fence, amount: str) -> None:
    one = replace(mark(key(), said=False), amount=Decimal(amount), spent=Decimal(amount), corrections=-Decimal(amount))
    ledger.carry([one], fence=fence)
    assert ledger.marks([MARCH])["acme", MARCH, ""] == (one,)


@pytest.mark.parametrize("amount", ["NaN", "Infinity"])
def test_no_amount(ledger: Ledger, fence: Fence, amount: str) -> None:
    with pytest.raises(Exception, match="is no amount"):
        ledger.carry([replace(mark(key(), said=False), spent=Decimal(amount))], fence=fence)


def test_times_are_exact_and_aware(ledger: Ledger, fence: Fence) -> None:
    start = datetime(2026, 3, 1, 0, 0, 0, 1, tzinfo=UTC)
    kathmandu = start.astimezone(ZoneInfo("Asia/Kathmandu"))
    assert announce(ledger, fence, key(start=kathmandu))
    assert not announce(ledger, fence, key(start=start))
    ((_, found, _),) = ledger.marks([start])
    assert found == start
    assert found.utcoffset() == timedelta(0)
    with pytest.raises(Exception, match="no time zone"):
        announce(ledger, fence, key("actual:100", start=start.replace(tzinfo=None)))


@given(st.text() | st.text("\0\\0a"))
def test_names_come_back(text: str) -> None:
    dialect = sa.create_engine("sqlite://").dialect
    kept = Name().process_bind_param(text, dialect)
    assert kept is not None
    assert "\0" not in kept
    assert Name().process_result_value(kept, dialect) == text


@given(st.datetimes(timezones=st.timezones()), st.datetimes(timezones=st.timezones()))
def test_instants_sort_as_text(one: datetime, other: datetime) -> None:
    """As SQLite compares them."""
    dialect = sa.create_engine("sqlite://").dialect
    try:
        texts = [Instant().process_bind_param(at, dialect) for at in (one, other)]
    except OverflowError:
        return
    assert (texts[0] < texts[1]) == (one.astimezone(UTC) < other.astimezone(UTC))
    assert Instant().process_result_value(texts[0], dialect) == one.astimezone(UTC)


_text = st.text(max_size=20)
_amount = st.decimals(allow_nan=False, allow_infinity=False)
_count = st.integers(0, 10**12)
_time = st.datetimes(timezones=st.just(UTC))
_key = st.builds(Key, subject=_text, revision=_count, period_start=_time, value=_text, mark=_text)
_driver = st.builds(Driver, dimension=_text, value=_text, spent=_amount, before=st.none() | _amount, share=_amount)
_outlier = st.builds(
    Outlier, trace_id=_text, model=_text, tokens=_count, usual_tokens=_count, cost=st.none() | _amount, started_at=_time
)
_message = st.builds(
    Message,
    kind=st.sampled_from(Kind),
    key=_key,
    title=_text,
    reason=_text,
    at=_time,
    severity=_text,
    measure=st.sampled_from(Measure),
    amount=st.none() | _amount,
    spent=st.none() | _amount,
    percent=st.none() | _amount,
    period=st.none() | st.builds(Period, start=_time, end=_time, label=_text),
    forecast=st.none() | st.builds(Forecast, low=_amount, expected=_amount, high=_amount),
    burn=st.none() | _amount,
    priced_share=st.none() | _amount,
    scope=st.dictionaries(_text, _text, max_size=3),
    owners=st.lists(_text, max_size=3).map(tuple),
    drivers=st.lists(_driver, max_size=2).map(tuple),
    outliers=st.lists(_outlier, max_size=2).map(tuple),
    links=st.dictionaries(_text, _text, max_size=2),
    sql=_text,
)


@given(_message)
def test_messages_come_back(message: Message) -> None:
    again = from_json(to_json(message))
    assert again == message
    # Also the digits, which equality leaves out.
    assert str(again.amount) == str(message.amount)
    assert type(again.kind) is Kind


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "poem"}'])
def test_no_message(text: str) -> None:
    with pytest.raises(ValueError, match="Message"):
        from_json(text)


def test_fields_of_a_newer_version_are_left_out() -> None:
    newer = to_json(message(key())).replace("{", '{"rhyme": "abab", ', 1)
    assert from_json(newer) == message(key())


# Who evaluates


def test_one_holder_at_a_time(ledger: Ledger) -> None:
    assert ledger.leases.acquire(EVALUATOR, "one", TTL, NOW) == Fence(EVALUATOR, 1)
    assert ledger.leases.acquire(EVALUATOR, "two", TTL, NOW + TTL - S) is None
    assert ledger.leases.acquire("another", "two", TTL, NOW) == Fence("another", 1)
    assert ledger.leases.acquire(EVALUATOR, "two", TTL, NOW + TTL) == Fence(EVALUATOR, 2)


def test_a_lease_is_renewed_until_somebody_takes_it(ledger: Ledger) -> None:
    one = evaluator(ledger)
    assert ledger.leases.renew(one, TTL, NOW + 20 * S)
    assert ledger.leases.acquire(EVALUATOR, "two", TTL, NOW + 40 * S) is None
    assert ledger.leases.renew(one, TTL, NOW + H)
    two = evaluator(ledger, "two", NOW + 2 * H)
    assert not ledger.leases.renew(one, TTL, NOW + 2 * H)
    ledger.leases.release(one, NOW + 2 * H)
    assert ledger.leases.renew(two, TTL, NOW + 2 * H)


def test_a_released_lease_is_free_and_gone(ledger: Ledger) -> None:
    one = evaluator(ledger)
    ledger.leases.release(one, NOW)
    assert not ledger.leases.renew(one, TTL, NOW)
    assert evaluator(ledger, "two").number == 2


def test_a_restarted_holder_neednt_wait(ledger: Ledger) -> None:
    assert (evaluator(ledger).number, evaluator(ledger, now=NOW + S).number) == (1, 2)


@pytest.mark.parametrize(("back", "free"), [(30 * S, False), (2 * M, True), (D, True)])
def test_a_lease_from_a_clock_that_was_set_back(ledger: Ledger, back: timedelta, free: bool) -> None:
    """Replicas' clocks differ by some seconds; a lease from tomorrow would stop all of them until then."""
    ledger.leases.acquire(EVALUATOR, "one", D, NOW)
    assert (ledger.leases.acquire(EVALUATOR, "two", TTL, NOW - back) is not None) == free


def test_whoever_lost_the_lease_writes_nothing(ledger: Ledger) -> None:
    slept = evaluator(ledger)
    awake = evaluator(ledger, "two", NOW + H)
    with pytest.raises(Fenced, match="number 2, this one is 1"):
        announce(ledger, slept, key())
    with pytest.raises(Fenced):
        ledger.carry([mark(key(), said=False)], fence=slept)
    with pytest.raises(Fenced):
        ledger.ticked(NOW + H, S, slept)
    with pytest.raises(Fenced):
        announce(ledger, Fence("never taken", 1), key())
    assert (ledger.marks([MARCH]), waiting(ledger), ledger.last_tick()) == ({}, 0, None)
    assert announce(ledger, awake, key())


def test_ticks(ledger: Ledger, fence: Fence) -> None:
    assert ledger.last_tick() is None
    ledger.ticked(NOW, timedelta(microseconds=1), fence)
    ledger.ticked(NOW - D, 2 * S, fence)
    assert ledger.last_tick() == Tick(NOW - D, 2 * S)


# Definitions


def test_revisions(ledger: Ledger) -> None:
    def revise(fingerprint: str, now: datetime) -> int:
        return ledger.revise("acme", fingerprint, f'{{"amount": "{fingerprint}"}}', now, "ana")

    assert [revise(fingerprint, NOW + n * S) for n, fingerprint in enumerate("aabba")] == [1, 1, 2, 2, 3]
    assert ledger.revise("globex", "a", "{}", NOW, "api") == 1
    history = ledger.history("acme")
    assert [(one.number, one.fingerprint, one.at - NOW, one.author) for one in history] == [
        (1, "a", 0 * S, "ana"), (2, "b", 2 * S, "ana"), (3, "a", 4 * S, "ana"),
    ]  # fmt: skip
    assert history[1].definition == '{"amount": "b"}'
    assert {subject: one.number for subject, one in ledger.latest().items()} == {"acme": 3, "globex": 1}
    assert ledger.history("nobody") == []


def test_revisions_of_several_at_once(url: str) -> None:
    with Ledger(url) as one, Ledger(url) as two, ThreadPoolExecutor(8) as pool:
        same = pool.map(lambda of: of.revise("acme", "a", "{}", NOW, ""), [one, two] * 4)
        assert set(same) == {1}
        numbers = dict(zip("bcdefghi", pool.map(lambda of: one.revise("acme", of, "{}", NOW, ""), "bcdefghi"), strict=True))
        history = {found.fingerprint: found.number for found in two.history("acme")}
        assert history == {"a": 1, **numbers}
        assert sorted(history.values()) == [*range(1, 10)]


# What is delivered


def test_a_conversation_is_told_in_order(ledger: Ledger, fence: Fence) -> None:
    for one in (key("actual:50"), key("actual:80"), key(value="other")):
        announce(ledger, fence, one, ["team", "pager"])
    first = claimed(ledger)
    # The 80 % waits for the 50 %; another value and another channel don't.
    assert claimed(ledger).message.key == key(value="other")
    assert ledger.deliveries.claim("team", "w", NOW) is None
    assert claimed(ledger, channel="pager").message.key == key("actual:50")
    ledger.deliveries.postpone(first, "429", NOW + M, NOW)
    assert ledger.deliveries.claim("team", "w", NOW) is None
    again = claimed(ledger, NOW + M)
    assert (again.attempt, again.id) == (2, first.id)
    ledger.deliveries.refuse(again, "410", NOW + M)
    assert claimed(ledger, NOW + M).message.key == key("actual:80")


def test_threads_are_a_conversations_own(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key("actual:50"), ["team", "pager"])
    ledger.deliveries.sent(claimed(ledger), "ts-1", NOW)
    later = [
        key("actual:80"),
        key("actual:50", value="other"),
        key("actual:50", start=MARCH + 31 * D),
        key("actual:50", revision=2),
    ]
    for one in later:
        announce(ledger, fence, one)
    found = {}
    while (delivery := ledger.deliveries.claim("team", "w", NOW)) is not None:
        found[delivery.message.key] = delivery.thread
        ledger.deliveries.sent(delivery, None, NOW)
    assert found == dict(zip(later, ["ts-1", None, None, "ts-1"], strict=True))
    assert claimed(ledger, channel="pager").thread is None


def test_a_thread_that_was_begun_anew_goes_on(ledger: Ledger, fence: Fence) -> None:
    for percent, thread in [(50, "ts-1"), (80, "ts-2"), (100, None)]:
        announce(ledger, fence, key(f"actual:{percent}"))
        delivery = claimed(ledger)
        ledger.deliveries.sent(delivery, thread, NOW)
    assert delivery.thread == "ts-2"


def test_a_channel_named_twice_is_told_once(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key(), ["team", "team"])
    announce(ledger, fence, key("actual:100"), [])
    assert waiting(ledger) == 1


def test_an_unsettled_claim_is_due_again(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key())
    killed = claimed(ledger)
    assert ledger.deliveries.claim("team", "w", NOW + CLAIM - S) is None
    heir = claimed(ledger, NOW + CLAIM)
    for late in (
        ledger.deliveries.sent(killed, "ts", NOW + CLAIM),
        ledger.deliveries.postpone(killed, "x", NOW, NOW + CLAIM),
        ledger.deliveries.refuse(killed, "x", NOW + CLAIM),
    ):
        assert not late
    assert ledger.deliveries.sent(heir, None, NOW + CLAIM)
    assert not ledger.deliveries.sent(heir, None, NOW + CLAIM)
    assert ledger.deliveries.claim("team", "w", NOW + D) is None


def test_ids_differ_by_channel_and_key(ledger: Ledger, fence: Fence) -> None:
    channels = ["team", "pager"]
    for one in (key("actual:50"), key("actual:80"), key("actual:50", revision=2), key("actual:50", value="v")):
        announce(ledger, fence, one, channels)
    ids = []
    for channel in channels:
        while (delivery := ledger.deliveries.claim(channel, "w", NOW)) is not None:
            ids.append(delivery.id)
            ledger.deliveries.sent(delivery, None, NOW)
    assert len(set(ids)) == len(ids) == 8


def test_quiet_hours(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key(), not_before=NOW + 8 * H)
    assert ledger.deliveries.claim("team", "w", NOW + 8 * H - S) is None
    assert claimed(ledger, NOW + 8 * H).attempt == 1


def test_silenced_is_said_and_not_sent(ledger: Ledger, fence: Fence) -> None:
    silence = ledger.silences.silence("acme", None, until=NOW + D, who="ana", why="load test", now=NOW)
    assert announce(ledger, fence, key(), silence=silence)
    assert ledger.deliveries.claim("team", "w", NOW + 2 * D) is None
    (team,) = ledger.deliveries.status()
    assert (team.silenced, team.pending, team.last_error) == (1, 0, None)
    assert not announce(ledger, fence, key())


@pytest.mark.parametrize("back", [H, D, 1000 * D])
def test_a_clock_set_back_starves_nothing(ledger: Ledger, fence: Fence, back: timedelta) -> None:
    """What waits keeps its wait, not its hour: neither a new message, nor quiet hours, a retry, or a killed sender's claim."""
    announce(ledger, fence, key(), ["now", "retried", "killed"])
    announce(ledger, fence, key("actual:100"), ["quiet"], not_before=NOW + 8 * H)
    ledger.deliveries.postpone(claimed(ledger, channel="retried"), "503", NOW + 5 * M, NOW)
    claimed(ledger, channel="killed")
    then = NOW - back

    def due(channel: str, at: datetime) -> bool:
        return ledger.deliveries.claim(channel, "w", at) is not None

    assert due("now", then)
    assert not due("retried", then)
    assert not due("retried", then + 5 * M - S)
    assert due("retried", then + 5 * M)
    assert not due("killed", then)
    assert due("killed", then + CLAIM)
    assert not due("quiet", then)
    assert due("quiet", then + 8 * H)


def test_clocks_that_differ_a_little_are_left_alone(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key(), not_before=NOW + H)
    assert ledger.deliveries.claim("team", "w", NOW - 30 * S) is None
    assert ledger.deliveries.claim("team", "w", NOW + H - S) is None
    assert ledger.deliveries.claim("team", "w", NOW + H) is not None


def test_a_message_of_a_newer_version_is_refused(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key())
    announce(ledger, fence, key("actual:100"))
    with ledger._database.write() as connection:
        connection.execute(sa.text('UPDATE alert_messages SET body = \'{"kind": "poem"}\' WHERE id = 1'))
    assert claimed(ledger).message.key.mark == "actual:100"
    (team,) = ledger.deliveries.status()
    assert (team.refused, team.sending) == (1, 1)
    assert "newer" in (team.last_error or "")


def test_unknown_channels_are_refused_in_time(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key(), ["team", "gone"])
    assert ledger.deliveries.refuse_unknown(["team"], NOW, NOW) == 0
    assert ledger.deliveries.refuse_unknown(["team"], NOW + S, NOW + S) == 1
    gone, team = ledger.deliveries.status()
    assert (gone.refused, gone.last_error_at, team.pending) == (1, NOW + S, 1)
    assert "no channel gone" in (gone.last_error or "")
    assert ledger.deliveries.refuse_unknown([], NOW + S, NOW + S) == 1
    # Also what was announced by a clock that has been set back since.
    announce(ledger, fence, key("actual:100"), ["gone"], now=NOW + D)
    assert ledger.deliveries.refuse_unknown([], NOW, NOW + S) == 1


def test_status(ledger: Ledger, fence: Fence) -> None:
    assert ledger.deliveries.status() == []
    for n in range(5):
        announce(ledger, fence, key(value=f"v{n}"), ["b", "a"], now=NOW + n * S)
    ledger.deliveries.sent(claimed(ledger, NOW + M, "a"), None, NOW + 2 * M)
    ledger.deliveries.refuse(claimed(ledger, NOW + M, "a"), "410 channel_is_archived", NOW + 3 * M)
    ledger.deliveries.postpone(claimed(ledger, NOW + M, "a"), "503", NOW + H, NOW + 4 * M)
    claimed(ledger, NOW + M, "a")
    a, b = ledger.deliveries.status()
    assert (a.pending, a.sending, a.sent, a.refused, a.silenced) == (2, 1, 1, 1, 0)
    assert (a.oldest_open, a.last_sent, a.last_error, a.last_error_at) == (NOW + 2 * S, NOW + 2 * M, "503", NOW + 4 * M)
    assert (b.pending, b.oldest_open, b.last_sent, b.last_error) == (5, NOW, None, None)


# Silences


def test_silences_and_who_made_them(ledger: Ledger) -> None:
    everything = ledger.silences.silence("acme", None, until=NOW + H, who="ana", why="migration", now=NOW)
    one = ledger.silences.silence("acme", "a", until=NOW + D, who="bo", why="", now=NOW + S)
    assert ledger.silences.active_silences(NOW + S) == [everything, one]
    assert ledger.silences.active_silences(NOW + H) == [one]
    assert ledger.silences.lift(one.id, "cy", NOW + 2 * H)
    assert not ledger.silences.lift(one.id, "dan", NOW + 3 * H)
    assert not ledger.silences.lift(99, "dan", NOW)
    assert ledger.silences.active_silences(NOW + 2 * H) == []
    assert ledger.silences.silences() == [replace(one, ended_at=NOW + 2 * H, ended_by="cy"), everything]
    with pytest.raises(ValueError, match="is over already"):
        ledger.silences.silence("acme", None, until=NOW, who="ana", why="", now=NOW)


def test_what_a_silence_covers() -> None:
    everything = Silence(1, "acme", None, NOW, NOW + H, "ana", "")
    no_value = replace(everything, value="")
    assert [everything.covers(one) for one in (key(), key(value="a"), key(subject="globex"))] == [True, True, False]
    assert [no_value.covers(one) for one in (key(), key(value="a"), key(subject="globex"))] == [True, False, False]


def test_acknowledgements(ledger: Ledger) -> None:
    seen = ledger.silences.acknowledge(key(), who="ana", why="on it", now=NOW, until=NOW + H)
    other = ledger.silences.acknowledge(key(subject="globex"), who="bo", why="", now=NOW)
    assert ledger.silences.acknowledgements() == [other, seen]
    assert ledger.silences.acknowledgements("acme") == [seen]
    assert (seen.period_start, seen.until, other.until) == (MARCH, NOW + H, None)


# Age


def test_a_year_stays_flat(ledger: Ledger, fence: Fence) -> None:
    """Of an hourly and a monthly budget, with everything older than 40 days deleted once a month."""
    sizes = []
    for month in range(1, 13):
        first = datetime(2026, month, 1, tzinfo=UTC)
        announce(ledger, fence, key(subject="monthly", start=first), now=first + 25 * D)
        for hour in range(12):
            start = first + hour * H
            announce(ledger, fence, key(subject="hourly", start=start), now=start)
        while (delivery := ledger.deliveries.claim("team", "w", first + 25 * D)) is not None:
            ledger.deliveries.sent(delivery, None, first + 25 * D)
        ledger.prune(first - 15 * D)
        with ledger._database.read() as connection:
            sizes.append([connection.scalar(sa.select(sa.func.count()).select_from(table)) for table in METADATA.sorted_tables])
    assert sizes[2:] == [sizes[2]] * 10
    assert sizes[2] > sizes[0]


def test_what_isnt_pruned(ledger: Ledger, fence: Fence) -> None:
    """A quarter lasts longer than anybody keeps messages, and is said once for all that."""
    quarters = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 4, 7)]
    for start in quarters:
        announce(ledger, fence, key(start=start), now=start)
        announce(ledger, fence, key("actual:100", start=start), now=start)
    announce(ledger, fence, key(subject="another", start=quarters[0]), now=quarters[0])
    settled = claimed(ledger, NOW + 200 * D)
    ledger.deliveries.sent(settled, None, quarters[2])
    # The two marks of the quarter before the last, one delivery and its message.
    assert ledger.prune(NOW + 300 * D) == 4
    assert {(subject, start) for subject, start, _ in ledger.marks(quarters)} == {
        ("acme", quarters[1]), ("acme", quarters[2]), ("another", quarters[0]),
    }  # fmt: skip
    assert waiting(ledger) == 6
    assert not announce(ledger, fence, key(start=quarters[1]))
    assert ledger.prune(NOW + 300 * D) == 0
    assert ledger.prune(quarters[0]) == 0


# Several at once


SUBJECTS = [f"s{n:02}" for n in range(30)]


def test_four_evaluators_in_processes(url: str, tmp_path: Path) -> None:
    """With the same decisions: under one fence, and while they take the lease from each other. Said once each, by whoever was first."""
    spawn = multiprocessing.get_context("spawn")
    (tmp_path / "unborn").mkdir()
    unborn = fresh_url(sa.make_url(url).get_backend_name(), tmp_path / "unborn")
    said = [tmp_path / f"said-{n}" for n in range(4)]
    with Ledger(url) as ledger:
        fence = evaluator(ledger)
        running = [
            spawn.Process(target=race, args=(url, fence, unborn, f"holder {n}", SUBJECTS[n:] + SUBJECTS[:n], path))
            for n, path in enumerate(said)
        ]
        for process in running:
            process.start()
        for process in running:
            process.join(120)
        assert [process.exitcode for process in running] == [0] * 4
        lines = sorted(line for path in said for line in path.read_text().splitlines())
        assert lines == [f"{how} {subject}" for how in ("same", "turns") for subject in SUBJECTS]
        with Ledger(unborn) as other:
            assert waiting(ledger) == waiting(other) == len(SUBJECTS)


def test_workers_share_what_is_due(url: str) -> None:
    with Ledger(url) as one, Ledger(url) as two:
        fence = evaluator(one)
        for subject in SUBJECTS:
            announce(one, fence, key(subject=subject))

        def work(ledger: Ledger) -> list[str]:
            found = []
            while (delivery := ledger.deliveries.claim("team", "w", NOW)) is not None:
                found.append(delivery.message.key.subject)
                assert ledger.deliveries.sent(delivery, None, NOW)
            return found

        with ThreadPoolExecutor(4) as pool:
            found = [subject for some in pool.map(work, [one, two, one, two]) for subject in some]
        assert sorted(found) == SUBJECTS


_marks = st.sampled_from(["actual:50", "actual:80", "actual:100"])
_steps = st.one_of(
    st.tuples(st.just("announce"), st.sets(_marks, min_size=1)),
    st.tuples(st.just("stale"), st.sets(_marks, min_size=1)),
    st.tuples(st.just("carry"), st.sets(_marks)),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("prune"), st.none()),
    st.tuples(st.just("clock"), st.integers(-(10**6), 10**6)),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(_steps, max_size=12))
def test_any_history_says_each_key_once(steps: list[tuple[str, object]]) -> None:
    """Restarts, clock steps, lost leases and pruning in any order, beside a model that is a set of marks and a count of messages."""
    with TemporaryDirectory() as directory:
        url = default_url(Path(directory))
        ledger, now = Ledger(url), NOW
        stale, fence = evaluator(ledger), evaluator(ledger)
        stand: set[Key] = set()
        messages = 0
        for step, value in steps:
            of = sorted(key(name) for name in value) if isinstance(value, set) else []
            match step:
                case "announce":
                    marks = [mark(one, said=one is of[-1], at=now) for one in of]
                    said = ledger.announce(marks, message(of[-1], at=now), ["team"], now=now, fence=fence)
                    assert said == (of[-1] not in stand)
                    messages += said
                    stand |= set(of) if said else set()
                case "stale":
                    with pytest.raises(Fenced):
                        announce(ledger, stale, of[0], now=now)
                case "carry":
                    ledger.carry([mark(one, said=False, at=now) for one in of], fence=fence)
                    stand |= set(of)
                case "restart":
                    ledger.close()
                    ledger = Ledger(url)
                    stale, fence = fence, evaluator(ledger, now=now)
                case "prune":
                    ledger.prune(now + 1000 * D)
                case _:
                    assert isinstance(value, int)
                    now += value * S
            assert {one.key for some in ledger.marks([MARCH]).values() for one in some} == stand
            assert waiting(ledger) == messages
        ledger.close()


# Where it lives


def test_the_schema_is_what_the_code_says(url: str) -> None:
    database = Database(url)
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE, "compare_type": True})
        assert compare_metadata(context, METADATA) == []
    database.close()


def test_a_ledger_is_opened_again(url: str) -> None:
    with Ledger(url) as ledger:
        announce(ledger, evaluator(ledger), key())
    with Ledger(url) as ledger:
        assert waiting(ledger) == 1


def test_a_newer_ledger_is_refused(url: str) -> None:
    with Ledger(url) as ledger, ledger._database.write() as connection:
        connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(NewerLedger, match=r"has schema 9999, this version knows up to \d{4}: upgrade tallystick"):
        Ledger(url)


def test_an_upgrade_that_fails_leaves_nothing(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alembic import op

    def full(*_: object, **__: object) -> None:
        raise OperationalError("CREATE INDEX", {}, Exception("disk full"))

    with monkeypatch.context() as patched:
        patched.setattr(op, "create_index", full)
        with pytest.raises(LedgerDown, match="disk full"):
            Ledger(url)
    engine = sa.create_engine(url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()
    Ledger(url).close()


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("alerts.db", "isn't one"),
        ("mysql://ana:geheim@db/alerts", "can't live in mysql"),
        ("sqlite://", "can't live in sqlite"),
        ("sqlite:///:memory:", "can't live in sqlite"),
        ("postgresql+asyncpg://ana:geheim@db/alerts", "can't live in"),
        ("postgres//ana:geheim@db", "isn't one"),
    ],
)
def test_no_address(address: str, told: str) -> None:
    with pytest.raises(LedgerAddress, match=told) as error:
        Ledger(address)
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_nobody_answers(scheme: str) -> None:
    with pytest.raises(LedgerDown, match=r"ana:\*\*\*@127.0.0.1:1/alerts can't be used now") as error:
        Ledger(f"{scheme}://ana:geheim@127.0.0.1:1/alerts?application_name=geheim", busy_s=2)
    assert "geheim" not in str(error.value)


def test_another_file(tmp_path: Path) -> None:
    (tmp_path / "alerts.db").write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(LedgerDown, match="file is not a database"):
        Ledger(default_url(tmp_path))
    with pytest.raises(LedgerDown, match="unable to open"):
        Ledger(default_url(tmp_path / "missing"))


@pytest.mark.parametrize("name", ["a b", "50%", "q?x=1", "ünï#"])
def test_odd_directories(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    Ledger(default_url(tmp_path / name)).close()
    assert (tmp_path / name / "alerts.db").exists()


def test_a_locked_file(tmp_path: Path) -> None:
    with Ledger(default_url(tmp_path), busy_s=0.05) as ledger:
        fence = evaluator(ledger)
        other = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        for _ in range(20):
            with pytest.raises(LedgerDown, match="database is locked"):
                announce(ledger, fence, key())
            assert ledger.marks([MARCH]) == {}
        other.execute("ROLLBACK")
        other.close()
        assert announce(ledger, fence, key())


def test_a_file_that_another_process_is_creating(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "alerts.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE notes (note)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO notes VALUES ('')")
    with pytest.raises(LedgerDown, match="locked"):
        Ledger(default_url(tmp_path), busy_s=0.1)
    threading.Timer(0.3, other.execute, ["COMMIT"]).start()
    Ledger(default_url(tmp_path), busy_s=20).close()
    other.close()


def test_a_server_that_is_down_for_a_while() -> None:
    server = postgres()
    with Ledger(server.fresh(), busy_s=2) as ledger:
        fence = evaluator(ledger)
        assert announce(ledger, fence, key())
        server.stop()
        try:
            for _ in range(3):
                with pytest.raises(LedgerDown, match="can't be used now"):
                    announce(ledger, fence, key("actual:100"))
        finally:
            server.start()
        assert not announce(ledger, fence, key())
        assert announce(ledger, fence, key("actual:100"))
        # A restart between two calls isn't even noticed.
        server.stop()
        server.start()
        assert announce(ledger, fence, key("actual:120"))
