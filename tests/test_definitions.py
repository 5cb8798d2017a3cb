"""Budgets made by API as the alert ledger keeps them, and what people look up in it, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from announcing import MARCH, NOW, announce, evaluator, key
from postgres import fresh_url

from tallystick.alerts.definitions import BUDGET
from tallystick.alerts.deliveries import State
from tallystick.alerts.journal import Said
from tallystick.alerts.lease import Fence
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.migrations import VERSION_TABLE
from tallystick.alerts.tables import DEFINITIONS

M = timedelta(minutes=1)
BODY = '{"amount": "1\\u0000", "name": "a\\\\b"}'


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


def in_force(ledger: Ledger) -> dict[str, str | None]:
    return {one.subject: one.body for one in ledger.definitions.in_force(BUDGET)}


# Definitions


def test_the_last_change_is_in_force(ledger: Ledger) -> None:
    assert ledger.definitions.put(BUDGET, "globex", "{}", author="ana", now=NOW)
    assert ledger.definitions.put(BUDGET, "acme", "{}", author="ana", now=NOW)
    assert ledger.definitions.put(BUDGET, "acme", BODY, author="bo", now=NOW + M)
    assert list(in_force(ledger).items()) == [("acme", BODY), ("globex", "{}")]
    assert ledger.definitions.in_force("rule") == []


def test_a_name_is_any_text(ledger: Ledger) -> None:
    names = ["a/b", "\\", "\0", "é", "'; DROP TABLE alert_definitions --"]
    for name in names:
        assert ledger.definitions.put(BUDGET, name, name.replace("\0", ""), author=name, now=NOW)
        assert [one.author for one in ledger.definitions.changes(BUDGET, name)] == [name]
    assert set(in_force(ledger)) == set(names)


def test_what_is_in_force_already_is_no_change(ledger: Ledger) -> None:
    assert ledger.definitions.put(BUDGET, "acme", BODY, author="ana", now=NOW)
    before = ledger.definitions.version()
    assert not ledger.definitions.put(BUDGET, "acme", BODY, author="bo", now=NOW + M)
    assert not ledger.definitions.delete(BUDGET, "globex", author="bo", now=NOW)
    assert ledger.definitions.version() == before


def test_a_deleted_one_leaves_its_history(ledger: Ledger) -> None:
    ledger.definitions.put(BUDGET, "acme", BODY, author="ana", now=NOW)
    assert ledger.definitions.delete(BUDGET, "acme", author="bo", now=NOW + M)
    assert not ledger.definitions.delete(BUDGET, "acme", author="bo", now=NOW + M)
    assert in_force(ledger) == {}
    assert ledger.definitions.put(BUDGET, "acme", BODY, author="cy", now=NOW + 2 * M)
    assert in_force(ledger) == {"acme": BODY}
    changes = ledger.definitions.changes(BUDGET, "acme")
    assert [(one.body, one.author, one.at) for one in changes] == [
        (BODY, "ana", NOW), (None, "bo", NOW + M), (BODY, "cy", NOW + 2 * M),
    ]  # fmt: skip


def test_replicas_see_each_others_changes(url: str, ledger: Ledger) -> None:
    seen = {ledger.definitions.version()}
    with Ledger(url) as other:
        other.definitions.put(BUDGET, "acme", BODY, author="ana", now=NOW)
        seen.add(ledger.definitions.version())
        other.definitions.delete(BUDGET, "acme", author="ana", now=NOW)
        seen.add(ledger.definitions.version())
    assert len(seen) == 3


def test_a_change_that_becomes_visible_late_is_seen(ledger: Ledger) -> None:
    """PostgreSQL gives out ids before it commits: a smaller one may come after a larger one."""
    ledger.definitions.put(BUDGET, "acme", BODY, author="ana", now=NOW)
    before = ledger.definitions.version()
    row = {"id": 0, "kind": BUDGET, "subject": "late", "body": BODY, "author": "bo", "at": NOW}
    with ledger._database.write() as connection:
        connection.execute(sa.insert(DEFINITIONS), row)
    assert ledger.definitions.version() != before
    assert set(in_force(ledger)) == {"acme", "late"}


def test_a_ledger_of_before_gets_the_table(url: str) -> None:
    with Ledger(url) as ledger:
        announce(ledger, evaluator(ledger), key())
        with ledger._database.write() as connection:
            connection.execute(sa.text("DROP TABLE alert_definitions"))
            connection.execute(sa.text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    with Ledger(url) as upgraded:
        assert in_force(upgraded) == {}
        assert len(upgraded.journal.entries(10)) == 1


# The journal


def test_messages_with_what_became_of_them(ledger: Ledger, fence: Fence) -> None:
    quiet = NOW + timedelta(hours=8)
    announce(ledger, fence, key("actual:50"), ["team", "pager"])
    announce(ledger, fence, key("actual:80"), ["team"], now=NOW + M, not_before=quiet)
    announce(ledger, fence, key("actual:100"), [], now=NOW + 2 * M)
    delivery = ledger.deliveries.claim("team", "w", NOW)
    assert delivery is not None
    ledger.deliveries.postpone(delivery, "503", NOW + 5 * M, NOW + M)
    pager = ledger.deliveries.claim("pager", "w", NOW)
    assert pager is not None
    ledger.deliveries.refuse(pager, "404", NOW + M)

    nobody, later, first = ledger.journal.entries(10)
    assert [one.message.key.mark if one.message else None for one in (nobody, later, first)] == [
        "actual:100",
        "actual:80",
        "actual:50",
    ]
    assert nobody.outcomes == ()
    (waiting,) = later.outcomes
    assert (waiting.channel, waiting.state, waiting.next_at) == ("team", State.PENDING, quiet)
    again, refused = first.outcomes
    assert (again.channel, again.state, again.attempts, again.next_at, again.error) == (
        "team",
        State.PENDING,
        1,
        NOW + 5 * M,
        "503",
    )
    assert (refused.channel, refused.state, refused.since, refused.next_at, refused.error) == (
        "pager",
        State.REFUSED,
        NOW + M,
        None,
        "404",
    )


def test_pages(ledger: Ledger, fence: Fence) -> None:
    for number in range(7):
        announce(ledger, fence, key(value=str(number)))
    announce(ledger, fence, key(subject="globex", value="3"))
    pages, before = [], None
    while page := ledger.journal.entries(3, before=before):
        pages.append([one.value for one in page])
        before = page[-1].id
    assert pages == [["3", "6", "5"], ["4", "3", "2"], ["1", "0"]]
    assert [one.value for one in ledger.journal.entries(2, subject="acme")] == ["6", "5"]
    assert [one.subject for one in ledger.journal.entries(9, value="3")] == ["globex", "acme"]
    assert ledger.journal.entries(9, subject="") == []


def test_a_message_of_a_newer_version_is_still_told(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key())
    with ledger._database.write() as connection:
        connection.execute(sa.text("UPDATE alert_messages SET body = '{}'"))
    (entry,) = ledger.journal.entries(1)
    assert (entry.subject, entry.message, len(entry.outcomes)) == ("acme", None, 1)


def test_what_is_through(ledger: Ledger, fence: Fence) -> None:
    announce(ledger, fence, key("actual:50"))
    announce(ledger, fence, key("actual:50", revision=2), now=NOW + M)
    announce(ledger, fence, key("actual:50", value="a", start=MARCH - timedelta(days=28)))
    assert ledger.journal.said([MARCH]) == {
        ("acme", MARCH, ""): (Said(1, "actual:50", NOW), Said(2, "actual:50", NOW + M)),
    }
    assert ledger.journal.said([]) == {}
