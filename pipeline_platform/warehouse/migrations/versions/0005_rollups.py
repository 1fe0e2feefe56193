"""Rollups of streams: which windows have to be rolled up, and which have been."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"

STATEMENTS = (
    """
    create table rollup_marks (
        stream text not null,
        grain text not null,
        window_start timestamptz not null,
        marked_at timestamptz default now() not null,
        primary key (stream, grain, window_start),
        constraint rollup_marks_grain check (grain in ('1h', '1d'))
    )
    """,
    """
    create table rollups (
        stream text not null,
        grain text not null,
        window_start timestamptz not null,
        events bigint not null,
        times integer default 1 not null,
        rolled_at timestamptz default now() not null,
        primary key (stream, grain, window_start),
        constraint rollups_grain check (grain in ('1h', '1d'))
    )
    """,
    "alter table assets add column events_behind bigint default 0 not null",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    op.execute("alter table assets drop column events_behind")
    op.execute("drop table rollups")
    op.execute("drop table rollup_marks")
