"""What was lost between a call and its row: the loss ledger compared at every step of the way. docs/audit.md says what each figure proves."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from tallystick.attribution.sql_files import fill

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

KEPT: Final = timedelta(days=90)
"""For how long flows are kept: of what told of itself before, the beginning isn't known."""

_SURE: Final = timedelta(days=1)
"""By so much a beginning may be missing before that."""


class Place(StrEnum):
    """Where something was lost, in the order of the way."""

    SERVICE = "service"
    WAY = "way"
    RECEIVER = "receiver"
    KAFKA = "kafka"
    STORE = "store"
    DEAD_LETTERS = "dead-letters"


class State(StrEnum):
    """Of a finding."""

    LOST = "lost"
    UNFINISHED = "unfinished"
    """It may still come."""
    KEPT = "kept"
    """It isn't entered, and can be."""


@dataclass(frozen=True)
class Finding:
    """spans, messages: None where they can't be told. what, todo: for people. at: when it was seen first."""

    place: Place
    state: State
    what: str
    todo: str
    spans: int | None = None
    messages: int | None = None
    at: datetime | None = None


@dataclass(frozen=True)
class Hour:
    """Spans of one service by the hour in which they were received. emitted: None where none of its senders tells. untold: received from such."""

    service: str
    hour: datetime
    emitted: int | None
    lost: int
    received: int
    calls: int
    dropped: int
    rejected: int
    untold: int


@dataclass(frozen=True)
class Partition:
    """Of a topic, as the brokers tell: offsets of the first message that is kept, of the next one that will be written, and of the next one that the
    consumers will read (None: they never committed). waiting_since: when the first of those that wait was received.
    """

    topic: str
    number: int
    start: int
    end: int
    committed: int | None
    waiting_since: datetime | None = None

    @property
    def waiting(self) -> int:
        return self.end - max(self.start, self.committed or 0)


@dataclass(frozen=True)
class Audit:
    """lost_spans: at least so many. lost_messages: of Kafka, whose spans nobody can count. waiting: messages in Kafka, None where none was asked.
    lag_s: since the oldest of them was received. freshness_s: since the newest call that is entered started, None where there is none.
    """

    hours: Sequence[Hour]
    findings: Sequence[Finding]
    lost_spans: int
    lost_messages: int
    unfinished_spans: int
    untold_spans: int
    waiting: int | None
    lag_s: float | None
    freshness_s: float | None

    @property
    def clean(self) -> bool:
        """Whether nothing is lost."""
        return not any(finding.state is State.LOST for finding in self.findings)


@dataclass(frozen=True)
class Window:
    """What is looked at. settle: after which what hasn't come won't come by itself."""

    now: datetime
    since: datetime
    settle: timedelta

    @property
    def horizon(self) -> datetime:
        return self.now - self.settle

    @property
    def params(self) -> dict[str, Any]:
        return {"since": self.since, "horizon": self.horizon, "kept_since": self.now - KEPT + _SURE}


Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Ledger:
    """Answers of attribution/queries/audit_*.sql."""

    hours: Rows
    collectors: Rows
    receivers: Rows
    partitions: Rows
    dead: Rows
    told: int
    present: int
    newest: datetime | None


def read(client: "Client", window: Window, retention: timedelta | None) -> Ledger:
    """Ask the loss ledger. retention: after which calls are deleted. Reads of Kafka come before this, so that what they say is read is there."""
    since = "received_at >= {since:DateTime64(3, 'UTC')}"
    heard = "collector IN (SELECT collector FROM flows WHERE collector != '' AND received_at >= {since:DateTime64(3, 'UTC')})"
    collectors = fill("audit_batches").replace("/*conditions*/", heard)

    def ask(name: str) -> Rows:
        text = fill(name).replace("/*batches*/", fill("audit_batches").replace("/*conditions*/", since))
        params = window.params | {"floor": window.now - retention + _SURE if retention else datetime.fromtimestamp(0, UTC)}
        found = client.query(text.replace("/*collectors*/", collectors), parameters=params)
        return [{name: _utc(value) for name, value in row.items()} for row in found.named_results()]

    ledger = ask("audit_ledger")[0]
    return Ledger(
        ask("audit_hours"),
        ask("audit_collectors"),
        ask("audit_receivers"),
        ask("audit_partitions"),
        ask("audit_dead"),
        int(ledger["told"] or 0),
        int(ledger["present"] or 0),
        ask("audit_freshness")[0]["newest"],
    )


def _utc(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value
