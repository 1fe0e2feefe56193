"""What a source has nothing for, and symbols that it refuses, are facts; a row of `assets` may be obsolete."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"

TABLES = (
    """
    create table price_nothing (
        source text not null,
        symbol text not null,
        "interval" text not null,
        start timestamptz not null,
        until timestamptz not null,
        times integer not null,
        first_asked_at timestamptz not null,
        asked_at timestamptz not null,
        again_at timestamptz,
        constraint price_nothing_range check (start < until),
        primary key (source, symbol, "interval", start)
    )
    """,
    """
    create table price_refusals (
        source text not null,
        symbol text not null,
        asked_for text not null,
        refused_since timestamptz not null,
        refused_at timestamptz not null,
        times integer not null,
        parked_at timestamptz,
        said text not null,
        constraint price_refusals_asked_for check (asked_for in ('quotes', 'candles')),
        primary key (source, symbol, asked_for)
    )
    """,
)


def upgrade() -> None:
    for statement in TABLES:
        op.execute(statement)
    _states("'planned', 'failed', 'loaded', 'dead', 'replayed', 'obsolete'")


def downgrade() -> None:
    op.execute("delete from assets where state = 'obsolete'")
    _states("'planned', 'failed', 'loaded', 'dead', 'replayed'")
    for view in ("prices_gaps", "prices_nothing", "prices_refused"):
        op.execute(f"drop view if exists {view}")
    for table in ("price_refusals", "price_nothing"):
        op.execute(f"drop table {table}")


def _states(known: str) -> None:
    op.execute("alter table assets drop constraint assets_state")
    # Rows that are there have been checked before: loads go on while it is looked at them again.
    op.execute(f"alter table assets add constraint assets_state check (state in ({known})) not valid")
    op.execute("alter table assets validate constraint assets_state")
