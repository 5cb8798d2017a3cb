"""What tests of the alert ledger and its outbox announce, and processes that race or are killed while they do."""

import os
import signal
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from tallystick.alerts.channels import Sent
from tallystick.alerts.lease import EVALUATOR, Fence, Fenced
from tallystick.alerts.ledger import Ledger
from tallystick.alerts.model import Key, Kind, Mark, Message
from tallystick.alerts.outbox import Outbox
from tallystick.alerts.silences import Silence

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
TTL = timedelta(seconds=30)


def key(mark: str = "actual:80", *, subject: str = "acme", value: str = "", revision: int = 1, start: datetime = MARCH) -> Key:
    return Key(subject, revision, start, value, mark)


def mark(of: Key, *, said: bool = True, at: datetime = NOW, spent: str = "80.000000000001") -> Mark:
    return Mark(of, Decimal(100), Decimal(spent), Decimal("-0.5"), at, said)


def message(of: Key, *, at: datetime = NOW) -> Message:
    return Message(Kind.THRESHOLD, of, f"{of.subject}: {of.mark}", "A threshold is reached.", at, "warning")


def evaluator(ledger: Ledger, holder: str = "one", now: datetime = NOW) -> Fence:
    fence = ledger.leases.acquire(EVALUATOR, holder, TTL, now)
    assert fence is not None
    return fence


def announce(
    ledger: Ledger,
    fence: Fence,
    of: Key,
    channels: Collection[str] = ("team",),
    *,
    now: datetime = NOW,
    not_before: datetime | None = None,
    silence: Silence | None = None,
) -> bool:
    return ledger.announce(
        [mark(of, at=now)], message(of, at=now), channels, now=now, fence=fence, not_before=not_before, silence=silence
    )


def race(url: str, fence: Fence, unborn: str, holder: str, subjects: Collection[str], said: Path) -> None:
    """One of several evaluators; what it has said goes into a file. At `url` all have the same fence, and nothing but the keys stops them.

    The ledger at `unborn` is theirs to create; there they take the lease from each other, and lose it while they write.
    """
    with said.open("w") as file:
        with Ledger(url, busy_s=60) as ledger:
            for subject in subjects:
                if announce(ledger, fence, key(subject=subject)):
                    file.write(f"same {subject}\n")
        with Ledger(unborn, busy_s=60) as ledger:
            left, late = list(subjects), NOW
            while left:
                late += TTL
                own = ledger.leases.acquire(EVALUATOR, holder, TTL, late)
                try:
                    if own is None:
                        continue
                    if announce(ledger, own, key(subject=left[0])):
                        file.write(f"turns {left[0]}\n")
                    left.pop(0)
                except Fenced:
                    continue


class FileChannel:
    """Writes what is sent into a file, and dies by SIGKILL at the send of the number `fatal`, before or after writing."""

    name = "team"
    interval_s = 0.0

    def __init__(self, path: Path, fatal: int | None, *, after: bool) -> None:
        self._file = path.open("a", buffering=1)
        self._fatal = fatal
        self._after = after
        self._sends = 0

    def send(self, message: Message, *, delivery_id: str, thread: str | None) -> Sent:
        self._sends += 1
        if self._sends == self._fatal and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)
        self._file.write(f"{message.key.subject} {delivery_id}\n")
        if self._sends == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return Sent()


def send_until_killed(url: str, path: Path, now: datetime, fatal: int | None, after: bool) -> None:
    with Ledger(url, busy_s=60) as ledger:
        Outbox(ledger, {"team": FileChannel(path, fatal, after=after)}).deliver_due(now)
