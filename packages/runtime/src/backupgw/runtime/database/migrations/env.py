"""What Alembic runs: our revisions, in the transaction that `schema.migrate` has open."""

from alembic import context

from backupgw.runtime.database.schema import VERSION_TABLE
from backupgw.runtime.database.tables.all import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # Both databases can undo DDL, and SQLite does it in our own BEGIN: whole or not at all.
    transactional_ddl=True,
    render_as_batch=True,
)
context.run_migrations()
