"""Tables of the alert ledger, with types that keep money, times and texts exact on SQLite and on PostgreSQL."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeDecorator, TypeEngine


class Exact(TypeDecorator[Decimal]):
    """A finite Decimal with all its digits: NUMERIC without limits, and text in SQLite, whose NUMERIC is a float."""

    impl = Numeric
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else Numeric())

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is not None and not value.is_finite():
            raise ValueError(f"{value} is no amount")
        return str(value) if value is not None and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return Decimal(value) if isinstance(value, str) else value


class Instant(TypeDecorator[datetime]):
    """An aware datetime to the microsecond, in UTC: TIMESTAMP WITH TIME ZONE, and text that sorts in SQLite."""

    impl = DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        utc = value.astimezone(UTC)
        return utc.isoformat(" ", "microseconds") if dialect.name == "sqlite" else utc

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return None if value is None else value.astimezone(UTC)


class Name(TypeDecorator[str]):
    r"""Any text that telemetry may carry. PostgreSQL has no NUL: it is kept as `\0`, and a backslash as two."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else value.replace("\\", "\\\\").replace("\0", "\\0")

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        if value is None or "\\" not in value:
            return value
        return "\\".join(part.replace("\\0", "\0") for part in value.split("\\\\"))


METADATA = MetaData()
_Number = BigInteger().with_variant(Integer(), "sqlite")

REVISIONS = Table(
    "alert_revisions",
    METADATA,
    Column("subject", Name, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("fingerprint", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("author", Name, nullable=False),
    Column("at", Instant, nullable=False),
)

MARKS = Table(
    "alert_marks",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("period_start", Instant, nullable=False),
    Column("subject", Name, nullable=False),
    Column("value", Name, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("mark", Name, nullable=False),
    Column("amount", Exact, nullable=False),
    Column("spent", Exact, nullable=False),
    Column("corrections", Exact, nullable=False),
    Column("at", Instant, nullable=False),
    Column("said", Boolean, nullable=False),
    # In the order in which a tick reads them: all of some periods.
    UniqueConstraint("period_start", "subject", "value", "revision", "mark", name="alert_marks_key"),
    sqlite_autoincrement=True,
)

MESSAGES = Table(
    "alert_messages",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("subject", Name, nullable=False),
    Column("value", Name, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_autoincrement=True,
)

DELIVERIES = Table(
    "alert_deliveries",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("message_id", _Number, ForeignKey(MESSAGES.c.id), nullable=False),
    Column("channel", Name, nullable=False),
    # What is told in order and in one thread: a digest of subject, value and period.
    Column("conversation", Text, nullable=False),
    Column("state", Text, nullable=False),
    # Together with the id also the claim's token.
    Column("attempts", Integer, nullable=False),
    # When a pending one is due, and when a claimed one is due again.
    Column("next_at", Instant, nullable=False),
    # What the clock showed when next_at was set.
    Column("since", Instant, nullable=False),
    Column("worker", Name),
    Column("thread", Name),
    Column("error", Name),
    Column("error_at", Instant),
    Column("settled_at", Instant),
    Index("alert_deliveries_due", "state", "channel", "next_at"),
    Index("alert_deliveries_conversation", "conversation", "channel"),
    Index("alert_deliveries_message", "message_id"),
    sqlite_autoincrement=True,
)

LEASES = Table(
    "alert_leases",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("number", _Number, nullable=False),
    Column("holder", Text, nullable=False),
    Column("since", Instant, nullable=False),
    Column("until", Instant, nullable=False),
)

TICKS = Table(
    "alert_ticks",
    METADATA,
    Column("name", Text, primary_key=True),
    Column("at", Instant, nullable=False),
    Column("duration_us", _Number, nullable=False),
    Column("fence", _Number, nullable=False),
)

SILENCES = Table(
    "alert_silences",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("subject", Name, nullable=False),
    Column("value", Name),
    Column("at", Instant, nullable=False),
    Column("until", Instant, nullable=False),
    Column("who", Name, nullable=False),
    Column("why", Name, nullable=False),
    Column("ended_at", Instant),
    Column("ended_by", Name),
    sqlite_autoincrement=True,
)

ACKNOWLEDGEMENTS = Table(
    "alert_acknowledgements",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("subject", Name, nullable=False),
    Column("value", Name, nullable=False),
    Column("period_start", Instant, nullable=False),
    Column("at", Instant, nullable=False),
    Column("until", Instant),
    Column("who", Name, nullable=False),
    Column("why", Name, nullable=False),
    sqlite_autoincrement=True,
)

DEFINITIONS = Table(
    "alert_definitions",
    METADATA,
    Column("id", _Number, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", Name, nullable=False),
    Column("body", Text),
    Column("author", Name, nullable=False),
    Column("at", Instant, nullable=False),
    Index("alert_definitions_subject", "kind", "subject"),
    sqlite_autoincrement=True,
)


def insert_new(connection: Connection, table: Table) -> "postgresql.Insert | sqlite.Insert":
    """An INSERT that leaves rows alone that exist."""
    if connection.dialect.name == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()
