"""Alembic's entry: migrates on the connection it is given, inside that one's transaction.

There is no `alembic.ini`: `schema.upgrade` is the way to run migrations, and the only one.
"""

from __future__ import annotations

from alembic import context

from wtb_prefect.infrastructure.database.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    # SQLite alters most things by copying the table.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
