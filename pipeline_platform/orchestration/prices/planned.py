"""What the plan lets us expect, by source, calendar, reach and time; and what of it is missing."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Instrument, Interval, last_closed
from pipeline_platform.core.time_ranges import TimeRange, of_day
from pipeline_platform.orchestration.prices.keys import DAILY, ORDERS_USD, QUOTES
from pipeline_platform.sources.catalog import KINDS
from pipeline_platform.sources.idle import idle_source
from pipeline_platform.sources.plan import PricePlan, SourcePlan
from pipeline_platform.warehouse.candle_gaps import Gaps, Wanted, find_gaps
from pipeline_platform.warehouse.price_days import DayOfSource

DEMO = "demo"


def counting_interval(source: SourcePlan) -> Interval:
    """The interval whose candles say whether a day is whole: the finest of the source's."""
    return min(source.intervals, key=lambda each: each.length)


def expected_candles(day: date, interval: Interval, calendar: Calendar, grace: timedelta, now: datetime) -> int:
    """Closed candles that the day should have at `now`: none on a day off, not all of them today."""
    span = of_day(day)
    if not calendar.expects(span.start):
        return 0
    past = span.within(span.start, max(span.start, last_closed(interval, now, grace)))
    return past.candles(interval) if past else 0


def days_of_sources(plan: PricePlan, first: date, last: date, now: datetime) -> Iterator[DayOfSource]:
    """What every source should have on every day. Made-up prices are left out where a real source has the symbol."""
    real = {canonical for instrument, canonical in plan.instruments() if instrument.source != DEMO}
    for name, source in plan.enabled.items():
        kind, interval = KINDS[source.kind], counting_interval(source)
        for canonical, symbol in source.instruments.items():
            if name == DEMO and canonical in real:
                continue
            day = first
            while day <= last:
                expected = expected_candles(day, interval, kind.calendar, kind.grace, now)
                yield DayOfSource(Instrument(name, symbol), canonical, interval, day, expected)
                day += timedelta(days=1)


def missed(
    engine: sa.Engine,
    plan: PricePlan,
    within: TimeRange,
    now: datetime,
    *,
    due: bool = False,
    parked: Collection[Instrument] = (),
) -> list[Gaps]:
    """What should be there of every instrument, closed, and nobody has answered for; not of those that are `parked`.

    What is beyond a source's reach is no gap. With `due` also what a source had nothing for and may be asked again.
    """
    gaps = []
    for name, options in plan.enabled.items():
        source, interval = idle_source(options), counting_interval(options)
        if part := within.within(source.reach(interval, now), within.end):
            asked = [each for symbol in options.symbols if (each := Instrument(name, symbol)) not in parked]
            wanted = [Wanted(each, interval, source.calendar) for each in asked]
            until = min(part.end, last_closed(interval, now, source.grace))
            gaps += find_gaps(engine, wanted, part, until, due=now if due else None)
        source.close()
    return gaps


def quotes_wanted(
    plan: PricePlan, now: datetime, age: timedelta, *, parked: Collection[Instrument] = ()
) -> dict[Instrument, datetime]:
    """The instruments whose quotes are fetched, without the parked, and how old a price of each may be at `now`.

    A rate is one a working day; of what trades always a price may be as old as `age`: quiet hours are no fault.
    """
    oldest: dict[Instrument, datetime] = {}
    for name, options in plan.enabled.items():
        calendar, grace = KINDS[options.kind].calendar, KINDS[options.kind].grace
        at = now - age if calendar is Calendar.ALWAYS else calendar.last_day(now - grace)
        oldest |= {Instrument(name, symbol): at for symbol in options.symbols if options.quotes}
    return {each: at for each, at in oldest.items() if each not in parked}


def idle_assets(plan: PricePlan) -> dict[str, str]:
    """The assets of prices that have nothing to do with this plan, each with a word of why: nothing runs them."""
    if not plan.enabled:
        why = "No source of prices is enabled any more."
        return {"/".join(key.path): why for key in (QUOTES, DAILY, ORDERS_USD)}
    if not any(source.quotes for source in plan.enabled.values()):
        return {"/".join(QUOTES.path): "No enabled source of prices.yaml has quotes any more."}
    return {}
