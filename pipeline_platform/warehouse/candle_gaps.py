"""Which candles nobody has answered for: by SQL over what is there, so that years of minutes take milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.time_ranges import TimeRange, cost, missing
from pipeline_platform.warehouse.engine import warehouse_errors

# What is answered for, a closed candle or "nothing", between the edges of the range; where the next answer begins after
# all before it end, some are missing. An open candle counts as missing: it has to be asked for again. So does "nothing"
# that is due again, where that is asked for.
_GAPS = """
with answers as (
    select open_time as at, open_time + :length as ends from price_candles
    where source = :source and symbol = :symbol and "interval" = :interval and closed
        and open_time >= :first and open_time < :until
    union all
    select greatest(start, :first), "until" from price_nothing
    where source = :source and symbol = :symbol and "interval" = :interval and start < :until
        and start >= coalesce((
            select max(start) from price_nothing
            where source = :source and symbol = :symbol and "interval" = :interval and start <= :first
        ), :first)
        and (again_at is null or :due is null or again_at > :due)
    union all select :first, :first
    union all select :until, :until
)
select reached as start, next as "until" from (
    select max(ends) over (order by at, ends) as reached, lead(at) over (order by at, ends) as next from answers
) pairs
where next > reached
order by 1
"""
_TIME = sa.TIMESTAMP(timezone=True)
_STEP = sa.text(_GAPS).bindparams(
    sa.bindparam("length", type_=sa.Interval),
    *(sa.bindparam(name, type_=_TIME) for name in ("first", "until", "due")),
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What there should be of one instrument: the candles of `interval` on the days of its calendar."""

    instrument: Instrument
    interval: Interval
    calendar: Calendar = Calendar.ALWAYS
    per_request: int = 1_000


@dataclass(frozen=True, slots=True)
class Gaps:
    """What is missing of one instrument, in as few ranges as it has, and what it would cost."""

    wanted: Wanted
    ranges: tuple[TimeRange, ...]

    @property
    def candles(self) -> int:
        """How many candles are missing. Days off that lie within a range are not counted."""
        interval, expects = self.wanted.interval, self.wanted.calendar.expects
        if self.wanted.calendar is Calendar.ALWAYS:
            return sum(each.candles(interval) for each in self.ranges)
        return sum(expects(at) for each in self.ranges for at in each.openings(interval))

    @property
    def requests(self) -> int:
        """Requests that fetching them takes."""
        return cost(self.ranges, self.wanted.interval, self.wanted.per_request)


def find_gaps(
    engine: sa.Engine,
    wanted: Iterable[Wanted],
    within: TimeRange,
    closed_until: datetime,
    *,
    due: datetime | None = None,
) -> list[Gaps]:
    """The gaps of each in the range, up to `closed_until`: what is younger may still change and is not missing.

    A gap is what the source has not answered for. With `due`, the time, what it had nothing for is asked for again
    where that is due by then.
    """
    found = []
    with warehouse_errors(), engine.connect() as connection:
        for each in wanted:
            first = each.interval.ceiling(within.start)
            until = min(each.interval.ceiling(within.end), each.interval.floor(closed_until))
            ranges = _gaps(connection, each, first, until, due) if first < until else ()
            found.append(Gaps(each, ranges))
    return found


def _gaps(
    connection: sa.Connection, wanted: Wanted, first: datetime, until: datetime, due: datetime | None
) -> tuple[TimeRange, ...]:
    rows = connection.execute(
        _STEP,
        {
            "source": wanted.instrument.source,
            "symbol": wanted.instrument.symbol,
            "interval": wanted.interval.value,
            "length": wanted.interval.length,
            "first": first,
            "until": until,
            "due": due,
        },
    )
    ranges = [TimeRange(row.start, row.until) for row in rows]
    if wanted.calendar is Calendar.ALWAYS:
        return tuple(ranges)
    # Days off are no gaps: what is left of each range is looked at opening by opening, which are days here.
    return tuple(part for each in ranges for part in missing(each, wanted.interval, (), wanted.calendar.expects))
