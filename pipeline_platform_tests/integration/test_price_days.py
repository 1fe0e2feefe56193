"""Days over all sources, orders in USD, and quotes: what the SQL makes of them, and that it does it once."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.currencies import CURRENCIES
from pipeline_platform.core.prices import Candle, Instrument, Interval, Quote
from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.warehouse.candles import upsert
from pipeline_platform.warehouse.orders_usd import Mart, recompute_orders
from pipeline_platform.warehouse.price_days import DayOfSource, Recomputed, recompute_days
from pipeline_platform.warehouse.quotes import add_quotes, purge_quotes

DAY = date(2024, 2, 29)
START = datetime(2024, 2, 29, tzinfo=UTC)
ORDERS: StreamSpec = load_specs()["orders"]


def candle(source: str, at: datetime, low: int, close: int) -> Candle:
    """An hour that opens and closes at `close`."""
    prices = (Decimal(each) for each in (close, close + 1, low, close, 1))
    open_, high, lowest, last, volume = prices
    return Candle(source, "BTC", Interval.HOUR, at, open_, high, lowest, last, volume, closed=True)


def fill(engine: sa.Engine, source: str, closes: list[int | None], *, day: date = DAY, length: int = 6) -> None:
    """Hours of a day, one for each close; None leaves a hole."""
    at = datetime.combine(day, datetime.min.time(), UTC)
    candles = [
        candle(source, at + timedelta(hours=number), close - 1, close)
        for number, close in enumerate(closes)
        if close is not None
    ]
    assert len(closes) == length
    upsert(engine, candles, fetched_at=START)


def wanted(*sources: str, day: date = DAY) -> list[DayOfSource]:
    """Six hours of BTC-USD of each source."""
    return [DayOfSource(Instrument(each, "BTC"), "BTC-USD", Interval.HOUR, day, 6) for each in sources]


def days(engine: sa.Engine, columns: str) -> list[Any]:
    """The days that are there."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(f"select {columns} from prices_daily order by day"))]


def test_the_price_is_the_median_of_the_sources(engine: sa.Engine) -> None:
    fill(engine, "a", [100, 101, 102, 103, 104, 105])
    fill(engine, "b", [100, 101, 102, 103, 104, 107])
    fill(engine, "c", [100, 101, 102, 103, 104, 999])  # is wrong, and moves it little
    assert recompute_days(engine, wanted("a", "b", "c")) == Recomputed({DAY: 1}, changed=1, gaps=0)
    ((open_, high, low, close, price, volume, sources, gap),) = days(
        engine, "open, high, low, close, price, volume, sources, gap"
    )
    assert (open_, high, low, close, price, volume) == (100, 1000, 99, 107, 107, 18)
    assert (sources, gap) == (["a", "b", "c"], False)


def test_of_two_sources_it_is_the_middle_exactly(engine: sa.Engine) -> None:
    fill(engine, "a", [100] * 6)
    fill(engine, "b", [101] * 6)
    recompute_days(engine, wanted("a", "b"))
    assert days(engine, "price, round(spread, 6)") == [(Decimal("100.5"), Decimal("0.009950"))]


def test_a_source_with_a_gap_does_not_make_the_price_but_is_shown(engine: sa.Engine) -> None:
    fill(engine, "a", [100] * 6)
    fill(engine, "b", [200, None, 200, 200, 200, 200])
    recompute_days(engine, wanted("a", "b"))
    ((price, close, gap, candles, expected, detail),) = days(engine, "price, close, gap, candles, expected, detail")
    assert (price, close, gap, candles, expected) == (100, 150, True, 11, 12)
    assert (detail["b"]["candles"], detail["b"]["expected"]) == (5, 6)


def test_the_sources_own_day_is_preferred_to_one_made_of_hours(engine: sa.Engine) -> None:
    fill(engine, "a", [100] * 6)
    open_, high, low, close, volume = (Decimal(each) for each in (90, 120, 80, 110, 50))
    whole = Candle("a", "BTC", Interval.DAY, START, open_, high, low, close, volume, closed=True)
    upsert(engine, [whole], fetched_at=START)
    recompute_days(engine, wanted("a"))
    assert days(engine, "open, high, low, close, volume") == [(90, 120, 80, 110, 50)]


def test_computing_again_writes_nothing_and_late_candles_correct_the_day(engine: sa.Engine) -> None:
    fill(engine, "a", [100, None, 100, 100, 100, 100])
    assert recompute_days(engine, wanted("a")) == Recomputed({DAY: 1}, 1, 1)
    assert recompute_days(engine, wanted("a")) == Recomputed({DAY: 1}, 0, 1)
    fill(engine, "a", [100, 150, 100, 100, 100, 100])
    assert recompute_days(engine, wanted("a")) == Recomputed({DAY: 1}, 1, 0)
    assert days(engine, "high, gap") == [(151, False)]


