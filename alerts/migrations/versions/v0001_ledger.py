"""The ledger as it began: what was said, what is to be delivered, who evaluates, who silenced what."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_EXACT = sa.Numeric().with_variant(sa.Text(), "sqlite")
_INSTANT = sa.DateTime(timezone=True).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "alert_revisions",
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("revision", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("definition", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
    )
    op.create_table(
        "alert_marks",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("period_start", _INSTANT, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("mark", sa.Text, nullable=False),
        sa.Column("amount", _EXACT, nullable=False),
        sa.Column("spent", _EXACT, nullable=False),
        sa.Column("corrections", _EXACT, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("said", sa.Boolean, nullable=False),
        sa.UniqueConstraint("period_start", "subject", "value", "revision", "mark", name="alert_marks_key"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alert_messages",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alert_deliveries",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("message_id", _NUMBER, sa.ForeignKey("alert_messages.id"), nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("conversation", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", _INSTANT, nullable=False),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("worker", sa.Text),
        sa.Column("thread", sa.Text),
        sa.Column("error", sa.Text),
        sa.Column("error_at", _INSTANT),
        sa.Column("settled_at", _INSTANT),
        sqlite_autoincrement=True,
    )
    op.create_index("alert_deliveries_due", "alert_deliveries", ["state", "channel", "next_at"])
    op.create_index("alert_deliveries_conversation", "alert_deliveries", ["conversation", "channel"])
    op.create_index("alert_deliveries_message", "alert_deliveries", ["message_id"])
    op.create_table(
        "alert_leases",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("number", _NUMBER, nullable=False),
        sa.Column("holder", sa.Text, nullable=False),
        sa.Column("since", _INSTANT, nullable=False),
        sa.Column("until", _INSTANT, nullable=False),
    )
    op.create_table(
        "alert_ticks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("duration_us", _NUMBER, nullable=False),
        sa.Column("fence", _NUMBER, nullable=False),
    )
    op.create_table(
        "alert_silences",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("value", sa.Text),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("until", _INSTANT, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("ended_at", _INSTANT),
        sa.Column("ended_by", sa.Text),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "alert_acknowledgements",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("subject", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("period_start", _INSTANT, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("until", _INSTANT),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
