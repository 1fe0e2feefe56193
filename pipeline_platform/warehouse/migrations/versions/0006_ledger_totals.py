"""A stream's folded sums, so that the ledger need not be added up from its beginning, nor kept for ever."""

from __future__ import annotations

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute(
        """
        create table ledger_totals (
            stream text primary key,
            through_id bigint not null,
            batches bigint default 0 not null,
            events_read bigint default 0 not null,
            events_loaded bigint default 0 not null,
            events_negative bigint default 0 not null,
            events_rejected bigint default 0 not null,
            last_loaded_at timestamptz
        )
        """
    )


def downgrade() -> None:
    op.execute("drop table ledger_totals")
