"""Alembic's entry: runs on the connection that `migrate` hands over, one transaction a migration."""

from __future__ import annotations

from alembic import context

from pipeline_platform.warehouse.schema import metadata

VERSION_TABLE = "pipeline_alembic_version"  # Dagster's own storage may live in the same database

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transaction_per_migration=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
