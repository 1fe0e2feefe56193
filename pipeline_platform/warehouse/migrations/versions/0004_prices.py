"""Prices: quotes, candles, days, and orders in USD."""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

STATEMENTS = (
    """
    create table price_candles (
        source text not null,
        symbol text not null,
        "interval" text not null,
        open_time timestamptz not null,
        open numeric not null,
        high numeric not null,
        low numeric not null,
        close numeric not null,
        volume numeric not null,
        closed boolean not null,
        canonical text,
        fetched_at timestamptz not null,
        run_id text,
        primary key (source, symbol, "interval", open_time)
    )
    """,
    """
    create table price_quotes (
        source text not null,
        symbol text not null,
        at timestamptz not null,
        price numeric not null,
        canonical text,
        fetched_at timestamptz not null,
        run_id text,
        primary key (source, symbol, at)
    )
    """,
    "create index price_quotes_by_fetch on price_quotes (fetched_at)",
    """
    create table price_days (
        symbol text not null,
        day date not null,
        open numeric,
        high numeric,
        low numeric,
        close numeric,
        volume numeric,
        price numeric,
        sources text[] not null,
        spread numeric,
        candles integer not null,
        expected integer not null,
        gap boolean not null,
        detail jsonb not null,
        computed_at timestamptz not null,
        run_id text,
        primary key (symbol, day)
    )
    """,
    """
    create table orders_usd (
        day date not null,
        country text not null,
        product text not null,
        orders bigint not null,
        quantity double precision,
        amount numeric not null,
        currency text,
        rate numeric,
        rate_day date,
        rate_symbol text,
        amount_usd numeric,
        problem text,
        computed_at timestamptz not null,
        run_id text,
        primary key (day, country, product)
    )
    """,
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for view in ("orders_usd_1d", "prices_daily", "prices_candles", "prices_quotes_history", "prices_quotes"):
        op.execute(f"drop view if exists {view}")
    for table in ("orders_usd", "price_days", "price_quotes", "price_candles"):
        op.execute(f"drop table {table}")
