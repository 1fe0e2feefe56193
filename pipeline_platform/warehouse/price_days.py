"""Days of prices over all sources, computed by SQL from the candles; computing again changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date

import sqlalchemy as sa

from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.warehouse.absences import ABSENT_DAYS
from pipeline_platform.warehouse.engine import warehouse_errors


@dataclass(frozen=True, slots=True)
class DayOfSource:
    """What one source should have on one day: `expected` closed candles of `interval` by now."""

    instrument: Instrument
    canonical: str
    interval: Interval
    day: date
    expected: int


@dataclass(frozen=True)
class Recomputed:
    """How many rows each day has now, how many were written because they had changed, and how many have a gap."""

    by_day: Mapping[date, int]
    changed: int
    gaps: int

    @property
    def days(self) -> int:
        """All rows: a symbol's day each."""
        return sum(self.by_day.values())


# `counted`: candles of the finest planned interval, which say whether the day is whole. `absent`: how many of them
# the source said it does not have; a day of which it has nothing at all is no day of it. `whole`: the source's own
# candle of the day, which is preferred to one made of its parts. A median of two is their mean; prices stay exact.
_ROWS = f"""
with wanted as (
    select * from unnest(
        cast(:source as text[]), cast(:symbol as text[]), cast(:canonical as text[]), cast(:interval as text[]),
        cast(:seconds as integer[]), cast(:day as date[]), cast(:expected as integer[])
    ) as w (source, symbol, canonical, "interval", seconds, day, expected)
), planned as (
    select distinct source, symbol, "interval", seconds from wanted
), counted as (
    select c.source, c.symbol, (c.open_time at time zone 'UTC')::date as day, count(*)::integer as candles,
        (array_agg(c.open order by c.open_time))[1] as open, max(c.high) as high, min(c.low) as low,
        (array_agg(c.close order by c.open_time desc))[1] as close, sum(c.volume) as volume
    from price_candles c join planned p using (source, symbol, "interval")
    where c.closed and c.open_time >= cast(:first as date)::timestamp at time zone 'UTC'
        and c.open_time < (cast(:last as date) + 1)::timestamp at time zone 'UTC'
    group by 1, 2, 3
), absent as (
    select n.source, n.symbol, d.day, (sum(d.absent) / p.seconds)::integer as nothing
    from price_nothing n join planned p using (source, symbol, "interval") {ABSENT_DAYS}
    group by 1, 2, 3, p.seconds
), whole as (
    select c.source, c.symbol, (c.open_time at time zone 'UTC')::date as day, c.open, c.high, c.low, c.close, c.volume
    from price_candles c join (select distinct source, symbol from planned) p using (source, symbol)
    where c.closed and c."interval" = '1d' and c.open_time >= cast(:first as date)::timestamp at time zone 'UTC'
        and c.open_time < (cast(:last as date) + 1)::timestamp at time zone 'UTC'
), per_source as (
    select w.*, coalesce(n.candles, 0) as candles, coalesce(a.nothing, 0) as nothing,
        coalesce(n.candles, 0) + coalesce(a.nothing, 0) < w.expected as gap,
        coalesce(d.open, n.open) as open, coalesce(d.high, n.high) as high, coalesce(d.low, n.low) as low,
        coalesce(d.close, n.close) as close, coalesce(d.volume, n.volume) as volume
    from wanted w
    left join counted n using (source, symbol, day) left join whole d using (source, symbol, day)
    left join absent a using (source, symbol, day)
    where w.expected > coalesce(a.nothing, 0) or n.candles is not null or d.close is not null
), summed as (
    select canonical as symbol, day, max(high) as high, min(low) as low, sum(volume) as volume,
        (percentile_disc(0.5) within group (order by open)
            + percentile_disc(0.5) within group (order by open desc)) / 2 as open,
        (percentile_disc(0.5) within group (order by close)
            + percentile_disc(0.5) within group (order by close desc)) / 2 as close,
        (percentile_disc(0.5) within group (order by close) filter (where not gap)
            + percentile_disc(0.5) within group (order by close desc) filter (where not gap)) / 2 as best,
        max(close) - min(close) as apart,
        coalesce(array_agg(source order by source) filter (where close is not null), '{{}}') as sources,
        sum(candles)::integer as candles, sum(expected)::integer as expected, bool_or(gap) as gap,
        jsonb_object_agg(source, jsonb_build_object(
            'symbol', symbol, 'interval', "interval", 'open', open, 'close', close,
            'candles', candles, 'expected', expected, 'nothing', nothing
        )) as detail
    from per_source group by canonical, day
), rows as (
    select symbol, day, trim_scale(open) as open, high, low, trim_scale(close) as close, volume,
        trim_scale(coalesce(best, close)) as price, sources,
        trim_scale(round(apart / nullif(coalesce(best, close), 0), 12)) as spread, candles, expected, gap, detail
    from summed
)
"""
_VALUES = (
    *("open", "high", "low", "close", "volume", "price", "sources", "spread", "candles", "expected", "gap", "detail"),
)
# With the row of a day that no source has anything of, as it turned out, goes what was written of it before.
_UPSERT = sa.text(
    f"""
    {_ROWS}
    , written as (
        insert into price_days as t (symbol, day, {", ".join(_VALUES)}, computed_at, run_id)
        select symbol, day, {", ".join(_VALUES)}, now(), :run_id from rows order by symbol, day
        on conflict (symbol, day) do update set {", ".join(f"{name} = excluded.{name}" for name in _VALUES)},
            computed_at = excluded.computed_at, run_id = excluded.run_id
        where ({", ".join(f"t.{name}" for name in _VALUES)})
            is distinct from ({", ".join(f"excluded.{name}" for name in _VALUES)})
        returning 1
    ), gone as (
        delete from price_days t using (select distinct canonical, day from wanted) w
        where t.symbol = w.canonical and t.day = w.day
            and not exists (select from rows r where r.symbol = t.symbol and r.day = t.day)
        returning 1
    )
    select (select count(*) from written) + (select count(*) from gone)
    """
)
_COUNT = sa.text(
    """
    select day, count(*) as symbols, count(*) filter (where gap) as gaps from price_days
    where day between :first and :last and symbol = any(:symbols) group by day
    """
)


def recompute_days(engine: sa.Engine, wanted: Iterable[DayOfSource], *, run_id: str | None = None) -> Recomputed:
    """Computes the days of `wanted`, all sources of a day together; a row that does not change is not written."""
    rows = sorted(wanted, key=lambda each: (each.canonical, each.day, each.instrument))
    if not rows:
        return Recomputed({}, 0, 0)
    first, last = min(each.day for each in rows), max(each.day for each in rows)
    values = {
        "source": [each.instrument.source for each in rows],
        "symbol": [each.instrument.symbol for each in rows],
        "canonical": [each.canonical for each in rows],
        "interval": [each.interval.value for each in rows],
        "seconds": [each.interval.seconds for each in rows],
        "day": [each.day for each in rows],
        "expected": [each.expected for each in rows],
        "first": first,
        "last": last,
        "run_id": run_id,
    }
    symbols = sorted({each.canonical for each in rows})
    with warehouse_errors(), engine.begin() as connection:
        # Two at once would only do the same: one waits and finds nothing to change.
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext('price_days'))"))
        changed = connection.execute(_UPSERT, values).scalar_one()
        there = connection.execute(_COUNT, {"first": first, "last": last, "symbols": symbols}).all()
    return Recomputed({row.day: row.symbols for row in there}, changed, sum(row.gaps for row in there))
