"""The alert ledger's schema, as numbered Alembic revisions that are applied at opening. Forward only."""

import threading
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text

VERSION_TABLE = "alert_schema"
"""Alembic's own, under a name that leaves room for others in the same database."""

_LOCK = 7_255_109_118
# Alembic keeps its context in a global.
_one_at_a_time = threading.Lock()


class UnknownRevision(Exception):
    """The database has a schema that isn't among these files."""

    def __init__(self, found: str, known: str) -> None:
        super().__init__(f"schema {found} isn't known, only up to {known}")
        self.found = found
        self.known = known


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date, within the caller's transaction, one process at a time. Raises UnknownRevision."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    script = ScriptDirectory.from_config(config)
    with _one_at_a_time:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        present = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
        if present is not None:
            try:
                script.get_revision(present)
            except CommandError:
                raise UnknownRevision(present, str(script.get_current_head())) from None
        if present != script.get_current_head():
            command.upgrade(config, "head")
