"""The outbox: one row for each message and channel, until it is sent, refused or silenced. At least once, in order within a conversation.

pending → sending (claimed, due again when not settled in time) → sent | refused | pending; silenced from the start.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, exists, func, insert, select, update

from tallystick.alerts.database import Database
from tallystick.alerts.lease import SKEW
from tallystick.alerts.message_json import from_json, to_json
from tallystick.alerts.model import Key, Message
from tallystick.alerts.silences import Silence
from tallystick.alerts.tables import DELIVERIES, MESSAGES

CLAIM = timedelta(minutes=2)
"""How long a worker may take to send one message and settle it."""


class State(StrEnum):
    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"
    SILENCED = "silenced"


OPEN = (State.PENDING, State.SENDING)


@dataclass(frozen=True)
class Delivery:
    """A claimed message. attempt: 1 at the first; with the row it is the claim's token. thread: what the conversation's last send told."""

    row: int
    channel: str
    attempt: int
    message: Message
    thread: str | None

    @property
    def id(self) -> str:
        """The same for all attempts, and for the same intent in a ledger restored from a backup."""
        return _digest(*_words(self.message.key), self.message.key.revision, self.message.key.mark, self.channel)


@dataclass(frozen=True)
class ChannelStatus:
    """How a channel fares. The counts go back as far as deliveries are kept; oldest_open: since when the oldest open message waits."""

    channel: str
    pending: int
    sending: int
    sent: int
    refused: int
    silenced: int
    oldest_open: datetime | None
    last_sent: datetime | None
    last_error: str | None
    last_error_at: datetime | None


def add(
    connection: Connection,
    message: Message,
    channels: Collection[str],
    *,
    now: datetime,
    not_before: datetime | None,
    silence: Silence | None,
) -> None:
    """The message, and a delivery for each channel: due from `not_before`, or silenced."""
    words = {"at": now, "subject": message.key.subject, "value": message.key.value, "body": to_json(message)}
    number = connection.execute(insert(MESSAGES).returning(MESSAGES.c.id), words).scalar_one()
    row = {
        "message_id": number,
        "conversation": _digest(*_words(message.key)),
        "attempts": 0,
        "state": State.SILENCED if silence else State.PENDING,
        "next_at": max(now, not_before or now),
        "since": now,
        "error": f"silenced by {silence.who} until {silence.until:%Y-%m-%d %H:%M} UTC: {silence.why}" if silence else None,
        "settled_at": now if silence else None,
    }
    if channels:
        connection.execute(insert(DELIVERIES), [row | {"channel": channel} for channel in dict.fromkeys(channels)])


class Deliveries:
    """What is due, and what became of it. Every method raises LedgerDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(self, channel: str, worker: str, now: datetime) -> Delivery | None:
        """The oldest message that is due and follows no open one of its conversation; it is `worker`'s for CLAIM. None: nothing is due."""
        earlier = DELIVERIES.alias("earlier")
        follows = exists().where(
            earlier.c.conversation == DELIVERIES.c.conversation,
            earlier.c.channel == DELIVERIES.c.channel,
            earlier.c.id < DELIVERIES.c.id,
            earlier.c.state.in_(OPEN),
        )
        due = (
            select(DELIVERIES, MESSAGES.c.body)
            .join(MESSAGES)
            .where(DELIVERIES.c.state.in_(OPEN), DELIVERIES.c.channel == channel, DELIVERIES.c.next_at <= now, ~follows)
            .order_by(DELIVERIES.c.id)
            .limit(1)
            .with_for_update(skip_locked=True, of=DELIVERIES)
        )
        with self._database.write() as connection:
            _follow_clock(connection, channel, now)
            while (row := connection.execute(due).one_or_none()) is not None:
                try:
                    message = from_json(row.body)
                except ValueError:
                    _settle(connection, row.id, now, State.REFUSED, "this version can't read the message: a newer one wrote it")
                    continue
                claimed = {
                    "state": State.SENDING, "attempts": row.attempts + 1, "next_at": now + CLAIM, "since": now, "worker": worker,
                }  # fmt: skip
                connection.execute(update(DELIVERIES).where(DELIVERIES.c.id == row.id).values(claimed))
                return Delivery(row.id, channel, row.attempts + 1, message, _thread(connection, row))
        return None

    def sent(self, delivery: Delivery, thread: str | None, now: datetime) -> bool:
        """False, as in the other two: it was claimed by another since, who settles it."""
        return self._settle(delivery, {"state": State.SENT, "thread": thread, "settled_at": now, "since": now})

    def postpone(self, delivery: Delivery, error: str, next_at: datetime, now: datetime) -> bool:
        """Try again at `next_at`."""
        return self._settle(delivery, {"state": State.PENDING, "error": error, "error_at": now, "next_at": next_at, "since": now})

    def refuse(self, delivery: Delivery, error: str, now: datetime) -> bool:
        """Not sent, and won't be."""
        return self._settle(delivery, {"state": State.REFUSED, "error": error, "error_at": now, "settled_at": now, "since": now})

    def refuse_unknown(self, channels: Collection[str], before: datetime, now: datetime) -> int:
        """Refuse what was announced before `before` for other channels than these; how many. Not sooner: a replica may know a newer configuration."""
        with self._database.write() as connection:
            orphans = (
                select(DELIVERIES.c.id, DELIVERIES.c.channel)
                .join(MESSAGES)
                .where(
                    DELIVERIES.c.state.in_(OPEN),
                    DELIVERIES.c.channel.not_in(channels),
                    (MESSAGES.c.at < before) | (MESSAGES.c.at > now + SKEW),
                )
                .with_for_update(skip_locked=True, of=DELIVERIES)
            )
            found = connection.execute(orphans).all()
            for row in found:
                error = f"the configuration has no channel {row.channel}: add it, or name another in notify"
                _settle(connection, row.id, now, State.REFUSED, error)
            return len(found)

    def status(self) -> list[ChannelStatus]:
        """One for each channel that anything was announced to, by name."""
        d = DELIVERIES.c
        counts = select(d.channel, d.state, func.count(), func.max(d.settled_at)).group_by(d.channel, d.state)
        waiting = select(d.channel, func.min(MESSAGES.c.at)).join(MESSAGES).where(d.state.in_(OPEN)).group_by(d.channel)
        newest = select(d.channel, func.max(d.error_at).label("at")).group_by(d.channel).subquery()
        failed = (
            select(d.channel, func.max(d.error), newest.c.at)
            .join_from(DELIVERIES, newest, (newest.c.channel == d.channel) & (newest.c.at == d.error_at))
            .group_by(d.channel, newest.c.at)
        )
        with self._database.read() as connection:
            by_state = {(channel, state): (count, last) for channel, state, count, last in connection.execute(counts)}
            oldest = {row[0]: row[1] for row in connection.execute(waiting)}
            errors = {channel: (error, at) for channel, error, at in connection.execute(failed)}
        status = []
        for channel in sorted({channel for channel, _ in by_state}):
            count = {state.value: by_state.get((channel, state), (0, None))[0] for state in State}
            error, failed_at = errors.get(channel, (None, None))
            _, last_sent = by_state.get((channel, State.SENT), (0, None))
            status.append(
                ChannelStatus(
                    channel,
                    **count,
                    oldest_open=oldest.get(channel),
                    last_sent=last_sent,
                    last_error=error,
                    last_error_at=failed_at,
                )
            )
        return status

    def _settle(self, delivery: Delivery, values: dict[str, Any]) -> bool:
        claim = (
            (DELIVERIES.c.id == delivery.row)
            & (DELIVERIES.c.attempts == delivery.attempt)
            & (DELIVERIES.c.state == State.SENDING)
        )
        with self._database.write() as connection:
            return connection.execute(update(DELIVERIES).where(claim).values(values)).rowcount == 1


