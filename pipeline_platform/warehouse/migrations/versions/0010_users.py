"""Users: people with a password and a role. Whom the reader must not see."""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        """
        create table users (
            name text primary key,
            digest text not null,
            role text not null,
            created_by text not null,
            created_at timestamptz default now() not null,
            disabled_at timestamptz,
            password_changed_at timestamptz default now() not null,
            sessions_from timestamptz default clock_timestamp() not null,
            constraint users_role check (role in ('viewer', 'operator', 'admin'))
        )
        """
    )


def downgrade() -> None:
    op.execute("drop table users")
