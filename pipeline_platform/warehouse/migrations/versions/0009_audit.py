"""The audit: an append-only table of who did what."""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0007"


def upgrade() -> None:
    op.execute(
        """
        create table audit (
            id bigint generated always as identity primary key,
            key uuid not null,
            at timestamptz not null,
            event text not null,
            actor text not null,
            actor_role text not null,
            address text not null,
            outcome text not null,
            detail jsonb not null
        )
        """
    )
    op.execute("create unique index audit_key on audit (key)")
    op.execute("create index audit_by_time on audit (at)")
    op.execute("create index audit_by_event on audit (event, id)")
    op.execute("create index audit_by_actor on audit (actor, id)")


def downgrade() -> None:
    op.execute("drop table audit")