def test_a_day_without_trade_has_no_row_and_a_day_that_is_missing_has_one(engine: sa.Engine) -> None:
    off = [DayOfSource(Instrument("a", "BTC"), "BTC-USD", Interval.DAY, DAY, 0)]
    assert recompute_days(engine, off) == Recomputed({}, 0, 0)
    assert recompute_days(engine, wanted("a")) == Recomputed({DAY: 1}, 1, 1)
    assert days(engine, "price, gap, sources") == [(None, True, [])]


def sell(engine: sa.Engine, day: date, country: str, amount: float, events: int = 1) -> None:
    """Orders of a minute of the day."""
    with engine.begin() as connection:
        connection.execute(
            sa.text("insert into orders_series (country, product) values (:country, 'tea') on conflict do nothing"),
            {"country": country},
        )
        connection.execute(
            sa.text(
                "insert into orders_minutes (series_id, window_start, events, amount_count, amount_sum, amount_min, "
                "amount_max, amount_m2, quantity_count, quantity_sum, quantity_min, quantity_max, quantity_m2) "
                "select series_id, cast(:day as date)::timestamp at time zone 'UTC' + interval '13 hours', :events, "
                ":events, :amount, :amount, :amount, 0, :events, 1, 1, 1, 0 from orders_series where country = :country"
            ),
            {"day": day, "country": country, "amount": amount, "events": events},
        )


def price(engine: sa.Engine, symbol: str, day: date, value: str) -> None:
    """A day's consolidated price."""
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                "insert into price_days (symbol, day, price, sources, candles, expected, gap, detail, computed_at) "
                "values (:symbol, :day, :price, '{ecb}', 1, 1, false, '{}', now())"
            ),
            {"symbol": symbol, "day": day, "price": Decimal(value)},
        )


def in_usd(engine: sa.Engine) -> dict[str, Any]:
    """What the mart says, by country."""
    query = "select country, amount, currency, rate, rate_day, rate_symbol, amount_usd, problem from orders_usd_1d"
    with engine.connect() as connection:
        return {row.country: tuple(row)[1:] for row in connection.execute(sa.text(query))}


def test_orders_are_in_usd_by_the_rate_of_their_day_and_never_one_to_one(engine: sa.Engine) -> None:
    sunday = date(2024, 3, 3)
    price(engine, "EUR-USD", date(2024, 3, 1), "1.0834")  # Friday
    price(engine, "GBP-USD", date(2024, 2, 20), "1.25")  # too long ago
    price(engine, "USD-JPY", sunday, "150")  # the other way round
    for country, amount in {"DE": 10.1, "GB": 10.0, "JP": 300.0, "US": 7.25, "XX": 1.0}.items():
        sell(engine, sunday, country, amount)
    assert recompute_orders(engine, sunday, sunday, CURRENCIES) == Mart({sunday: 5}, 2, 5, 20.19234)
    found = in_usd(engine)
    friday = date(2024, 3, 1)
    assert found["DE"] == (Decimal("10.1"), "EUR", Decimal("1.0834"), friday, "EUR-USD", Decimal("10.94234"), None)
    assert found["GB"] == (10, "GBP", None, None, None, None, "no rate of GBP within 7 days")
    assert found["JP"][4:] == ("USD-JPY", 2, None)
    assert found["US"] == (Decimal("7.25"), "USD", 1, sunday, None, Decimal("7.25"), None)
    assert found["XX"] == (1, None, None, None, None, None, "no currency for the country XX")


def test_the_mart_is_written_only_where_it_changes(engine: sa.Engine) -> None:
    price(engine, "EUR-USD", DAY, "1.1")
    sell(engine, DAY, "DE", 10.0)
    sell(engine, DAY, "US", 10.0)
    assert recompute_orders(engine, DAY, DAY, CURRENCIES).changed == 2
    assert recompute_orders(engine, DAY, DAY, CURRENCIES).changed == 0
    with engine.begin() as connection:
        connection.execute(sa.text("update orders_minutes set amount_sum = 11 where series_id = 1"))
    assert recompute_orders(engine, DAY, DAY, CURRENCIES).changed == 1


def test_old_quotes_go_and_the_latest_stays(engine: sa.Engine) -> None:
    for hours in (0, 1, 2):
        at = START + timedelta(hours=hours)
        assert add_quotes(engine, [Quote("a", "BTC", Decimal(hours), at)], fetched_at=at) == 1
    at = START + timedelta(hours=2)
    assert add_quotes(engine, [Quote("a", "BTC", Decimal(9), at)], fetched_at=at) == 0  # told already
    add_quotes(engine, [Quote("b", "BTC", Decimal(5), START)], fetched_at=START)
    assert purge_quotes(engine, START + timedelta(days=1)) == 2
    with engine.connect() as connection:
        latest = connection.execute(sa.text("select source, price from prices_quotes order by 1")).all()
    assert [tuple(row) for row in latest] == [("a", 2), ("b", 5)]
