"""What Alembic runs for every command: the connection comes from the caller."""

from alembic import context

from tallystick.alerts.migrations import VERSION_TABLE
from tallystick.alerts.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
)
context.run_migrations()
