"""Candles from a source into the warehouse, as few requests as the ranges allow. Knows nothing of Dagster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.prices import Candle, Instrument, Interval, faults
from pipeline_platform.core.time_ranges import TimeRange, coalesce
from pipeline_platform.sources.protocol import Source
from pipeline_platform.warehouse.candle_gaps import Wanted, find_gaps
from pipeline_platform.warehouse.candles import Written, upsert

FAULTS_TOLD = 20


@dataclass
class Fetched:
    """What came of it: candles read, those at odds with themselves (not stored), and what the upserts did."""

    read: int = 0
    rejected: int = 0
    requests: int = 0
    written: Written = field(default_factory=Written)
    faults: list[str] = field(default_factory=list)
    first: datetime | None = None
    last: datetime | None = None

    def sound(self, candles: Iterable[Candle]) -> Iterator[Candle]:
        """Those that may be stored; counts all."""
        for each in candles:
            self.read += 1
            if wrong := faults(each):
                self.rejected += 1
                if len(self.faults) < FAULTS_TOLD:
                    self.faults.append(f"{each.symbol} {each.interval} {each.open_time.isoformat()}: {wrong[0]}")
                continue
            self.first = min(self.first or each.open_time, each.open_time)
            self.last = max(self.last or each.open_time, each.open_time)
            yield each


def fetch_candles(
    engine: sa.Engine,
    source: Source,
    instrument: Instrument,
    canonical: str,
    intervals: Iterable[Interval],
    ranges: Iterable[TimeRange],
    *,
    only_gaps: bool,
    run_id: str,
    clock: Callable[[], datetime],
    into: Fetched,
) -> None:
    """Fetches and stores what opens in the ranges. With `only_gaps` only what is not there, closed, already.

    Each page is stored before the next is asked for, so whatever ends the run ends it without loss.
    """
    before = source.spent
    try:
        for interval in intervals:
            for span in to_fetch(engine, source, instrument, interval, ranges, only_gaps=only_gaps, now=clock()):
                asked = clock()  # of two answers to one question the later one counts
                candles = into.sound(source.candles(instrument.symbol, interval, span))
                into.written += upsert(
                    engine, candles, fetched_at=asked, run_id=run_id, canonical={instrument: canonical}
                )
    finally:
        into.requests += source.spent - before


def to_fetch(
    engine: sa.Engine,
    source: Source,
    instrument: Instrument,
    interval: Interval,
    ranges: Iterable[TimeRange],
    *,
    only_gaps: bool,
    now: datetime,
) -> list[TimeRange]:
    """The ranges to ask for: within reach, not in the future, and so joined that no request is half empty."""
    opened, reach = interval.ceiling(now), source.reach(interval, now)
    there = [part for each in ranges if (part := each.within(reach, opened))]
    if only_gaps:
        wanted = wanted_of(source, instrument, interval)
        there = [gap for each in there for found in find_gaps(engine, [wanted], each, opened) for gap in found.ranges]
    # Two holes nearer to each other than half a page are asked for at once: a request costs more than candles do.
    near = interval.length * (source.max_candles_per_request(interval) // 2) if only_gaps else timedelta()
    return coalesce(there, near)


def wanted_of(source: Source, instrument: Instrument, interval: Interval) -> Wanted:
    """What there should be of an instrument, by its source's calendar and page."""
    return Wanted(instrument, interval, source.calendar, source.max_candles_per_request(interval))
