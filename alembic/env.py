"""Run the migrations on the connection that `sessionapi.storage.migrations` has opened."""

from alembic import context

from sessionapi.storage.tables import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, render_as_batch=False)
with context.begin_transaction():
    context.run_migrations()
