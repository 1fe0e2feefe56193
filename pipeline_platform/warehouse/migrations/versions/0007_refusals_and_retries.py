"""Deliveries count refusals apart from outages; the audit knows of rows of `assets` that were tried again."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.execute("alter table alert_deliveries add column refusals integer default 0 not null")
    # One row a run and range, as it was before: now there is one a partition.
    op.execute("delete from assets where kind = 'etl' and partition_key like '%...%'")
    _actions("'replay', 'discard', 'retry'")
    op.execute("create index replays_retries on replays (id) where action = 'retry' and state = 'running'")


def downgrade() -> None:
    op.execute("drop index replays_retries")
    op.execute("delete from replays where action = 'retry'")
    _actions("'replay', 'discard'")
    op.execute("alter table alert_deliveries drop column refusals")


def _actions(known: str) -> None:
    op.execute("alter table replays drop constraint replays_action")
    op.execute(f"alter table replays add constraint replays_action check (action in ({known}))")
