"""What is there of an instrument's days: candles by day, and their closes for a small chart."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from decimal import Decimal

import sqlalchemy as sa

from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.warehouse.engine import warehouse_errors

_DAYS = sa.text(
    """
    select (open_time at time zone 'UTC')::date as day, count(*) filter (where closed) as closed,
        count(*) filter (where not closed) as open,
        case when cast(:closes as boolean) then array_agg(close order by open_time) else '{}' end as closes
    from price_candles
    where source = :source and symbol = :symbol and "interval" = :interval
        and open_time >= :start and open_time < :until
    group by 1
    """
)


@dataclass(frozen=True, slots=True)
class CandleDay:
    """One day of an instrument at an interval."""

    closed: int
    open: int
    closes: tuple[Decimal, ...]


NO_CANDLES = CandleDay(0, 0, ())


def candle_days(
    engine: sa.Engine, instrument: Instrument, interval: Interval, within: TimeRange, *, closes: bool = True
) -> dict[date, CandleDay]:
    """The days of the range that have candles."""
    values = {
        "source": instrument.source,
        "symbol": instrument.symbol,
        "interval": interval.value,
        "start": within.start,
        "until": within.end,
        "closes": closes,
    }
    with warehouse_errors(), engine.connect() as connection:
        rows = connection.execute(_DAYS, values).all()
    return {row.day: CandleDay(row.closed, row.open, tuple(row.closes)) for row in rows}
