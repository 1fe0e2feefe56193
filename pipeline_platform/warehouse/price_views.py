"""The views of prices that people read. Others rely on their names, and on the first columns of `prices_candles`.

Each `migrate` makes them anew after the tables: a view holds no data. A view may only grow at its end.
"""

from __future__ import annotations

import sqlalchemy as sa

from pipeline_platform.warehouse import price_tables
from pipeline_platform.warehouse.stream_tables import sql_type
from pipeline_platform.warehouse.stream_views import View, ViewColumn

# From symbol to symbol over the primary key: there are few symbols and many quotes.
_LATEST_QUOTES = """
(
    with recursive keys as (
        (select source, symbol from price_quotes order by 1, 2 limit 1)
        union all
        select next.* from keys, lateral (
            select n.source, n.symbol from price_quotes n
            where (n.source, n.symbol) > (keys.source, keys.symbol) order by 1, 2 limit 1
        ) next
    )
    select latest.* from keys, lateral (
        select * from price_quotes l where l.source = keys.source and l.symbol = keys.symbol
        order by l.at desc limit 1
    ) latest
) t
"""

# Of what nobody has answered for: the time between what has been reached and what is next. A day has 24 hours here.
_GAPS = """
(
    select source, symbol, "interval", reached as missing_from, next as missing_until from (
        select source, symbol, "interval", max(ends) over ahead as reached, lead(at) over ahead as next from (
            select source, symbol, "interval", open_time as at, open_time + case "interval" when '1m' then
                interval '1 minute' when '5m' then interval '5 minutes' when '15m' then interval '15 minutes'
                when '1h' then interval '1 hour' else interval '24 hours' end as ends
            from price_candles where closed
            union all
            select source, symbol, "interval", start, until from price_nothing
        ) answers window ahead as (partition by source, symbol, "interval" order by at)
    ) pairs where next > reached
) t
"""


def _columns(table: sa.Table, *names: str) -> tuple[ViewColumn, ...]:
    picked = [table.columns[name] for name in names]
    return tuple(ViewColumn(each.name, f't."{each.name}"', sql_type(each), str(each.comment)) for each in picked)


_QUOTE = ("source", "symbol", "price", "at", "canonical", "fetched_at")
_CANDLE = ("source", "symbol", "interval", "open_time", "open", "high", "low", "close", "volume", "closed")
_NOTHING = ("source", "symbol", "interval", "start", "until", "times", "first_asked_at", "asked_at", "again_at")
_REFUSAL = ("source", "symbol", "asked_for", "refused_since", "refused_at", "times", "parked_at", "said")
_DAY = ("symbol", "day", "open", "high", "low", "close", "volume", "price", "sources", "spread")
_ORDERS = ("day", "country", "product", "orders", "quantity", "amount", "currency", "rate", "rate_day", "rate_symbol")

PRICE_VIEWS = (
    View("prices_quotes", "The latest quote of each symbol.", _columns(price_tables.quotes, *_QUOTE), _LATEST_QUOTES),
    View(
        "prices_quotes_history",
        "All quotes that are kept.",
        _columns(price_tables.quotes, *_QUOTE),
        "price_quotes t",
    ),
    View(
        "prices_candles",
        "All candles, as each source gave them.",
        _columns(price_tables.candles, *_CANDLE, "canonical", "fetched_at"),
        "price_candles t",
    ),
    View(
        "prices_nothing",
        "What a source was asked for and has no usable candles of; `again_at` null: settled.",
        _columns(price_tables.nothing, *_NOTHING),
        "price_nothing t",
    ),
    View(
        "prices_gaps",
        "Where candles are missing, between others, that no source has answered for.",
        (
            *_columns(price_tables.candles, "source", "symbol", "interval"),
            ViewColumn("missing_from", "t.missing_from", "timestamptz", "The first opening that is missing, UTC."),
            ViewColumn("missing_until", "t.missing_until", "timestamptz", "The next opening that is answered."),
        ),
        _GAPS,
    ),
    View(
        "prices_refused",
        "Symbols that their source does not know; with `parked_at` it is asked only once a day.",
        _columns(price_tables.refusals, *_REFUSAL),
        "price_refusals t",
    ),
    View(
        "prices_daily",
        "Days by symbol over all sources, with a consolidated price and a gap marker.",
        _columns(price_tables.days, *_DAY, "candles", "expected", "gap", "detail", "computed_at"),
        "price_days t",
    ),
    View(
        "orders_usd_1d",
        "Amounts of orders in USD, by day, country and product.",
        _columns(price_tables.orders_usd, *_ORDERS, "amount_usd", "problem", "computed_at"),
        "orders_usd t",
    ),
)


def make_price_views(connection: sa.Connection) -> None:
    """Makes or replaces the views, with their comments."""
    for view in PRICE_VIEWS:
        connection.execute(sa.text(f"create or replace view {view.name} as {view.query()}"))
        comments = {f"view {view.name}": view.comment}
        comments |= {f'column {view.name}."{column.name}"': column.comment for column in view.columns}
        for target, comment in comments.items():
            quoted = comment.replace("'", "''")
            connection.execute(sa.text(f"comment on {target} is '{quoted}'"))
