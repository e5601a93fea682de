"""How Alembic reaches the database: through the connection that the portal gives it."""

from alembic import context

from wardgate.portal.db.tables import Base

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