def _settle(connection: Connection, number: int, now: datetime, state: State, error: str) -> None:
    values = {"state": state, "error": error, "error_at": now, "settled_at": now, "since": now}
    connection.execute(update(DELIVERIES).where(DELIVERIES.c.id == number).values(values))


def _follow_clock(connection: Connection, channel: str, now: datetime) -> None:
    """Where the clock was set back, what waits keeps its wait, not its hour: it would starve."""
    ahead = select(DELIVERIES.c.id, DELIVERIES.c.next_at, DELIVERIES.c.since).where(
        DELIVERIES.c.state.in_(OPEN), DELIVERIES.c.channel == channel, DELIVERIES.c.since > now + SKEW
    )
    for row in connection.execute(ahead).all():
        same = (DELIVERIES.c.id == row.id) & (DELIVERIES.c.since == row.since)
        connection.execute(update(DELIVERIES).where(same).values(next_at=now + (row.next_at - row.since), since=now))


def _thread(connection: Connection, row: Row[Any]) -> str | None:
    told = (
        select(DELIVERIES.c.thread)
        .where(
            DELIVERIES.c.conversation == row.conversation, DELIVERIES.c.channel == row.channel, DELIVERIES.c.thread.is_not(None)
        )
        .order_by(DELIVERIES.c.id.desc())
        .limit(1)
    )
    return connection.scalar(told)


def _words(key: Key) -> tuple[str, str, str]:
    return key.subject, key.value, key.period_start.astimezone(UTC).isoformat()


def _digest(*words: str | int) -> str:
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:32]
