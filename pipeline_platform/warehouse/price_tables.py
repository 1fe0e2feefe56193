"""The tables of prices: quotes, candles, days, and the orders in USD. People read them through `price_views`.

The comments are the data dictionary: `docs/warehouse.md` is made from them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from pipeline_platform.warehouse.schema import metadata


def _time(name: str, comment: str, *, null: bool = False, key: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.TIMESTAMP(timezone=True), nullable=null, primary_key=key, comment=comment)


def _price(name: str, comment: str, *, null: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.Numeric, nullable=null, comment=comment)


def _text(name: str, comment: str, *, null: bool = False, key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null, primary_key=key, comment=comment)


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, comment=comment)


candles = sa.Table(
    "price_candles",
    metadata,
    _text("source", "The source, such as binance.", key=True),
    _text("symbol", "What the source calls it, such as BTCUSDT.", key=True),
    _text("interval", "How long a candle lasts: 1m, 5m, 15m, 1h or 1d.", key=True),
    _time("open_time", "When it opened, UTC.", key=True),
    _price("open", "The first price."),
    _price("high", "The highest price."),
    _price("low", "The lowest price."),
    _price("close", "The last price; of an open candle, the last so far."),
    _price("volume", "What was traded, in the base unit; 0 where the source has no volume."),
    sa.Column("closed", sa.Boolean, nullable=False, comment="Whether the source will not change it any more."),
    _text("canonical", "The name that all sources share, such as BTC-USD.", null=True),
    _time("fetched_at", "When these values were asked for first."),
    _text("run_id", "The Dagster run that brought these values.", null=True),
    comment="One row a candle of a source. A closed candle is never replaced by an open one.",
)

nothing = sa.Table(
    "price_nothing",
    metadata,
    _text("source", "The source.", key=True),
    _text("symbol", "What the source calls it.", key=True),
    _text("interval", "The interval of the candles that it does not have.", key=True),
    _time("start", "The first opening without a candle, UTC.", key=True),
    _time("until", "The end of the last of them, excluded."),
    _count("times", "How often the source has said so, each time after a longer pause."),
    _time("first_asked_at", "When it was asked first."),
    _time("asked_at", "When it was asked last."),
    _time("again_at", "When it may be asked again; null when it is settled.", null=True),
    sa.CheckConstraint('start < "until"', name="price_nothing_range"),
    comment="What a source was asked for and has no usable candles of: ranges that do not overlap. A gap is what is "
    "neither here nor a closed candle: nobody has answered it.",
)

refusals = sa.Table(
    "price_refusals",
    metadata,
    _text("source", "The source.", key=True),
    _text("symbol", "What prices.yaml calls it there.", key=True),
    _text("asked_for", "quotes or candles.", key=True),
    _time("refused_since", "When the source first refused it; it has not answered since."),
    _time("refused_at", "When it last refused it."),
    _count("times", "How often it has."),
    _time("parked_at", "Since when it is asked only once a day; null for the first three days.", null=True),
    _text("said", "The source's words, the last time."),
    sa.CheckConstraint("asked_for in ('quotes', 'candles')", name="price_refusals_asked_for"),
    comment="Symbols that their source does not know. A row goes when the source answers, or prices.yaml is corrected.",
)

quotes = sa.Table(
    "price_quotes",
    metadata,
    _text("source", "The source.", key=True),
    _text("symbol", "What the source calls it.", key=True),
    _time("at", "The source's time of the price; where it gives none, when the answer came.", key=True),
    _price("price", "The price."),
    _text("canonical", "The name that all sources share.", null=True),
    _time("fetched_at", "When it was asked for last."),
    _text("run_id", "The Dagster run that brought it.", null=True),
    sa.Index("price_quotes_by_fetch", "fetched_at"),
    comment="The history of quotes. `prices_quotes` shows the latest of each symbol.",
)

days = sa.Table(
    "price_days",
    metadata,
    _text("symbol", "The name that all sources share, such as BTC-USD.", key=True),
    sa.Column("day", sa.Date, primary_key=True, comment="The UTC day."),
    _price("open", "The median of the sources' first prices.", null=True),
    _price("high", "The highest price of any source.", null=True),
    _price("low", "The lowest price of any source.", null=True),
    _price("close", "The median of the sources' last prices.", null=True),
    _price("volume", "The sum of the sources' volumes.", null=True),
    _price("price", "The consolidated price: the median of the last prices of the sources without a gap.", null=True),
    sa.Column("sources", ARRAY(sa.Text), nullable=False, comment="The sources whose prices are in the row, by name."),
    _price("spread", "(highest last price - lowest) / price over the sources; 0 with one source.", null=True),
    _count("candles", "Closed candles that the row is made of."),
    _count("expected", "Candles that there should be on a whole day."),
    sa.Column("gap", sa.Boolean, nullable=False, comment="Whether candles are missing that nobody has answered for."),
    sa.Column(
        "detail", JSONB, nullable=False, comment="By source: symbol, interval, open, close, candles, expected; nothing."
    ),
    _time("computed_at", "When the row last changed."),
    _text("run_id", "The Dagster run that last changed it.", null=True),
    comment="One row a symbol and UTC day, over all sources. Days on which no source trades have no row.",
)

orders_usd = sa.Table(
    "orders_usd",
    metadata,
    sa.Column("day", sa.Date, primary_key=True, comment="The UTC day of the orders."),
    _text("country", "ISO 3166 code of the buyer's country.", key=True),
    _text("product", "The product's code.", key=True),
    sa.Column("orders", sa.BigInteger, nullable=False, comment="Order lines."),
    sa.Column("quantity", sa.Double, nullable=True, comment="Pieces ordered."),
    sa.Column("amount", sa.Numeric, nullable=False, comment="The sum of the amounts, in `currency`."),
    _text("currency", "The country's currency, ISO 4217; null where core/currencies.py has none.", null=True),
    _price("rate", "USD for one unit of the currency; null where there is none.", null=True),
    sa.Column("rate_day", sa.Date, nullable=True, comment="The day of the rate: up to 7 days before `day`."),
    _text("rate_symbol", "Which price gave the rate, such as EUR-USD; null for USD itself.", null=True),
    _price("amount_usd", "amount * rate; null where there is no rate, never 1 to 1.", null=True),
    _text("problem", "Why amount_usd is null: no currency, or no rate.", null=True),
    _time("computed_at", "When the row last changed."),
    _text("run_id", "The Dagster run that last changed it.", null=True),
    comment="Amounts of orders in USD by day, country and product: the stream `orders` and the prices of currencies.",
)

PRICE_TABLES = (candles, nothing, refusals, quotes, days, orders_usd)
