"""What sources answered "nothing" for, kept as few ranges: so that a gap is what nobody has answered yet."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from pipeline_platform.core.absences import Absence, answered
from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.price_tables import nothing


def note_answer(
    engine: sa.Engine,
    instrument: Instrument,
    interval: Interval,
    asked: TimeRange,
    holes: Sequence[TimeRange],
    at: datetime,
    calendar: Calendar = Calendar.ALWAYS,
) -> None:
    """Keeps that the source, asked at `at` for all of `asked`, had nothing for `holes`, and something for the rest."""
    of_it = _of(instrument, interval)
    with warehouse_errors(), engine.begin() as connection:
        # Two runs about one instrument are noted one after the other.
        lock = f"nothing {instrument.source} {instrument.symbol} {interval.value}"
        connection.execute(sa.text("select pg_advisory_xact_lock(hashtext(:lock))"), {"lock": lock})
        before = _touching(connection, of_it, asked)
        after = answered(before, asked, holes, at, interval, calendar)
        old, new = set(before), set(after)
        if gone := [each.span.start for each in before if each not in new]:
            moments = sa.literal(gone, ARRAY(sa.TIMESTAMP(timezone=True)))
            connection.execute(sa.delete(nothing).where(of_it, nothing.c.start == sa.any_(moments)))
        if come := [each for each in after if each not in old]:
            connection.execute(_INSERT, _arrays(instrument, interval, come))


def absent_candles(
    engine: sa.Engine, instrument: Instrument, interval: Interval, first: date, last: date
) -> dict[date, int]:
    """Candles by day, from `first` to `last`, that the source said it does not have."""
    values = {"source": instrument.source, "symbol": instrument.symbol, "interval": interval.value}
    with warehouse_errors(), engine.connect() as connection:
        rows = connection.execute(_BY_DAY, {**values, "seconds": interval.seconds, "first": first, "last": last})
        return {row.day: row.candles for row in rows}


# Of rows `n` of price_nothing: the UTC days from :first to :last that each is about, and how much of each, in seconds.
ABSENT_DAYS = """
cross join lateral (
    select day::date, extract(epoch from least(n."until", (day + interval '1 day') at time zone 'UTC')
        - greatest(n.start, day at time zone 'UTC')) as absent
    from generate_series(
        greatest((n.start at time zone 'UTC')::date, cast(:first as date))::timestamp,
        least(((n."until" - interval '1 microsecond') at time zone 'UTC')::date, cast(:last as date))::timestamp,
        interval '1 day'
    ) day
) d
"""
_BY_DAY = sa.text(
    f"""
    select d.day, (sum(d.absent) / :seconds)::integer as candles from price_nothing n {ABSENT_DAYS}
    where n.source = :source and n.symbol = :symbol and n."interval" = :interval group by 1
    """
)


def _of(instrument: Instrument, interval: Interval) -> sa.ColumnElement[bool]:
    return sa.and_(
        nothing.c.source == instrument.source,
        nothing.c.symbol == instrument.symbol,
        nothing.c.interval == interval.value,
    )


def _touching(connection: sa.Connection, of_it: sa.ColumnElement[bool], span: TimeRange) -> list[Absence]:
    """Those that overlap the span or touch it, ascending."""
    # Ranges do not overlap: none before the one that begins last, at or before the span, can reach into it.
    first = sa.select(sa.func.max(nothing.c.start)).where(of_it, nothing.c.start < span.start).scalar_subquery()
    query = (
        sa.select(nothing)
        .where(of_it, nothing.c.start >= sa.func.coalesce(first, span.start), nothing.c.start <= span.end)
        .where(nothing.c.until >= span.start)
        .order_by(nothing.c.start)
    )
    return [
        Absence(TimeRange(row.start, row.until), row.times, row.first_asked_at, row.asked_at, row.again_at)
        for row in connection.execute(query)
    ]


# In one statement: of a market with few trades a year of minutes is a hundred thousand ranges.
_INSERT = sa.text(
    """
    insert into price_nothing
        (source, symbol, "interval", start, "until", times, first_asked_at, asked_at, again_at)
    select :source, :symbol, :interval, * from unnest(
        cast(:start as timestamptz[]), cast(:until as timestamptz[]), cast(:times as integer[]),
        cast(:first_asked_at as timestamptz[]), cast(:asked_at as timestamptz[]), cast(:again_at as timestamptz[])
    )
    """
)


def _arrays(instrument: Instrument, interval: Interval, absences: Sequence[Absence]) -> dict[str, object]:
    return {
        "source": instrument.source,
        "symbol": instrument.symbol,
        "interval": interval.value,
        "start": [each.span.start for each in absences],
        "until": [each.span.end for each in absences],
        "times": [each.times for each in absences],
        "first_asked_at": [each.first_asked_at for each in absences],
        "asked_at": [each.asked_at for each in absences],
        "again_at": [each.again_at for each in absences],
    }
