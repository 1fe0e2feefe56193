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


def _columns(table: sa.Table, *names: str) -> tuple[ViewColumn, ...]:
    picked = [table.columns[name] for name in names]
    return tuple(ViewColumn(each.name, f't."{each.name}"', sql_type(each), str(each.comment)) for each in picked)


_QUOTE = ("source", "symbol", "price", "at", "canonical", "fetched_at")
_CANDLE = ("source", "symbol", "interval", "open_time", "open", "high", "low", "close", "volume", "closed")
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
